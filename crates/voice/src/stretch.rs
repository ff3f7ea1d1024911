//! Sound made shorter or longer without a change of pitch (WSOLA).
//!
//! Speech repeats itself with the period of the voice. Where two neighbouring periods are nearly alike, they are
//! cross-faded into one, or a cross-fade of the two is put between them; nobody hears it. Where there is no such
//! likeness, nothing is done, unless it is quiet.

use crate::SAMPLES_PER_MS;

/// Shortest period sought: a voice of 400 Hz.
const PERIOD_MIN: usize = 2 * SAMPLES_PER_MS + SAMPLES_PER_MS / 2;

/// Longest period sought, of a voice of 67 Hz.
pub(crate) const PERIOD_MAX: usize = 15 * SAMPLES_PER_MS;

/// How much is taken out of or put into quiet at once.
const QUIET_STEP: usize = 10 * SAMPLES_PER_MS;

/// The likeness (normalised correlation) that two periods need for nobody to hear it.
pub(crate) const LIKENESS_GOOD: f32 = 0.85;

/// And what has to do when it is urgent: sound without a pitch is stretched too, and a little roughness is heard.
pub(crate) const LIKENESS_FAIR: f32 = 0.5;

/// The search is made on every fourth sample of the smoothed sound: 12 kHz show the period of a voice well enough to
/// find it, and make the search sixteen times as fast.
const DECIMATION: usize = 4;

/// Takes out about one period of what begins at `at`, at most `samples_max`. Gives how many samples were taken out: none
/// if there are no two periods that are alike.
pub(crate) fn shorten(sound: &mut Vec<f32>, at: usize, samples_max: usize, likeness_min: f32) -> usize {
    let longest = PERIOD_MAX.min(samples_max).min(sound.len().saturating_sub(at) / 2);
    let Some(period) = period(&sound[at..], longest, likeness_min) else { return 0 };
    join(sound, at, period);
    period
}

/// Takes out of quiet sound at `at` up to `samples_max`. Gives how many samples were taken out.
pub(crate) fn shorten_quiet(sound: &mut Vec<f32>, at: usize, samples_max: usize) -> usize {
    let step = QUIET_STEP.min(samples_max).min(sound.len().saturating_sub(at) / 2);
    if step < PERIOD_MIN {
        return 0;
    }
    join(sound, at, step);
    step
}

/// Puts one more period before what begins at `at`, made of the period before and the one after. Gives how many samples
/// were put in: none if the two are not alike.
pub(crate) fn lengthen(sound: &mut Vec<f32>, at: usize, likeness_min: f32) -> usize {
    let longest = PERIOD_MAX.min(at).min(sound.len() - at);
    if longest < PERIOD_MIN {
        return 0;
    }
    // The period is sought around `at`: its last one before, its first one after.
    let Some(period) = period_around(sound, at, longest, likeness_min) else { return 0 };
    insert(sound, at, period);
    period
}

/// Puts a step of the same kind into quiet sound before `at`: `samples`, if that is neither too little nor too much. Gives
/// how many samples were put in.
pub(crate) fn lengthen_quiet(sound: &mut Vec<f32>, at: usize, samples: usize) -> usize {
    let step = samples.clamp(PERIOD_MIN, QUIET_STEP).min(at).min(sound.len() - at);
    if step < PERIOD_MIN {
        return 0;
    }
    insert(sound, at, step);
    step
}

/// Cross-fades `sound[at..at + len]` into the same length after it.
fn join(sound: &mut Vec<f32>, at: usize, len: usize) {
    for index in 0..len {
        let weight = (index as f32 + 0.5) / len as f32;
        sound[at + len + index] = (1.0 - weight) * sound[at + index] + weight * sound[at + len + index];
    }
    sound.drain(at..at + len);
}

/// Puts between `sound[..at]` and `sound[at..]` a cross-fade from what follows `at` to what comes before it.
fn insert(sound: &mut Vec<f32>, at: usize, len: usize) {
    let between: Vec<f32> = (0..len)
        .map(|index| {
            let weight = (index as f32 + 0.5) / len as f32;
            (1.0 - weight) * sound[at + index] + weight * sound[at - len + index]
        })
        .collect();
    sound.splice(at..at, between);
}

fn decimate(sound: &[f32]) -> Vec<f32> {
    sound.chunks_exact(DECIMATION).map(|four| four.iter().sum::<f32>() / DECIMATION as f32).collect()
}

/// The period of `sound`'s beginning, up to `longest` samples.
fn period(sound: &[f32], longest: usize, likeness_min: f32) -> Option<usize> {
    if longest < PERIOD_MIN {
        return None;
    }
    let coarse = decimate(&sound[..longest * 2]);
    let best = best_lag(PERIOD_MIN / DECIMATION, longest / DECIMATION, |lag| likeness(&coarse[..lag], &coarse[lag..lag * 2]))?;
    refine(best, longest, likeness_min, |lag| likeness(&sound[..lag], &sound[lag..lag * 2]))
}

