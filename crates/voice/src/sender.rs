//! The sending side: blocks of sound in, voice packets out.
//!
//! Each packet carries its own frame and, as the settings say, copies of the frames before it, so that a lost packet is
//! made good by the next. Copies are the same bytes again: no second encoder, and they repair exactly.
//!
//! A receiver report on the other direction rides on the next packet: on a thin link the headers of a datagram of its own would cost more than
//! it does.

use std::collections::VecDeque;

use ahoy_codec::{Application, Bandwidth, Encoder, EncoderSettings, Error, FrameLength, RateControl};
use ahoy_protocol::media::{COPIES_MAX, FrameDuration, ReceiverReport, VoicePacket};

use crate::{BLOCK_MS, BLOCK_SAMPLES, Block};

/// Below this bitrate speech is sent as wideband, in bits per second. What the encoder would spend above 8 kHz is missing
/// below, where words are understood: at a constant 24 kb/s that costs 0.35 to 0.5 of PESQ-WB's 4.64 points, and the
/// decoder's enhancer works on wideband only.
const WIDEBAND_BELOW: u32 = 40_000;

/// Packets that a receiver report tells about.
const REPORTED_PACKETS: u64 = u64::BITS as u64;

/// How to encode and protect speech. Any of it can change during a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderSettings {
    /// Bits per second of the codec, copies not counted.
    pub bitrate: u32,
    /// Of a frame.
    pub duration: FrameDuration,
    /// Copies of earlier frames in each packet, at most [`COPIES_MAX`].
    pub copies: usize,
    /// What the encoder is tuned for.
    pub application: Application,
    /// Effort of the encoder, 0 to 10.
    pub complexity: u8,
}

impl Default for SenderSettings {
    fn default() -> Self {
        Self { bitrate: 24_000, duration: FrameDuration::Ms20, copies: 1, application: Application::Voip, complexity: 10 }
    }
}

impl SenderSettings {
    fn encoder(self) -> EncoderSettings {
        EncoderSettings {
            application: self.application,
            bitrate: self.bitrate,
            complexity: self.complexity,
            // Packets of one length: what is said does not show through the encryption.
            rate_control: RateControl::Constant,
            bandwidth: if self.bitrate < WIDEBAND_BELOW { Bandwidth::Wideband } else { Bandwidth::Auto },
            frame_length: match self.duration {
                FrameDuration::Ms10 => FrameLength::Ms10,
                FrameDuration::Ms20 => FrameLength::Ms20,
                FrameDuration::Ms40 => FrameLength::Ms40,
                FrameDuration::Ms60 => FrameLength::Ms60,
                FrameDuration::Ms120 => FrameLength::Ms120,
            },
        }
    }
}

/// How often a packet is sent while nobody answers, in blocks: every 500 ms, as RFC 8083 asks for hardly anything.
const PROBE_BLOCKS: u32 = 50;

/// The first packet after a change of duration has no copies to carry; this many after it carry one in any case, so that the first is not left
/// without. Longer frames without copies are sent where every byte queues: there it is left out.
const SEAM_PACKETS: u32 = 1;

/// What a sender has done, and what the other side told of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SenderStats {
    /// Packets made.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames the encoder failed on.
    pub failures: u64,
    /// Reports that came.
    pub reports: u64,
    /// The newest of them.
    pub report: Option<ReceiverReport>,
    /// Packets of the last 64 that did not arrive, by themselves or as copies, in percent.
    pub lost_percent: f32,
}

/// Makes voice packets of blocks of sound.
#[derive(Debug)]
pub struct VoiceSender {
    encoder: Encoder,
    settings: SenderSettings,
    /// Taken over at the next frame's beginning.
    pending_settings: Option<SenderSettings>,
    frame: Vec<f32>,
    /// Newest first, as in a packet.
    copies: VecDeque<Vec<u8>>,
    sequence: u16,
    timestamp: u16,
    /// A report to send along, and how many blocks it has waited.
    report: Option<(ReceiverReport, u16)>,
    /// Blocks since the last packet, while nobody answers.
    probe: Option<u32>,
    /// Packets that still belong to a seam.
    seam: u32,
    stats: SenderStats,
}

