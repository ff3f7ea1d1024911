//! What shares a UDP port with QUIC, told apart by the first byte (RFC 9443: QUIC packets have the bit `0x40` set where it is not greased).
//!
//! | first byte | what | layout after it |
//! |---|---|---|
//! | `0x0e` | move | channel (4), counter (8), MAC (16) |
//! | `0x0f` | relay frame | channel (4), payload |
//! | `0x10` | observe | nonce (8), zeros up to 64 bytes in all |
//! | `0x11` | observed | nonce (8), load (1), address (19) |
//! | `0x12` | ping | tag (8), transaction (8), sender (1), MAC (16) |
//! | `0x13` | pong | tag (8), transaction (8), sender (1), address (19), MAC (16) |
//! | bit `0x40` | QUIC | |
//!
//! An address is a family (4 or 6), 16 bytes of which an IPv4 address takes the first four, and a port. Numbers are big-endian.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// First byte of a move: "this leg's device sends from here now".
pub const KIND_MOVE: u8 = 0x0e;
/// First byte of a relay frame.
pub const KIND_RELAY: u8 = 0x0f;
/// First byte of an observe request.
pub const KIND_OBSERVE: u8 = 0x10;
/// First byte of its answer.
pub const KIND_OBSERVED: u8 = 0x11;
/// First byte of a path probe.
pub const KIND_PING: u8 = 0x12;
/// First byte of its answer.
pub const KIND_PONG: u8 = 0x13;

/// Bytes that a relay frame adds to its payload.
pub const RELAY_HEADER_BYTES: usize = 5;
/// Length of an observe request: longer than its answer, so that nobody is served as an amplifier.
pub const OBSERVE_BYTES: usize = 64;
/// Length of the answer.
pub const OBSERVED_BYTES: usize = 1 + 8 + 1 + ADDRESS_BYTES;
/// Length of a move.
pub const MOVE_BYTES: usize = 1 + 4 + 8 + MAC_BYTES;
/// Length of a path probe.
pub const PING_BYTES: usize = 1 + 8 + 8 + 1 + MAC_BYTES;
/// Length of its answer.
pub const PONG_BYTES: usize = 1 + 8 + 8 + 1 + ADDRESS_BYTES + MAC_BYTES;
/// Length of the authentication code of probes.
pub const MAC_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 19;

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed datagram")]
pub struct DatagramError;

/// What a datagram is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For quinn.
    Quic,
    /// A move.
    Move,
    /// A relay frame.
    Relay,
    /// An observe request.
    Observe,
    /// Its answer.
    Observed,
    /// A path probe.
    Ping,
    /// Its answer.
    Pong,
}

/// Tells what a datagram is; `None`: nothing of ours.
#[must_use]
pub fn classify(datagram: &[u8]) -> Option<Kind> {
    match *datagram.first()? {
        first if first & 0x40 != 0 => Some(Kind::Quic),
        KIND_MOVE => Some(Kind::Move),
        KIND_RELAY => Some(Kind::Relay),
        KIND_OBSERVE => Some(Kind::Observe),
        KIND_OBSERVED => Some(Kind::Observed),
        KIND_PING => Some(Kind::Ping),
        KIND_PONG => Some(Kind::Pong),
        _ => None,
    }
}

/// Puts the header of a relay frame before `payload`.
#[must_use]
pub fn relay_frame(channel: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(RELAY_HEADER_BYTES + payload.len());
    frame.push(KIND_RELAY);
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Channel and payload of a relay frame. An empty payload keeps a NAT's mapping alive and is forwarded to nobody.
///
/// # Errors
/// [`DatagramError`] if it is none.
pub fn parse_relay_frame(datagram: &[u8]) -> Result<(u32, &[u8]), DatagramError> {
    match datagram {
        [KIND_RELAY, a, b, c, d, payload @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), payload)),
        _ => Err(DatagramError),
    }
}

/// "The device of this leg sends from here now": to a relay, after the device's address or its NAT's mapping changed. The code is
/// HMAC-SHA256 under the leg's key over all bytes before it, cut to its first 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The leg's channel.
    pub channel: u32,
    /// Higher than in every move of this leg before, so that none can be repeated by somebody else.
    pub counter: u64,
}

