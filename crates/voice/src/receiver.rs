//! The receiving side: datagrams in, blocks of sound out.
//!
//! The jitter buffer decides; this decodes what it gives, conceals what it misses and stretches what it wants shorter
//! or longer. Decoded sound stands in one row: what was played last, which stretching looks back at, and what was not
//! played yet.

use std::time::Instant;

use ahoy_codec::{Decoder, Error};
use ahoy_protocol::media::{MediaDatagram, MediaError, ReceiverReport, VoicePacket};

use crate::comfort::ComfortNoise;
use crate::correction::Correction;
use crate::delay::DelaySettings;
use crate::jitter::{JitterBuffer, JitterStats, Next, samples_to_ms};
use crate::stretch::{self, LIKENESS_FAIR, LIKENESS_GOOD, PERIOD_MAX};
use crate::{BLOCK_MS, BLOCK_SAMPLES, Block, SAMPLES_PER_MS};

/// Played sound that is kept for stretching.
const KEPT_SAMPLES: usize = PERIOD_MAX;

/// Unplayed sound that shortening wants: two of the longest periods.
const SHORTEN_NEEDS: usize = 2 * PERIOD_MAX;

/// Concealment begins to give way to comfort noise after this long: what it makes up is a guess that gets worse…
const FADE_FROM_MS: u32 = 120;
/// … and nothing else is heard from here on.
const FADE_TO_MS: u32 = 200;

/// Where sound begins after comfort noise it is faded in: 5 ms make no click and swallow no consonant.
const FADE_IN_SAMPLES: usize = 5 * SAMPLES_PER_MS;

/// Waiting for longer than this is no outage that speech is missing from: nobody sends.
const OUTAGE_MS: f64 = 3_000.0;

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

/// What background noise is learned from has been quiet for this long: before that it may be the end of a word.
const BACKGROUND_AFTER_MS: f64 = 60.0;

/// Background noise is not louder than this many times what was heard at the quietest…
const BACKGROUND_TIMES: f32 = 1.5;
/// … nor than −34 dB of full scale: a steadier and louder sound is what is listened to.
const BACKGROUND_MAX: f32 = 0.02;

/// Shortening takes away no more than this part of speech,
const SHORTEN_SPEECH: f64 = 0.05;
/// no more than this where the delay is [`FAR_MS`] too long,
const SHORTEN_FAR: f64 = 0.15;
/// and no more than this part of pauses.
const SHORTEN_PAUSE: f64 = 0.25;
/// A delay so much too long, two frames of 20 ms, is worth a hurry that can be heard by who listens for it.
const FAR_MS: f64 = 40.0;
/// Lengthening adds no more than this part: it is in a hurry, since frames are late as long as it lasts.
const LENGTHEN: f64 = 0.2;

/// Stretching by as much and more takes sound that hardly repeats itself, too.
const URGENT_MS: f64 = 30.0;

/// Makes sound of frames. The codec's decoder does; simulations of long calls have a cheaper one.
pub trait FrameDecoder {
    /// The sound of a frame.
    ///
    /// # Errors
    /// If `frame` is none.
    fn decode(&mut self, frame: &[u8]) -> Result<&[f32], Error>;

    /// What might have been said in as many `samples`, a multiple of 10 ms.
    ///
    /// # Errors
    /// If that cannot be said.
    fn conceal(&mut self, samples: usize) -> Result<&[f32], Error>;
}

impl FrameDecoder for Decoder {
    fn decode(&mut self, frame: &[u8]) -> Result<&[f32], Error> {
        Self::decode(self, frame)
    }

    fn conceal(&mut self, samples: usize) -> Result<&[f32], Error> {
        Self::conceal(self, samples)
    }
}

/// What a receiver heard, and what it had to do for it. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReceiverStats {
    /// Packets that came.
    pub packets: u64,
    /// Datagrams that were none.
    pub malformed: u64,
    /// Packets that were to come by half a second ago.
    pub packets_expected: u64,
    /// Those of them that did not come themselves, whatever came as copies.
    pub packets_lost: u64,
    /// In how many runs they were lost.
    pub loss_bursts: u64,
    /// Interarrival jitter as RFC 3550 counts it.
    pub jitter_ms: f32,
    /// Frames that never came, neither by themselves nor as copies.
    pub lost: u64,
    /// Frames that first came when their turn had begun, or later.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames that first came as a copy.
    pub recovered: u64,
    /// Times the sender began anew.
    pub jumps: u64,
    /// Sound that was played.
    pub played_ms: u64,
    /// Sound that was made up of what had been said.
    pub concealed_ms: u64,
    /// Background noise that was made because there was nothing to play for longer.
    pub comfort_noise_ms: u64,
    /// Sound taken out to reduce the delay.
    pub accelerated_ms: u64,
    /// Sound put in to wait for later packets, and what was concealed in its stead.
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

