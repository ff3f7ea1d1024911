//! A filter with given gains per frequency that delays as little as any such filter can.
//!
//! The usual way to apply gains is to multiply a spectrum and overlap the windows, which costs a window's worth of delay. Here the gains
//! become the impulse response of the minimum-phase filter that has them (by way of the cepstrum), and the signal is
//! convolved with it: the response begins with its largest sample, so nothing waits. The convolution multiplies the spectra of the response
//! and of the block with the one before it (overlap-save), which gives the same samples as sums of products, in a third of the time.

use crate::{BLOCK_SAMPLES, Block};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Points of the transforms that make a response of gains: 10 ms, 100 Hz between gains.
const RESPONSE_POINTS: usize = BLOCK_SAMPLES;

/// Gains from 0 to 24 kHz.
pub(crate) const GAINS: usize = RESPONSE_POINTS / 2 + 1;

/// Points of the transforms that convolve: a block, and as much of the past.
const POINTS: usize = 2 * BLOCK_SAMPLES;

/// Samples of the impulse response. It has 150 Hz of resolution, which lies between a formant and a harmonic.
const TAPS: usize = 320;

/// Taps at the end over which the response is faded out.
const FADED_TAPS: usize = 128;

/// Logarithms of gains under this are not filtered with: 0.01 dB.
const UNITY: f32 = 1e-3;

/// The filter: gains in, signal through.
pub(crate) struct MinimumPhaseFilter {
    to_response: Transform,
    convolution: Transform,
    /// Before and after the last change.
    before: Response,
    after: Response,
    /// The block before, and the block.
    signal: [f32; POINTS],
    spectrum: Vec<Complex<f32>>,
}

/// What the signal is convolved with.
struct Response {
    is_unity: bool,
    spectrum: Vec<Complex<f32>>,
}

impl MinimumPhaseFilter {
    /// A filter that lets everything pass.
    pub(crate) fn new() -> Self {
        let convolution = Transform::new(POINTS);
        let spectrum = convolution.spectrum.clone();
        Self {
            to_response: Transform::new(RESPONSE_POINTS),
            before: Response { is_unity: true, spectrum: spectrum.clone() },
            after: Response { is_unity: true, spectrum: spectrum.clone() },
            signal: [0.0; POINTS],
            spectrum,
            convolution,
        }
    }

    /// The natural logarithms of the filter's gains, from the next block on.
    pub(crate) fn set_log_gains(&mut self, log_gains: &[f32; GAINS]) {
        self.after.is_unity = log_gains.iter().all(|gain| gain.abs() < UNITY);
        if self.after.is_unity {
            return;
        }
        self.make_response(log_gains);
        self.convolution.time.fill(0.0);
        self.convolution.time[..TAPS].copy_from_slice(&self.to_response.time[..TAPS]);
        self.convolution.forward();
        self.after.spectrum.copy_from_slice(&self.convolution.spectrum);
    }

    fn make_response(&mut self, log_gains: &[f32; GAINS]) {
        let transform = &mut self.to_response;
        for (bin, gain) in transform.spectrum.iter_mut().zip(log_gains) {
            *bin = Complex::new(*gain, 0.0);
        }
        transform.inverse();
        // The cepstrum of the minimum-phase filter is the real cepstrum with its second half folded onto the first.
        for sample in &mut transform.time[1..RESPONSE_POINTS / 2] {
            *sample *= 2.0;
        }
        transform.time[RESPONSE_POINTS / 2 + 1..].fill(0.0);
        transform.forward();
        for bin in &mut transform.spectrum {
            *bin = Complex::from_polar(bin.re.exp(), bin.im);
        }
        transform.inverse();
        for (i, tap) in transform.time[..TAPS].iter_mut().rev().take(FADED_TAPS).enumerate() {
            let phase = std::f32::consts::PI * (i as f32 + 0.5) / FADED_TAPS as f32;
            *tap *= 0.5 - 0.5 * phase.cos();
        }
    }

    /// Filters a block; from the old gains to the new ones it goes gradually, over the first half of the block.
    pub(crate) fn process(&mut self, block: &mut Block) {
        const FADE: usize = BLOCK_SAMPLES / 2;
        self.signal.copy_within(BLOCK_SAMPLES.., 0);
        self.signal[BLOCK_SAMPLES..].copy_from_slice(block);
        if self.before.is_unity && self.after.is_unity {
            return;
        }
        self.convolution.time.copy_from_slice(&self.signal);
        self.convolution.forward();
        self.spectrum.copy_from_slice(&self.convolution.spectrum);
        self.convolve(Side::Before);
        let mut old = [0.0; FADE];
        old.copy_from_slice(&self.convolution.time[BLOCK_SAMPLES..][..FADE]);
        self.convolve(Side::After);
        block.copy_from_slice(&self.convolution.time[BLOCK_SAMPLES..]);
        for (i, (sample, old)) in block.iter_mut().zip(&old).enumerate() {
            *sample = old + (*sample - old) * (i as f32 + 0.5) / FADE as f32;
        }
        std::mem::swap(&mut self.before, &mut self.after);
    }

