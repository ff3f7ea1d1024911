//! The receiving side: datagrams in, blocks of sound out.
//!
//! The jitter buffer decides; this decodes what it gives, conceals what it misses and stretches what it wants shorter
//! or longer. Decoded sound stands in one row: what was played last, which stretching looks back at, and what was not
//! played yet.

use std::time::Instant;

use ahoy_codec::{Decoder, Error};
use ahoy_protocol::media::{MediaError, ReceiverReport, VoicePacket};

use crate::delay::DelaySettings;
use crate::jitter::{Correction, JitterBuffer, Next, samples_to_ms};
use crate::stretch::{self, PERIOD_MAX};
use crate::{BLOCK_MS, BLOCK_SAMPLES, Block, SAMPLES_PER_MS};

/// Played sound that is kept for stretching.
const KEPT_SAMPLES: usize = PERIOD_MAX;

/// Unplayed sound that shortening wants: two of the longest periods.
const SHORTEN_NEEDS: usize = 2 * PERIOD_MAX;

/// Concealment begins to fade after this long…
const FADE_FROM_MS: u32 = 100;
/// … and is silent from here on.
const FADE_TO_MS: u32 = 150;

/// Where sound begins after silence it is faded in: 5 ms make no click and swallow no consonant.
const FADE_IN_SAMPLES: usize = 5 * SAMPLES_PER_MS;

/// Where sound goes on in the middle of a frame, the step is spread over this much.
const SMOOTH_SAMPLES: usize = 3 * SAMPLES_PER_MS;

/// Softer than this is quiet anywhere: −50 dB of full scale.
const QUIET: f32 = 0.003;

/// And so is what is not louder than this many times the background.
const QUIET_OVER_BACKGROUND: f32 = 2.0;

/// By how much the background's estimate rises with each block, so that it follows a louder room in some seconds.
const BACKGROUND_RISE: f32 = 1.005;

/// Quiet for this long is a pause. Shorter ones belong to words: before a p, t or k the voice is silent for up to 100 ms,
/// and stretching that is heard as a stumble.
const PAUSE_MS: f64 = 150.0;

/// Shortening takes away no more than this part of speech,
const SHORTEN_SPEECH: f64 = 0.05;
/// and no more than this part of pauses.
const SHORTEN_PAUSE: f64 = 0.25;
/// Lengthening adds no more than this part: it is in a hurry, since frames are late as long as it lasts.
const LENGTHEN: f64 = 0.2;

/// What a receiver heard, and what it had to do for it. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Packets that came.
    pub packets: u64,
    /// Datagrams that were none.
    pub malformed: u64,
    /// Frames that never came, neither by themselves nor as copies.
    pub lost: u64,
    /// Frames that first came when their turn was over.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames that first came as a copy.
    pub recovered: u64,
    /// Times the sender began anew.
    pub jumps: u64,
    /// Sound that was made up.
    pub concealed_ms: u64,
    /// Sound taken out to reduce the delay.
    pub accelerated_ms: u64,
    /// Sound put in to wait for later packets.
    pub expanded_ms: u64,
    /// Sound left out because the delay had become far too long.
    pub skipped_ms: u64,
    /// The wait above the fastest packet that is aimed at.
    pub target_ms: u64,
    /// The wait there is.
    pub delay_ms: u64,
    /// Sound that waits, decoded or not.
    pub buffered_ms: u64,
}

/// How decoded sound joins on to what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joint {
    /// By itself: the decoder made both.
    Smooth,
    /// From the middle of a frame.
    Step,
    /// After silence.
    FadeIn,
}

/// Sound in the making, and how much of it there was.
#[derive(Debug, Default)]
struct Tally {
    concealed_ms: u64,
    accelerated_samples: usize,
    expanded_samples: usize,
    skipped_ms: u64,
    malformed: u64,
}

/// Makes blocks of sound of voice packets.
#[derive(Debug)]
pub struct VoiceReceiver {
    jitter: JitterBuffer,
    decoder: Decoder,
    /// Played sound, then unplayed.
    sound: Vec<f32>,
    /// Where unplayed sound begins.
    played: usize,
    joint: Joint,
    /// Whether the end of `sound` was concealed or is silence, which is not stretched.
    is_made_up: bool,
    background: f32,
    /// How long what was played last has been quiet.
    quiet_ms: f64,
    /// Stretching pauses for as long, to keep to its rate.
    rest_ms: f64,
    tally: Tally,
}

impl VoiceReceiver {
    /// A receiver that has heard nothing yet.
    ///
    /// # Errors
    /// If the decoder cannot be made.
    pub fn new() -> Result<Self, Error> {
        Self::with_delay(DelaySettings::default())
    }

