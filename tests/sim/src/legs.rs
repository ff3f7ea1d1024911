//! A device's two legs on relays: joining them, over TCP where UDP does not get out, and joining another relay where one does not answer.

use crate::link::Carrier;
use crate::packet::RelayId;
use std::time::Duration;

/// Legs of a call.
pub const LEGS: usize = 2;
/// Round trips of opening a connection and joining: QUIC's handshake and the request.
const ROUNDS_UDP: u8 = 2;
/// The same over TCP and TLS.
const ROUNDS_TCP: u8 = 4;
/// How long an answer is waited for.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long UDP is tried before TCP is, where nothing is known of UDP, and where it is known to get out.
const UDP_TRIED: Duration = Duration::from_millis(750);
const UDP_TRIED_WELL: Duration = Duration::from_secs(3);
/// How long TCP is tried before UDP is again.
const TCP_TRIED: Duration = Duration::from_secs(3);
/// How long a relay is tried before another one is asked for.
const RELAY_TRIED: Duration = Duration::from_secs(8);

/// A joining under way.
#[derive(Debug, Clone, Copy)]
pub struct Joining {
    /// At which relay.
    pub relay: RelayId,
    /// By what.
    pub carrier: Carrier,
    /// Round trips that are left after the one under way.
    pub rounds_left: u8,
    begun: Duration,
    carrier_since: Duration,
    due: Duration,
}

/// A leg that is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Up {
    /// At which relay.
    pub relay: RelayId,
    /// By what.
    pub carrier: Carrier,
    /// Its channel.
    pub channel: u32,
    /// Whether the peer's leg is there.
    pub is_paired: bool,
}

/// How far a leg is.
#[derive(Debug, Clone, Copy)]
pub enum Leg {
    /// Not wanted yet.
    Idle,
    /// Being joined.
    Joining(Joining),
    /// Joined.
    Up(Up),
}

/// What is to be done about a leg.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Send the request of this joining.
    Request(Joining),
    /// The relay does not answer: another one is wanted.
    GiveUp(RelayId),
}

/// Both legs.
#[derive(Debug)]
pub struct Legs {
    legs: [Leg; LEGS],
}

impl Legs {
    /// No legs.
    #[must_use]
    pub fn new() -> Self {
        Self { legs: [Leg::Idle; LEGS] }
    }

    /// A leg.
    #[must_use]
    pub fn leg(&self, leg: usize) -> &Leg {
        &self.legs[leg]
    }

    /// The relay that a leg is at or on its way to.
    #[must_use]
    pub fn relay(&self, leg: usize) -> Option<RelayId> {
        match self.legs[leg] {
            Leg::Idle => None,
            Leg::Joining(joining) => Some(joining.relay),
            Leg::Up(up) => Some(up.relay),
        }
    }

    /// A leg that is joined.
    #[must_use]
    pub fn up(&self, leg: usize) -> Option<Up> {
        match self.legs[leg] {
            Leg::Up(up) => Some(up),
            Leg::Idle | Leg::Joining(_) => None,
        }
    }

    /// Which legs carry packets.
    #[must_use]
    pub fn paired(&self) -> [bool; LEGS] {
        [0, 1].map(|leg| self.up(leg).is_some_and(|up| up.is_paired))
    }

    /// Joins a leg at a relay, whatever was there before.
    pub fn join(&mut self, now: Duration, leg: usize, relay: RelayId, carrier: Carrier) {
        let joining = Joining { relay, carrier, rounds_left: rounds(carrier), begun: now, carrier_since: now, due: now };
        self.legs[leg] = Leg::Joining(joining);
    }

    /// A relay answered a request. `true`: the leg is joined and paired by that.
    pub fn handle_joined(
        &mut self,
        now: Duration,
        relay: RelayId,
        carrier: Carrier,
        rounds_left: u8,
        channel: u32,
        paired: bool,
    ) -> Option<usize> {
        let is_it = |leg: &Leg| match leg {
            Leg::Joining(joining) => joining.relay == relay && joining.carrier == carrier && joining.rounds_left == rounds_left,
            Leg::Idle | Leg::Up(_) => false,
        };
        let leg = self.legs.iter().position(is_it)?;
        let Leg::Joining(joining) = &mut self.legs[leg] else { return None };
        if joining.rounds_left > 0 {
            joining.rounds_left -= 1;
            joining.due = now;
            return None;
        }
        self.legs[leg] = Leg::Up(Up { relay, carrier, channel, is_paired: paired });
        paired.then_some(leg)
    }

