//! The relay's table of legs: who is joined with whom, and where each frame goes.
//!
//! A state machine without I/O: time and randomness are arguments, effects are return values. It promises that a frame
//! goes only to the address of a leg whose device named the sender's and was named by it, that nothing is sent to an
//! address that has no leg, and that for each frame at most one of the same length goes out.
//!
//! A leg is where its connection comes from, or where its device's last move came from, whichever was heard later. Both are followed at
//! once, and little is sent there until QUIC has proved that the device receives there.
//!
//! What it leaves out: who may have a leg (the grant is checked before), and when a leg ends (with its stream).

use crate::bucket::{Meter, TokenBucket};
use crate::limits::{
    ADDRESS_LOOK_INTERVAL, BURST_BYTES, BUSY_PERCENT, LEG_KBIT_PER_S_MAX, LEGS_MAX, LEGS_PER_DEVICE_MAX, MOVES_BURST, MOVES_PER_S,
    PAYLOAD_BYTES_MAX, PROBATION, PROBATION_KBIT_PER_S, SLOT_BITS, TOTAL_KBIT_PER_S,
};
use ahoy_identity::check_leg_code;
use ahoy_protocol::datagram::{Kind, Move, PING_BYTES, PONG_BYTES, classify, parse_relay_frame};
use ahoy_protocol::ids::LegKey;
use ahoy_protocol::{CallId, DeviceKey};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;
use thiserror::Error;

/// What a device asks for, its grant being checked.
#[derive(Debug, Clone, Copy)]
pub struct LegRequest {
    /// The call.
    pub call: CallId,
    /// The device that asks, as it proved in its handshake.
    pub device: DeviceKey,
    /// The device it wants to be joined with.
    pub peer: DeviceKey,
    /// Where its connection comes from.
    pub address: SocketAddr,
    /// Where its connection's handshake came from, which proved that the device receives there.
    pub proved: SocketAddr,
    /// What its grant allows.
    pub kbit_per_s: u32,
    /// What its moves are sealed with.
    pub key: LegKey,
}

/// A leg that came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Its channel.
    pub channel: u32,
    /// The channel of the other leg, if it is there: the two are joined.
    pub with: Option<u32>,
    /// The channel of the same device's older leg for the same pair, which is gone.
    pub replaced: Option<u32>,
}

/// Why a leg did not come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The relay has as much as it can take.
    #[error("the relay is full")]
    Full,
    /// The device has as many legs as it may have.
    #[error("a device may have {LEGS_PER_DEVICE_MAX} legs")]
    DeviceFull,
    /// The device named itself.
    #[error("a device cannot be joined with itself")]
    Itself,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its payload goes to this address, in a frame of this channel.
    Forward {
        /// The other leg's address.
        to: SocketAddr,
        /// The other leg's channel.
        channel: u32,
    },
    /// It was heard and goes nowhere.
    KeptAlive,
    /// It was a move, and its leg is where it came from.
    Moved,
    /// It is dropped, and it is time to look from where the connection of the leg with this channel comes.
    Look(u32),
    /// It is dropped.
    Drop(Reason),
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Neither a frame, with a payload that is a packet or a probe of a call, nor a move.
    Malformed,
    /// No leg has its channel.
    UnknownChannel,
    /// It does not come from its leg's address.
    OtherAddress,
    /// Its leg is not joined.
    NotJoined,
    /// Its leg sends more than its grant allows, or the other leg is at an address that has yet to prove itself.
    OverRate,
    /// It is a move with a wrong code or an old counter, or one of too many.
    NotProved,
}

/// What the forwarder has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Legs that came to be.
    pub joined: u64,
    /// Legs that were refused.
    pub refused: u64,
    /// Frames forwarded.
    pub forwarded_frames: u64,
    /// Their bytes, headers included.
    pub forwarded_bytes: u64,
    /// Frames dropped as [`Reason::Malformed`].
    pub malformed: u64,
    /// Frames dropped as [`Reason::UnknownChannel`].
    pub unknown_channel: u64,
    /// Frames dropped as [`Reason::OtherAddress`].
    pub other_address: u64,
    /// Frames dropped as [`Reason::NotJoined`].
    pub not_joined: u64,
    /// Frames dropped as [`Reason::OverRate`].
    pub over_rate: u64,
    /// Moves that were followed.
    pub moved: u64,
    /// Moves dropped as [`Reason::NotProved`].
    pub not_proved: u64,
}

