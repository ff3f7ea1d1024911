//! Every bound of the relay, with its reason.

use std::time::Duration;

/// Bits of a channel that say where its leg lies in the table; the rest are random.
pub const SLOT_BITS: u32 = 13;
/// Most legs at one time: a core forwards for about two thousand, and each incoming call rings several devices.
pub const LEGS_MAX: usize = 1 << SLOT_BITS;
/// Most legs of one device: two per call for the two relays a call may use, at calls to several devices of one user.
pub const LEGS_PER_DEVICE_MAX: usize = 16;
/// Most control connections at one time. Each may carry several legs, and one without a leg soon goes.
pub const CONNECTIONS_MAX: usize = LEGS_MAX;
/// Most control connections from one address prefix (IPv4 /24, IPv6 /48): a university, not a flood. Loopback is free of it.
pub const CONNECTIONS_PER_PREFIX_MAX: usize = 512;
/// Refusals after which a connection is closed: a client of ours stops at the first, and each costs a check of a signature.
pub const REFUSALS_PER_CONNECTION_MAX: u32 = 16;

/// Longest payload of a frame: QUIC packets of a call are at most 1350 bytes long.
pub const PAYLOAD_BYTES_MAX: usize = 1400;
/// Bytes that a leg may send at once on top of its rate: a quarter of a second of everything a call may burst.
pub const BURST_BYTES: u64 = 32 * 1024;
/// Most that a leg gets, whatever its grant says, in kilobits a second: files share a call's legs at the lowest priority.
pub const LEG_KBIT_PER_S_MAX: u32 = 2_000;
/// What the relay forwards at most before it refuses further legs, in kilobits a second. Calls that run are never slowed by it.
pub const TOTAL_KBIT_PER_S: u32 = 100_000;
/// Load, in percent, from which on legs are refused.
pub const BUSY_PERCENT: u8 = 95;
/// When to come back after a refusal.
pub const BUSY_RETRY: Duration = Duration::from_secs(5);

/// How long a client may take to say which call a stream is for, and to make room for an answer.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may have no leg: clients measure relays before they choose one.
pub const LEGLESS_MAX: Duration = Duration::from_secs(30);
/// How long a leg may last: a day, after which the client joins again with the grant it has then.
pub const LEG_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often, for one leg, frames from another address make the relay look where the leg's connection is.
pub const ADDRESS_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often all legs are compared with their connections: a client that only listens moves too, and one that QUIC did not follow moves back.
pub const ADDRESS_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long an address that a leg moved to is on probation, counted from when the leg's connection is there too. QUIC follows a packet
/// before it has proved that the client receives there, and turns back within a second or so if it does not; a move proves nothing of it.
pub const PROBATION: Duration = Duration::from_secs(30);
/// What goes to an address on probation, in kilobits a second: a voice, and nothing worth forging a source for.
pub const PROBATION_KBIT_PER_S: u32 = 80;
/// Codes of moves that are checked a second for one leg, and at once: each costs two microseconds, and a device sends one when it has moved
/// and a few more when it hears nothing. Who does not know a leg's channel costs none.
pub const MOVES_PER_S: u64 = 32;
/// See [`MOVES_PER_S`].
pub const MOVES_BURST: u64 = 32;
/// Most looks that wait. More than that are dropped; the next frame asks again.
pub const ADDRESS_LOOKS_WAITING_MAX: usize = 256;

/// How often the relay tells supernodes that it is alive.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// Most supernodes that it tells.
pub const SUPERNODES_TOLD_MAX: usize = 16;
/// How long a supernode may take to answer.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