impl ReceiverStats {
    /// Packets that did not come themselves, in percent.
    #[must_use]
    pub fn packet_loss_percent(&self) -> f32 {
        100.0 * self.packets_lost as f32 / self.packets_expected.max(1) as f32
    }

    /// How many packets are lost in a row, on average; 0 if none is.
    #[must_use]
    pub fn burst_packets(&self) -> f32 {
        self.packets_lost as f32 / self.loss_bursts.max(1) as f32
    }

    /// Sound that was made up, of all, in percent.
    #[must_use]
    pub fn concealed_percent(&self) -> f32 {
        100.0 * (self.concealed_ms + self.comfort_noise_ms) as f32 / self.played_ms.max(1) as f32
    }
}

/// How decoded sound joins on to what is before it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Joint {
    /// By itself: the decoder made both.
    Smooth,
    /// From the middle of a frame.
    Step,
    /// After comfort noise, mixed with as much speech.
    FadeIn { from: f32 },
}

/// Sound in the making, and how much of it there was.
#[derive(Debug, Default)]
struct Tally {
    played_samples: u64,
    concealed_ms: u64,
    comfort_samples: u64,
    /// Since the last report.
    reported: Share,
    accelerated_samples: usize,
    expanded_samples: usize,
    skipped_ms: u64,
    malformed: u64,
}

/// Sound, and what of it was made up.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    samples: u64,
    made_up: u64,
}

impl Share {
    /// 255 is all of it.
    fn in_255(self) -> u8 {
        (255 * self.made_up.min(self.samples)).checked_div(self.samples).unwrap_or(0) as u8
    }
}

/// Makes blocks of sound of voice packets.
#[derive(Debug)]
pub struct VoiceReceiver<D = Decoder> {
    jitter: JitterBuffer,
    decoder: D,
    /// Played sound, then unplayed.
    sound: Vec<f32>,
    /// Where unplayed sound begins.
    played: usize,
    joint: Joint,
    /// Whether the end of `sound` was concealed or is silence, which is not stretched.
    is_made_up: bool,
    background: f32,
    comfort: ComfortNoise,
    /// How long there has been nothing but comfort noise.
    waited_ms: f64,
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
        Ok(Self::with_decoder(settings, Decoder::new()?))
    }
}

impl<D: FrameDecoder> VoiceReceiver<D> {
    /// One with another decoder.
    pub fn with_decoder(settings: DelaySettings, decoder: D) -> Self {
        Self {
            jitter: JitterBuffer::new(settings),
            decoder,
            sound: vec![0.0; KEPT_SAMPLES],
            played: KEPT_SAMPLES,
            joint: Joint::FadeIn { from: 0.0 },
            is_made_up: true,
            background: QUIET,
            comfort: ComfortNoise::new(),
            waited_ms: OUTAGE_MS,
            quiet_ms: 0.0,
            rest_ms: 0.0,
            tally: Tally::default(),
        }
    }

