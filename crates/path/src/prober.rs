//! Makes and reads authenticated probes, within a budget. Knows nothing of paths: what a probe means is the agent's.

use crate::budget::{Budget, Rate};
use crate::keys::ProbeKeys;
use crate::outstanding::{Guesses, Outstanding, Sent};
use crate::random::Random;
use crate::replay::Seen;
use crate::route::Way;
use crate::types::{Dropped, Transmit};
use ahoy_protocol::datagram::{Kind, Ping, Pong, Side, classify};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// PINGs to addresses and PONGs have a budget each, so that a peer that asks much does not keep this side from asking; PINGs through legs
/// have one, so that none of these keeps a leg's death from being noticed; and guesses have one, so that they take nothing from any.
pub(crate) const TRANSMITS_MAX: usize =
    2 * Rate::PROBES.in_any_second_max() + Rate::LEGS.in_any_second_max() + Rate::GUESSES.in_any_second_max();

/// What a PONG through a leg says in the place of an address.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// An authenticated probe of the other side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Ping(Ping),
    Pong(Pong),
}

/// What was sent in all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    pub(crate) pings: u32,
    pub(crate) pongs: u32,
    pub(crate) guesses: u32,
}

/// A PING of this side's that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// One that had an address.
    Ping(Sent),
    /// A guess, sent at this time.
    Guess(Instant),
}

/// Makes and reads probes.
#[derive(Debug)]
pub(crate) struct Prober {
    side: Side,
    keys: ProbeKeys,
    random: Random,
    outstanding: Outstanding,
    guesses: Guesses,
    seen: Seen,
    pings: Budget,
    leg_pings: Budget,
    pongs: Budget,
    guess_pings: Budget,
    sent: Sums,
    transmits: VecDeque<Transmit>,
}

impl Prober {
    pub(crate) fn new(side: Side, keys: ProbeKeys, seed: u64, now: Instant) -> Self {
        Self {
            side,
            keys,
            random: Random::new(seed),
            outstanding: Outstanding::default(),
            guesses: Guesses::default(),
            seen: Seen::default(),
            pings: Budget::new(now, Rate::PROBES),
            leg_pings: Budget::new(now, Rate::LEGS),
            pongs: Budget::new(now, Rate::PROBES),
            guess_pings: Budget::new(now, Rate::GUESSES),
            sent: Sums::default(),
            transmits: VecDeque::new(),
        }
    }

    pub(crate) fn tag(&self) -> [u8; 8] {
        self.keys.tag()
    }

    /// The probe that `datagram` is, if the other side of this call made it. The cheap checks come first.
    pub(crate) fn read(&self, datagram: &[u8]) -> Result<Probe, Dropped> {
        let (probe, tag, sender) = match classify(datagram) {
            Some(Kind::Ping) => {
                let ping = Ping::decode(datagram).map_err(|_| Dropped::Malformed)?;
                (Probe::Ping(ping), ping.tag, ping.sender)
            }
            Some(Kind::Pong) => {
                let pong = Pong::decode(datagram).map_err(|_| Dropped::Malformed)?;
                (Probe::Pong(pong), pong.tag, pong.sender)
            }
            Some(Kind::Quic | Kind::Move | Kind::Relay | Kind::Observe | Kind::Observed) | None => return Err(Dropped::Malformed),
        };
        if tag != self.keys.tag() {
            return Err(Dropped::OtherCall);
        }
        if sender == self.side {
            return Err(Dropped::Reflected);
        }
        if !self.keys.check(datagram) {
            return Err(Dropped::Forged);
        }
        Ok(probe)
    }

    /// A number for whatever has to look random.
    pub(crate) fn random(&mut self) -> u64 {
        self.random.next()
    }

    pub(crate) fn sums(&self) -> Sums {
        self.sent
    }

    /// Sends a PING, if the budget allows it.
    pub(crate) fn ping(&mut self, now: Instant, way: Way, late_after: Duration) -> bool {
        let budget = if way.is_direct() { &mut self.pings } else { &mut self.leg_pings };
        if !budget.take(now) {
            return false;
        }
        let transaction = self.transmit_ping(way);
        self.outstanding.insert(transaction, way, now, late_after);
        self.sent.pings = self.sent.pings.saturating_add(1);
        true
    }

    /// Sends a PING where perhaps nobody is, if the budget allows it.
    pub(crate) fn guess(&mut self, now: Instant, way: Way) -> bool {
        if !self.guess_pings.take(now) {
            return false;
        }
        let transaction = self.transmit_ping(way);
        self.guesses.insert(transaction, way, now);
        self.sent.guesses = self.sent.guesses.saturating_add(1);
        true
    }

    fn transmit_ping(&mut self, way: Way) -> u64 {
        let transaction = self.random.next();
        let ping = Ping { tag: self.keys.tag(), transaction, sender: self.side };
        self.transmit(way, &ping.encode());
        transaction
    }

    /// Whether a PING is to be answered: not twice, and not beyond the budget.
    pub(crate) fn may_answer(&self, now: Instant, ping: &Ping) -> Result<(), Dropped> {
        if self.seen.contains(ping.transaction) {
            Err(Dropped::Replayed)
        } else if self.pongs.is_spent(now) {
            Err(Dropped::TooMany)
        } else {
            Ok(())
        }
    }

    /// Answers a PING that came by `way`.
    pub(crate) fn answer(&mut self, now: Instant, way: Way, ping: &Ping) {
        if !self.pongs.take(now) {
            return;
        }
        self.seen.insert(ping.transaction);
        let observed = match way {
            Way::Direct { remote, .. } => remote,
            Way::Leg(_) => NO_ADDRESS,
        };
        let pong = Pong { tag: self.keys.tag(), transaction: ping.transaction, sender: self.side, observed };
        self.transmit(way, &pong.encode());
        self.sent.pongs = self.sent.pongs.saturating_add(1);
    }

    /// The PING that a PONG by `way` answers.
    pub(crate) fn answered_by(&mut self, pong: &Pong, way: Way) -> Option<Answered> {
        let ping = self.outstanding.take(pong.transaction, way).map(Answered::Ping);
        ping.or_else(|| self.guesses.take(pong.transaction, way).map(Answered::Guess))
    }

    /// An answer took so long: others may as well.
    pub(crate) fn give_time(&mut self, now: Instant, time: Duration) {
        self.outstanding.give_time(now, time);
    }

    /// The PINGs whose answer is late, oldest first.
    pub(crate) fn become_late(&mut self, now: Instant) -> Vec<Sent> {
        self.outstanding.become_late(now)
    }

    /// When [`become_late`](Self::become_late) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outstanding.deadline()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn transmit(&mut self, way: Way, message: &[u8]) {
        // An owner that does not fetch what is to be sent loses the oldest.
        if self.transmits.len() >= TRANSMITS_MAX {
            self.transmits.pop_front();
        }
        self.transmits.push_back(Transmit { way, bytes: self.keys.seal(message) });
    }
}
