//! How well the echo is cancelled: echo return loss enhancement, the ratio of what the microphone heard to what is left after the
//! canceller, over the time in which the far end talks.
//!
//! Measured from outside, so it counts all the canceller does. Speech of the near end is in both signals and makes the ratio
//! small for a while; the upper quartile of a few windows sees through its pauses.

use crate::Block;
use crate::level::power;

/// Blocks of a window: long enough that the canceller's own delay of under one block does not matter.
const WINDOW_BLOCKS: u32 = 10;

/// Windows that the figure is made of: two seconds of the far end's talking.
const WINDOWS: usize = 20;

/// From this power the far end talks: -50 dBFS.
const FAR_END_POWER: f32 = 1e-5;

/// Blocks for which an echo may still come after the far end has fallen silent: the longest delay, and the room's decay.
const ECHO_BLOCKS: u32 = 30;

/// An echo 40 dB under what the loudspeaker plays is no echo that anybody hears.
const AUDIBLE_ECHO: f32 = 1e-4;

/// How much louder than the room's noise a microphone must be to have an echo in it: 4 dB.
const ABOVE_NOISE: f32 = 2.5;

/// What a window of 100 ms, in which the far end talked, was like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Window {
    /// The microphone heard nothing, or only the room's noise.
    Quiet,
    /// The microphone heard something, of which the canceller left so much.
    Heard { microphone: f32, left: f32 },
}

/// The meter.
pub(crate) struct ErleMeter {
    far_end: f32,
    microphone: f32,
    left: f32,
    blocks: u32,
    silent_blocks: u32,
    talk_blocks: u32,
    noise: Option<f32>,
    ratios: [f32; WINDOWS],
    count: usize,
    next: usize,
}

impl ErleMeter {
    pub(crate) fn new() -> Self {
        Self {
            far_end: 0.0,
            microphone: 0.0,
            left: 0.0,
            blocks: 0,
            silent_blocks: ECHO_BLOCKS,
            talk_blocks: 0,
            noise: None,
            ratios: [0.0; WINDOWS],
            count: 0,
            next: 0,
        }
    }

    /// What the loudspeaker plays.
    pub(crate) fn render(&mut self, block: &Block) {
        let power = power(block);
        self.far_end += power;
        self.silent_blocks = if power > FAR_END_POWER { 0 } else { self.silent_blocks.saturating_add(1) };
    }

    /// True while an echo is to be expected.
    pub(crate) fn is_far_end_talking(&self) -> bool {
        self.silent_blocks < ECHO_BLOCKS
    }

    /// What the microphone heard and what the canceller left of it; at the end of a window in which the far end talked, what it was like.
    pub(crate) fn capture(&mut self, microphone: f32, left: f32) -> Option<Window> {
        self.microphone += microphone;
        self.left += left;
        self.blocks += 1;
        self.talk_blocks = if self.is_far_end_talking() { self.talk_blocks.saturating_add(1) } else { 0 };
        if self.blocks < WINDOW_BLOCKS {
            return None;
        }
        let window = self.close();
        (self.far_end, self.microphone, self.left, self.blocks) = (0.0, 0.0, 0.0, 0);
        window
    }

    fn close(&mut self) -> Option<Window> {
        if self.talk_blocks == 0 {
            // The least of the silences, forgotten by 3 dB in three seconds.
            let noise = self.noise.map_or(self.microphone, |noise| self.microphone.min(noise * 1.025));
            self.noise = Some(noise);
        }
        // Before that the echo may be on its way.
        if self.talk_blocks < ECHO_BLOCKS {
            return None;
        }
        let is_noise = self.noise.is_some_and(|noise| self.microphone < noise * ABOVE_NOISE);
        if is_noise || self.microphone < self.far_end * AUDIBLE_ECHO {
            return Some(Window::Quiet);
        }
        self.ratios[self.next] = self.microphone / self.left.max(1e-9);
        self.next = (self.next + 1) % WINDOWS;
        self.count = (self.count + 1).min(WINDOWS);
        Some(Window::Heard { microphone: self.microphone, left: self.left })
    }

    /// The figure in decibels; `None` before the far end was heard in the microphone.
    pub(crate) fn erle_db(&self) -> Option<f32> {
        let mut sorted = self.ratios;
        let sorted = &mut sorted[..self.count];
        sorted.sort_unstable_by(f32::total_cmp);
        let quartile = *sorted.get(self.count * 3 / 4)?;
        Some(10.0 * quartile.max(1e-3).log10())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(meter: &mut ErleMeter, seconds: u32, microphone: f32, left: f32) -> Option<Window> {
        let mut last = None;
        for _ in 0..seconds * 100 {
            meter.render(&[0.1; crate::BLOCK_SAMPLES]);
            last = meter.capture(microphone, left).or(last);
        }
        last
    }

    #[test]
    fn the_figure_is_the_ratio_while_the_far_end_talks() {
        let mut meter = ErleMeter::new();
        assert_eq!(meter.erle_db(), None);
        talk(&mut meter, 3, 1e-3, 1e-6);
        assert!((meter.erle_db().unwrap() - 30.0).abs() < 0.1);
    }

    #[test]
    fn speech_of_the_near_end_with_pauses_does_not_hide_it() {
        let mut meter = ErleMeter::new();
        for _ in 0..5 {
            talk(&mut meter, 1, 1e-2, 1e-2);
            talk(&mut meter, 1, 1e-3, 1e-6);
        }
        assert!(meter.erle_db().unwrap() > 29.0);
    }

    #[test]
    fn a_headset_has_no_figure() {
        let mut meter = ErleMeter::new();
        assert_eq!(talk(&mut meter, 3, 1e-8, 1e-8), Some(Window::Quiet));
        assert_eq!(meter.erle_db(), None);
    }
}
