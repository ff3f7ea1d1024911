//! When each path and each leg is asked with a PING.

use super::PathAgent;
use crate::path::{Life, Pair, Path};
use crate::route::Way;
use crate::state::{Doubt, State};
use crate::thrift::Use;
use std::time::{Duration, Instant};

/// Between a PING of the peer's and the last to where it came from, at least: its coming through says that the way is open, and a path is
/// found the sooner the sooner that is tried.
pub(super) const TRIGGERED_PAUSE: Duration = Duration::from_millis(20);
/// Between PINGs that the budget did not allow.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Between PINGs to a path in doubt or being moved to, and to one that just missed one.
pub(super) const DOUBT_PAUSE: Duration = Duration::from_millis(100);
/// Between PINGs after one was missed on the path in use.
const MISSED_PAUSE: Duration = Duration::from_millis(60);
/// Between PINGs to a path in doubt when there were too many in haste.
const SPENT_PAUSE: Duration = Duration::from_millis(250);
/// Between PINGs in the first seconds on a path, and while a path recovers.
pub(super) const FRESH_PAUSE: Duration = Duration::from_millis(200);
/// How long these seconds are.
const FRESH: Duration = Duration::from_secs(5);
/// For so long after a packet was sent the call is busy.
const BUSY: Duration = Duration::from_secs(1);
/// Between PINGs on the path in use while none are, and on paths kept for comparison.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// Between PINGs to an address that answered once, when the search is over.
const DEAD_PAUSE: Duration = Duration::from_secs(5);
/// Between PINGs to an address that never did.
const STRANGER_PAUSE: Duration = Duration::from_secs(30);

impl PathAgent {
    /// When the next PING to an address is due.
    pub(super) fn asking_deadline(&self) -> Option<Instant> {
        self.paths.iter().filter_map(|(_, path)| path.next_probe).min()
    }

    /// Sends the PINGs to addresses that are due.
    pub(super) fn probe(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let selected = self.state.selected();
        let use_of = |(pair, path): (Pair, &Path)| match path.life {
            _ if selected == Some(pair) => (Use::Carrying, pair),
            Life::Usable => (Use::StandBy, pair),
            Life::Untried | Life::Dead | Life::Recovering { .. } => (Use::Search, pair),
        };
        let mut due: Vec<(Use, Pair)> = self.paths.iter().filter(|(_, path)| is_due(path.next_probe)).map(use_of).collect();
        due.sort_by_key(|(what, _)| *what);
        for (what, pair) in due {
            let pause = self.probe_one(now, pair, what);
            if let Some(path) = self.paths.get_mut(pair) {
                path.next_probe = pause.map(|pause| now + pause);
            }
        }
    }

    /// Probes one path; gives back the pause until the next time.
    fn probe_one(&mut self, now: Instant, pair: Pair, what: Use) -> Option<Duration> {
        let path = self.paths.get_mut(pair)?;
        let is_stranger = path.proven_at.is_none();
        if path.is_given_up() {
            return None;
        }
        if let Some(wait) = self.thrift.wait(now, what) {
            return Some(wait);
        }
        let late_after = path.quality.late_after(self.thrift.slack(now));
        if is_stranger && self.stranger_probes.is_spent(now) || !self.prober.ping(now, pair.way(), late_after) {
            return Some(REFUSED_PAUSE);
        }
        self.thrift.probed(now);
        if is_stranger {
            self.stranger_probes.take(now);
        } else {
            self.silence.asked(now);
        }
        path.probed(now);
        if self.state.selected() == Some(pair) {
            return Some(self.pause_in_use(now, pair));
        }
        match path.life {
            Life::Recovering { .. } => Some(FRESH_PAUSE),
            Life::Usable if path.is_odd() || !path.is_compared() => Some(FRESH_PAUSE),
            Life::Usable => Some(IDLE_PAUSE.max(self.thrift.standing_by())),
            Life::Dead => Some(path.hunt.pause().unwrap_or(DEAD_PAUSE)),
            // With a direct path found, what did not answer in the first seconds is not worth asking again.
            Life::Untried => path.hunt.pause().or((self.state == State::Relayed).then_some(STRANGER_PAUSE)),
        }
    }

    /// Pause between PINGs on the path in use.
    fn pause_in_use(&mut self, now: Instant, to: Pair) -> Duration {
        let steady = if self.is_busy(now) { self.thrift.in_use() } else { IDLE_PAUSE };
        let wished = match self.state {
            State::Relayed | State::Moving { .. } | State::Doubtful(Doubt { has_searched: false, .. }) => DOUBT_PAUSE,
            State::Doubtful(Doubt { has_searched: true, .. }) => FRESH_PAUSE,
            State::Direct { .. } if self.paths.get(to).is_some_and(Path::is_odd) => MISSED_PAUSE,
            State::Direct { .. } if self.is_scrutinised(now, to) => DOUBT_PAUSE,
            State::Direct { since, .. } if now.saturating_duration_since(since) < FRESH => FRESH_PAUSE,
            State::Direct { .. } => return steady,
        };
        let Some(pause) = self.thrift.hasty(now, wished) else {
            // A doubt has to come to an end, whatever was asked before it.
            return if matches!(self.state, State::Doubtful(_)) { SPENT_PAUSE } else { steady };
        };
        self.thrift.spend(now);
        pause
    }

    /// Sends the PINGs through legs that are due.
    pub(super) fn probe_legs(&mut self, now: Instant) {
        let in_use = self.state.selected();
        self.thrift.goes_directly(now, in_use.is_some());
        let is_compared = in_use.is_some_and(|selected| self.is_scrutinised(now, selected));
        for (leg, late_after) in self.legs.due(now, &mut self.thrift, in_use.is_some(), is_compared) {
            if self.prober.ping(now, Way::Leg(leg), late_after) {
                self.thrift.probed(now);
                self.silence.asked(now);
            }
        }
    }

    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|last| now.saturating_duration_since(last) < BUSY)
    }

    /// Whether a path misses more than it should, or loses so much that other ways may be better.
    fn is_scrutinised(&self, now: Instant, pair: Pair) -> bool {
        self.paths.get(pair).is_some_and(|path| path.is_scrutinised(now) || path.quality.is_lossy())
    }

    pub(super) fn hasten(&mut self, pair: Pair, at: Instant) {
        if let Some(path) = self.paths.get_mut(pair) {
            path.hasten(at);
        }
    }
}