impl VoiceSender {
    /// A sender whose first block is the timestamps' origin.
    ///
    /// # Errors
    /// If the encoder does not take the settings.
    pub fn new(settings: SenderSettings) -> Result<Self, Error> {
        Ok(Self {
            encoder: Encoder::new(settings.encoder())?,
            settings,
            pending_settings: None,
            frame: Vec::with_capacity(FrameDuration::Ms120.as_samples()),
            copies: VecDeque::with_capacity(COPIES_MAX + 1),
            sequence: 0,
            timestamp: 0,
            report: None,
            probe: None,
            seam: 0,
            stats: SenderStats::default(),
        })
    }

    /// Takes the next block; gives a datagram whenever it completes a frame.
    pub fn push(&mut self, block: &Block) -> Option<Vec<u8>> {
        if self.frame.is_empty() {
            self.take_over_settings();
        }
        if let Some((_, waited)) = &mut self.report {
            *waited = waited.saturating_add(1);
        }
        if let Some(blocks) = &mut self.probe {
            *blocks = blocks.saturating_add(1);
        }
        self.frame.extend_from_slice(block);
        if self.frame.len() < self.settings.duration.as_samples() {
            return None;
        }
        let datagram = self.packet();
        self.frame.clear();
        self.timestamp = self.timestamp.wrapping_add(self.settings.duration.as_timestamp());
        datagram
    }

    fn packet(&mut self) -> Option<Vec<u8>> {
        let Ok(encoded) = self.encoder.encode(&self.frame) else {
            // Copies must stand directly before the packet's own frame; after a hole they would not.
            self.copies.clear();
            self.stats.failures += 1;
            return None;
        };
        let own = encoded.to_vec();
        let is_due = self.is_due();
        let copies = self.settings.copies.max(usize::from(self.seam > 0));
        self.seam = self.seam.saturating_sub(1);
        let frames = std::iter::once(&own).chain(&self.copies).map(Vec::as_slice).take(1 + copies).collect();
        let packet = VoicePacket { sequence: self.sequence, timestamp: self.timestamp, duration: self.settings.duration, frames };
        let datagram = if is_due { packet.encode().ok() } else { None };
        self.copies.push_front(own);
        self.copies.truncate(COPIES_MAX);
        self.sequence = self.sequence.wrapping_add(1);
        let datagram = self.with_report(datagram?);
        self.stats.packets += 1;
        self.stats.bytes += datagram.len() as u64;
        Some(datagram)
    }

    /// Whether the next packet is to be sent: every one is, unless nobody answers.
    fn is_due(&mut self) -> bool {
        match &mut self.probe {
            None => true,
            Some(blocks) if *blocks >= PROBE_BLOCKS => {
                *blocks = 0;
                true
            }
            Some(_) => false,
        }
    }

    /// Puts the report that waits in front of `voice`.
    fn with_report(&mut self, voice: Vec<u8>) -> Vec<u8> {
        let Some((mut report, waited)) = self.report else { return voice };
        // The newest packet it speaks of has grown older meanwhile.
        report.echo_age_ms = report.echo_age_ms.saturating_add(waited.saturating_mul(BLOCK_MS as u16));
        let Some(datagram) = report.encode_with(&voice) else { return voice };
        self.report = None;
        datagram
    }

    /// A report on what was received, to ride on the next packet. A later one takes the place of one that still waits.
    pub fn attach_report(&mut self, report: ReceiverReport) {
        self.report = Some((report, 0));
    }

    /// While nobody answers, only one packet in 500 ms is sent, to find out when somebody does.
    pub fn set_stopped(&mut self, is_stopped: bool) {
        match (is_stopped, self.probe) {
            (true, None) => self.probe = Some(0),
            (true, Some(_)) | (false, None) => {}
            (false, Some(_)) => self.probe = None,
        }
    }

    /// The number of the packet given last.
    #[must_use]
    pub fn last_sequence(&self) -> u16 {
        self.sequence.wrapping_sub(1)
    }

    /// Other settings, from the next frame on.
    pub fn configure(&mut self, settings: SenderSettings) {
        self.pending_settings = Some(settings);
    }

    /// What it sends with, or will from the next frame on.
    #[must_use]
    pub fn settings(&self) -> SenderSettings {
        self.pending_settings.unwrap_or(self.settings)
    }

    fn take_over_settings(&mut self) {
        let Some(settings) = self.pending_settings.take() else { return };
        if self.encoder.configure(settings.encoder()).is_err() {
            // Speech goes on with what the encoder took before.
            self.stats.failures += 1;
            let _ = self.encoder.configure(self.settings.encoder());
            return;
        }
        if settings.duration != self.settings.duration {
            // A packet's copies have its own duration.
            self.copies.clear();
        }
        let is_narrow = settings.copies == 0 && settings.duration > FrameDuration::Ms40;
        let is_other = settings.duration != self.settings.duration || settings.application != self.settings.application;
        if is_other && !is_narrow {
            self.seam = 1 + SEAM_PACKETS;
        }
        self.settings = settings;
    }

