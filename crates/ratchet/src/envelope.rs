//! The seal around a letter, by which a mailbox sees neither who writes nor what.

use ahoy_identity::SealSecret;
use ahoy_protocol::ids::EnvelopeId;
use ahoy_protocol::letter::Letter;
use ahoy_protocol::mail::{Envelope, padded_len};
use ahoy_protocol::{Blob, DeviceKey, SealKey, UnixMillis, Wire, WireError};
use thiserror::Error;

/// What HPKE adds: an encapsulated key and a tag.
const SEAL_BYTES: usize = 32 + 16;
/// The letter's length, before it and its padding.
const LENGTH_BYTES: usize = 4;

/// Why an envelope is not to be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// It is sealed to somebody else, or was changed.
    #[error("the envelope does not open")]
    Sealed,
    /// What is in it is no letter, or too long for an envelope.
    #[error(transparent)]
    Letter(#[from] WireError),
}

/// Seals a letter to a device under the number that the envelope will have. Sizes are powers of two.
///
/// # Errors
/// [`EnvelopeError::Letter`] if it is too long, [`EnvelopeError::Sealed`] if `seal` is no key to seal to.
pub fn seal_letter(
    id: EnvelopeId,
    to: DeviceKey,
    seal: &SealKey,
    not_after: UnixMillis,
    letter: &Letter,
) -> Result<Envelope, EnvelopeError> {
    let letter = letter.encode()?;
    let len = u32::try_from(letter.len()).expect("a letter's limit is less than that");
    let padded = padded_len(SEAL_BYTES + LENGTH_BYTES + letter.len()) - SEAL_BYTES;
    let mut plain = Vec::with_capacity(padded);
    plain.extend_from_slice(&len.to_le_bytes());
    plain.extend_from_slice(&letter);
    plain.resize(padded, 0);
    let sealed = ahoy_identity::seal(seal, &context(id, to), &plain).ok_or(EnvelopeError::Sealed)?;
    let too_long = WireError::TooLong { name: Letter::NAME, len: letter.len(), max: Letter::BYTES_MAX };
    Ok(Envelope { to, id, not_after, sealed: Blob::new(sealed).ok_or(too_long)? })
}

/// Opens an envelope.
///
/// # Errors
/// See [`EnvelopeError`].
pub fn open_envelope(secret: &SealSecret, envelope: &Envelope) -> Result<Letter, EnvelopeError> {
    let plain = secret.open(&context(envelope.id, envelope.to), &envelope.sealed).ok_or(EnvelopeError::Sealed)?;
    let malformed = WireError::Malformed { name: Letter::NAME };
    let (len, rest) = plain.split_first_chunk::<LENGTH_BYTES>().ok_or(malformed)?;
    let letter = rest.get(..u32::from_le_bytes(*len) as usize).ok_or(malformed)?;
    Ok(Letter::decode(letter)?)
}

/// Bound into the seal, so that nobody puts the content into an envelope of another number, which would be taken again.
fn context(id: EnvelopeId, to: DeviceKey) -> Vec<u8> {
    [b"ahoy/envelope/1".as_slice(), to.as_bytes(), id.as_bytes()].concat()
}
