//! What other programs do with Opus, for comparison in benchmarks. Calls use none of it.

use opusic_sys as opus;

use crate::{Decoder, Encoder, Error};

/// A decoder at a `complexity` of 0 to 7. Below 5 it conceals as Opus did before neural networks, below 6 it enhances
/// nothing: what programs of other peers have.
///
/// # Errors
/// [`Error::Setup`] if libopus has no memory, or does not know the complexity.
pub fn decoder(complexity: u8) -> Result<Decoder, Error> {
    Decoder::with_complexity(i32::from(complexity))
}

/// Makes an encoder put coarse copies of frames into the packets after them (LBRR, "in-band FEC"), as for a loss of so
/// many percent. They come out of its bitrate.
///
/// # Errors
/// [`Error::Setup`] for more than 100 percent.
pub fn protect_in_band(encoder: &mut Encoder, lost_percent: u8) -> Result<(), Error> {
    encoder.set(opus::OPUS_SET_INBAND_FEC_REQUEST, i32::from(lost_percent > 0))?;
    encoder.set(opus::OPUS_SET_PACKET_LOSS_PERC_REQUEST, i32::from(lost_percent))
}

/// The coarse copy of the `samples` directly before `packet`, which are missing; concealment if it holds none. The packet
/// itself is decoded after that.
///
/// # Errors
/// [`Error::Decode`] if `packet` is none, [`Error::Conceal`] for lengths that [`Decoder::conceal`] does not know.
pub fn decode_before<'a>(decoder: &'a mut Decoder, packet: &[u8], samples: usize) -> Result<&'a [f32], Error> {
    decoder.decode_before(packet, samples)
}

/// Has a decoder make up the band above 8 kHz of wideband speech (Opus 1.6), which [`Decoder::new`] leaves empty.
///
/// # Errors
/// [`Error::Setup`] if libopus was built without.
pub fn extend_bandwidth(decoder: &Decoder) -> Result<(), Error> {
    decoder.set(opus::OPUS_SET_OSCE_BWE_REQUEST, 1)
}