    /// Leaves the signal's convolution with a response where the transform has its time; its second half is without wrap-around.
    fn convolve(&mut self, side: Side) {
        let response = match side {
            Side::Before => &self.before,
            Side::After => &self.after,
        };
        if response.is_unity {
            self.convolution.time.copy_from_slice(&self.signal);
            return;
        }
        for ((bin, signal), response) in self.convolution.spectrum.iter_mut().zip(&self.spectrum).zip(&response.spectrum) {
            *bin = signal * response;
        }
        self.convolution.inverse();
    }
}

/// Which response.
enum Side {
    Before,
    After,
}

/// A transform in both directions, with its buffers.
struct Transform {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    time: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
}

impl Transform {
    fn new(points: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(points), planner.plan_fft_inverse(points));
        Self {
            time: forward.make_input_vec(),
            spectrum: forward.make_output_vec(),
            scratch: vec![Complex::default(); forward.get_scratch_len().max(inverse.get_scratch_len())],
            forward,
            inverse,
        }
    }

    fn forward(&mut self) {
        let done = self.forward.process_with_scratch(&mut self.time, &mut self.spectrum, &mut self.scratch);
        done.expect("the buffers were made for this transform");
    }

    /// The inverse, scaled so that it undoes the forward one.
    fn inverse(&mut self) {
        // A real signal has no imaginary part at either end of its spectrum; rounding may leave one.
        let last = self.spectrum.len() - 1;
        self.spectrum[0].im = 0.0;
        self.spectrum[last].im = 0.0;
        let done = self.inverse.process_with_scratch(&mut self.spectrum, &mut self.time, &mut self.scratch);
        done.expect("the buffers were made for this transform");
        let scale = 1.0 / self.time.len() as f32;
        self.time.iter_mut().for_each(|sample| *sample *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(log_gains: &[f32; GAINS]) -> Block {
        let mut filter = MinimumPhaseFilter::new();
        let mut block = [0.0; BLOCK_SAMPLES];
        for at in [None, Some(0)] {
            filter.set_log_gains(log_gains);
            block = [0.0; BLOCK_SAMPLES];
            at.into_iter().for_each(|at: usize| block[at] = 1.0);
            filter.process(&mut block);
        }
        block
    }

    #[test]
    fn equal_gains_scale_and_do_not_delay() {
        let response = response(&[0.25f32.ln(); GAINS]);
        assert!((response[0] - 0.25).abs() < 1e-4);
        assert!(response[1..].iter().all(|tap| tap.abs() < 1e-4));
    }

    #[test]
    fn gains_of_one_leave_every_sample_as_it_is() {
        let response = response(&[0.0; GAINS]);
        assert_eq!(response[0], 1.0);
        assert!(response[1..].iter().all(|tap| *tap == 0.0));
    }

    #[test]
    fn what_was_said_in_a_block_echoes_into_the_next_as_in_one_long_convolution() {
        let mut log_gains = [0.0; GAINS];
        log_gains[40..].fill(-2.0);
        let whole = response(&log_gains);
        let mut filter = MinimumPhaseFilter::new();
        let mut out = Vec::new();
        for i in 0..3 {
            filter.set_log_gains(&log_gains);
            let mut block = [0.0; BLOCK_SAMPLES];
            if i == 1 {
                block[BLOCK_SAMPLES - 100] = 1.0;
            }
            filter.process(&mut block);
            out.extend_from_slice(&block);
        }
        let late = &out[2 * BLOCK_SAMPLES - 100..];
        assert!(late.iter().zip(&whole[..TAPS]).all(|(late, tap)| (late - tap).abs() < 1e-4));
    }

    #[test]
    fn the_gains_are_those_asked_for_and_the_response_begins_with_its_peak() {
        let mut log_gains = [0.0; GAINS];
        log_gains[50..].fill(0.1f32.ln());
        let response = response(&log_gains);
        let peak = response.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).map(|(i, _)| i).unwrap();
        assert!(peak < 12, "{peak}");
        let gain_at = |hertz: f32| {
            let turn = |i: usize| std::f32::consts::TAU * hertz * i as f32 / crate::SAMPLE_RATE as f32;
            let re: f32 = response.iter().enumerate().map(|(i, tap)| tap * turn(i).cos()).sum();
            let im: f32 = response.iter().enumerate().map(|(i, tap)| tap * turn(i).sin()).sum();
            re.hypot(im)
        };
        assert!((gain_at(2_000.0) - 1.0).abs() < 0.05);
        assert!((gain_at(9_000.0) - 0.1).abs() < 0.02);
    }
}
