//! Makes and reads authenticated probes, within a budget. Knows nothing of paths: what a probe means is the agent's.

use crate::budget::{Budget, IN_ANY_SECOND_MAX};
use crate::keys::ProbeKeys;
use crate::outstanding::{Outstanding, Sent};
use crate::random::Random;
use crate::replay::Seen;
use crate::types::{Dropped, Transmit};
use ahoy_protocol::datagram::{Kind, Ping, Pong, Side, classify};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// PINGs and PONGs have a budget each, so that a peer that asks much does not keep this side from asking.
pub(crate) const TRANSMITS_MAX: usize = 2 * IN_ANY_SECOND_MAX;

/// An authenticated probe of the other side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Ping(Ping),
    Pong(Pong),
}

/// Makes and reads probes.
#[derive(Debug)]
pub(crate) struct Prober {
    side: Side,
    keys: ProbeKeys,
    random: Random,
    outstanding: Outstanding,
    seen: Seen,
    pings: Budget,
    pongs: Budget,
    transmits: VecDeque<Transmit>,
}

impl Prober {
    pub(crate) fn new(side: Side, keys: ProbeKeys, seed: u64, now: Instant) -> Self {
        Self {
            side,
            keys,
            random: Random::new(seed),
            outstanding: Outstanding::default(),
            seen: Seen::default(),
            pings: Budget::new(now),
            pongs: Budget::new(now),
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
            Some(Kind::Quic | Kind::Relay | Kind::Observe | Kind::Observed) | None => return Err(Dropped::Malformed),
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

    /// Sends a PING, if the budget allows it.
    pub(crate) fn ping(&mut self, now: Instant, to: SocketAddr, late_after: Duration) -> bool {
        if !self.pings.take(now) {
            return false;
        }
        let transaction = self.random.next();
        let ping = Ping { tag: self.keys.tag(), transaction, sender: self.side };
        self.outstanding.insert(transaction, to, now, late_after);
        self.transmit(to, &ping.encode());
        true
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

    /// Answers a PING from `to`.
    pub(crate) fn answer(&mut self, now: Instant, to: SocketAddr, ping: &Ping) {
        if !self.pongs.take(now) {
            return;
        }
        self.seen.insert(ping.transaction);
        let pong = Pong { tag: self.keys.tag(), transaction: ping.transaction, sender: self.side, observed: to };
        self.transmit(to, &pong.encode());
    }

    /// The PING that a PONG from `from` answers.
    pub(crate) fn answered_by(&mut self, pong: &Pong, from: SocketAddr) -> Option<Sent> {
        self.outstanding.take(pong.transaction, from)
    }

    /// Where PINGs went whose answer is late, oldest first.
    pub(crate) fn become_late(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.outstanding.become_late(now)
    }

    /// When [`become_late`](Self::become_late) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.outstanding.deadline()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn transmit(&mut self, to: SocketAddr, message: &[u8]) {
        // An owner that does not fetch what is to be sent loses the oldest.
        if self.transmits.len() >= TRANSMITS_MAX {
            self.transmits.pop_front();
        }
        self.transmits.push_back(Transmit { to, bytes: self.keys.seal(message) });
    }
}
