//! The protocol for networks that block UDP: datagrams inside TLS over TCP.
//!
//! A client connects to a node's TCP address (directly, or through a proxy), makes a TLS 1.3 handshake in which the node proves its key, and
//! then both send frames: the length of a datagram (2 bytes, big-endian), and the datagram as it would be on UDP. What the datagrams are,
//! QUIC for control and relay frames for calls, is told apart as on UDP (see [`datagram`](crate::datagram)); the client proves its own key in
//! QUIC's handshake. A frame of length 0 keeps the connection alive.

use thiserror::Error;

/// ALPN of the outer TLS.
pub const ALPN: &[u8] = b"ahoy-tunnel/1";
/// Bytes before each datagram.
pub const HEADER_BYTES: usize = 2;
/// Longest datagram that a tunnel carries: what fits into an Ethernet frame.
pub const DATAGRAM_BYTES_MAX: usize = 1472;

/// Why a tunnel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame of {0} bytes; no datagram is longer than {DATAGRAM_BYTES_MAX}")]
pub struct FrameTooLong(pub usize);

/// Puts the header before a datagram.
///
/// # Errors
/// [`FrameTooLong`], which a datagram of ours never is.
pub fn frame(datagram: &[u8]) -> Result<Vec<u8>, FrameTooLong> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(FrameTooLong(datagram.len()));
    }
    let length = u16::try_from(datagram.len()).expect("the bound is below 64 KiB");
    Ok([&length.to_be_bytes(), datagram].concat())
}

/// The first datagram in `received` and how many bytes it takes there; `None` if it has not arrived whole.
///
/// # Errors
/// [`FrameTooLong`]: the other side does not keep to the protocol.
pub fn parse_frame(received: &[u8]) -> Result<Option<(&[u8], usize)>, FrameTooLong> {
    let Some((header, rest)) = received.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*header));
    if length > DATAGRAM_BYTES_MAX {
        return Err(FrameTooLong(length));
    }
    Ok(rest.get(..length).map(|datagram| (datagram, HEADER_BYTES + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_one_after_the_other() {
        let stream = [frame(b"one").expect("short"), frame(b"").expect("short"), frame(&[7; DATAGRAM_BYTES_MAX]).expect("fits")].concat();
        let (first, used) = parse_frame(&stream).expect("fits").expect("whole");
        assert_eq!(first, b"one");
        let (keep_alive, more) = parse_frame(&stream[used..]).expect("fits").expect("whole");
        assert!(keep_alive.is_empty());
        let (last, _) = parse_frame(&stream[used + more..]).expect("fits").expect("whole");
        assert_eq!(last, [7; DATAGRAM_BYTES_MAX]);
    }

    #[test]
    fn a_part_of_a_frame_is_waited_for() {
        let whole = frame(b"ahoy").expect("short");
        for part in 0..whole.len() {
            assert_eq!(parse_frame(&whole[..part]), Ok(None));
        }
    }

    #[test]
    fn a_longer_frame_is_refused_by_its_header() {
        assert_eq!(parse_frame(&[0xff, 0xff]), Err(FrameTooLong(65535)));
        assert!(frame(&[0; DATAGRAM_BYTES_MAX + 1]).is_err());
    }
}
