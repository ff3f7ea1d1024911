//! Sound devices and WAV files, as blocks of 10 ms at 48 kHz, mono.
//!
//! A [`Capture`] gives blocks and a [`Playback`] takes them; behind each stands a sound device, a WAV file or silence,
//! and who uses them need not know which. Whatever a device's rate, channels and format are, they are converted here;
//! a device that is missing, busy or lost is silent, says so in its [`DeviceState`], and is tried again.
//!
//! What happens to a sample between a device and a block is the same for devices, real and virtual: the device's callback
//! moves it between the device's memory and a ring, without locks, and the block's side takes it from there or puts it
//! there. Virtual devices run those very callbacks on a clock, so that what they show holds for real ones.
//!
//! This crate knows nothing of the network, and is the only one that names cpal, alsa, pulseaudio, hound and rubato.

mod backend;
mod callback;
mod capture;
mod clock;
mod convert;
mod cushion;
mod device;
mod fade;
mod gauge;
mod level;
mod link;
mod pace;
mod playback;
mod reference;
mod ringer;
mod sound_check;
mod state;
mod tally;
mod timing;
mod virtual_device;
pub mod wav;

pub use capture::Capture;
pub use clock::BlockClock;
pub use device::{DeviceId, DeviceInfo, DeviceList, DeviceNames, Wanted, default_device_names, devices};
pub use level::{Level, LevelMeter, SILENCE_DBFS};
pub use playback::Playback;
pub use ringer::{RingTone, Ringer};
pub use sound_check::{SoundCheck, SoundCheckEvent};
pub use state::DeviceState;
pub use timing::CallbackTimes;
pub use virtual_device::{Timeline, VirtualMicrophone, VirtualSpeaker};
pub use wav::{WavError, WavWriter, read_speech};

/// The sample rate of all blocks, in hertz.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples of a block: 10 ms.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE as usize / 100;

/// Ten milliseconds of sound, between -1 and 1.
pub type Block = [f32; BLOCK_SAMPLES];
