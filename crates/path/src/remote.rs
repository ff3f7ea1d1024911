//! What is known about one address of the peer: whether a path to it works, how well, and when it is probed next.
//!
//! ```text
//!            PONG                     silent in use, or three PONGs missing
//! untried ─────────▶ usable ────────────────────────────▶ dead
//!                      ▲                                    │ PONG
//!                      └───────── well for a while ── recovering
//! ```

use crate::candidate::REMOTES_MAX;
use crate::schedule::Hunt;
use crate::score::{Quality, Score};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// PINGs missing in a row after which a path is in doubt. At 5 % loss each way this happens once in a thousand.
pub(crate) const MISSED_MAX: u32 = 3;
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
/// An address heard from within this time is not thrown out for another.
const HEARD_RECENTLY: Duration = Duration::from_secs(10);

/// Whether packets get to an address and back.
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

/// One address of the peer.
#[derive(Debug)]
pub(crate) struct Remote {
    origin: Origin,
    pub(crate) on_link: bool,
    pub(crate) life: Life,
    pub(crate) quality: Quality,
    pub(crate) hunt: Hunt,
    pub(crate) next_probe: Option<Instant>,
    pub(crate) last_probe: Option<Instant>,
    /// Whether an authenticated probe came from it.
    pub(crate) is_vouched: bool,
    /// When it was added, or last heard from.
    pub(crate) last_heard: Instant,
    /// When the last PING that it answered was sent: the path worked both ways after that.
    pub(crate) proven_at: Option<Instant>,
    /// PINGs missing in a row.
    pub(crate) missed: u32,
    /// When the last one was.
    pub(crate) missed_at: Option<Instant>,
    unanswered: u32,
    deaths: u32,
    usable_since: Instant,
}

