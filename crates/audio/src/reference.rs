//! The reference of the echo canceller: blocks of what the loudspeaker was given, each with its time.
//!
//! Every sample that the device took is there, what was made up for a gap too, so that the reference keeps step with the
//! loudspeaker whatever slips on the way to it. While there is no loudspeaker, it is silence at the pace of the clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::callback::PlaybackEnd;
use crate::convert::Converter;
use crate::{BLOCK_SAMPLES, Block, SAMPLE_RATE};

/// Samples that wait to be taken, at most: 400 ms, beyond which the oldest are dropped. What is left keeps its time.
const WAITING_MAX: usize = 40 * BLOCK_SAMPLES;

/// The device may give a period more while the ring is drained; what is missing beyond this part of a second is lost.
const LOST_PART_OF_SECOND: u32 = 10;

#[derive(Debug)]
pub(crate) struct Reference {
    waiting: VecDeque<f32>,
    /// When the loudspeaker was given the last sample that waits.
    until: Instant,
    /// From the device's rate to ours.
    converter: Option<Converter>,
    /// Frames of the device that were drained.
    drained: u64,
    scratch: Vec<f32>,
}

impl Reference {
    pub(crate) fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), until: now, converter: None, drained: 0, scratch: Vec::new() }
    }

    /// Another device plays.
    pub(crate) fn restart(&mut self, rate: u32) {
        (self.converter, self.drained) = (Converter::new(rate, SAMPLE_RATE).ok(), 0);
    }

    /// Takes over what the device was given.
    pub(crate) fn drain(&mut self, end: &mut PlaybackEnd) {
        let Some(converter) = &mut self.converter else { return };
        self.scratch.resize(end.reference.slots(), 0.0);
        if end.reference.pop_entire_slice(&mut self.scratch).is_err() || self.scratch.is_empty() {
            return;
        }
        self.drained += self.scratch.len() as u64;
        converter.push(&self.scratch);
        while let Some(sample) = converter.pop_sample() {
            self.waiting.push_back(sample);
        }
        let given = end.gauge.frames();
        if given > self.drained + u64::from(end.gauge.rate / LOST_PART_OF_SECOND) {
            // Nobody drained the ring for so long that it was full, and the newest were lost.
            self.drained = given;
        }
        self.until = end.gauge.time_of(self.drained).unwrap_or(self.until);
        self.drop_oldest();
    }

    /// A block went nowhere at `now`.
    pub(crate) fn push_silence(&mut self, now: Instant) {
        self.waiting.extend([0.0; BLOCK_SAMPLES]);
        self.until = now;
        self.drop_oldest();
    }

    /// Fills `block` with the next one, if the loudspeaker was given all of it by `until`.
    pub(crate) fn pop(&mut self, until: Instant, block: &mut Block) -> bool {
        let Some(later) = self.waiting.len().checked_sub(BLOCK_SAMPLES) else { return false };
        let given = self.until.checked_sub(duration(later)).unwrap_or(self.until);
        if given > until {
            return false;
        }
        for (to, from) in block.iter_mut().zip(self.waiting.drain(..BLOCK_SAMPLES)) {
            *to = from;
        }
        true
    }

    fn drop_oldest(&mut self) {
        let excess = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..excess);
    }
}

fn duration(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(SAMPLE_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::{PlaybackCallback, playback};

    const PERIOD: Duration = Duration::from_millis(5);

    fn take(callback: &mut PlaybackCallback) {
        callback.run(&mut [0.0_f32; 240], Duration::ZERO);
    }

    #[test]
    fn blocks_come_out_when_the_loudspeaker_was_given_all_of_them() {
        let (mut callback, mut end) = playback(48_000, 1);
        let begun = Instant::now();
        let mut reference = Reference::new(begun);
        reference.restart(48_000);
        for index in 0..960 {
            end.ring.push(if index < 480 { 0.25 } else { 0.5 }).unwrap();
        }
        for _ in 0..4 {
            take(&mut callback);
        }
        reference.drain(&mut end);
        let mut block = [0.0; BLOCK_SAMPLES];
        assert!(!reference.pop(begun, &mut block), "nothing had been given by then");
        let later = Instant::now() + 4 * PERIOD;
        assert!(reference.pop(later, &mut block));
        assert_eq!(block[479], 0.25);
        assert!(reference.pop(later, &mut block));
        assert_eq!((block[0], block[479]), (0.5, 0.5));
        assert!(!reference.pop(later, &mut block));
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_what_is_left_is_the_latest() {
        let now = Instant::now();
        let mut reference = Reference::new(now);
        for number in 0..100 {
            reference.push_silence(now + Duration::from_millis(10) * number);
        }
        let mut block = [1.0; BLOCK_SAMPLES];
        let oldest = now + Duration::from_millis(600);
        assert!(!reference.pop(oldest - Duration::from_millis(1), &mut block));
        assert!(reference.pop(oldest, &mut block));
    }
}
