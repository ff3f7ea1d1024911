//! The programs against each other on loopback: what their tests have in common.

use ahoy::quality::{Quality, compare};
use ahoy_lab::{Process, wav};
use std::path::Path;
use std::time::Duration;

/// The time limit of whatever should happen soon, on a machine that is busy with other tests.
pub const LONG: Duration = Duration::from_secs(60);
/// The rate of recordings.
pub const RATE_HZ: u32 = 48_000;
/// What a call without trouble reaches; 4.64 would be a copy.
pub const GOOD_PESQ: f32 = 4.0;

/// How well the sample speech came through.
///
/// # Panics
/// If the recording holds no speech.
#[must_use]
pub fn quality(recording: &Path) -> Quality {
    assert_eq!(wav::rate_hz(recording), RATE_HZ, "recordings have the rate of a call");
    let received = wav::read_mono(recording);
    compare(&wav::read_mono(&wav::sample_speech()), &received).unwrap_or_else(|error| panic!("{}: {error}", recording.display()))
}

/// True if the whole test is to run at full size: `AHOY_FULL=1`.
#[must_use]
pub fn full_size() -> bool {
    std::env::var_os("AHOY_FULL").is_some_and(|value| value != "0")
}

/// Waits until a call is connected, and voice arrives in it.
///
/// # Panics
/// If it does not.
pub fn wait_for_voice(process: &Process, mark: usize) {
    let _ = process.wait_event(mark, "connected", LONG, |_| true);
    let _ = process.wait_event(mark, "stats", LONG, |stats| stats.number("received") > 10.0);
}
