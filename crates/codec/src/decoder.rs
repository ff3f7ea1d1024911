//! From packets to sound, and to plausible sound where a packet is missing.

use std::ptr::NonNull;

use opusic_sys as opus;

use crate::error::describe;
use crate::{BLOCK_SAMPLES, Error, SAMPLE_RATE};

/// Longest sound of a packet, in samples: RFC 6716 allows 120 ms.
pub const DECODED_SAMPLES_MAX: usize = 12 * BLOCK_SAMPLES;

/// Longest packet that is looked at, in bytes: RFC 6716's frames of 1,275 bytes, the most that a packet may hold of
/// them (48), and their lengths. Longer ones are no packets.
const PACKET_BYTES_MAX: usize = 48 * (1275 + 2) + 2;

/// From 5 on, missing packets are concealed by a neural network; at 7, another one (NoLACE) repairs what low bitrates
/// do to speech. More changes nothing.
const COMPLEXITY: i32 = 7;

/// An Opus decoder of mono speech.
#[derive(Debug)]
pub struct Decoder {
    state: NonNull<opus::OpusDecoder>,
    output: Vec<f32>,
}

// SAFETY: the state is reachable through this value alone, and libopus keeps nothing that belongs to a thread.
unsafe impl Send for Decoder {}

impl Decoder {
    /// A decoder that has heard nothing yet.
    ///
    /// # Errors
    /// [`Error::Setup`] if libopus has no memory.
    pub fn new() -> Result<Self, Error> {
        Self::with_complexity(COMPLEXITY)
    }

    pub(crate) fn with_complexity(complexity: i32) -> Result<Self, Error> {
        let mut code = opus::OPUS_OK;
        // SAFETY: `code` outlives the call; the other arguments are plain numbers, which libopus checks.
        let state = unsafe { opus::opus_decoder_create(SAMPLE_RATE as i32, 1, &raw mut code) };
        let state = NonNull::new(state).ok_or_else(|| Error::Setup(describe(code)))?;
        let decoder = Self { state, output: vec![0.0; DECODED_SAMPLES_MAX] };
        decoder.set(opus::OPUS_SET_COMPLEXITY_REQUEST, complexity)?;
        Ok(decoder)
    }

    pub(crate) fn set(&self, request: i32, value: i32) -> Result<(), Error> {
        // SAFETY: the state is valid as long as `self`, and every request passed here takes one 32-bit integer.
        let code = unsafe { opus::opus_decoder_ctl(self.state.as_ptr(), request, value) };
        if code == opus::OPUS_OK { Ok(()) } else { Err(Error::Setup(describe(code))) }
    }

    /// The sound of a packet, at most [`DECODED_SAMPLES_MAX`] samples, valid until the next call.
    ///
    /// # Errors
    /// [`Error::Decode`] if `packet` is none. The decoder can be used on.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[f32], Error> {
        // An empty packet would be taken for a missing one.
        if packet.is_empty() || packet.len() > PACKET_BYTES_MAX {
            return Err(Error::Decode(describe(opus::OPUS_INVALID_PACKET)));
        }
        // SAFETY: `packet` is readable for the length passed.
        let written = unsafe { self.run(packet.as_ptr(), packet.len() as i32, self.output.len(), false) };
        self.decoded(written).map_err(Error::Decode)
    }

    /// What might have been said in `samples` that are missing: a multiple of 10 ms, at most
    /// [`DECODED_SAMPLES_MAX`]. Called again and again, it goes on speaking, and says nothing; to fade it out is the
    /// caller's part.
    ///
    /// # Errors
    /// [`Error::Conceal`] for other lengths.
    pub fn conceal(&mut self, samples: usize) -> Result<&[f32], Error> {
        check_missing(samples)?;
        // SAFETY: libopus reads nothing from a packet that is null and of no length, and `samples` fit the output.
        let written = unsafe { self.run(std::ptr::null(), 0, samples, false) };
        self.decoded(written).map_err(Error::Conceal)
    }

    /// The in-band copy of the `samples` before `packet`, or what conceals them if the packet holds none.
    pub(crate) fn decode_before(&mut self, packet: &[u8], samples: usize) -> Result<&[f32], Error> {
        check_missing(samples)?;
        if packet.is_empty() || packet.len() > PACKET_BYTES_MAX {
            return Err(Error::Decode(describe(opus::OPUS_INVALID_PACKET)));
        }
        // SAFETY: `packet` is readable for the length passed, and `samples` fit the output.
        let written = unsafe { self.run(packet.as_ptr(), packet.len() as i32, samples, true) };
        self.decoded(written).map_err(Error::Decode)
    }

    /// Decodes into `self.output`.
    ///
    /// # Safety
    /// `packet` is readable for `bytes`, or null with none; `samples_max` is not above the length of `self.output`.
    unsafe fn run(&mut self, packet: *const u8, bytes: i32, samples_max: usize, before: bool) -> i32 {
        // SAFETY: the state is valid as long as `self`; libopus writes at most `samples_max` samples (one channel) to
        // the output, which holds as many by this function's contract, as it holds for the packet.
        unsafe {
            let output = self.output.as_mut_ptr();
            opus::opus_decode_float(self.state.as_ptr(), packet, bytes, output, samples_max as i32, i32::from(before))
        }
    }

    fn decoded(&mut self, written: i32) -> Result<&[f32], String> {
        let samples = usize::try_from(written).map_err(|_| describe(written))?;
        let sound = self.output.get_mut(..samples).ok_or_else(|| describe(opus::OPUS_INTERNAL_ERROR))?;
        for sample in sound.iter_mut() {
            // A packet made in bad faith can drive the filters anywhere; nobody's ears should follow.
            *sample = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
        }
        Ok(sound)
    }
}

/// What may be missing: a multiple of 10 ms, at most [`DECODED_SAMPLES_MAX`].
fn check_missing(samples: usize) -> Result<(), Error> {
    if samples == 0 || samples > DECODED_SAMPLES_MAX || !samples.is_multiple_of(BLOCK_SAMPLES) {
        return Err(Error::Conceal(describe(opus::OPUS_BAD_ARG)));
    }
    Ok(())
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and nothing uses it after this.
        unsafe { opus::opus_decoder_destroy(self.state.as_ptr()) }
    }
}