impl Move {
    /// All bytes but the code.
    #[must_use]
    pub fn encode(&self) -> [u8; MOVE_BYTES - MAC_BYTES] {
        let mut bytes = [0; MOVE_BYTES - MAC_BYTES];
        bytes[0] = KIND_MOVE;
        bytes[1..5].copy_from_slice(&self.channel.to_be_bytes());
        bytes[5..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    /// The move that `datagram` claims to be, with its code unchecked.
    ///
    /// # Errors
    /// [`DatagramError`] if it claims to be none.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        if datagram.len() != MOVE_BYTES || datagram[0] != KIND_MOVE {
            return Err(DatagramError);
        }
        Ok(Self { channel: u32::from_be_bytes(take(datagram, 1)), counter: u64::from_be_bytes(take(datagram, 5)) })
    }
}

/// "From which address do you see me?"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observe {
    /// Comes back in the answer.
    pub nonce: [u8; 8],
}

impl Observe {
    /// The request as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; OBSERVE_BYTES] {
        let mut bytes = [0; OBSERVE_BYTES];
        bytes[0] = KIND_OBSERVE;
        bytes[1..9].copy_from_slice(&self.nonce);
        bytes
    }

    /// The request that `datagram` stands for.
    ///
    /// # Errors
    /// [`DatagramError`] if it stands for none.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let datagram: &[u8; OBSERVE_BYTES] = datagram.try_into().map_err(|_| DatagramError)?;
        if datagram[0] != KIND_OBSERVE || datagram[9..].iter().any(|byte| *byte != 0) {
            return Err(DatagramError);
        }
        Ok(Self { nonce: take(datagram, 1) })
    }
}

/// "From this one."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// From the request.
    pub nonce: [u8; 8],
    /// Share of the answering node's limit in use, in percent.
    pub load_percent: u8,
    /// Where the request came from.
    pub address: SocketAddr,
}

impl Observed {
    /// The answer as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; OBSERVED_BYTES] {
        let mut bytes = [0; OBSERVED_BYTES];
        bytes[0] = KIND_OBSERVED;
        bytes[1..9].copy_from_slice(&self.nonce);
        bytes[9] = self.load_percent;
        bytes[10..].copy_from_slice(&address_bytes(self.address));
        bytes
    }

    /// The answer that `datagram` stands for.
    ///
    /// # Errors
    /// [`DatagramError`] if it stands for none.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        let datagram: &[u8; OBSERVED_BYTES] = datagram.try_into().map_err(|_| DatagramError)?;
        if datagram[0] != KIND_OBSERVED {
            return Err(DatagramError);
        }
        Ok(Self { nonce: take(datagram, 1), load_percent: datagram[9], address: parse_address(&take(datagram, 10))? })
    }
}

/// Which of the two sides sent a probe, so that one reflected to its sender is not taken for the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The caller.
    Caller,
    /// The callee.
    Callee,
}

impl Side {
    /// The other side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Caller => 0,
            Self::Callee => 1,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Caller),
            1 => Some(Self::Callee),
            _ => None,
        }
    }
}

/// A path probe. The code is made and checked by the path agent, over all bytes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Which call it is for; derived from the call's secret.
    pub tag: [u8; 8],
    /// Comes back in the answer.
    pub transaction: u64,
    /// Who sent it.
    pub sender: Side,
}

impl Ping {
    /// All bytes but the code.
    #[must_use]
    pub fn encode(&self) -> [u8; PING_BYTES - MAC_BYTES] {
        let mut bytes = [0; PING_BYTES - MAC_BYTES];
        bytes[0] = KIND_PING;
        bytes[1..9].copy_from_slice(&self.tag);
        bytes[9..17].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[17] = self.sender.code();
        bytes
    }

    /// The probe that `datagram` claims to be, with its code unchecked.
    ///
    /// # Errors
    /// [`DatagramError`] if it claims to be none.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        if datagram.len() != PING_BYTES || datagram[0] != KIND_PING {
            return Err(DatagramError);
        }
        let sender = Side::from_code(datagram[17]).ok_or(DatagramError)?;
        Ok(Self { tag: take(datagram, 1), transaction: u64::from_be_bytes(take(datagram, 9)), sender })
    }
}

/// Answer to a path probe, with its code as for [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// Which call it is for.
    pub tag: [u8; 8],
    /// From the probe.
    pub transaction: u64,
    /// Who sent this answer.
    pub sender: Side,
    /// Where the probe came from.
    pub observed: SocketAddr,
}