/// The table of legs.
#[derive(Debug)]
pub struct Forwarder {
    /// A leg lies in the slot that the low bits of its channel name.
    slots: Vec<Option<Leg>>,
    free: Vec<u32>,
    /// The channel of each leg by what it asked for.
    by_pair: HashMap<Pair, u32>,
    legs_of: HashMap<DeviceKey, usize>,
    meter: Meter,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair {
    call: CallId,
    device: DeviceKey,
    peer: DeviceKey,
}

impl Pair {
    fn seen_from_the_peer(self) -> Self {
        Self { call: self.call, device: self.peer, peer: self.device }
    }
}

#[derive(Debug)]
struct Leg {
    channel: u32,
    pair: Pair,
    address: SocketAddr,
    /// Where its connection was heard from last.
    connection: SocketAddr,
    /// Where the device has proved that it receives.
    proved: SocketAddr,
    /// Since when it is elsewhere, or its connection has followed it there.
    moved: Option<Instant>,
    key: LegKey,
    /// Of the last move that was followed.
    move_counter: Option<u64>,
    /// How many moves may be looked at.
    move_checks: TokenBucket,
    joined_with: Option<u32>,
    /// What the device may send.
    rate: TokenBucket,
    /// What it may be sent while it is on probation.
    probation_rate: TokenBucket,
    looked: Option<Instant>,
}

impl Leg {
    fn move_to(&mut self, address: SocketAddr, now: Instant) {
        if self.address != address {
            self.address = address;
            self.moved = (address != self.proved).then_some(now);
        }
    }

    /// The leg's connection comes from `address`. Where it has come from before says nothing: a move may be newer than that.
    fn connection_at(&mut self, address: SocketAddr, now: Instant) {
        if self.connection == address {
            return;
        }
        self.connection = address;
        self.move_to(address, now);
        if self.moved.is_some() {
            self.moved = Some(now);
        }
    }

    /// Follows a move that `sealed` is, if it is the device's and its newest.
    fn follow(&mut self, moved: Move, sealed: &[u8], from: SocketAddr, now: Instant) -> bool {
        let is_newer = self.move_counter.is_none_or(|last| moved.counter > last);
        if !is_newer || !self.move_checks.take(1, now) || !check_leg_code(&self.key, sealed) {
            return false;
        }
        self.move_counter = Some(moved.counter);
        self.move_to(from, now);
        true
    }

