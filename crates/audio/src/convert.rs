//! From one sample rate to another, in a stream and for a whole file.

use std::collections::VecDeque;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, ResampleResult, Resampler, ResamplerConstructionError};

/// Samples that the resampler of a stream takes at once, roughly: 5 ms, which it adds to the delay.
const STREAM_CHUNK: usize = 240;

/// The same for a whole file, where delay is no matter.
const FILE_CHUNK: usize = 4096;

/// Converted samples that wait to be taken, at most: 400 ms at the highest rate. Beyond that the oldest are dropped.
const WAITING_MAX: usize = 400 * 192;

/// Converts a stream of mono sound.
pub(crate) struct Converter {
    /// None where nothing is to be converted.
    resampler: Option<Fft<f32>>,
    pending: Vec<f32>,
    scratch: Vec<f32>,
    converted: VecDeque<f32>,
}

impl std::fmt::Debug for Converter {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Converter").field("waiting", &self.converted.len()).finish_non_exhaustive()
    }
}

impl Converter {
    pub(crate) fn new(from_rate: u32, to_rate: u32) -> Result<Self, ResamplerConstructionError> {
        let resampler = if from_rate == to_rate {
            None
        } else {
            Some(Fft::new(from_rate as usize, to_rate as usize, STREAM_CHUNK, 1, FixedSync::Both)?)
        };
        let scratch = vec![0.0; resampler.as_ref().map_or(0, Resampler::output_frames_max)];
        Ok(Self { resampler, pending: Vec::new(), scratch, converted: VecDeque::new() })
    }

    /// Takes more of the stream.
    pub(crate) fn push(&mut self, sound: &[f32]) {
        let Some(resampler) = &mut self.resampler else {
            self.converted.extend(sound);
            self.drop_oldest();
            return;
        };
        self.pending.extend_from_slice(sound);
        let mut taken = 0;
        while self.pending.len() - taken >= resampler.input_frames_next() {
            let Ok((read, written)) = run(resampler, &self.pending[taken..], &mut self.scratch) else { break };
            self.converted.extend(&self.scratch[..written]);
            taken += read.max(1);
        }
        self.pending.drain(..taken.min(self.pending.len()));
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        let excess = self.converted.len().saturating_sub(WAITING_MAX);
        self.converted.drain(..excess);
    }

    /// Fills `sound` with what is converted, if there is enough.
    pub(crate) fn pop(&mut self, sound: &mut [f32]) -> bool {
        if self.converted.len() < sound.len() {
            return false;
        }
        let count = sound.len();
        for (to, from) in sound.iter_mut().zip(self.converted.drain(..count)) {
            *to = from;
        }
        true
    }

    /// Converted samples that wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.converted.len()
    }

    /// The next sample that is converted.
    pub(crate) fn pop_sample(&mut self) -> Option<f32> {
        self.converted.pop_front()
    }
}

fn run(resampler: &mut Fft<f32>, from: &[f32], to: &mut [f32]) -> ResampleResult<(usize, usize)> {
    let frames = to.len();
    let input = InterleavedSlice::new(from, 1, from.len()).expect("a slice is as long as itself");
    let mut output = InterleavedSlice::new_mut(to, 1, frames).expect("a slice is as long as itself");
    resampler.process_into_buffer(&input, &mut output, Some(&Indexing::new()))
}

/// All of a mono sound at another rate, without the resampler's delay.
pub(crate) fn convert_all(sound: Vec<f32>, from_rate: u32, to_rate: u32) -> Result<Vec<f32>, ResamplerConstructionError> {
    if from_rate == to_rate || sound.is_empty() {
        return Ok(sound);
    }
    let mut resampler = Fft::<f32>::new(from_rate as usize, to_rate as usize, FILE_CHUNK, 1, FixedSync::Both)?;
    let input = InterleavedSlice::new(&sound, 1, sound.len()).expect("a slice is as long as itself");
    let output = resampler.process_all(&input, sound.len(), None).expect("the buffers have the sizes asked for");
    Ok(output.take_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, samples: usize) -> Vec<f32> {
        (0..samples).map(|index| (index as f32 / rate as f32 * std::f32::consts::TAU * 1000.0).sin() * 0.5).collect()
    }

    #[test]
    fn a_stream_in_pieces_keeps_its_tone_and_its_length() {
        for (from, to) in [(44_100, 48_000), (48_000, 44_100), (16_000, 48_000), (48_000, 96_000), (48_000, 48_000)] {
            let mut converter = Converter::new(from, to).unwrap();
            let mut converted = Vec::new();
            for piece in tone(from, from as usize).chunks(173) {
                converter.push(piece);
                converted.extend(std::iter::from_fn(|| converter.pop_sample()));
            }
            let missing = i64::from(to) - converted.len() as i64;
            assert!((0..i64::from(to) / 50).contains(&missing), "{from} to {to}: {missing} samples are missing");
            let loudness = (converted.iter().map(|sample| sample * sample).sum::<f32>() / converted.len() as f32).sqrt();
            assert!((loudness - 0.5 / f32::sqrt(2.0)).abs() < 0.01, "{from} to {to}: {loudness}");
        }
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut converter = Converter::new(48_000, 48_000).unwrap();
        for _ in 0..100 {
            converter.push(&[0.0; 4_800]);
        }
        assert_eq!(converter.converted.len(), WAITING_MAX);
    }
}
