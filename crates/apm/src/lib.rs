//! What happens to the sound of the microphone before it is coded: high-pass filter, echo canceller, noise suppressor,
//! gain control, limiter; and what is known about it: levels, voice activity, how well the echo is cancelled.
//!
//! An [`Apm`] takes blocks of 10 ms: [`Apm::render`] what the loudspeaker plays, [`Apm::capture`] what the microphone
//! heard, which it changes in place. It has no devices, no clock and no threads; every constant of time counts blocks.
//!
//! The adaptive parts are those of WebRTC, in `sonora`'s port; this crate is the only one that names it. They are put
//! together anew here because of the delay: WebRTC's own chain adds 15 ms to what is said, this one under 7 ms with the echo
//! canceller and nothing without it ([`Apm::delay`]).

mod apm;
mod delay_watch;
mod echo;
mod erle;
mod filter_bank;
mod gain;
mod guard;
mod high_pass;
mod level;
mod minimum_phase;
mod noise;
mod reframe;
#[cfg(feature = "testing")]
pub mod testing;
mod voice_activity;

pub use apm::{Apm, ApmFacts, ApmSettings, NoiseLevel};

/// The sample rate of all blocks, in hertz.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples of a block: 10 ms.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE as usize / 100;

/// Ten milliseconds of sound, between -1 and 1.
pub type Block = [f32; BLOCK_SAMPLES];
