//! What is known about one direct path, from a socket of this device to an address of the peer: whether it works, how well, and when it is
//! probed next.
//!
//! ```text
//!            PONG                     silent in use, or three PONGs missing
//! untried ─────────▶ usable ────────────────────────────▶ dead
//!                      ▲                                    │ PONG
//!                      └───────── well for a while ── recovering
//! ```

use crate::route::{SocketId, Way};
use crate::schedule::Hunt;
use crate::score::{Odds, Place, Quality, Score};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// PINGs missing in a row after which a path is in doubt, where hardly any did before. At 5 % loss each way this happens once in a thousand.
const MISSED_MAX: u32 = 3;
/// The same while packets of the call come by the path: then only the way to the peer may be dead, and the peer tells that sooner than PINGs.
const MISSED_WHILE_HEARD_MAX: u32 = 6;
/// How long PONGs must have stayed out then as well: on a thin link they stand in a queue, and the last one tells so.
const UNPROVEN_WHILE_HEARD: Duration = Duration::from_secs(3);
/// For so long a packet of the call tells that the way from the peer is alive.
const HEARD_JUST_NOW: Duration = Duration::from_millis(300);
/// PINGs without an answer after which an address that once answered is left alone: an hour's.
const UNANSWERED_MAX: u32 = 720;
/// How long a path that died must be well before it is used again, the first time; doubles with each death.
const RECOVERY: Duration = Duration::from_secs(1);
/// Doublings at most: half a minute.
const RECOVERY_DOUBLINGS_MAX: u32 = 5;
/// A path that lived for this long since it last died is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// PONGs that a recovery takes, at least.
const RECOVERY_PONGS: u32 = 3;
/// PINGs that must be known of a path before it is moved to for its round trip.
const COMPARED_SAMPLES_MIN: u32 = 8;
/// An address that was heard within this time, or added, is worth a whole search.
const HEARD_LATELY: Duration = Duration::from_secs(60);
/// How long a path that missed a PONG it should not have is asked often, to tell a loss from losses.
const SCRUTINY: Duration = Duration::from_millis(1500);

/// The two ends of a direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) socket: SocketId,
    pub(crate) remote: SocketAddr,
}

impl Pair {
    /// Between the device's one port and `remote`.
    pub(crate) fn main(remote: SocketAddr) -> Self {
        Self { socket: SocketId::MAIN, remote }
    }

    pub(crate) fn way(self) -> Way {
        Way::Direct { socket: self.socket, remote: self.remote }
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from socket {}", self.remote, self.socket.0)
    }
}

/// Whether packets get to the other end and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It has never answered.
    Untried,
    /// It answers.
    Usable,
    /// It did once.
    Dead,
    /// It does again, since then, so many times.
    Recovering { since: Instant, pongs: u32 },
}

/// How an address came to be known. Each kind has its own half of the table, so that neither the peer's claims nor what routers make of
/// its packets drive out the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer named it.
    Signalled,
    /// A PING came from it.
    Learned,
}

/// One direct path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) origin: Origin,
    pub(crate) place: Place,
    pub(crate) life: Life,
    pub(crate) quality: Quality,
    pub(crate) hunt: Hunt,
    /// When the search began, or began again.
    pub(crate) hunt_since: Option<Instant>,
    pub(crate) next_probe: Option<Instant>,
    pub(crate) last_probe: Option<Instant>,
    /// Whether an authenticated probe came from it.
    pub(crate) is_vouched: bool,
    /// When it was added, or last heard from.
    pub(crate) last_heard: Instant,
    /// When a packet of the call came by it last.
    pub(crate) carried_at: Option<Instant>,
    /// When the last PING that it answered was sent: the path worked both ways after that.
    pub(crate) proven_at: Option<Instant>,
    /// PINGs missing in a row.
    pub(crate) missed: u32,
    /// When the last one was.
    pub(crate) missed_at: Option<Instant>,
    /// When so many were that a closer look is due.
    odd_at: Option<Instant>,
    /// Where the peer sees packets by this path come from, and since when.
    pub(crate) observed: Option<(SocketAddr, Instant)>,
    unanswered: u32,
    deaths: u32,
    usable_since: Instant,
}

impl Path {
    pub(crate) fn new(now: Instant, origin: Origin, place: Place) -> Self {
        Self {
            origin,
            place,
            life: Life::Untried,
            quality: Quality::default(),
            hunt: match origin {
                Origin::Signalled => Hunt::default(),
                // Each PING that comes from it is a reason to ask again.
                Origin::Learned => Hunt::short(),
            },
            hunt_since: None,
            next_probe: None,
            last_probe: None,
            is_vouched: false,
            last_heard: now,
            carried_at: None,
            proven_at: None,
            missed: 0,
            missed_at: None,
            odd_at: None,
            observed: None,
            unanswered: 0,
            deaths: 0,
            usable_since: now,
        }
    }

