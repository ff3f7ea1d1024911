//! Plays a delay trace through the receiver, with a decoder that hums.

use std::f32::consts::TAU;
use std::time::{Duration, Instant};

use ahoy_codec::{DECODED_SAMPLES_MAX, Error};
use ahoy_protocol::media::{FrameDuration, VoicePacket};

use super::Trace;
use crate::{DelaySettings, FrameDecoder, ReceiverStats, SAMPLES_PER_MS, VoiceReceiver};

/// Instead of speech: a voice of 120 Hz that talks for two seconds and pauses for half a second, again and again. The
/// first byte of a frame is its duration in milliseconds.
#[derive(Debug)]
pub struct Hum {
    at: usize,
    output: Vec<f32>,
}

const PERIOD: usize = 400;
const TALK: usize = 2 * 48_000;
const PAUSE: usize = 24_000;

impl Default for Hum {
    fn default() -> Self {
        Self { at: 0, output: Vec::with_capacity(DECODED_SAMPLES_MAX) }
    }
}

impl FrameDecoder for Hum {
    fn decode(&mut self, frame: &[u8]) -> Result<&[f32], Error> {
        self.conceal(frame.first().map_or(0, |ms| usize::from(*ms) * SAMPLES_PER_MS))
    }

    fn conceal(&mut self, samples: usize) -> Result<&[f32], Error> {
        self.output.clear();
        for _ in 0..samples {
            let phase = (self.at % PERIOD) as f32 / PERIOD as f32 * TAU;
            let is_talking = self.at % (TALK + PAUSE) < TALK;
            self.output.push(if is_talking { 0.2 * phase.sin() + 0.1 * (2.0 * phase).sin() } else { 0.0 });
            self.at += 1;
        }
        Ok(&self.output)
    }
}

/// What playing cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// The mean delay from capture to playing above the fastest packet's, in milliseconds.
    pub delay_ms: f64,
    /// Frames that were not there when their turn came, in percent.
    pub late_percent: f64,
}

impl Price {
    /// Both in one: 20 ms for each percent, which is NetEq's weight.
    #[must_use]
    pub fn j(&self) -> f64 {
        self.delay_ms + 20.0 * self.late_percent
    }
}

/// The receiver's side of a playout.
#[derive(Debug, Clone, Copy)]
pub struct Playout {
    /// How much is asked for at once, in milliseconds: a whole number of 2.5.
    pub pull_ms: f64,
    /// How long after the first packet was sent the first pull is.
    pub phase_ms: f64,
    /// By how much the receiver's clock is fast, in parts per million.
    pub drift_ppm: f64,
    /// The buffer's settings.
    pub delay: DelaySettings,
}

impl Playout {
    /// Pulls of 5 ms, as small devices ask for.
    #[must_use]
    pub fn at_phase(phase_ms: f64) -> Self {
        Self { pull_ms: 5.0, phase_ms, drift_ppm: 0.0, delay: DelaySettings::default() }
    }
}

/// Plays a trace; `watch` is given the time of each pull in milliseconds, the sound and the receiver's figures. Virtual time begins at `epoch`.
pub fn play(
    epoch: Instant,
    trace: &Trace,
    playout: Playout,
    mut watch: impl FnMut(f64, &[f32], &VoiceReceiver<Hum>),
) -> (Price, ReceiverStats) {
    let mut receiver = VoiceReceiver::with_decoder(playout.delay, Hum::default());
    let at = |ms: f64| epoch + Duration::from_secs_f64(ms / 1000.0);
    let duration = duration_of(trace.interval_ms);
    let mut arrivals: Vec<(f64, usize)> = trace.times_ms().enumerate().map(|(index, (_, arrival))| (arrival, index)).collect();
    arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut sound = vec![0.0; (playout.pull_ms * SAMPLES_PER_MS as f64) as usize];
    let frame = [trace.interval_ms as u8];
    let (mut next, mut sum_ms, mut playing) = (0, 0.0, 0_u64);
    let last_ms = arrivals.last().map_or(0.0, |(arrival, _)| *arrival);
    let mut origin_ms = None;
    for pull in 0_u64.. {
        let now_ms = playout.phase_ms + pull as f64 * playout.pull_ms / (1.0 + playout.drift_ppm / 1e6);
        if now_ms > last_ms {
            break;
        }
        while let Some((arrival_ms, index)) = arrivals.get(next).filter(|(arrival, _)| *arrival <= now_ms) {
            let timestamp = (*index as u64 * u64::from(duration.as_timestamp())) as u16;
            let packet = VoicePacket { sequence: *index as u16, timestamp, duration, frames: vec![&frame] };
            origin_ms.get_or_insert(*arrival_ms);
            receiver.handle_voice(at(*arrival_ms), &packet);
            next += 1;
        }
        origin_ms.get_or_insert(now_ms);
        receiver.pull_samples(at(now_ms), &mut sound);
        let jitter = receiver.jitter();
        if jitter.transit_ms != 0.0 {
            sum_ms += jitter.transit_ms;
            playing += 1;
        }
        watch(now_ms, &sound, &receiver);
    }
    let stats = receiver.stats();
    let price = Price {
        delay_ms: sum_ms / playing.max(1) as f64 + origin_ms.unwrap_or(0.0) - trace.least_ms(),
        late_percent: 100.0 * stats.late as f64 / arrivals.len().max(1) as f64,
    };
    (price, stats)
}

fn duration_of(interval_ms: u32) -> FrameDuration {
    match interval_ms {
        10 => FrameDuration::Ms10,
        40 => FrameDuration::Ms40,
        60 => FrameDuration::Ms60,
        _ => FrameDuration::Ms20,
    }
}