impl Remote {
    fn new(now: Instant, origin: Origin, on_link: bool) -> Self {
        Self {
            origin,
            on_link,
            life: Life::Untried,
            quality: Quality::default(),
            hunt: Hunt::default(),
            next_probe: None,
            last_probe: None,
            is_vouched: false,
            last_heard: now,
            proven_at: None,
            missed: 0,
            missed_at: None,
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
        self.hasten(now);
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

    /// The PING sent at `sent_at` was answered.
    pub(crate) fn answered(&mut self, now: Instant, sent_at: Instant, was_late: bool) {
        self.heard(now);
        self.quality.answered(now.saturating_duration_since(sent_at));
        if !was_late {
            self.quality.count(false);
        }
        self.proven_at = self.proven_at.max(Some(sent_at));
        self.missed = 0;
        self.unanswered = 0;
        self.life = match self.life {
            Life::Untried => self.trusted(now),
            Life::Usable => Life::Usable,
            Life::Dead => Life::Recovering { since: now, pongs: 1 },
            Life::Recovering { since, pongs } if self.is_well(now, since, pongs + 1) => self.trusted(now),
            Life::Recovering { since, pongs } => Life::Recovering { since, pongs: pongs.saturating_add(1) },
        };
    }

    /// A PING was not answered in time.
    pub(crate) fn missed_one(&mut self, now: Instant) {
        self.missed_at = Some(now);
        self.missed = self.missed.saturating_add(1);
        self.quality.count(true);
        if matches!(self.life, Life::Recovering { .. }) && self.missed >= 2 {
            self.life = Life::Dead;
        }
    }

    /// The path does not work any more.
    pub(crate) fn died(&mut self, now: Instant) {
        if now.saturating_duration_since(self.usable_since) >= FORGIVEN_AFTER {
            self.deaths = 0;
        }
        self.deaths = self.deaths.saturating_add(1);
        self.quality.forget_losses();
        self.life = Life::Dead;
        self.hunt_again(now);
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

    fn is_well(&self, now: Instant, since: Instant, pongs: u32) -> bool {
        let doublings = self.deaths.saturating_sub(1).min(RECOVERY_DOUBLINGS_MAX);
        pongs >= RECOVERY_PONGS && now.saturating_duration_since(since) >= RECOVERY * 2u32.pow(doublings)
    }
}

/// All addresses of the peer, at most [`REMOTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    by_address: BTreeMap<SocketAddr, Remote>,
}

impl Remotes {
    pub(crate) fn get(&self, address: SocketAddr) -> Option<&Remote> {
        self.by_address.get(&address)
    }

    pub(crate) fn get_mut(&mut self, address: SocketAddr) -> Option<&mut Remote> {
        self.by_address.get_mut(&address)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Remote)> {
        self.by_address.iter().map(|(address, remote)| (*address, remote))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut Remote)> {
        self.by_address.iter_mut().map(|(address, remote)| (*address, remote))
    }

    /// Adds an address. `keep` is not thrown out for it. Gives back the entry, unless it is known or there is no room.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        address: SocketAddr,
        origin: Origin,
        on_link: bool,
        keep: Option<SocketAddr>,
    ) -> Option<&mut Remote> {
        if self.by_address.contains_key(&address) || !self.make_room(now, origin, keep) {
            return None;
        }
        Some(self.by_address.entry(address).or_insert(Remote::new(now, origin, on_link)))
    }

    fn make_room(&mut self, now: Instant, origin: Origin, keep: Option<SocketAddr>) -> bool {
        if self.by_address.values().filter(|remote| remote.origin == origin).count() < REMOTES_MAX / 2 {
            return true;
        }
        let dispensable = |(address, remote): &(&SocketAddr, &Remote)| {
            remote.origin == origin
                && keep != Some(**address)
                && matches!(remote.life, Life::Untried | Life::Dead)
                && now.saturating_duration_since(remote.last_heard) >= HEARD_RECENTLY
        };
        let oldest = self.by_address.iter().filter(dispensable).min_by_key(|(_, remote)| remote.last_heard).map(|(address, _)| *address);
        oldest.is_some_and(|oldest| self.by_address.remove(&oldest).is_some())
    }

    /// The best usable address other than `except`, of those that `also` holds for.
    pub(crate) fn best(&self, except: Option<SocketAddr>, also: impl Fn(&Remote) -> bool) -> Option<(SocketAddr, Score)> {
        let mut best: Option<(SocketAddr, Score)> = None;
        for (address, remote) in self.iter() {
            if except == Some(address) || !also(remote) {
                continue;
            }
            let score = Score::new(address, remote.on_link, &remote.quality);
            if best.is_none_or(|(_, best)| score.beats(&best)) {
                best = Some((address, score));
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    fn remote(now: Instant) -> Remote {
        Remote::new(now, Origin::Signalled, false)
    }

    /// Answers each 200 ms until the path is usable; gives back how long that took.
    fn recover(remote: &mut Remote, from: Instant) -> Duration {
        let mut now = from;
        while remote.life != Life::Usable {
            now += Duration::from_millis(200);
            remote.answered(now, now - RTT, false);
        }
        now - from
    }

    #[test]
    fn the_first_answer_makes_a_path_usable() {
        let now = Instant::now();
        let mut remote = remote(now);
        remote.answered(now + RTT, now, false);
        assert_eq!(remote.life, Life::Usable);
        assert_eq!(remote.quality.rtt(), Some(RTT));
    }

    #[test]
    fn a_path_that_dies_young_is_trusted_more_slowly_each_time() {
        let mut now = Instant::now();
        let mut remote = remote(now);
        remote.answered(now, now, false);
        let mut waits = Vec::new();
        for _ in 0..8 {
            remote.died(now);
            let wait = recover(&mut remote, now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
        remote.died(now + FORGIVEN_AFTER);
        assert_eq!(recover(&mut remote, now + FORGIVEN_AFTER).as_secs(), 1);
    }

    #[test]
    fn a_recovery_that_falters_starts_over() {
        let now = Instant::now();
        let mut remote = remote(now);
        remote.answered(now, now, false);
        remote.died(now);
        remote.answered(now, now, false);
        remote.missed_one(now);
        remote.missed_one(now);
        assert_eq!(remote.life, Life::Dead);
    }

    #[test]
    fn the_table_is_bounded_for_each_origin() {
        let now = Instant::now();
        let mut remotes = Remotes::default();
        let address = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 1..=100 {
            remotes.add(now, address(port), Origin::Signalled, false, None);
            remotes.add(now, address(1000 + port), Origin::Learned, false, None);
        }
        assert_eq!(remotes.iter().count(), REMOTES_MAX);
        let later = now + HEARD_RECENTLY;
        assert!(remotes.add(later, address(5000), Origin::Learned, false, Some(address(1001))).is_some());
        assert_eq!(remotes.iter().count(), REMOTES_MAX);
        assert!(remotes.get(address(1001)).is_some() && remotes.get(address(1002)).is_none());
    }
}
