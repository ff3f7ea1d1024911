//! The noise suppressor: quietens what is steady, and adds no delay.
//!
//! For each frequency it follows the power of the noise (by the probability that speech is present: Gerkmann and Hendriks, 2012), estimates
//! how much speech there is above it (decision-directed: Ephraim and Malah, 1984), and takes the Wiener gain, mixed with a floor where there is
//! no speech. A [`MinimumPhaseFilter`] applies the gains. Noise that nobody hears is left alone: taking it away could only harm the speech.

use crate::apm::{NoiseLevel, crossfade};
use crate::level::power_to_dbfs;
use crate::minimum_phase::{GAINS, MinimumPhaseFilter};
use crate::{BLOCK_SAMPLES, Block};
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Points of the analysis: 20 ms, 50 Hz between frequencies.
const POINTS: usize = 2 * BLOCK_SAMPLES;

/// Frequencies from 0 to 24 kHz.
const FREQUENCIES: usize = POINTS / 2 + 1;

/// Samples at the end of the analysis window over which it falls. Most of the window's weight is on what is about to be
/// filtered: with an even window the beginning of a word would meet the gains of the silence before it.
const FALL: usize = 160;

/// How much louder than noise speech is taken to be where it is present: 15 dB.
const SPEECH_TO_NOISE: f32 = 31.6;

/// The weight of the past in the noise, a block: about 70 ms.
const NOISE_MEMORY: f32 = 0.87;

/// The weight of the past in the probability of speech that finds a stuck estimate.
const PROBABILITY_MEMORY: f32 = 0.95;

/// The weight of the past in the ratio of speech to noise. Less, and the rest of the noise warbles; more, and words begin dull.
const RATIO_MEMORY: f32 = 0.95;

/// The power under which nothing is noise: digital silence, -110 dBFS in a bin.
const POWER_MIN: f32 = 1e-9;

/// Noise of this level is a quiet room at a good microphone, and suppressed in full.
const AUDIBLE_DBFS: f32 = -65.0;

/// Noise of this level is left alone; in between it is suppressed in part.
const INAUDIBLE_DBFS: f32 = -80.0;

/// The weight of the past in the level of the noise, a block: a second.
const LEVEL_MEMORY: f32 = 0.99;

/// The state per frequency.
struct Suppressor {
    transform: Arc<dyn RealToComplex<f32>>,
    window: [f32; POINTS],
    signal: [f32; POINTS],
    windowed: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    noise: [f32; FREQUENCIES],
    probability: [f32; FREQUENCIES],
    /// The power of what was taken for speech in the block before.
    speech: [f32; FREQUENCIES],
    gains: [f32; FREQUENCIES],
    /// What a power of 1 at every frequency is as a mean square of samples.
    mean_square: f32,
    noise_power: f32,
    has_started: bool,
    floor: f32,
    filter: MinimumPhaseFilter,
}

impl Suppressor {
    fn new(floor: f32) -> Self {
        let transform = RealFftPlanner::new().plan_fft_forward(POINTS);
        Self {
            window: window(),
            signal: [0.0; POINTS],
            windowed: transform.make_input_vec(),
            spectrum: transform.make_output_vec(),
            scratch: transform.make_scratch_vec(),
            transform,
            noise: [POWER_MIN; FREQUENCIES],
            probability: [0.5; FREQUENCIES],
            speech: [0.0; FREQUENCIES],
            gains: [1.0; FREQUENCIES],
            mean_square: 2.0 / (POINTS as f32 * window().iter().map(|weight| weight * weight).sum::<f32>()),
            noise_power: 0.0,
            has_started: false,
            floor,
            filter: MinimumPhaseFilter::new(),
        }
    }

    fn process(&mut self, block: &mut Block) {
        self.signal.copy_within(BLOCK_SAMPLES.., 0);
        self.signal[POINTS - BLOCK_SAMPLES..].copy_from_slice(block);
        for ((windowed, sample), weight) in self.windowed.iter_mut().zip(&self.signal).zip(&self.window) {
            *windowed = sample * weight;
        }
        let done = self.transform.process_with_scratch(&mut self.windowed, &mut self.spectrum, &mut self.scratch);
        done.expect("the buffers were made for this transform");
        self.update_gains();
        self.filter.set_log_gains(&self.smoothed());
        self.filter.process(block);
    }

