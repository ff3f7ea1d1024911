//! The figures of a call's sound, made once a second of what both threads have counted.

use super::shared::SendFacts;
use crate::events::{CallbackFigures, Callbacks, Stats};
use ahoy_protocol::media::VoicePacket;
use ahoy_voice::ReceiverStats;
use ahoy_voice::quality::{Circumstances, Hearing, Limit};
use ahoy_voice::rate::Why;
use std::time::{Duration, Instant};

/// What the receiving thread knows at a moment.
#[derive(Debug, Clone)]
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    pub(super) sent: SendFacts,
    pub(super) received: ReceiverStats,
    /// Bytes of voice that came.
    pub(super) received_bytes: u64,
    /// The packet that came last.
    pub(super) newest: Option<VoicePacket<'a>>,
    pub(super) gap: Duration,
    pub(super) rtt: Duration,
    pub(super) is_relayed: bool,
    /// How loud what came is.
    pub(super) level_dbfs: f32,
    /// How long it takes until a block that is written is heard.
    pub(super) speaker_delay: Duration,
    /// Samples that the loudspeaker wanted and that were not there.
    pub(super) speaker_slips: u64,
    /// How long the loudspeaker's callbacks took.
    pub(super) speaker_callbacks: CallbackFigures,
    /// Whether a device is missing.
    pub(super) lacks_device: bool,
}

/// Remembers the second before.
#[derive(Debug)]
pub(super) struct Figures {
    before: Before,
}

#[derive(Debug, Clone)]
struct Before {
    at: Instant,
    sent_bytes: u64,
    received_bytes: u64,
    received: ReceiverStats,
    slips: u64,
}

/// Samples that may slip in a second before the devices are to blame: a hundredth of a second.
const SLIPS_MOST: u64 = 480;

impl Figures {
    pub(super) fn new(now: Instant) -> Self {
        Self { before: Before { at: now, sent_bytes: 0, received_bytes: 0, received: ReceiverStats::default(), slips: 0 } }
    }

    /// The figures at this moment; those of rates and shares are of the time since the call before.
    pub(super) fn take(&mut self, moment: &Moment<'_>) -> Stats {
        let Moment { sent, received, .. } = moment;
        let slips = sent.device_slips + moment.speaker_slips;
        let now = Before { at: moment.now, sent_bytes: sent.bytes, received_bytes: moment.received_bytes, received: *received, slips };
        let before = std::mem::replace(&mut self.before, now);
        let seconds = moment.now.saturating_duration_since(before.at).as_secs_f64();
        let kbps = |bytes: u64| if seconds > 0.0 { (bytes as f64 * 8.0 / seconds / 1_000.0) as f32 } else { 0.0 };
        let of_second = Second::between(&before.received, received);
        let hearing = hearing(moment, &of_second);
        let rate = sent.ladder.rate;
        let circumstances = Circumstances {
            hearing,
            network: moment.rtt / 2,
            jitter: Duration::from_millis(received.target_ms),
            is_relayed: moment.is_relayed,
            is_narrow: rate.is_some_and(|rate| matches!(rate.why, Why::Bandwidth | Why::Congestion)),
            is_saving: rate.is_some_and(|rate| rate.why == Why::Settings),
            has_device_trouble: moment.lacks_device || slips.saturating_sub(before.slips) > SLIPS_MOST,
            is_heard: of_second.packets > 0,
        };
        let limit = Limit::of(&circumstances);
        Stats {
            sent: sent.packets,
            received: received.packets,
            lost: received.lost,
            late: received.late,
            concealed_ms: received.concealed_ms + received.comfort_noise_ms,
            target_ms: received.target_ms,
            buffered_ms: received.buffered_ms,
            gap_ms: u64::try_from(moment.gap.as_millis()).unwrap_or(u64::MAX),
            rtt_ms: Some(moment.rtt.as_secs_f64() * 1_000.0),
            loss_percent: of_second.loss_percent,
            residual_loss_percent: of_second.residual_loss_percent,
            burst_packets: of_second.burst_packets,
            jitter_ms: received.jitter_ms,
            concealed_percent: of_second.concealed_percent,
            peer_loss_percent: rate.map_or(0.0, |rate| rate.lost_percent as f32),
            queueing_ms: rate.map_or(0.0, |rate| rate.queue.as_secs_f32() * 1_000.0),
            available_kbps: rate.map_or(0.0, |rate| rate.available_bps as f32 / 1_000.0),
            rung: sent.ladder.rung.to_owned(),
            rung_reason: rate.map_or("", |rate| rate.why.as_str()).to_owned(),
            codec_kbps: sent.settings.bitrate as f32 / 1_000.0,
            frame_ms: sent.settings.duration.as_millis(),
            copies: sent.settings.copies,
            sent_kbps: kbps(sent.bytes - before.sent_bytes),
            received_kbps: kbps(moment.received_bytes - before.received_bytes),
            level_in_dbfs: sent.level_dbfs,
            level_out_dbfs: Some(moment.level_dbfs),
            echo_return_loss_db: sent.processing.and_then(|facts| facts.erle_db),
            processing_ms: sent.processing.map_or(0.0, |facts| facts.delay.as_secs_f32() * 1_000.0),
            is_speaking: sent.processing.is_some_and(|facts| facts.is_speech),
            mouth_to_ear_ms: hearing.mouth_to_ear.as_secs_f32() * 1_000.0,
            mos: if received.packets == 0 { 0.0 } else { hearing.opinion_score() as f32 },
            limit: if limit == Limit::Nothing { String::new() } else { limit.to_string() },
            limit_kind: limit.as_str().to_owned(),
            callbacks: Callbacks { capture: sent.callbacks, playback: moment.speaker_callbacks },
            ..Stats::default()
        }
    }
}

