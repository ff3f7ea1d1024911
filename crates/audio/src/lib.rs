//! Sound devices and WAV files, as blocks of 10 ms at 48 kHz, mono.
//!
//! A [`Capture`] gives blocks and a [`Playback`] takes them; behind each stands a sound device, a WAV file or silence,
//! and who uses them need not know which. Whatever a device's rate, channels and format are, they are converted here;
//! a device that is missing, busy or lost is silent, says so in its [`DeviceState`], and is tried again.
//!
//! This crate knows nothing of the network, and is the only one that names cpal, hound and rubato.

mod capture;
mod clock;
mod convert;
mod device;
mod playback;
mod state;
mod stream;
pub mod wav;

pub use capture::Capture;
pub use clock::BlockClock;
pub use device::{DeviceNames, default_device_names};
pub use playback::Playback;
pub use state::DeviceState;
pub use wav::{WavError, WavWriter, read_speech};

/// The sample rate of all blocks, in hertz.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples of a block: 10 ms.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE as usize / 100;

/// Ten milliseconds of sound, between -1 and 1.
pub type Block = [f32; BLOCK_SAMPLES];
