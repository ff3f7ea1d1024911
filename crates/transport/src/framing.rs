//! Messages on a stream: a length of four bytes, then the bytes of [`Wire`].
//!
//! The length is held against the limit of the message's type before anything is read or reserved. Time-outs are the
//! caller's. Neither function may be dropped half-way and called again on the same stream.

use crate::TransportError;
use ahoy_protocol::{Wire, WireError};
use quinn::{ReadExactError, RecvStream, SendStream};

/// Bytes of the length in front of each message.
const LENGTH_BYTES: usize = 4;

/// Sends one message.
///
/// # Errors
/// [`TransportError::Wire`] if it is over its limit, others if the stream or connection has ended.
pub async fn send<T: Wire>(stream: &mut SendStream, message: &T) -> Result<(), TransportError> {
    let message = message.encode()?;
    let length = u32::try_from(message.len()).map_err(|_| too_long::<T>(message.len()))?;
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message);
    Ok(stream.write_all(&bytes).await?)
}

/// Receives one message; `None` if the stream ended cleanly before one began.
///
/// # Errors
/// [`TransportError::Wire`] for what is no message or too long, others if the stream or connection has ended.
pub async fn receive<T: Wire>(stream: &mut RecvStream) -> Result<Option<T>, TransportError> {
    match receive_length::<T>(stream).await? {
        Some(length) => receive_body(stream, length).await.map(Some),
        None => Ok(None),
    }
}

/// Receives the length of one message, for those to whom it matters before they read the rest with [`receive_body`]; `None` if the stream
/// ended cleanly before.
///
/// # Errors
/// As [`receive`].
pub async fn receive_length<T: Wire>(stream: &mut RecvStream) -> Result<Option<usize>, TransportError> {
    let mut length = [0; LENGTH_BYTES];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > T::BYTES_MAX {
        return Err(too_long::<T>(length));
    }
    Ok(Some(length))
}

/// Receives the message of which [`receive_length`] returned the length.
///
/// # Errors
/// As [`receive`].
pub async fn receive_body<T: Wire>(stream: &mut RecvStream, length: usize) -> Result<T, TransportError> {
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(T::decode(&message)?)
}

fn too_long<T: Wire>(len: usize) -> TransportError {
    WireError::TooLong { name: T::NAME, len, max: T::BYTES_MAX }.into()
}
