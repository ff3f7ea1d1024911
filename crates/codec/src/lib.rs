//! A safe wrapper of the Opus codec.
//!
//! Mono speech at 48 kHz, as 32-bit floats between -1 and 1, in frames of 10, 20, 40 or 60 ms. An [`Encoder`] makes a
//! packet of each frame; a [`Decoder`] makes sound of packets, and plausible sound where a packet is missing. Decoding
//! takes any bytes: what is not a packet is an [`Error`], never a panic and never more than [`DECODED_SAMPLES_MAX`].
//!
//! This crate is the only one that names libopus, and the only place of its `unsafe`. What it leaves out: stereo,
//! music, discontinuous transmission, in-band error correction (copies of whole frames do better) and DRED. What other
//! programs do instead is in [`rival`], for comparison.

mod decoder;
mod encoder;
mod error;
pub mod rival;

pub use decoder::{DECODED_SAMPLES_MAX, Decoder};
pub use encoder::{Application, Bandwidth, Encoder, EncoderSettings, FrameLength, PACKET_BYTES_MAX, RateControl};
pub use error::Error;

/// The only sample rate, in hertz.
pub const SAMPLE_RATE: u32 = 48_000;

/// Samples in ten milliseconds, of which every length here is a multiple.
pub const BLOCK_SAMPLES: usize = SAMPLE_RATE as usize / 100;