    /// Takes a datagram that came at `now`. A report in it is the sender's business, and passed over.
    ///
    /// # Errors
    /// If it holds no voice packet.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), MediaError> {
        let voice = MediaDatagram::decode(datagram).and_then(|datagram| datagram.voice.ok_or(MediaError));
        let voice = voice.inspect_err(|_| self.tally.malformed += 1)?;
        self.handle_voice(now, &voice);
        Ok(())
    }

    /// Takes a voice packet that came at `now`. Packets that have come are handed over before sound is asked for: one that
    /// is handed over after a pull was not there for it.
    pub fn handle_voice(&mut self, now: Instant, packet: &VoicePacket<'_>) {
        self.jitter.insert(now, packet);
    }

    /// Fills the next block. The audio clock calls this every 10 ms; a thread that comes late calls it for each block it
    /// missed.
    pub fn pull(&mut self, now: Instant, block: &mut Block) {
        self.pull_samples(now, block);
    }

    /// Fills as much as the audio clock asks for at once, a whole number of 2.5 ms. The shorter the pulls, the less sound
    /// waits for the next: a frame's delay is a whole number of them.
    pub fn pull_samples(&mut self, now: Instant, sound: &mut [f32]) {
        let length_ms = samples_to_ms(sound.len());
        self.jitter.begin_pull(now, sound.len(), self.unplayed());
        self.rest_ms -= length_ms;
        self.correct();
        while self.unplayed() < sound.len() {
            self.extend(sound.len());
        }
        for (to, from) in sound.iter_mut().zip(&self.sound[self.played..]) {
            // A smoothed step may overshoot.
            *to = from.clamp(-1.0, 1.0);
        }
        self.quiet_ms = if self.is_quiet(sound) { self.quiet_ms + length_ms } else { 0.0 };
        self.tally.played_samples += sound.len() as u64;
        self.tally.reported.samples += sound.len() as u64;
        self.played += sound.len();
        self.sound.drain(..self.played - KEPT_SAMPLES);
        self.played = KEPT_SAMPLES;
    }

    fn unplayed(&self) -> usize {
        self.sound.len() - self.played
    }

    /// Appends what the jitter buffer gives next, towards as many samples `wanted`.
    fn extend(&mut self, wanted: usize) {
        match self.jitter.take_next(self.unplayed()) {
            Next::Silence => self.wait(wanted.saturating_sub(self.unplayed())),
            Next::Conceal { since_ms } => self.conceal(since_ms),
            Next::Frame { bytes, samples, skip } => self.decode(&bytes, samples, skip),
        }
    }

    /// Appends comfort noise.
    fn wait(&mut self, samples: usize) {
        if self.waited_ms < OUTAGE_MS {
            self.tally.comfort_samples += samples as u64;
            self.tally.reported.made_up += samples as u64;
        }
        self.waited_ms += samples_to_ms(samples);
        let comfort = &mut self.comfort;
        self.sound.extend((0..samples).map(|_| comfort.sample()));
        self.is_made_up = true;
        self.joint = Joint::FadeIn { from: 0.0 };
    }

    fn conceal(&mut self, since_ms: u32) {
        let begin = self.sound.len();
        let concealed = if since_ms < FADE_TO_MS { self.decoder.conceal(BLOCK_SAMPLES).ok() } else { None };
        let Some(concealed) = concealed else {
            self.wait(BLOCK_SAMPLES);
            return;
        };
        self.sound.extend_from_slice(concealed);
        // It is a block, whatever the decoder says.
        self.sound.resize(begin + BLOCK_SAMPLES, 0.0);
        self.tally.concealed_ms += BLOCK_MS as u64;
        self.tally.reported.made_up += BLOCK_SAMPLES as u64;
        self.make_joint(begin);
        let gain = |ms: f32| ((FADE_TO_MS as f32 - ms) / (FADE_TO_MS - FADE_FROM_MS) as f32).clamp(0.0, 1.0);
        let end = gain(since_ms as f32 + BLOCK_MS as f32);
        if end < 1.0 {
            self.mix_comfort(begin, |index| gain(since_ms as f32 + index as f32 / SAMPLES_PER_MS as f32));
            self.joint = Joint::FadeIn { from: end };
        }
        self.is_made_up = true;
    }

    /// Mixes what begins at `begin` with comfort noise, as far as `gain` is below 1; both together are as loud as either.
    fn mix_comfort(&mut self, begin: usize, gain: impl Fn(usize) -> f32) {
        for (index, sample) in self.sound[begin..].iter_mut().enumerate() {
            let gain = gain(index);
            if gain < 1.0 {
                *sample = *sample * gain + self.comfort.sample() * f32::sqrt(1.0 - gain * gain);
            }
        }
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
        self.waited_ms = 0.0;
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
            Joint::FadeIn { from } => {
                self.mix_comfort(begin, |index| (from + index as f32 / FADE_IN_SAMPLES as f32).min(1.0));
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
            let loudness = loudness(block);
            self.background = (self.background * BACKGROUND_RISE).min(loudness).max(1e-6);
            if self.quiet_ms >= BACKGROUND_AFTER_MS && loudness < BACKGROUND_MAX.min(self.background * BACKGROUND_TIMES) {
                self.comfort.learn(block);
            }
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
            Correction::LengthenPauses { by_ms } => self.lengthen(by_ms, false),
            Correction::Lengthen { by_ms } => self.lengthen(by_ms, true),
        }
    }

    fn shorten(&mut self, by_ms: f64, speech_too: bool) {
        if self.rest_ms > 0.0 {
            return;
        }
        while self.unplayed() < SHORTEN_NEEDS && self.jitter.has_next() {
            self.extend(SHORTEN_NEEDS);
        }
        if self.is_made_up {
            return;
        }
        let samples_max = (by_ms * SAMPLES_PER_MS as f64) as usize;
        let ahead = self.unplayed().min(SHORTEN_NEEDS);
        let is_quiet = self.is_quiet(&self.sound[self.played..self.played + ahead]);
        let speech_rate = if by_ms > FAR_MS { SHORTEN_FAR } else { SHORTEN_SPEECH };
        let (removed, rate) = match (is_quiet, speech_too) {
            (true, _) if self.quiet_ms >= PAUSE_MS => (stretch::shorten_quiet(&mut self.sound, self.played, samples_max), SHORTEN_PAUSE),
            (true, true) => (stretch::shorten_quiet(&mut self.sound, self.played, samples_max), speech_rate),
            (false, true) => (stretch::shorten(&mut self.sound, self.played, samples_max, likeness_for(by_ms)), speech_rate),
            (_, false) => return,
        };
        self.tally.accelerated_samples += removed;
        self.rest_ms = samples_to_ms(removed) / rate;
    }

    fn lengthen(&mut self, by_ms: f64, speech_too: bool) {
        if self.rest_ms > 0.0 {
            return;
        }
        if self.unplayed() < BLOCK_SAMPLES {
            if !self.jitter.has_next() {
                return;
            }
            self.extend(BLOCK_SAMPLES);
        }
        if self.is_made_up {
            return;
        }
        let reach = PERIOD_MAX.min(self.unplayed());
        let is_quiet = self.is_quiet(&self.sound[self.played - reach..self.played + reach]);
        let samples = (by_ms * SAMPLES_PER_MS as f64).ceil() as usize;
        let added = match (is_quiet, speech_too) {
            (true, speech_too) if speech_too || self.quiet_ms >= PAUSE_MS => stretch::lengthen_quiet(&mut self.sound, self.played, samples),
            (false, true) => stretch::lengthen(&mut self.sound, self.played, likeness_for(by_ms)),
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
        let concealed = std::mem::take(&mut self.tally.reported).in_255();
        self.jitter.report(now, concealed)
    }

    /// What its jitter buffer did.
    #[must_use]
    pub fn jitter(&self) -> JitterStats {
        self.jitter.stats()
    }

    /// What it heard.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        let (jitter, tally) = (self.jitter.stats(), &self.tally);
        ReceiverStats {
            packets: jitter.packets,
            malformed: tally.malformed,
            packets_expected: jitter.packets_expected,
            packets_lost: jitter.packets_lost,
            loss_bursts: jitter.loss_bursts,
            jitter_ms: jitter.jitter_ms as f32,
            lost: jitter.lost,
            late: jitter.late,
            duplicates: jitter.duplicates,
            recovered: jitter.recovered,
            jumps: jitter.jumps,
            played_ms: tally.played_samples / SAMPLES_PER_MS as u64,
            concealed_ms: tally.concealed_ms,
            comfort_noise_ms: tally.comfort_samples / SAMPLES_PER_MS as u64,
            accelerated_ms: samples_to_ms(tally.accelerated_samples) as u64,
            expanded_ms: (samples_to_ms(tally.expanded_samples) + jitter.held_ms) as u64,
            skipped_ms: tally.skipped_ms,
            target_ms: jitter.target_ms as u64,
            delay_ms: jitter.delay_ms as u64,
            buffered_ms: (jitter.buffered_ms + samples_to_ms(self.unplayed())) as u64,
        }
    }
}

/// How alike two periods must be to stretch by as much.
fn likeness_for(by_ms: f64) -> f32 {
    if by_ms > URGENT_MS { LIKENESS_FAIR } else { LIKENESS_GOOD }
}

/// Root of the mean square.
fn loudness(sound: &[f32]) -> f32 {
    (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len().max(1) as f32).sqrt()
}