    fn update_gains(&mut self) {
        let floor_log = self.floor.ln();
        if !self.has_started && self.spectrum.iter().any(|bin| bin.norm_sqr() > POWER_MIN) {
            self.has_started = true;
            for (noise, bin) in self.noise.iter_mut().zip(&self.spectrum) {
                *noise = bin.norm_sqr().max(POWER_MIN);
            }
            self.noise_power = self.noise.iter().sum();
        }
        for k in 0..FREQUENCIES {
            let power = self.spectrum[k].norm_sqr();
            let is_speech = self.update_noise(k, power);
            let noise = self.noise[k];
            let ratio = RATIO_MEMORY * self.speech[k] / noise + (1.0 - RATIO_MEMORY) * (power / noise - 1.0).max(0.0);
            let wiener = (ratio / (1.0 + ratio)).max(self.floor);
            self.speech[k] = wiener * wiener * power;
            self.gains[k] = (is_speech * wiener.ln() + (1.0 - is_speech) * floor_log).exp();
        }
        self.noise_power = LEVEL_MEMORY * self.noise_power + (1.0 - LEVEL_MEMORY) * self.noise.iter().sum::<f32>();
    }

    /// The logarithms of the gains to filter with: of the mean of neighbours, since single frequencies that stick out are heard as tones,
    /// as far as there is noise that is heard.
    fn smoothed(&self) -> [f32; GAINS] {
        let noise_dbfs = power_to_dbfs(self.noise_power * self.mean_square);
        let share = ((noise_dbfs - INAUDIBLE_DBFS) / (AUDIBLE_DBFS - INAUDIBLE_DBFS)).clamp(0.0, 1.0);
        if share == 0.0 {
            return [0.0; GAINS];
        }
        let at = |k: usize| self.gains[k.min(FREQUENCIES - 1)];
        std::array::from_fn(|i| share * (0.25 * at((2 * i).saturating_sub(1)) + 0.5 * at(2 * i) + 0.25 * at(2 * i + 1)).ln())
    }

    /// Follows the noise at one frequency, and returns the probability that there is speech.
    fn update_noise(&mut self, k: usize, power: f32) -> f32 {
        let excess = power / self.noise[k];
        let mut is_speech = 1.0 / (1.0 + (1.0 + SPEECH_TO_NOISE) * (-excess * SPEECH_TO_NOISE / (1.0 + SPEECH_TO_NOISE)).exp());
        self.probability[k] = PROBABILITY_MEMORY * self.probability[k] + (1.0 - PROBABILITY_MEMORY) * is_speech;
        // What seems to be speech for ever is noise that has become louder.
        if self.probability[k] > 0.99 {
            is_speech = is_speech.min(0.99);
        }
        let noise = is_speech * self.noise[k] + (1.0 - is_speech) * power;
        self.noise[k] = (NOISE_MEMORY * self.noise[k] + (1.0 - NOISE_MEMORY) * noise).max(POWER_MIN);
        is_speech
    }
}

fn window() -> [f32; POINTS] {
    let rise = POINTS - FALL;
    std::array::from_fn(|i| {
        let phase = if i < rise { (i as f32 + 0.5) / rise as f32 } else { (POINTS as f32 - i as f32 - 0.5) / FALL as f32 };
        (0.5 * std::f32::consts::PI * phase).sin()
    })
}

/// The suppressor in the chain.
pub(crate) struct NoiseStage {
    level: NoiseLevel,
    suppressor: Option<Box<Suppressor>>,
    faded: Block,
}

impl NoiseStage {
    pub(crate) fn new(level: NoiseLevel) -> Self {
        let mut stage = Self { level: NoiseLevel::Off, suppressor: None, faded: [0.0; BLOCK_SAMPLES] };
        stage.set(level);
        stage
    }

    /// Changes the level; from on to off and back it fades.
    pub(crate) fn set(&mut self, level: NoiseLevel) {
        self.level = level;
        let Some(floor) = level.floor() else { return };
        match &mut self.suppressor {
            Some(suppressor) => suppressor.floor = floor,
            None => self.suppressor = Some(Box::new(Suppressor::new(floor))),
        }
    }

    pub(crate) fn process(&mut self, block: &mut Block) {
        let Some(suppressor) = &mut self.suppressor else { return };
        self.faded = *block;
        suppressor.process(block);
        if self.level == NoiseLevel::Off {
            crossfade(block, &self.faded);
            self.suppressor = None;
        }
    }
}