    /// True if so many bytes may be sent to the leg's address. Probation ends here when its time is over.
    fn may_be_sent(&mut self, bytes: u64, now: Instant) -> bool {
        match self.moved {
            None => true,
            Some(moved) if self.connection == self.address && now.saturating_duration_since(moved) >= PROBATION => {
                self.proved = self.address;
                self.moved = None;
                true
            }
            Some(_) => self.probation_rate.take(bytes, now),
        }
    }
}

const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

impl Forwarder {
    /// An empty table.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_pair: HashMap::new(),
            legs_of: HashMap::new(),
            meter: Meter::new(now),
            counters: Counters::default(),
        }
    }

    /// Gives a device a leg, and joins it with the other one if that is there. `random` goes into the channel.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub fn join(&mut self, now: Instant, request: LegRequest, random: u32) -> Result<Joined, JoinError> {
        let joined = self.try_join(now, request, random);
        match joined {
            Ok(_) => self.counters.joined += 1,
            Err(_) => self.counters.refused += 1,
        }
        joined
    }

    fn try_join(&mut self, now: Instant, request: LegRequest, random: u32) -> Result<Joined, JoinError> {
        let pair = Pair { call: request.call, device: request.device, peer: request.peer };
        if pair.device == pair.peer {
            return Err(JoinError::Itself);
        }
        let replaced = self.by_pair.get(&pair).copied();
        if replaced.is_none() {
            self.check_room(now, &pair.device)?;
        }
        if let Some(older) = replaced {
            self.remove(older);
        }
        let slot = self.take_slot();
        let channel = channel_of(slot, random);
        let with = self.by_pair.get(&pair.seen_from_the_peer()).copied();
        if let Some(other) = with.and_then(|other| self.leg_mut(other)) {
            other.joined_with = Some(channel);
        }
        let proved = canonical(request.proved);
        let mut leg = Leg {
            channel,
            pair,
            address: proved,
            connection: proved,
            proved,
            moved: None,
            key: request.key,
            move_counter: None,
            move_checks: TokenBucket::new(MOVES_PER_S, MOVES_BURST, now),
            joined_with: with,
            rate: TokenBucket::new(bytes_per_s(request.kbit_per_s.min(LEG_KBIT_PER_S_MAX)), BURST_BYTES, now),
            probation_rate: TokenBucket::new(bytes_per_s(PROBATION_KBIT_PER_S), BURST_BYTES, now),
            looked: None,
        };
        leg.connection_at(canonical(request.address), now);
        self.slots[slot as usize] = Some(leg);
        self.by_pair.insert(pair, channel);
        *self.legs_of.entry(pair.device).or_default() += 1;
        Ok(Joined { channel, with, replaced })
    }

    /// Takes a leg away. The channel that it was joined with, if any, is alone now.
    pub fn leave(&mut self, channel: u32) -> Option<u32> {
        self.remove(channel)
    }

    /// What becomes of the datagram, a frame or a move, that came from `from`.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let verdict = match classify(datagram) {
            Some(Kind::Move) => self.judge_move(now, canonical(from), datagram),
            _ => self.judge(now, canonical(from), datagram),
        };
        self.count(now, verdict, datagram.len());
        verdict
    }

    fn judge_move(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let Ok(moved) = Move::decode(datagram) else { return Verdict::Drop(Reason::Malformed) };
        let Some(leg) = self.leg_mut(moved.channel) else { return Verdict::Drop(Reason::UnknownChannel) };
        if leg.follow(moved, datagram, from, now) { Verdict::Moved } else { Verdict::Drop(Reason::NotProved) }
    }

    fn judge(&mut self, now: Instant, from: SocketAddr, frame: &[u8]) -> Verdict {
        let Ok((channel, payload)) = parse_relay_frame(frame) else { return Verdict::Drop(Reason::Malformed) };
        if !payload.is_empty() && !is_of_a_call(payload) {
            return Verdict::Drop(Reason::Malformed);
        }
        let Some(leg) = self.leg_mut(channel) else { return Verdict::Drop(Reason::UnknownChannel) };
        if leg.address != from {
            let due = leg.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= ADDRESS_LOOK_INTERVAL);
            if due {
                leg.looked = Some(now);
                return Verdict::Look(channel);
            }
            return Verdict::Drop(Reason::OtherAddress);
        }
        if payload.is_empty() {
            return Verdict::KeptAlive;
        }
        let Some(other) = leg.joined_with else { return Verdict::Drop(Reason::NotJoined) };
        if !leg.rate.take(frame.len() as u64, now) {
            return Verdict::Drop(Reason::OverRate);
        }
        let other = self.leg_mut(other).expect("a leg that others are joined with is in the table");
        if !other.may_be_sent(frame.len() as u64, now) {
            return Verdict::Drop(Reason::OverRate);
        }
        Verdict::Forward { to: other.address, channel: other.channel }
    }

    /// The connection of the leg with this channel now comes from `address`.
    pub fn set_address(&mut self, now: Instant, channel: u32, address: SocketAddr) {
        if let Some(leg) = self.leg_mut(channel) {
            leg.connection_at(canonical(address), now);
        }
    }

    /// Share of the relay's limits in use, in percent: of the legs or of the rate, whichever is more.
    pub fn load_percent(&mut self, now: Instant) -> u8 {
        let legs = percent(self.legs() as u64, LEGS_MAX as u64);
        let rate = percent(self.meter.bytes_per_s(now), bytes_per_s(TOTAL_KBIT_PER_S));
        legs.max(rate)
    }

    /// How many legs there are.
    #[must_use]
    pub fn legs(&self) -> usize {
        self.by_pair.len()
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn check_room(&mut self, now: Instant, device: &DeviceKey) -> Result<(), JoinError> {
        if self.legs_of.get(device).is_some_and(|legs| *legs >= LEGS_PER_DEVICE_MAX) {
            return Err(JoinError::DeviceFull);
        }
        if self.legs() >= LEGS_MAX || self.load_percent(now) >= BUSY_PERCENT {
            return Err(JoinError::Full);
        }
        Ok(())
    }

    /// A free slot. The caller has seen that there is room.
    fn take_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("there are never more slots than LEGS_MAX")
        })
    }

    fn remove(&mut self, channel: u32) -> Option<u32> {
        self.leg(channel)?;
        let slot = channel & SLOT_MASK;
        let leg = self.slots[slot as usize].take()?;
        self.free.push(slot);
        self.by_pair.remove(&leg.pair);
        if let Some(legs) = self.legs_of.get_mut(&leg.pair.device) {
            *legs -= 1;
            if *legs == 0 {
                self.legs_of.remove(&leg.pair.device);
            }
        }
        let other = self.leg_mut(leg.joined_with?)?;
        other.joined_with = None;
        Some(other.channel)
    }

    fn leg(&self, channel: u32) -> Option<&Leg> {
        self.slots.get((channel & SLOT_MASK) as usize)?.as_ref().filter(|leg| leg.channel == channel)
    }

    fn leg_mut(&mut self, channel: u32) -> Option<&mut Leg> {
        self.slots.get_mut((channel & SLOT_MASK) as usize)?.as_mut().filter(|leg| leg.channel == channel)
    }

    fn count(&mut self, now: Instant, verdict: Verdict, bytes: usize) {
        match verdict {
            Verdict::Forward { .. } => {
                self.meter.count(bytes as u64, now);
                self.counters.forwarded_frames += 1;
                self.counters.forwarded_bytes += bytes as u64;
            }
            Verdict::KeptAlive => {}
            Verdict::Moved => self.counters.moved += 1,
            Verdict::Look(_) | Verdict::Drop(Reason::OtherAddress) => self.counters.other_address += 1,
            Verdict::Drop(Reason::Malformed) => self.counters.malformed += 1,
            Verdict::Drop(Reason::UnknownChannel) => self.counters.unknown_channel += 1,
            Verdict::Drop(Reason::NotJoined) => self.counters.not_joined += 1,
            Verdict::Drop(Reason::OverRate) => self.counters.over_rate += 1,
            Verdict::Drop(Reason::NotProved) => self.counters.not_proved += 1,
        }
    }
}

/// What two devices say to each other: QUIC, and probes, with which they measure the way through their legs.
fn is_of_a_call(payload: &[u8]) -> bool {
    match classify(payload) {
        Some(Kind::Quic) => payload.len() <= PAYLOAD_BYTES_MAX,
        Some(Kind::Ping) => payload.len() == PING_BYTES,
        Some(Kind::Pong) => payload.len() == PONG_BYTES,
        Some(Kind::Move | Kind::Relay | Kind::Observe | Kind::Observed) | None => false,
    }
}

/// A channel is random above its slot, so that knowing one's own says nothing of another's.
fn channel_of(slot: u32, random: u32) -> u32 {
    (random & !SLOT_MASK) | slot
}

/// An IPv4 address that came through an IPv6 socket is the same address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn bytes_per_s(kbit_per_s: u32) -> u64 {
    u64::from(kbit_per_s) * 1000 / 8
}

fn percent(part: u64, whole: u64) -> u8 {
    u8::try_from(part.saturating_mul(100) / whole.max(1)).unwrap_or(u8::MAX).min(100)
}

#[cfg(test)]
mod tests;