    /// How long after its first sample a frame leaves, at the earliest, in milliseconds: its duration and what the
    /// encoder looks ahead.
    #[must_use]
    pub fn delay_ms(&self) -> u32 {
        self.settings.duration.as_millis() + (self.encoder.lookahead() * 10 / BLOCK_SAMPLES) as u32
    }

    /// Takes note of what the other side reports.
    pub fn handle_report(&mut self, report: &ReceiverReport) {
        // The report speaks of packets before the first as lost, which it cannot tell apart.
        let told = self.stats.packets.clamp(1, REPORTED_PACKETS);
        let mask = if told == REPORTED_PACKETS { u64::MAX } else { (1 << told) - 1 };
        let arrived = u64::from((report.received & mask).count_ones());
        self.stats.lost_percent = 100.0 * (told - arrived) as f32 / told as f32;
        self.stats.reports += 1;
        self.stats.report = Some(*report);
    }

    /// What it has done, and what it was told.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::media::MediaDatagram;

    const RUNG: SenderSettings =
        SenderSettings { bitrate: 12_000, duration: FrameDuration::Ms20, copies: 2, application: Application::Voip, complexity: 5 };

    fn sender() -> VoiceSender {
        VoiceSender::new(RUNG).expect("the settings are valid")
    }

    /// The datagrams of so many blocks.
    fn push(sender: &mut VoiceSender, blocks: usize) -> Vec<Vec<u8>> {
        (0..blocks).filter_map(|_| sender.push(&[0.1; BLOCK_SAMPLES])).collect()
    }

    fn report() -> ReceiverReport {
        ReceiverReport {
            highest: 1,
            received: 3,
            queueing_ms: 0,
            queueing_max_ms: 0,
            concealed: 0,
            target_ms: 20,
            echo_timestamp: 8,
            echo_age_ms: 5,
        }
    }

    #[test]
    fn a_report_rides_on_the_next_packet_once_and_grows_older_while_it_waits() {
        let mut sender = sender();
        push(&mut sender, 4);
        sender.attach_report(report());
        let sent = push(&mut sender, 4);
        let first = MediaDatagram::decode(&sent[0]).expect("it is one");
        assert_eq!(first.report.map(|report| report.echo_age_ms), Some(25));
        assert_eq!(first.voice.map(|voice| voice.frames.len()), Some(3));
        assert_eq!(MediaDatagram::decode(&sent[1]).expect("it is one").report, None);
    }

    #[test]
    fn a_change_of_duration_waits_for_a_frames_end_and_copies_are_of_the_same_duration() {
        let mut sender = sender();
        push(&mut sender, 7);
        sender.configure(SenderSettings { duration: FrameDuration::Ms40, copies: 0, ..RUNG });
        let sent = push(&mut sender, 1 + 4 * 4);
        sender.configure(SenderSettings { duration: FrameDuration::Ms120, copies: 0, ..RUNG });
        let sent = [sent, push(&mut sender, 3 * 12)].concat();
        let packets: Vec<_> = sent.iter().map(|bytes| VoicePacket::decode(bytes).expect("it is one")).collect();
        let durations: Vec<_> = packets.iter().map(|packet| packet.duration.as_millis()).collect();
        assert_eq!(durations, [20, 40, 40, 40, 40, 120, 120, 120]);
        // The first after a seam is protected by the second, although no copies are asked for, unless the link is narrow.
        assert_eq!(packets.iter().map(|packet| packet.frames.len()).collect::<Vec<_>>(), [3, 1, 2, 1, 1, 1, 1, 1]);
        for pair in packets.windows(2) {
            assert_eq!(pair[1].sequence, pair[0].sequence + 1);
            assert_eq!(pair[1].timestamp - pair[0].timestamp, pair[0].duration.as_timestamp());
        }
    }

    #[test]
    fn while_nobody_answers_a_packet_goes_out_every_half_second() {
        let mut sender = sender();
        push(&mut sender, 4);
        sender.set_stopped(true);
        assert_eq!(push(&mut sender, 500).len(), 10);
        sender.set_stopped(false);
        assert_eq!(push(&mut sender, 20).len(), 10);
        assert_eq!(sender.last_sequence(), 261);
    }
}
