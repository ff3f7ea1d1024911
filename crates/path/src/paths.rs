//! The table of direct paths, with a bound.

use crate::candidate::REMOTES_MAX;
use crate::path::{Life, Origin, Pair, Path};
use crate::route::SocketId;
use crate::score::{Place, Score};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A path heard from within this time is not thrown out for another.
const HEARD_RECENTLY: Duration = Duration::from_secs(10);

/// Addresses on one host that were learned from PINGs and have not answered yet, at most; the next takes the place of the one silent for
/// longest. Two routers that give each destination another port, and let anybody in, show each answer from yet another port: chasing those
/// leads nowhere, and must not fill the table.
const UNTRIED_ON_HOST_MAX: usize = 4;

/// All direct paths, at most [`REMOTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Paths {
    by_pair: BTreeMap<Pair, Path>,
}

impl Paths {
    pub(crate) fn get(&self, pair: Pair) -> Option<&Path> {
        self.by_pair.get(&pair)
    }

    pub(crate) fn get_mut(&mut self, pair: Pair) -> Option<&mut Path> {
        self.by_pair.get_mut(&pair)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Pair, &Path)> {
        self.by_pair.iter().map(|(pair, path)| (*pair, path))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Pair, &mut Path)> {
        self.by_pair.iter_mut().map(|(pair, path)| (*pair, path))
    }

    /// Adds a path; `keep` is not thrown out for it. `false`: it is known, or there is no room.
    pub(crate) fn add(&mut self, now: Instant, pair: Pair, origin: Origin, place: Place, keep: Option<Pair>) -> bool {
        if self.by_pair.contains_key(&pair) {
            return false;
        }
        if origin == Origin::Learned {
            self.drop_untried_on(pair.remote.ip());
        }
        if !self.make_room(now, origin, keep) {
            return false;
        }
        self.by_pair.insert(pair, Path::new(now, origin, place));
        true
    }

    fn drop_untried_on(&mut self, host: IpAddr) {
        let is_untried =
            |(pair, path): &(&Pair, &Path)| path.origin == Origin::Learned && pair.remote.ip() == host && path.life == Life::Untried;
        if self.by_pair.iter().filter(is_untried).count() >= UNTRIED_ON_HOST_MAX {
            let oldest = self.by_pair.iter().filter(is_untried).min_by_key(|(_, path)| path.last_heard).map(|(pair, _)| *pair);
            oldest.and_then(|oldest| self.by_pair.remove(&oldest));
        }
    }

    fn make_room(&mut self, now: Instant, origin: Origin, keep: Option<Pair>) -> bool {
        if self.by_pair.values().filter(|path| path.origin == origin).count() < REMOTES_MAX / 2 {
            return true;
        }
        let dispensable = |(pair, path): &(&Pair, &Path)| {
            path.origin == origin
                && keep != Some(**pair)
                && matches!(path.life, Life::Untried | Life::Dead)
                && now.saturating_duration_since(path.last_heard) >= HEARD_RECENTLY
        };
        let oldest = self.by_pair.iter().filter(dispensable).min_by_key(|(_, path)| path.last_heard).map(|(pair, _)| *pair);
        oldest.is_some_and(|oldest| self.by_pair.remove(&oldest).is_some())
    }

    /// Forgets the paths to addresses that the peer named once and that were never heard from, but for those that `is_named` holds for.
    pub(crate) fn forget_unnamed(&mut self, is_named: impl Fn(Pair) -> bool) {
        self.by_pair.retain(|pair, path| path.origin == Origin::Learned || path.is_vouched || is_named(*pair));
    }

    /// Forgets all paths from `socket`.
    pub(crate) fn remove_socket(&mut self, socket: SocketId) {
        self.by_pair.retain(|pair, _| pair.socket != socket);
    }

    /// The best path other than `except`, of those that `also` holds for.
    pub(crate) fn best(&self, except: Option<Pair>, also: impl Fn(&Path) -> bool) -> Option<(Pair, Score)> {
        let mut best: Option<(Pair, Score)> = None;
        for (pair, path) in self.iter() {
            if except == Some(pair) || !also(path) {
                continue;
            }
            let score = path.score(pair.remote);
            if best.is_none_or(|(_, best)| score.beats(&best)) {
                best = Some((pair, score));
            }
        }
        best
    }

    /// The paths that worked last, the latest first.
    pub(crate) fn proven_last(&self) -> Vec<Pair> {
        let mut proven: Vec<(Instant, Pair)> = self.iter().filter_map(|(pair, path)| Some((path.proven_at?, pair))).collect();
        proven.sort_unstable_by(|one, other| other.cmp(one));
        proven.into_iter().map(|(_, pair)| pair).collect()
    }

    /// The addresses of the peer that paths lead to.
    pub(crate) fn remotes(&self) -> Vec<(SocketAddr, Place)> {
        self.iter().map(|(pair, path)| (pair.remote, path.place)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_for_each_origin() {
        let now = Instant::now();
        let mut paths = Paths::default();
        let pair = |nth: u16| Pair::main(SocketAddr::from(([192, 0, nth.to_be_bytes()[0], nth.to_be_bytes()[1]], 9)));
        for port in 1..=100 {
            paths.add(now, pair(port), Origin::Signalled, Place::Elsewhere, None);
            paths.add(now, pair(1000 + port), Origin::Learned, Place::Elsewhere, None);
        }
        assert_eq!(paths.iter().count(), REMOTES_MAX);
        let later = now + HEARD_RECENTLY;
        assert!(paths.add(later, pair(5000), Origin::Learned, Place::Elsewhere, Some(pair(1001))));
        assert_eq!(paths.iter().count(), REMOTES_MAX);
        assert!(paths.get(pair(1001)).is_some() && paths.get(pair(1002)).is_none());
    }

    #[test]
    fn a_host_of_many_ports_does_not_fill_the_table() {
        let now = Instant::now();
        let mut paths = Paths::default();
        let pair = |port: u16| Pair::main(SocketAddr::from(([192, 0, 2, 1], port)));
        for port in 1..=100 {
            assert!(paths.add(now + Duration::from_millis(port.into()), pair(port), Origin::Learned, Place::Elsewhere, None));
        }
        assert_eq!(paths.iter().count(), UNTRIED_ON_HOST_MAX);
        assert!(paths.get(pair(100)).is_some());
    }
}