    /// The leg with this channel at this relay, and whether it is paired by hearing from the peer's just then.
    pub fn handle_frame(&mut self, relay: RelayId, channel: u32) -> Option<(usize, bool)> {
        let leg = (0..LEGS).find(|leg| self.up(*leg).is_some_and(|up| up.relay == relay && up.channel == channel))?;
        let Leg::Up(up) = &mut self.legs[leg] else { return None };
        let is_new = !up.is_paired;
        up.is_paired = true;
        Some((leg, is_new))
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let due = |leg: &Leg| match leg {
            Leg::Joining(joining) => Some(joining.due),
            Leg::Idle | Leg::Up(_) => None,
        };
        self.legs.iter().filter_map(due).min()
    }

    /// What is to be done at `now`, and about which leg.
    pub fn poll(&mut self, now: Duration, udp_gets_out: bool) -> Option<(usize, Step)> {
        for (number, leg) in self.legs.iter_mut().enumerate() {
            let Leg::Joining(joining) = leg else { continue };
            if joining.due > now {
                continue;
            }
            joining.due = now + AGAIN_AFTER;
            if now - joining.begun >= RELAY_TRIED {
                joining.begun = now;
                return Some((number, Step::GiveUp(joining.relay)));
            }
            joining.try_other_carrier(now, udp_gets_out);
            return Some((number, Step::Request(*joining)));
        }
        None
    }
}

impl Default for Legs {
    fn default() -> Self {
        Self::new()
    }
}

impl Joining {
    fn try_other_carrier(&mut self, now: Duration, udp_gets_out: bool) {
        let (tried, other) = match self.carrier {
            Carrier::Udp => (if udp_gets_out { UDP_TRIED_WELL } else { UDP_TRIED }, Carrier::Tcp),
            Carrier::Tcp => (TCP_TRIED, Carrier::Udp),
        };
        if now - self.carrier_since >= tried {
            (self.carrier, self.carrier_since, self.rounds_left) = (other, now, rounds(other));
        }
    }
}

fn rounds(carrier: Carrier) -> u8 {
    match carrier {
        Carrier::Udp => ROUNDS_UDP - 1,
        Carrier::Tcp => ROUNDS_TCP - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers whatever is asked over this carrier, for ten seconds; when the leg was up.
    fn join_over(answered: Carrier) -> Option<Duration> {
        let mut legs = Legs::new();
        legs.join(Duration::ZERO, 0, 1, Carrier::Udp);
        while let Some(now) = legs.next_at().filter(|now| *now < Duration::from_secs(7)) {
            if let Some((0, Step::Request(request))) = legs.poll(now, false)
                && request.carrier == answered
                && legs.handle_joined(now, 1, answered, request.rounds_left, 9, true).is_some()
            {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn a_leg_is_joined_by_udp_or_by_tcp() {
        assert!(join_over(Carrier::Udp).is_some_and(|at| at < Duration::from_millis(100)));
        assert!(join_over(Carrier::Tcp).is_some_and(|at| at >= UDP_TRIED && at < Duration::from_secs(2)));
    }

    #[test]
    fn a_relay_that_never_answers_is_given_up() {
        let mut legs = Legs::new();
        legs.join(Duration::ZERO, 1, 2, Carrier::Udp);
        let mut last = Duration::ZERO;
        loop {
            last = legs.next_at().expect("still joining").max(last);
            if let Some((leg, Step::GiveUp(relay))) = legs.poll(last, false) {
                assert_eq!((leg, relay), (1, 2));
                assert!(last >= RELAY_TRIED);
                break;
            }
        }
    }

    #[test]
    fn a_leg_is_paired_when_the_peer_comes() {
        let mut legs = Legs::new();
        legs.join(Duration::ZERO, 0, 1, Carrier::Udp);
        assert_eq!(legs.handle_joined(Duration::ZERO, 1, Carrier::Udp, 1, 0, false), None);
        assert_eq!(legs.handle_joined(Duration::ZERO, 1, Carrier::Udp, 0, 9, false), None);
        assert_eq!(legs.paired(), [false, false]);
        assert_eq!(legs.handle_frame(0, 9), None);
        assert_eq!(legs.handle_frame(1, 9), Some((0, true)));
        assert_eq!(legs.handle_frame(1, 9), Some((0, false)));
        assert_eq!(legs.paired(), [true, false]);
    }
}