/// What happened since the figures before.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    packets: u64,
    loss_percent: f32,
    residual_loss_percent: f32,
    burst_packets: f32,
    concealed_percent: f32,
}

impl Second {
    fn between(before: &ReceiverStats, now: &ReceiverStats) -> Self {
        let expected = now.packets_expected.saturating_sub(before.packets_expected);
        let lost = now.packets_lost.saturating_sub(before.packets_lost);
        let bursts = now.loss_bursts.saturating_sub(before.loss_bursts);
        let unrepaired = now.lost.saturating_sub(before.lost);
        let made_up = |stats: &ReceiverStats| stats.concealed_ms + stats.comfort_noise_ms;
        Self {
            packets: now.packets.saturating_sub(before.packets),
            loss_percent: percent(lost, expected),
            residual_loss_percent: percent(unrepaired, expected),
            burst_packets: if lost == 0 { 0.0 } else { lost as f32 / bursts.max(1) as f32 },
            concealed_percent: percent(made_up(now).saturating_sub(made_up(before)), now.played_ms.saturating_sub(before.played_ms)),
        }
    }
}

fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { (100.0 * part as f32 / whole as f32).min(100.0) }
}

/// How the other side is heard here. Its devices are taken to be as quick as this side's.
fn hearing(moment: &Moment<'_>, second: &Second) -> Hearing {
    let own_frame = Duration::from_millis(u64::from(moment.sent.settings.duration.as_millis()));
    let newest = moment.newest.as_ref();
    let frame = newest.map_or(own_frame, |packet| Duration::from_millis(u64::from(packet.duration.as_millis())));
    let bitrate = newest.map_or(moment.sent.settings.bitrate, |packet| {
        let bytes = packet.frames.first().map_or(0, |frame| frame.len()) as u32;
        bytes * 8_000 / packet.duration.as_millis()
    });
    let there = moment.sent.delay.saturating_sub(own_frame) + frame;
    let here = Duration::from_millis(moment.received.delay_ms) + moment.speaker_delay;
    let lost = f64::from(second.concealed_percent) / 100.0;
    // What a run of lost packets would be on average if each were lost by itself.
    let random_burst = 1.0 / (1.0 - f64::from(second.loss_percent) / 100.0).max(0.01);
    let burst_ratio = f64::from(second.burst_packets) / random_burst;
    Hearing { mouth_to_ear: there + moment.rtt / 2 + here, lost, burst_ratio, bitrate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::media::FrameDuration;

    fn moment(now: Instant, received: ReceiverStats, bytes: u64) -> Moment<'static> {
        Moment {
            now,
            sent: SendFacts { bytes, ..SendFacts::default() },
            received,
            received_bytes: bytes,
            newest: Some(VoicePacket { sequence: 1, timestamp: 8, duration: FrameDuration::Ms20, frames: vec![&[0; 60]] }),
            gap: Duration::ZERO,
            rtt: Duration::from_millis(20),
            is_relayed: false,
            level_dbfs: -30.0,
            speaker_delay: Duration::from_millis(10),
            speaker_slips: 0,
            speaker_callbacks: CallbackFigures::default(),
            lacks_device: false,
        }
    }

    #[test]
    fn shares_and_rates_are_of_the_last_second() {
        let start = Instant::now();
        let mut figures = Figures::new(start);
        let first = ReceiverStats { packets: 50, packets_expected: 50, played_ms: 1_000, ..ReceiverStats::default() };
        figures.take(&moment(start, first, 3_000));
        let second = ReceiverStats {
            packets: 90,
            packets_expected: 100,
            packets_lost: 10,
            loss_bursts: 5,
            lost: 5,
            played_ms: 2_000,
            concealed_ms: 100,
            ..first
        };
        let stats = figures.take(&moment(start + Duration::from_secs(1), second, 8_000));
        assert_eq!((stats.loss_percent, stats.residual_loss_percent, stats.burst_packets), (20.0, 10.0, 2.0));
        assert_eq!((stats.sent_kbps, stats.received_kbps, stats.concealed_percent), (40.0, 40.0, 10.0));
        assert_eq!((stats.limit_kind.as_str(), stats.received), ("loss", 90));
        assert!(stats.limit.contains("loses packets") && stats.mos < 3.6, "{stats:?}");
    }

    #[test]
    fn a_clean_call_is_limited_by_nothing_and_one_without_a_device_by_that() {
        let start = Instant::now();
        let mut figures = Figures::new(start);
        let stats = ReceiverStats { packets: 50, packets_expected: 50, played_ms: 1_000, ..ReceiverStats::default() };
        let clean = figures.take(&moment(start + Duration::from_secs(1), stats, 3_000));
        assert!(clean.limit.is_empty() && clean.mos > 4.2, "{clean:?}");
        let later = ReceiverStats { packets: 100, packets_expected: 100, played_ms: 2_000, ..stats };
        let deaf = Moment { lacks_device: true, ..moment(start + Duration::from_secs(2), later, 6_000) };
        assert_eq!(figures.take(&deaf).limit_kind, "device");
    }
}
