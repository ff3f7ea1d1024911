//! A filter with given gains per frequency that delays as little as any such filter can.
//!
//! The usual way to apply gains is to multiply a spectrum and overlap the windows, which costs a window's worth of delay. Here the gains
//! become the impulse response of the minimum-phase filter that has them (by way of the cepstrum), and the signal is
//! convolved with it as it comes: the response begins with its largest sample, so nothing waits.

use crate::{BLOCK_SAMPLES, Block};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Points of the transforms: 20 ms, 50 Hz between frequencies.
pub(crate) const POINTS: usize = 2 * BLOCK_SAMPLES;

/// Frequencies from 0 to 24 kHz.
pub(crate) const FREQUENCIES: usize = POINTS / 2 + 1;

/// Samples of the impulse response. It has 150 Hz of resolution, which lies between a formant and a harmonic.
const TAPS: usize = 320;

/// Taps at the end over which the response is faded out.
const FADED_TAPS: usize = 128;

/// The filter: gains in, signal through.
pub(crate) struct MinimumPhaseFilter {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    time: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// The responses before and after the last change, backwards.
    before: [f32; TAPS],
    after: [f32; TAPS],
    /// The last samples of the block before, and the block.
    signal: [f32; TAPS - 1 + BLOCK_SAMPLES],
}

impl MinimumPhaseFilter {
    /// A filter that lets everything pass.
    pub(crate) fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(POINTS), planner.plan_fft_inverse(POINTS));
        let mut unity = [0.0; TAPS];
        unity[TAPS - 1] = 1.0;
        Self {
            time: forward.make_input_vec(),
            spectrum: forward.make_output_vec(),
            scratch: vec![Complex::default(); forward.get_scratch_len().max(inverse.get_scratch_len())],
            forward,
            inverse,
            before: unity,
            after: unity,
            signal: [0.0; TAPS - 1 + BLOCK_SAMPLES],
        }
    }

    /// The filter's gains from the next block on. They must be above zero.
    pub(crate) fn set_gains(&mut self, gains: &[f32; FREQUENCIES]) {
        for (bin, gain) in self.spectrum.iter_mut().zip(gains) {
            *bin = Complex::new(gain.ln(), 0.0);
        }
        self.inverse();
        // The cepstrum of the minimum-phase filter is the real cepstrum with its second half folded onto the first.
        for sample in &mut self.time[1..POINTS / 2] {
            *sample *= 2.0;
        }
        self.time[POINTS / 2 + 1..].fill(0.0);
        self.forward();
        for bin in &mut self.spectrum {
            *bin = Complex::from_polar(bin.re.exp(), bin.im);
        }
        self.inverse();
        for (tap, sample) in self.after.iter_mut().rev().zip(&self.time) {
            *tap = *sample;
        }
        for (i, tap) in self.after[..FADED_TAPS].iter_mut().enumerate() {
            let phase = std::f32::consts::PI * (i as f32 + 0.5) / FADED_TAPS as f32;
            *tap *= 0.5 - 0.5 * phase.cos();
        }
    }

    /// Filters a block; from the old gains to the new ones it goes gradually, over the first half of the block.
    pub(crate) fn process(&mut self, block: &mut Block) {
        const FADE: usize = BLOCK_SAMPLES / 2;
        self.signal.copy_within(BLOCK_SAMPLES.., 0);
        self.signal[TAPS - 1..].copy_from_slice(block);
        for (i, sample) in block.iter_mut().enumerate() {
            let signal = &self.signal[i..i + TAPS];
            *sample = dot(signal, &self.after);
            if i < FADE {
                let old = dot(signal, &self.before);
                *sample = old + (*sample - old) * (i as f32 + 0.5) / FADE as f32;
            }
        }
        self.before = self.after;
    }

    fn forward(&mut self) {
        let done = self.forward.process_with_scratch(&mut self.time, &mut self.spectrum, &mut self.scratch[..]);
        done.expect("the buffers were made for this transform");
    }

    fn inverse(&mut self) {
        // A real signal has no imaginary part at either end of its spectrum; the logarithm of rounding may leave one.
        self.spectrum[0].im = 0.0;
        self.spectrum[FREQUENCIES - 1].im = 0.0;
        let done = self.inverse.process_with_scratch(&mut self.spectrum, &mut self.time, &mut self.scratch[..]);
        done.expect("the buffers were made for this transform");
        self.time.iter_mut().for_each(|sample| *sample /= POINTS as f32);
    }
}

/// The sum of products, in eight lanes so that the compiler can use wide registers.
fn dot(a: &[f32], b: &[f32; TAPS]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(gains: &[f32; FREQUENCIES]) -> Block {
        let mut filter = MinimumPhaseFilter::new();
        filter.set_gains(gains);
        filter.process(&mut [0.0; BLOCK_SAMPLES]);
        let mut block = [0.0; BLOCK_SAMPLES];
        block[0] = 1.0;
        filter.process(&mut block);
        block
    }

    #[test]
    fn equal_gains_scale_and_do_not_delay() {
        let response = response(&[0.25; FREQUENCIES]);
        assert!((response[0] - 0.25).abs() < 1e-4);
        assert!(response[1..].iter().all(|tap| tap.abs() < 1e-4));
    }

    #[test]
    fn the_gains_are_those_asked_for_and_the_response_begins_with_its_peak() {
        let mut gains = [1.0; FREQUENCIES];
        gains[100..].fill(0.1);
        let response = response(&gains);
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
