//! What a microphone records next to a loudspeaker: echo, near-end speech and noise.

use super::room::Room;
use crate::{Apm, BLOCK_SAMPLES, Block, SAMPLE_RATE};
use realfft::RealFftPlanner;

/// A loudspeaker and a microphone in a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The room.
    pub room: Room,
    /// From handing sound to the playback to capturing its echo: queues and the sound card, without the air.
    pub delay_ms: f64,
    /// The energy of the echo above that of the loudspeaker's signal; `None` for a headset.
    pub echo_db: Option<f64>,
    /// The noise of the room at the microphone.
    pub noise_dbfs: f64,
    /// Whether the loudspeaker is small and loud: it bends the signal (tanh).
    pub is_distorting: bool,
    /// By how many millionths the microphone's clock is faster than the loudspeaker's.
    pub drift_ppm: f64,
    /// A change of the delay.
    pub jump: Option<DelayJump>,
}

/// A moment at which a queue becomes longer or shorter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelayJump {
    /// When.
    pub at_s: f64,
    /// The delay from then on.
    pub delay_ms: f64,
}

/// A scene's signals, equally long and aligned.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// What the loudspeaker was given.
    pub far: Vec<f32>,
    /// What the microphone heard.
    pub microphone: Vec<f32>,
    /// The delay of each block.
    delays_ms: Vec<u32>,
}

/// What the chain is told of the delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The truth, as a client knows it from its queues.
    Queues,
    /// Always the same number.
    Fixed(u32),
}

impl Scene {
    /// A desk: 60 ms, an echo of -6 dB, -65 dBFS of noise.
    #[must_use]
    pub fn desk(t60_s: f64, seed: u64) -> Self {
        Self {
            room: Room { t60_s, seed },
            delay_ms: 60.0,
            echo_db: Some(-6.0),
            noise_dbfs: -65.0,
            is_distorting: false,
            drift_ppm: 0.0,
            jump: None,
        }
    }

    /// Plays the far end and lets the near end, which may be shorter, talk.
    #[must_use]
    pub fn record(&self, far: &[f32], near: &[f32]) -> Recording {
        let mut microphone = self.echo(far);
        microphone.iter_mut().zip(near).for_each(|(sample, near)| *sample += near);
        let mut noise = Noise::new(self.room.seed ^ 0x5eed);
        // Uniform noise between -1 and 1 has a power of a third.
        let amplitude = (10f64.powf(self.noise_dbfs / 20.0) * 3f64.sqrt()) as f32;
        microphone.iter_mut().for_each(|sample| *sample += amplitude * noise.uniform() as f32);
        let delays_ms = (0..far.len().div_ceil(BLOCK_SAMPLES)).map(|block| self.delay_ms_at(block * BLOCK_SAMPLES) as u32).collect();
        Recording { far: far.to_vec(), microphone, delays_ms }
    }

    fn delay_ms_at(&self, sample: usize) -> f64 {
        self.jump.filter(|jump| sample as f64 >= jump.at_s * f64::from(SAMPLE_RATE)).map_or(self.delay_ms, |jump| jump.delay_ms)
    }

    fn echo(&self, far: &[f32]) -> Vec<f32> {
        let Some(echo_db) = self.echo_db else { return vec![0.0; far.len()] };
        let played: Vec<f32> =
            if self.is_distorting { far.iter().map(|sample| (3.0 * sample).tanh() / 3.0).collect() } else { far.to_vec() };
        let gain = 10f64.powf(echo_db / 20.0) as f32;
        let echo = convolve(&drift(&played, self.drift_ppm), &self.room.impulse_response());
        (0..far.len())
            .map(|i| {
                let delay = (self.delay_ms_at(i) / 1_000.0 * f64::from(SAMPLE_RATE)) as usize;
                i.checked_sub(delay).map_or(0.0, |from| gain * echo[from])
            })
            .collect()
    }
}

impl Recording {
    /// Runs the recording through a chain, and returns what would be sent.
    pub fn process(&self, apm: &mut Apm, hint: Hint) -> Vec<f32> {
        self.process_with(apm, hint, |_, _| {})
    }

    /// The same, with something done before each block: `(chain, index of the block)`.
    pub fn process_with(&self, apm: &mut Apm, hint: Hint, mut before: impl FnMut(&mut Apm, usize)) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.far.len());
        let blocks = self.far.chunks_exact(BLOCK_SAMPLES).zip(self.microphone.chunks_exact(BLOCK_SAMPLES));
        for (i, (far, microphone)) in blocks.enumerate() {
            before(apm, i);
            let far: &Block = far.try_into().expect("chunks have the length of a block");
            let mut block: Block = microphone.try_into().expect("chunks have the length of a block");
            let delay_ms = match hint {
                Hint::Queues => self.delays_ms[i],
                Hint::Fixed(delay_ms) => delay_ms,
            };
            apm.render(far);
            apm.capture(&mut block, delay_ms);
            out.extend_from_slice(&block);
        }
        out
    }

    /// How much less energy `out` has than the microphone, in decibels, over some seconds.
    #[must_use]
    pub fn erle_db(&self, out: &[f32], from_s: f64, to_s: f64) -> f64 {
        let range = |samples: &[f32]| {
            let at = |time_s: f64| ((time_s * f64::from(SAMPLE_RATE)) as usize).min(samples.len());
            samples[at(from_s)..at(to_s)].iter().map(|sample| f64::from(sample * sample)).sum::<f64>()
        };
        10.0 * (range(&self.microphone) / range(out).max(1e-12)).log10()
    }
}

/// Plays a signal with a clock that is a little slow.
fn drift(signal: &[f32], ppm: f64) -> Vec<f32> {
    const HALF: isize = 16;
    if ppm == 0.0 {
        return signal.to_vec();
    }
    (0..signal.len())
        .map(|i| {
            let at = i as f64 * (1.0 + ppm * 1e-6);
            let centre = at.floor() as isize;
            let weight = |k: isize| {
                let x = std::f64::consts::PI * (at - k as f64);
                let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
                sinc * (0.5 + 0.5 * (x / HALF as f64).cos())
            };
            (centre - HALF + 1..=centre + HALF)
                .filter_map(|k| Some(f64::from(*signal.get(usize::try_from(k).ok()?)?) * weight(k)))
                .sum::<f64>() as f32
        })
        .collect()
}

/// The beginning of the convolution, as long as the signal.
fn convolve(signal: &[f32], response: &[f32]) -> Vec<f32> {
    let points = (signal.len() + response.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(points), planner.plan_fft_inverse(points));
    let spectrum = |samples: &[f32]| {
        let mut time = forward.make_input_vec();
        time[..samples.len()].copy_from_slice(samples);
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut time, &mut spectrum).expect("the buffers were made for this transform");
        spectrum
    };
    let mut product: Vec<_> = spectrum(signal).iter().zip(spectrum(response)).map(|(a, b)| a * b).collect();
    let mut time = inverse.make_output_vec();
    inverse.process(&mut product, &mut time).expect("the buffers were made for this transform");
    time.truncate(signal.len());
    time.iter_mut().for_each(|sample| *sample /= points as f32);
    time
}

/// Numbers that look random, from a seed (SplitMix64).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number between -1 and 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}
