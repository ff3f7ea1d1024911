//! What can go wrong in the codec.

use std::ffi::CStr;

use thiserror::Error;

/// Why the codec refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The encoder or the decoder could not be made, or does not take a setting.
    #[error("cannot set up Opus: {0}")]
    Setup(String),
    /// The samples given are not one frame.
    #[error("a frame of {given} samples was given where one has {expected}")]
    FrameLength {
        /// Samples that were given.
        given: usize,
        /// Samples of a frame.
        expected: usize,
    },
    /// A frame could not be encoded.
    #[error("cannot encode a frame: {0}")]
    Encode(String),
    /// Bytes are not a packet of Opus.
    #[error("cannot decode a packet: {0}")]
    Decode(String),
    /// A missing frame could not be concealed, or has a length that cannot be.
    #[error("cannot conceal a frame: {0}")]
    Conceal(String),
}

/// What libopus calls one of its error codes.
pub(crate) fn describe(code: i32) -> String {
    // SAFETY: `opus_strerror` takes any code and returns a pointer to a static string that ends with a zero.
    let text = unsafe { CStr::from_ptr(opusic_sys::opus_strerror(code)) };
    text.to_string_lossy().into_owned()
}
