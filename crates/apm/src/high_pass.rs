//! The high-pass filter: takes away direct current and rumble, which carry no speech and cost the canceller and the codec precision.
//! One biquad, that is a second-order Butterworth filter: steeper ones bend the phase of deep voices, which is heard.

use crate::{Block, SAMPLE_RATE};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Where the filter is down by 3 dB, in hertz: under the lowest voices.
const CUT_OFF_HZ: f64 = 60.0;

/// The filter with its memory: a second-order section in transposed direct form II. In double precision: at 60 Hz of 48 kHz the poles are
/// so close to 1 that single precision is heard as noise.
pub(crate) struct HighPass {
    b: [f64; 3],
    a: [f64; 2],
    memory: [f64; 2],
}

impl HighPass {
    pub(crate) fn new() -> Self {
        let (sin, cos) = (2.0 * PI * CUT_OFF_HZ / f64::from(SAMPLE_RATE)).sin_cos();
        // The quality factor of a Butterworth filter's only section is that of half the power at the cut-off.
        let alpha = sin / (2.0 * FRAC_1_SQRT_2);
        let scale = 1.0 / (1.0 + alpha);
        let edge = 0.5 * (1.0 + cos) * scale;
        Self { b: [edge, -2.0 * edge, edge], a: [-2.0 * cos * scale, (1.0 - alpha) * scale], memory: [0.0; 2] }
    }

    pub(crate) fn process(&mut self, block: &mut Block) {
        for sample in block {
            *sample = self.step(f64::from(*sample)) as f32;
        }
    }

    fn step(&mut self, input: f64) -> f64 {
        let output = self.b[0] * input + self.memory[0];
        self.memory[0] = self.b[1] * input - self.a[0] * output + self.memory[1];
        self.memory[1] = self.b[2] * input - self.a[1] * output;
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_SAMPLES;
    use crate::level::dbfs;

    fn gain_db(hertz: f32) -> f32 {
        let mut filter = HighPass::new();
        let mut block = [0.0; BLOCK_SAMPLES];
        let mut levels = (0.0, 0.0);
        for i in 0..100 {
            for (k, sample) in block.iter_mut().enumerate() {
                *sample = 0.5 * (std::f32::consts::TAU * hertz * (i * BLOCK_SAMPLES + k) as f32 / SAMPLE_RATE as f32).sin();
            }
            levels.0 = dbfs(&block);
            filter.process(&mut block);
            levels.1 = dbfs(&block);
        }
        levels.1 - levels.0
    }

    #[test]
    fn speech_passes_and_rumble_does_not() {
        assert!(gain_db(100.0).abs() < 0.6);
        assert!(gain_db(200.0).abs() < 0.1);
        assert!(gain_db(1_000.0).abs() < 0.05);
        assert!(gain_db(20.0) < -14.0);
    }
}