/// The period of `sound` on both sides of `at`, up to `longest` samples.
fn period_around(sound: &[f32], at: usize, longest: usize, likeness_min: f32) -> Option<usize> {
    let (before, after) = (decimate(&sound[at - longest..at]), decimate(&sound[at..at + longest]));
    let most = before.len().min(after.len());
    let best = best_lag(PERIOD_MIN / DECIMATION, most, |lag| likeness(&before[before.len() - lag..], &after[..lag]))?;
    refine(best, longest, likeness_min, |lag| likeness(&sound[at - lag..at], &sound[at..at + lag]))
}

fn best_lag(from: usize, to: usize, likeness: impl Fn(usize) -> f32) -> Option<(usize, f32)> {
    (from..=to).map(|lag| (lag, likeness(lag))).max_by(|one, other| one.1.total_cmp(&other.1))
}

/// The best period near a coarse one, if it is good enough.
fn refine(coarse: (usize, f32), longest: usize, likeness_min: f32, likeness: impl Fn(usize) -> f32) -> Option<usize> {
    if coarse.1 < likeness_min {
        return None;
    }
    let middle = coarse.0 * DECIMATION;
    let from = middle.saturating_sub(DECIMATION).max(PERIOD_MIN);
    best_lag(from, (middle + DECIMATION).min(longest), likeness).map(|(lag, _)| lag)
}

/// Normalised correlation; nothing is like silence.
fn likeness(one: &[f32], other: &[f32]) -> f32 {
    let (mut product, mut energy_one, mut energy_other) = (0.0, 1e-9, 1e-9);
    for (a, b) in one.iter().zip(other) {
        product += a * b;
        energy_one += a * a;
        energy_other += b * b;
    }
    product / f32::sqrt(energy_one * energy_other)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn voice(hertz: f32, samples: usize) -> Vec<f32> {
        let wave = |phase: f32| (1..=6).map(|harmonic| (phase * harmonic as f32).sin() * 0.2 / harmonic as f32).sum::<f32>();
        (0..samples).map(|index| wave(index as f32 / 48_000.0 * TAU * hertz)).collect()
    }

    fn noise(samples: usize) -> Vec<f32> {
        let mut state = 1_u32;
        (0..samples)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0 - 0.5
            })
            .collect()
    }

    fn steepest(sound: &[f32]) -> f32 {
        sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_voice_is_shortened_by_whole_periods_without_a_click() {
        for hertz in [80.0, 120.0, 210.0, 350.0] {
            let original = voice(hertz, 1_920);
            let mut sound = original.clone();
            let removed = shorten(&mut sound, 100, PERIOD_MAX, LIKENESS_GOOD);
            let periods = removed as f32 * hertz / 48_000.0;
            assert!(removed > 0 && (periods - periods.round()).abs() < 0.02, "{hertz} Hz: {removed} samples");
            assert_eq!(sound.len(), original.len() - removed);
            assert!(steepest(&sound) < steepest(&original) * 1.05);
        }
    }

    #[test]
    fn a_voice_is_lengthened_by_whole_periods_without_a_click() {
        for hertz in [80.0, 120.0, 210.0, 350.0] {
            let original = voice(hertz, 1_920);
            let mut sound = original.clone();
            let added = lengthen(&mut sound, 900, LIKENESS_GOOD);
            let periods = added as f32 * hertz / 48_000.0;
            assert!(added > 0 && (periods - periods.round()).abs() < 0.02, "{hertz} Hz: {added} samples");
            assert_eq!(sound.len(), original.len() + added);
            assert!(steepest(&sound) < steepest(&original) * 1.05);
        }
    }

    #[test]
    fn what_does_not_repeat_is_left_alone() {
        let mut sound = noise(1_920);
        assert_eq!((shorten(&mut sound, 0, PERIOD_MAX, LIKENESS_GOOD), lengthen(&mut sound, 900, LIKENESS_GOOD)), (0, 0));
        assert_eq!(sound, noise(1_920));
    }

    #[test]
    fn quiet_is_shortened_by_no_more_than_asked() {
        let mut sound = vec![0.0; 1_920];
        assert_eq!(shorten_quiet(&mut sound, 0, 200), 200);
        assert_eq!(lengthen_quiet(&mut sound, 900, 300), 300);
        assert_eq!(sound.len(), 1_920 - 200 + 300);
    }

    #[test]
    fn too_little_sound_is_left_alone() {
        let mut sound = voice(200.0, 100);
        assert_eq!((shorten(&mut sound, 0, PERIOD_MAX, LIKENESS_GOOD), shorten_quiet(&mut sound, 0, PERIOD_MAX)), (0, 0));
        assert_eq!((lengthen(&mut sound, 50, LIKENESS_GOOD), lengthen_quiet(&mut sound, 0, 300)), (0, 0));
    }
}