impl Pong {
    /// All bytes but the code.
    #[must_use]
    pub fn encode(&self) -> [u8; PONG_BYTES - MAC_BYTES] {
        let mut bytes = [0; PONG_BYTES - MAC_BYTES];
        bytes[0] = KIND_PONG;
        bytes[1..9].copy_from_slice(&self.tag);
        bytes[9..17].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[17] = self.sender.code();
        bytes[18..].copy_from_slice(&address_bytes(self.observed));
        bytes
    }

    /// The answer that `datagram` claims to be, with its code unchecked.
    ///
    /// # Errors
    /// [`DatagramError`] if it claims to be none.
    pub fn decode(datagram: &[u8]) -> Result<Self, DatagramError> {
        if datagram.len() != PONG_BYTES || datagram[0] != KIND_PONG {
            return Err(DatagramError);
        }
        Ok(Self {
            tag: take(datagram, 1),
            transaction: u64::from_be_bytes(take(datagram, 9)),
            sender: Side::from_code(datagram[17]).ok_or(DatagramError)?,
            observed: parse_address(&take(datagram, 18))?,
        })
    }
}

/// `N` bytes from `at` on. The caller has checked the length.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

fn address_bytes(address: SocketAddr) -> [u8; ADDRESS_BYTES] {
    let mut bytes = [0; ADDRESS_BYTES];
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&ip.octets());
        }
    }
    bytes[17..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn parse_address(bytes: &[u8; ADDRESS_BYTES]) -> Result<SocketAddr, DatagramError> {
    let ip: IpAddr = match bytes[0] {
        4 if bytes[5..17].iter().all(|byte| *byte == 0) => Ipv4Addr::from(take::<4>(bytes, 1)).into(),
        6 => Ipv6Addr::from(take::<16>(bytes, 1)).into(),
        _ => return Err(DatagramError),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(take(bytes, 17))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> [SocketAddr; 2] {
        ["192.0.2.1:4433".parse().expect("v4"), "[2001:db8::1]:9".parse().expect("v6")]
    }

    #[test]
    fn an_answer_is_never_longer_than_its_request() {
        const { assert!(OBSERVED_BYTES <= OBSERVE_BYTES) };
    }

    #[test]
    fn observation_reads_back() {
        let ask = Observe { nonce: *b"ahoyahoy" };
        assert_eq!(Observe::decode(&ask.encode()), Ok(ask));
        for address in addresses() {
            let told = Observed { nonce: ask.nonce, load_percent: 12, address };
            assert_eq!(Observed::decode(&told.encode()), Ok(told));
        }
    }

    #[test]
    fn probes_read_back() {
        let ping = Ping { tag: [1; 8], transaction: 77, sender: Side::Callee };
        let with_code = [&ping.encode()[..], &[9; MAC_BYTES]].concat();
        assert_eq!(Ping::decode(&with_code), Ok(ping));
        for observed in addresses() {
            let pong = Pong { tag: [1; 8], transaction: 77, sender: Side::Caller, observed };
            let with_code = [&pong.encode()[..], &[9; MAC_BYTES]].concat();
            assert_eq!(Pong::decode(&with_code), Ok(pong));
            assert!(Pong::decode(&with_code[1..]).is_err());
        }
    }

    #[test]
    fn kinds_do_not_overlap_with_quic() {
        for kind in [KIND_MOVE, KIND_RELAY, KIND_OBSERVE, KIND_OBSERVED, KIND_PING, KIND_PONG] {
            assert_ne!(classify(&[kind]), Some(Kind::Quic));
            assert!(classify(&[kind]).is_some());
        }
        assert_eq!(classify(&[0x40]), Some(Kind::Quic));
        assert_eq!(classify(&[0xc3]), Some(Kind::Quic));
        assert_eq!(classify(&[]), None);
        assert_eq!(classify(&[0x80]), None);
    }

    #[test]
    fn a_move_reads_back() {
        let moved = Move { channel: 7, counter: 1 << 40 };
        let with_code = [&moved.encode()[..], &[9; MAC_BYTES]].concat();
        assert_eq!(Move::decode(&with_code), Ok(moved));
        assert!(Move::decode(&with_code[1..]).is_err());
    }

    #[test]
    fn a_relay_frame_reads_back() {
        assert_eq!(parse_relay_frame(&relay_frame(7, b"x")), Ok((7, &b"x"[..])));
        assert!(parse_relay_frame(&[KIND_RELAY, 0, 0, 0]).is_err());
    }
}