    /// One with other bounds of the target delay.
    ///
    /// # Errors
    /// If the decoder cannot be made.
    pub fn with_delay(settings: DelaySettings) -> Result<Self, Error> {
        Ok(Self {
            jitter: JitterBuffer::new(settings),
            decoder: Decoder::new()?,
            sound: vec![0.0; KEPT_SAMPLES],
            played: KEPT_SAMPLES,
            joint: Joint::FadeIn,
            is_made_up: true,
            background: QUIET,
            quiet_ms: 0.0,
            rest_ms: 0.0,
            tally: Tally::default(),
        })
    }

    /// Takes a datagram that came at `now`.
    ///
    /// # Errors
    /// If it is no voice packet.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), MediaError> {
        let packet = VoicePacket::decode(datagram).inspect_err(|_| self.tally.malformed += 1)?;
        self.jitter.insert(now, &packet);
        Ok(())
    }

    /// Fills the next block. The audio clock calls this every 10 ms; a thread that comes late calls it for each block it
    /// missed.
    pub fn pull(&mut self, now: Instant, block: &mut Block) {
        self.jitter.begin_block(now, self.unplayed());
        self.rest_ms -= BLOCK_MS;
        self.correct();
        while self.unplayed() < BLOCK_SAMPLES {
            self.extend();
        }
        for (to, from) in block.iter_mut().zip(&self.sound[self.played..]) {
            // A smoothed step may overshoot.
            *to = from.clamp(-1.0, 1.0);
        }
        self.quiet_ms = if self.is_quiet(block) { self.quiet_ms + BLOCK_MS } else { 0.0 };
        self.played += BLOCK_SAMPLES;
        self.sound.drain(..self.played - KEPT_SAMPLES);
        self.played = KEPT_SAMPLES;
    }

    fn unplayed(&self) -> usize {
        self.sound.len() - self.played
    }

    /// Appends what the jitter buffer gives next.
    fn extend(&mut self) {
        match self.jitter.take_next() {
            Next::Silence => {
                let missing = BLOCK_SAMPLES - self.unplayed().min(BLOCK_SAMPLES);
                self.append_silence(missing);
            }
            Next::Conceal { since_ms } => self.conceal(since_ms),
            Next::Frame { bytes, samples, skip } => self.decode(&bytes, samples, skip),
        }
    }

    fn append_silence(&mut self, samples: usize) {
        self.sound.resize(self.sound.len() + samples, 0.0);
        self.is_made_up = true;
        self.joint = Joint::FadeIn;
    }

    fn conceal(&mut self, since_ms: u32) {
        self.tally.concealed_ms += BLOCK_MS as u64;
        if since_ms >= FADE_TO_MS {
            self.append_silence(BLOCK_SAMPLES);
            return;
        }
        let Ok(sound) = self.decoder.conceal(BLOCK_SAMPLES) else {
            self.append_silence(BLOCK_SAMPLES);
            return;
        };
        let gain = |ms: f32| ((FADE_TO_MS as f32 - ms) / (FADE_TO_MS - FADE_FROM_MS) as f32).clamp(0.0, 1.0);
        let faded = sound.iter().enumerate().map(|(index, sample)| sample * gain(since_ms as f32 + index as f32 / SAMPLES_PER_MS as f32));
        let begin = self.sound.len();
        self.sound.extend(faded);
        self.make_joint(begin);
        self.is_made_up = true;
    }

    /// Decodes a frame, which is to hold `samples`, the first `skip` of which are past.
    fn decode(&mut self, bytes: &[u8], samples: usize, skip: usize) {
        let begin = self.sound.len();
        let decoded = match self.decoder.decode(bytes) {
            Ok(sound) => Ok(sound),
            Err(_) => self.decoder.conceal(samples),
        };
        let frame = decoded.unwrap_or_default();
        // A frame that holds more or less than its packet says keeps the time the packet says.
        let audible = frame.get(skip..frame.len().min(samples)).unwrap_or_default();
        self.sound.extend_from_slice(audible);
        self.sound.resize(begin + samples.saturating_sub(skip), 0.0);
        self.is_made_up = false;
        if skip > 0 && self.joint == Joint::Smooth {
            self.joint = Joint::Step;
        }
        self.make_joint(begin);
        self.learn_background(begin);
    }

    /// Joins what begins at `begin` on to what is before it.
    fn make_joint(&mut self, begin: usize) {
        match std::mem::replace(&mut self.joint, Joint::Smooth) {
            Joint::Smooth => {}
            Joint::FadeIn => {
                for (index, sample) in self.sound[begin..].iter_mut().take(FADE_IN_SAMPLES).enumerate() {
                    *sample *= index as f32 / FADE_IN_SAMPLES as f32;
                }
            }
            Joint::Step => {
                let (before, after) = self.sound.split_at_mut(begin);
                let (Some(last), Some(first)) = (before.last(), after.first()) else { return };
                let step = last - first;
                for (index, sample) in after.iter_mut().take(SMOOTH_SAMPLES).enumerate() {
                    *sample += step * (1.0 - index as f32 / SMOOTH_SAMPLES as f32);
                }
            }
        }
    }

    fn learn_background(&mut self, begin: usize) {
        for block in self.sound[begin..].chunks(BLOCK_SAMPLES) {
            self.background = (self.background * BACKGROUND_RISE).min(loudness(block)).max(1e-6);
        }
    }

    /// Stretches, if the jitter buffer wants it and the sound allows it.
    fn correct(&mut self) {
        match self.jitter.correction(self.unplayed()) {
            Correction::None => {}
            Correction::Skipped { by_ms } => {
                self.tally.skipped_ms += by_ms as u64;
                self.joint = Joint::Step;
            }
            Correction::ShortenPauses { by_ms } => self.shorten(by_ms, false),
            Correction::Shorten { by_ms } => self.shorten(by_ms, true),
            Correction::LengthenPauses => self.lengthen(false),
            Correction::Lengthen => self.lengthen(true),
        }
    }

    fn shorten(&mut self, by_ms: f64, speech_too: bool) {
        if self.rest_ms > 0.0 {
            return;
        }
        while self.unplayed() < SHORTEN_NEEDS && self.jitter.has_next() {
            self.extend();
        }
        if self.is_made_up {
            return;
        }
        let samples_max = (by_ms * SAMPLES_PER_MS as f64) as usize;
        let ahead = self.unplayed().min(SHORTEN_NEEDS);
        let is_quiet = self.is_quiet(&self.sound[self.played..self.played + ahead]);
        let (removed, rate) = match (is_quiet, speech_too) {
            (true, _) if self.quiet_ms >= PAUSE_MS => (stretch::shorten_quiet(&mut self.sound, self.played, samples_max), SHORTEN_PAUSE),
            (true, true) => (stretch::shorten_quiet(&mut self.sound, self.played, samples_max), SHORTEN_SPEECH),
            (false, true) => (stretch::shorten(&mut self.sound, self.played, samples_max), SHORTEN_SPEECH),
            (_, false) => return,
        };
        self.tally.accelerated_samples += removed;
        self.rest_ms = samples_to_ms(removed) / rate;
    }

    fn lengthen(&mut self, speech_too: bool) {
        if self.rest_ms > 0.0 {
            return;
        }
        if self.unplayed() < BLOCK_SAMPLES {
            if !self.jitter.has_next() {
                return;
            }
            self.extend();
        }
        if self.is_made_up {
            return;
        }
        let reach = PERIOD_MAX.min(self.unplayed());
        let is_quiet = self.is_quiet(&self.sound[self.played - reach..self.played + reach]);
        let added = match (is_quiet, speech_too) {
            (true, speech_too) if speech_too || self.quiet_ms >= PAUSE_MS => stretch::lengthen_quiet(&mut self.sound, self.played),
            (false, true) => stretch::lengthen(&mut self.sound, self.played),
            _ => return,
        };
        self.tally.expanded_samples += added;
        self.rest_ms = samples_to_ms(added) / LENGTHEN;
    }

    fn is_quiet(&self, sound: &[f32]) -> bool {
        loudness(sound) < QUIET.max(QUIET_OVER_BACKGROUND * self.background)
    }

    /// What to tell the sender at `now`, every [`REPORT_INTERVAL_MS`](ahoy_protocol::media::REPORT_INTERVAL_MS);
    /// nothing before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReceiverReport> {
        self.jitter.report(now)
    }

    /// What it heard.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        let jitter = self.jitter.stats();
        ReceiverStats {
            packets: jitter.packets,
            malformed: self.tally.malformed,
            lost: jitter.lost,
            late: jitter.late,
            duplicates: jitter.duplicates,
            recovered: jitter.recovered,
            jumps: jitter.jumps,
            concealed_ms: self.tally.concealed_ms,
            accelerated_ms: samples_to_ms(self.tally.accelerated_samples) as u64,
            expanded_ms: samples_to_ms(self.tally.expanded_samples) as u64,
            skipped_ms: self.tally.skipped_ms,
            target_ms: jitter.target_ms as u64,
            delay_ms: jitter.delay_ms as u64,
            buffered_ms: (jitter.buffered_ms + samples_to_ms(self.unplayed())) as u64,
        }
    }
}

/// Root of the mean square.
fn loudness(sound: &[f32]) -> f32 {
    (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len().max(1) as f32).sqrt()
}
