//! The figures of `docs/benchmarks.md`: `make bench`. Nothing here is asserted but that the calls work.

#![allow(clippy::unwrap_used, reason = "tests")]

mod birthday;
mod calls;
mod faults;
mod figures;
mod flood;
mod set_up;

use ahoy_lab::wav;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// The sample speech without the silence that it begins with, which would count as a delay of the first sound.
fn speech_from_its_first_sound() -> Vec<f32> {
    const LOUD: f32 = 0.01;
    let samples = wav::read_mono(&wav::sample_speech());
    samples.into_iter().skip_while(|sample| sample.abs() < LOUD).collect()
}
