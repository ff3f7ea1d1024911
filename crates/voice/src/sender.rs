//! The sending side: blocks of sound in, voice packets out.
//!
//! Each packet carries its own frame and, as the settings say, copies of the frames before it, so that a lost packet is
//! made good by the next. Copies are the same bytes again: no second encoder, and they repair exactly.

use std::collections::VecDeque;

use ahoy_codec::{Application, Bandwidth, Encoder, EncoderSettings, Error, FrameLength, RateControl};
use ahoy_protocol::media::{COPIES_MAX, FrameDuration, ReceiverReport, VoicePacket};

use crate::{BLOCK_SAMPLES, Block};

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
            },
        }
    }
}

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
            frame: Vec::with_capacity(FrameDuration::Ms60.as_samples()),
            copies: VecDeque::with_capacity(COPIES_MAX + 1),
            sequence: 0,
            timestamp: 0,
            stats: SenderStats::default(),
        })
    }

    /// Takes the next block; gives a datagram whenever it completes a frame.
    pub fn push(&mut self, block: &Block) -> Option<Vec<u8>> {
        if self.frame.is_empty() {
            self.take_over_settings();
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
        let frames = std::iter::once(&own).chain(&self.copies).map(Vec::as_slice).take(1 + self.settings.copies).collect();
        let packet = VoicePacket { sequence: self.sequence, timestamp: self.timestamp, duration: self.settings.duration, frames };
        let datagram = packet.encode().ok();
        self.copies.push_front(own);
        self.copies.truncate(COPIES_MAX);
        self.sequence = self.sequence.wrapping_add(1);
        if let Some(datagram) = &datagram {
            self.stats.packets += 1;
            self.stats.bytes += datagram.len() as u64;
        }
        datagram
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
