//! Speech between a microphone's blocks and a network's datagrams, without I/O and without a clock.
//!
//! [`VoiceSender`] takes blocks of 10 ms and gives voice packets; [`VoiceReceiver`] takes voice packets as they come and
//! gives a block of 10 ms whenever the audio clock asks for one, whatever the network did meanwhile. Inside the
//! receiver, [`JitterBuffer`] decides what is played when; the receiver itself decodes, conceals and stretches. `now`
//! is always an argument, so that hours of a call on a bad network are seconds of a test.
//!
//! [`rate::RateController`] chooses what the sender sends with. What this crate leaves out: the devices and the connection.

mod arrivals;
mod comfort;
mod correction;
mod delay;
mod jitter;
mod pull_clock;
pub mod quality;
mod queueing;
pub mod rate;
mod receiver;
mod sender;
mod stretch;
#[cfg(feature = "testing")]
pub mod testing;
mod timeline;

pub use ahoy_codec::{Application, Error as CodecError};
pub use correction::Correction;
pub use delay::DelaySettings;
pub use jitter::{JitterBuffer, JitterStats, Next};
pub use receiver::{FrameDecoder, ReceiverStats, VoiceReceiver};
pub use sender::{SenderSettings, SenderStats, VoiceSender};

/// Samples of a block: 10 ms at 48 kHz, mono.
pub const BLOCK_SAMPLES: usize = ahoy_codec::BLOCK_SAMPLES;

/// Ten milliseconds of sound, between -1 and 1.
pub type Block = [f32; BLOCK_SAMPLES];

/// How long a block is, in milliseconds.
const BLOCK_MS: f64 = 10.0;

/// Samples in a millisecond.
const SAMPLES_PER_MS: usize = BLOCK_SAMPLES / 10;
