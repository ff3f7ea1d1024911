//! The tones of a call: the ringback that a caller hears, and beeps.
//!
//! They are computed, sample by sample, from where in them one is.

use ahoy_voice::{BLOCK_SAMPLES, Block};
use std::f32::consts::TAU;

const RATE: f32 = 48_000.0;
/// Rise and fall of a tone, in samples: 5 ms, so that none begins with a click.
const EDGE: usize = 240;

/// What most telephones in Europe hear while it rings at the other side (ETSI EN 300 001): 425 Hz, one second of five.
const RINGBACK_HERTZ: f32 = 425.0;
const RINGBACK_ON: usize = 48_000;
const RINGBACK_PERIOD: usize = 5 * 48_000;
/// −20 dBFS: it is at the ear, for as long as it rings.
const RINGBACK_LEVEL: f32 = 0.1;

const BEEP_HERTZ: f32 = 1_000.0;
const BEEP_LEVEL: f32 = 0.1;

/// Fills a block of the ringback, beginning `from` samples after its beginning.
pub(crate) fn ringback(from: usize, block: &mut Block) {
    fill(from, block, |at| {
        let at = at % RINGBACK_PERIOD;
        RINGBACK_LEVEL * edges(at, RINGBACK_ON) * sine(RINGBACK_HERTZ, at)
    });
}

/// Fills a block of a beep of `length` samples, beginning `from` samples after its beginning.
pub(crate) fn beep(from: usize, length: usize, block: &mut Block) {
    fill(from, block, |at| BEEP_LEVEL * edges(at, length) * sine(BEEP_HERTZ, at));
}

fn fill(from: usize, block: &mut Block, sample: impl Fn(usize) -> f32) {
    for (index, to) in block.iter_mut().enumerate().take(BLOCK_SAMPLES) {
        *to = sample(from + index);
    }
}

fn sine(hertz: f32, at: usize) -> f32 {
    // The phase is taken from whole numbers: single precision would lose it within a minute.
    let cycles = f64::from(hertz) * at as f64 / f64::from(RATE);
    (TAU * cycles.fract() as f32).sin()
}

/// One between the edges of a tone of `length` samples, and nothing outside.
fn edges(at: usize, length: usize) -> f32 {
    let to_edge = at.min(length.saturating_sub(at));
    (to_edge as f32 / EDGE as f32).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loudest(sound: impl Fn(usize, &mut Block), from: usize, blocks: usize) -> (f32, f32) {
        let (mut loudest, mut step, mut last) = (0.0f32, 0.0f32, None);
        for number in 0..blocks {
            let mut block = [0.0; BLOCK_SAMPLES];
            sound(from + number * BLOCK_SAMPLES, &mut block);
            for sample in block {
                loudest = loudest.max(sample.abs());
                step = step.max(last.map_or(0.0, |last: f32| (sample - last).abs()));
                last = Some(sample);
            }
        }
        (loudest, step)
    }

    #[test]
    fn tones_are_heard_have_pauses_and_never_click() {
        let (on, step) = loudest(ringback, 0, 1_000);
        assert!((0.09..=0.1).contains(&on) && step < 0.01, "{on} {step}");
        assert_eq!(loudest(ringback, RINGBACK_ON, 390).0, 0.0);
        let (on, step) = loudest(|from, block: &mut Block| beep(from, 4_800, block), 0, 20);
        assert!((0.09..=0.1).contains(&on) && step < 0.02, "{on} {step}");
        assert_eq!(loudest(|from, block: &mut Block| beep(from, 4_800, block), 4_800, 10).0, 0.0);
    }
}
