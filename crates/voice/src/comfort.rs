//! Comfort noise: what a room sounds like while nobody can be heard.
//!
//! Digital silence is heard as a dead line. While the other side pauses, the spectrum of its background is learned as the
//! coefficients of a linear predictor; white noise through the predictor's inverse sounds like the same room (RFC 3389's
//! idea, at the receiver).

use crate::SAMPLES_PER_MS;

/// Coefficients of the predictor: enough for the slope of a room's noise and the edge of wideband speech.
const ORDER: usize = 16;

/// The part of each new block in what is learned, once there were as many: half a second of pauses.
const LEARN_BLOCKS: u32 = 50;

/// Added to the autocorrelation at lag zero, as a part of it: −40 dB of white noise keep the predictor stable.
const WHITE: f64 = 1e-4;

/// Softer than this nothing is learned from or made: −100 dB of full scale, below one step of 16 bits.
const POWER_MIN: f64 = 1e-10;

/// Learns a background and makes more of it.
#[derive(Debug)]
pub(crate) struct ComfortNoise {
    autocorrelation: [f64; ORDER + 1],
    learned: u32,
    predictor: [f32; ORDER],
    gain: f32,
    is_stale: bool,
    /// What was made last, newest first.
    made: [f32; ORDER],
    random: u32,
}

impl ComfortNoise {
    pub(crate) fn new() -> Self {
        Self {
            autocorrelation: [0.0; ORDER + 1],
            learned: 0,
            predictor: [0.0; ORDER],
            gain: 0.0,
            is_stale: false,
            made: [0.0; ORDER],
            random: 0x9e37_79b9,
        }
    }

    /// Learns from sound in which nobody speaks.
    pub(crate) fn learn(&mut self, sound: &[f32]) {
        if sound.len() < 10 * SAMPLES_PER_MS {
            return;
        }
        self.learned = (self.learned + 1).min(LEARN_BLOCKS);
        let part = 1.0 / f64::from(self.learned);
        for (lag, learned) in self.autocorrelation.iter_mut().enumerate() {
            let product: f32 = sound.iter().zip(&sound[lag..]).map(|(one, other)| one * other).sum();
            *learned += (f64::from(product) / sound.len() as f64 - *learned) * part;
        }
        self.is_stale = true;
    }

    /// The next sample of background.
    pub(crate) fn sample(&mut self) -> f32 {
        if self.is_stale {
            self.predict();
        }
        if self.gain == 0.0 {
            return 0.0;
        }
        let predicted: f32 = self.predictor.iter().zip(&self.made).map(|(weight, made)| weight * made).sum();
        let sample = (predicted + self.white() * self.gain).clamp(-1.0, 1.0);
        self.made.copy_within(..ORDER - 1, 1);
        self.made[0] = sample;
        sample
    }

    /// Of variance one, evenly spread.
    fn white(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        (self.random as f32 / u32::MAX as f32 - 0.5) * f32::sqrt(12.0)
    }

    /// Levinson and Durbin's recursion.
    fn predict(&mut self) {
        self.is_stale = false;
        let r = &self.autocorrelation;
        let mut error = r[0] * (1.0 + WHITE);
        if error < POWER_MIN {
            self.gain = 0.0;
            return;
        }
        let mut weights = [0.0_f64; ORDER];
        for order in 0..ORDER {
            let predicted: f64 = (0..order).map(|index| weights[index] * r[order - index]).sum();
            let reflection = ((r[order + 1] - predicted) / error).clamp(-0.999, 0.999);
            let before = weights;
            for index in 0..order {
                weights[index] -= reflection * before[order - 1 - index];
            }
            weights[order] = reflection;
            error *= 1.0 - reflection * reflection;
        }
        self.predictor = weights.map(|weight| weight as f32);
        self.gain = error.sqrt() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loudness(sound: &[f32]) -> f32 {
        (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len() as f32).sqrt()
    }

    /// Noise through a low-pass of one pole.
    fn room(samples: usize, amplitude: f32) -> Vec<f32> {
        let (mut state, mut low) = (7_u32, 0.0);
        let mut white = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        };
        (0..samples)
            .map(|_| {
                low += (white() - low) * 0.1;
                low * amplitude
            })
            .collect()
    }

    fn after(sound: &[f32]) -> Vec<f32> {
        let mut noise = ComfortNoise::new();
        sound.chunks(480).for_each(|block| noise.learn(block));
        (0..9_600).map(|_| noise.sample()).collect()
    }

    #[test]
    fn it_is_as_loud_as_the_room_and_has_its_colour() {
        for amplitude in [0.5, 0.02] {
            let heard = room(48_000, amplitude);
            let made = after(&heard);
            let level = 20.0 * (loudness(&made) / loudness(&heard)).log10();
            assert!(level.abs() < 1.5, "{level} dB");
            let roughness = |sound: &[f32]| {
                let steps: Vec<f32> = sound.windows(2).map(|pair| pair[1] - pair[0]).collect();
                20.0 * (loudness(&steps) / loudness(sound)).log10()
            };
            assert!((roughness(&made) - roughness(&heard)).abs() < 1.5);
        }
    }

    #[test]
    fn a_silent_room_and_one_that_was_never_heard_stay_silent() {
        assert!(after(&[]).iter().all(|sample| *sample == 0.0));
        assert!(after(&[0.0; 4_800]).iter().all(|sample| *sample == 0.0));
    }

    #[test]
    fn no_sound_makes_it_run_away() {
        let hum: Vec<f32> = (0..48_000).map(|index| (index as f32 * 0.01).sin()).collect();
        let level = loudness(&after(&hum));
        assert!((0.1..=1.0).contains(&level), "{level}");
    }
}