    /// An authenticated probe came from it.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.is_vouched = true;
        self.last_heard = now;
    }

    /// Probes it at `at`, or earlier if that is planned.
    pub(crate) fn hasten(&mut self, at: Instant) {
        self.next_probe = Some(self.next_probe.map_or(at, |planned| planned.min(at)));
    }

    /// Starts the search over.
    pub(crate) fn hunt_again(&mut self, now: Instant) {
        self.hunt = Hunt::default();
        self.hunt_since = Some(now);
        self.hasten(now);
    }

    /// Searches it again because something else fell silent: where there is reason for hope at length, else briefly, and not at all where
    /// a router once gave the peer an address that never answered. Every restart of a router leaves addresses behind, and searching all
    /// of them would leave no PINGs for the new ones.
    pub(crate) fn search_again(&mut self, now: Instant) {
        let is_fresh = now.saturating_duration_since(self.last_heard) < HEARD_LATELY;
        match (self.origin, self.proven_at) {
            (Origin::Learned, None) if !is_fresh => {}
            (_, Some(_)) if is_fresh => self.hunt_again(now),
            // A search that goes on, of an address that the peer named just now, say, is not cut short.
            (Origin::Signalled | Origin::Learned, _) if self.hunt.is_going_on() => self.hasten(now),
            (Origin::Signalled | Origin::Learned, _) => {
                self.hunt_again(now);
                self.hunt = Hunt::short();
            }
        }
    }

    /// A PING goes out.
    pub(crate) fn probed(&mut self, now: Instant) {
        self.last_probe = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Whether it once answered and then left so many PINGs unanswered that asking on is pointless.
    pub(crate) fn is_given_up(&self) -> bool {
        self.unanswered >= UNANSWERED_MAX
    }

    /// The PING sent at `sent_at` was answered. A path that recovers may lose as much as `tolerated`, which other ways lose too.
    pub(crate) fn answered(&mut self, now: Instant, sent_at: Instant, was_late: bool, tolerated: f64) {
        self.heard(now);
        if self.life == Life::Untried {
            // What was lost before there was a path says nothing about the path.
            self.quality.forget_losses();
            self.missed_at = None;
        }
        self.quality.answered(now.saturating_duration_since(sent_at));
        if self.life == Life::Dead {
            // What was lost while it was dead says nothing about it once it lives.
            self.quality.forget_death();
        } else if was_late {
            self.quality.was_late();
        }
        if !was_late {
            self.quality.count(now, false);
        }
        self.proven_at = self.proven_at.max(Some(sent_at));
        self.missed = 0;
        self.unanswered = 0;
        self.life = match self.life {
            Life::Untried => self.trusted(now),
            Life::Usable => Life::Usable,
            Life::Dead => Life::Recovering { since: now, pongs: 1 },
            Life::Recovering { since, pongs } if self.is_well(now, since, pongs + 1, tolerated) => self.trusted(now),
            Life::Recovering { since, pongs } => Life::Recovering { since, pongs: pongs.saturating_add(1) },
        };
    }

    /// A PING was not answered in time.
    pub(crate) fn missed_one(&mut self, now: Instant) {
        self.missed_at = Some(now);
        self.missed = self.missed.saturating_add(1);
        self.quality.count(now, true);
        if self.quality.is_beyond_chance(self.missed, 1, Odds::Odd) {
            self.odd_at = Some(now);
        }
        if matches!(self.life, Life::Recovering { .. }) && self.quality.is_beyond_chance(self.missed, 2, Odds::Sign) {
            self.life = Life::Dead;
        }
    }

    /// The path does not work any more.
    pub(crate) fn died(&mut self, now: Instant) {
        if now.saturating_duration_since(self.usable_since) >= FORGIVEN_AFTER {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        self.life = Life::Dead;
        self.hunt_again(now);
    }

    /// The network is another: nothing that was learned about the path counts, and it starts over without blame.
    pub(crate) fn start_over(&mut self, now: Instant) {
        self.life = Life::Untried;
        self.quality = Quality::default();
        (self.missed, self.unanswered, self.deaths, self.observed) = (0, 0, 0, None);
        self.hunt_again(now);
    }

    /// The peer sees this device's packets by this path come from `address`. Gives back the age that the mapping before reached, if it is
    /// another one now.
    pub(crate) fn observed_as(&mut self, now: Instant, address: SocketAddr) -> Option<Duration> {
        match self.observed {
            Some((known, _)) if known == address => None,
            before => {
                self.observed = Some((address, now));
                before.map(|(_, since)| now.saturating_duration_since(since))
            }
        }
    }

    /// Whether PONGs were missed so lately, and so unexpectedly, that its losses are being counted.
    pub(crate) fn is_scrutinised(&self, now: Instant) -> bool {
        self.odd_at.is_some_and(|at| now.saturating_duration_since(at) < SCRUTINY)
    }

    /// Whether PINGs are missing, more than its losses explain: worth a closer look.
    pub(crate) fn is_odd(&self) -> bool {
        self.quality.is_beyond_chance(self.missed, 1, Odds::Odd)
    }

    /// Whether so many are missing that it is to be doubted.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        if !self.is_carrying(now) {
            return self.quality.is_beyond_chance(self.missed, MISSED_MAX, Odds::Sign);
        }
        let is_unproven = self.proven_at.is_none_or(|at| now.saturating_duration_since(at) >= UNPROVEN_WHILE_HEARD);
        is_unproven && self.quality.is_beyond_chance(self.missed, MISSED_WHILE_HEARD_MAX, Odds::Sign)
    }

    /// Whether packets of the call come by it.
    pub(crate) fn is_carrying(&self, now: Instant) -> bool {
        self.carried_at.is_some_and(|at| now.saturating_duration_since(at) < HEARD_JUST_NOW)
    }

    /// Until when they count as coming, if no more do.
    pub(crate) fn carries_until(&self) -> Option<Instant> {
        Some(self.carried_at? + HEARD_JUST_NOW)
    }

    /// Whether so many are missing that it is dead.
    pub(crate) fn is_past_hope(&self) -> bool {
        self.quality.is_beyond_chance(self.missed, MISSED_MAX, Odds::Dead)
    }

    /// Whether enough of its PINGs are known to compare it with others.
    pub(crate) fn is_compared(&self) -> bool {
        self.quality.samples() >= COMPARED_SAMPLES_MIN
    }

    pub(crate) fn is_behind_vpn(&self) -> bool {
        self.place == Place::BehindVpn
    }

    /// Whether it may be moved to.
    pub(crate) fn is_sound(&self) -> bool {
        self.life == Life::Usable && !self.is_odd()
    }

    pub(crate) fn score(&self, remote: SocketAddr) -> Score {
        Score::new(remote, self.place, &self.quality)
    }

    /// There is nothing better: takes it as it is.
    pub(crate) fn trust(&mut self, now: Instant) {
        self.life = self.trusted(now);
    }

    fn trusted(&mut self, now: Instant) -> Life {
        self.usable_since = now;
        self.missed = 0;
        Life::Usable
    }

    fn is_well(&self, now: Instant, since: Instant, pongs: u32, tolerated: f64) -> bool {
        let doublings = self.deaths.saturating_sub(1).min(RECOVERY_DOUBLINGS_MAX);
        pongs >= RECOVERY_PONGS && self.quality.is_well(tolerated) && now.saturating_duration_since(since) >= RECOVERY * 2u32.pow(doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    fn path(now: Instant) -> Path {
        Path::new(now, Origin::Signalled, Place::Elsewhere)
    }

    /// Answers each 200 ms until the path is usable; gives back how long that took.
    fn recover(path: &mut Path, from: Instant) -> Duration {
        let mut now = from;
        while path.life != Life::Usable {
            now += Duration::from_millis(200);
            path.answered(now, now - RTT, false, 0.0);
        }
        now - from
    }

    #[test]
    fn the_first_answer_makes_a_path_usable() {
        let now = Instant::now();
        let mut path = path(now);
        path.answered(now + RTT, now, false, 0.0);
        assert_eq!(path.life, Life::Usable);
        assert_eq!(path.quality.rtt(), Some(RTT));
    }

    #[test]
    fn a_path_that_dies_young_is_trusted_more_slowly_each_time() {
        let mut now = Instant::now();
        let mut path = path(now);
        path.answered(now, now, false, 0.0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            path.died(now);
            let wait = recover(&mut path, now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
        path.died(now + FORGIVEN_AFTER);
        assert_eq!(recover(&mut path, now + FORGIVEN_AFTER).as_secs(), 1);
    }

    #[test]
    fn a_path_that_loses_on_while_it_recovers_is_not_trusted() {
        let start = Instant::now();
        let mut path = path(start);
        path.answered(start, start, false, 0.0);
        path.died(start);
        for nth in 0..100 {
            let now = start + Duration::from_millis(200 * nth);
            if nth % 2 == 0 {
                path.answered(now, now, false, 0.0)
            } else {
                path.missed_one(now)
            }
            assert_ne!(path.life, Life::Usable);
        }
    }

    #[test]
    fn in_another_network_a_path_starts_over_without_blame() {
        let now = Instant::now();
        let mut path = path(now);
        path.answered(now, now, false, 0.0);
        (0..4).for_each(|_| path.died(now));
        path.start_over(now);
        path.answered(now, now, false, 0.0);
        assert_eq!(path.life, Life::Usable);
    }

    #[test]
    fn a_mapping_that_changes_tells_the_age_of_the_last() {
        let now = Instant::now();
        let mut path = path(now);
        let seen = |port: u16| SocketAddr::from(([203, 0, 113, 1], port));
        assert_eq!(path.observed_as(now, seen(1)), None);
        assert_eq!(path.observed_as(now + RTT, seen(1)), None);
        assert_eq!(path.observed_as(now + RTT * 3, seen(2)), Some(RTT * 3));
    }

    #[test]
    fn a_recovery_that_falters_starts_over() {
        let now = Instant::now();
        let mut path = path(now);
        path.answered(now, now, false, 0.0);
        path.died(now);
        path.answered(now, now, false, 0.0);
        path.missed_one(now);
        path.missed_one(now);
        assert_eq!(path.life, Life::Dead);
    }
}
