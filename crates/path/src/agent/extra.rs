//! Sockets beyond the device's one port, and what they are for: crossing a router by guessing ports, and taking over from a mapping that a
//! router is about to drop. Every other use of the network goes through the one port.

use super::PathAgent;
use crate::crossing::{Act, Role};
use crate::path::{Life, Origin, Pair, Path};
use crate::route::{SocketId, Way};
use crate::state::State;
use crate::types::{Event, SOCKETS_MAX};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Share of a mapping's expected age at which another socket takes over, in percent: early enough for the peer to follow.
const RENEW_AT_PERCENT: u32 = 70;
/// How long a fresh socket may take to reach the peer.
const RENEWAL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the socket before is kept: until the peer has followed.
const RETIRED_FOR: Duration = Duration::from_secs(3);
/// Failures in a row after which a network is taken for one where that does not help.
const FAILURES_MAX: u32 = 3;
/// An extra socket whose paths are dead is closed when nothing came to it for so long.
const UNUSED_AFTER: Duration = Duration::from_secs(30);

/// The extra sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: BTreeSet<SocketId>,
    closing: VecDeque<SocketId>,
    asking: Option<u16>,
}

impl Sockets {
    /// Whether `socket` is open.
    pub(super) fn has(&self, socket: SocketId) -> bool {
        socket == SocketId::MAIN || self.open.contains(&socket)
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        let close = self.closing.pop_front().map(Event::CloseSocket);
        close.or_else(|| self.asking.take().map(|count| Event::OpenSockets { count }))
    }

    fn ask(&mut self, count: u16) {
        self.asking = Some(count);
    }

    /// Takes sockets in, up to `count`, and has the others closed.
    fn take(&mut self, sockets: &[SocketId], count: u16) -> Vec<SocketId> {
        let mut taken = Vec::new();
        for socket in sockets.iter().copied().filter(|socket| *socket != SocketId::MAIN) {
            if taken.len() < usize::from(count) && self.open.insert(socket) {
                taken.push(socket);
            } else if !self.open.contains(&socket) {
                self.closing.push_back(socket);
            }
        }
        taken
    }

    fn close(&mut self, socket: SocketId) {
        if self.open.remove(&socket) {
            self.closing.push_back(socket);
        }
    }
}

/// Taking over from a mapping that is about to be dropped.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    stage: Stage,
    not_before: Option<Instant>,
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// For a socket, to reach the peer from.
    Asking { until: Instant },
    /// Whether the fresh socket's path works.
    Trying { pair: Pair, until: Instant },
    /// The socket before is closed then.
    Retiring { socket: SocketId, at: Instant },
}

impl PathAgent {
    /// When anything of this is due.
    pub(super) fn extra_deadline(&self) -> Option<Instant> {
        let crossing = self.crossing_role().and_then(|_| self.crossing.deadline());
        let renewal = match self.renewal.stage {
            Stage::Idle => self.renewal_due_at(),
            Stage::Asking { until } | Stage::Trying { until, .. } => Some(until),
            Stage::Retiring { at, .. } => Some(at),
        };
        [crossing, renewal].into_iter().flatten().min()
    }

    pub(super) fn settle_extra(&mut self, now: Instant) {
        self.settle_crossing(now);
        self.settle_renewal(now);
        if !self.crossing.is_active() && !self.sockets.open.is_empty() {
            self.close_unused(now);
        }
    }

    /// The owner opened sockets.
    pub(super) fn take_sockets(&mut self, now: Instant, sockets: &[SocketId]) {
        if self.crossing.is_opening() {
            let taken = self.sockets.take(sockets, SOCKETS_MAX);
            self.crossing.opened(now, taken, &self.peer_addresses);
        } else if let Stage::Asking { .. } = self.renewal.stage {
            let taken = self.sockets.take(sockets, 1);
            self.try_renewal(now, taken.first().copied());
        } else {
            self.sockets.take(sockets, 0);
        }
    }

    /// Guessing is for a call that has no direct path.
    fn crossing_role(&self) -> Option<Role> {
        match self.state {
            State::Relayed => Role::of(self.own_mapping, self.peer_mapping),
            State::Moving { .. } | State::Direct { .. } | State::Doubtful(_) => None,
        }
    }

    fn settle_crossing(&mut self, now: Instant) {
        let Some(role) = self.crossing_role() else {
            self.crossing.stop(now);
            return;
        };
        let prober = &mut self.prober;
        match self.crossing.act(now, role, &self.peer_addresses, self.birthday, || prober.random()) {
            Act::Nothing | Act::Over => {}
            Act::Open(count) => self.sockets.ask(count),
            Act::Guess(ways) => ways.into_iter().for_each(|way| self.guess(now, way)),
        }
    }

    fn guess(&mut self, now: Instant, way: Way) {
        if let Way::Direct { socket, remote } = way
            && self.sockets.has(socket)
            && self.rules.check(remote).is_ok()
            && self.paths.get(Pair { socket, remote }).is_none()
        {
            self.prober.guess(now, way);
        }
    }

    /// When the path in use should be left for a fresh socket's.
    fn renewal_due_at(&self) -> Option<Instant> {
        let State::Direct { to, .. } = self.state else { return None };
        let (_, since) = self.paths.get(to)?.observed?;
        let due_at = since + self.lifetime.expected()? * RENEW_AT_PERCENT / 100;
        Some(self.renewal.not_before.map_or(due_at, |not_before| not_before.max(due_at)))
    }

    fn settle_renewal(&mut self, now: Instant) {
        match self.renewal.stage {
            Stage::Idle if self.renewal_due_at().is_some_and(|at| at <= now) => {
                tracing::debug!("the router is about to drop the mapping of the path in use");
                self.stats.renewals = self.stats.renewals.saturating_add(1);
                self.renewal.stage = Stage::Asking { until: now + RENEWAL_TIME_MAX };
                self.sockets.ask(1);
            }
            Stage::Asking { until } if until <= now => self.try_renewal(now, None),
            Stage::Trying { pair, until } => self.finish_renewal(now, pair, until),
            Stage::Retiring { socket, at } if at <= now => {
                self.renewal.stage = Stage::Idle;
                if self.state.selected().is_none_or(|selected| selected.socket != socket) {
                    self.close_socket(socket);
                }
                // The mapping that took over may itself be due.
                self.settle_renewal(now);
            }
            Stage::Idle | Stage::Asking { .. } | Stage::Retiring { .. } => {}
        }
    }

    fn try_renewal(&mut self, now: Instant, socket: Option<SocketId>) {
        let (Some(socket), Some(selected)) = (socket, self.state.selected()) else { return self.give_renewal_up(now) };
        let pair = Pair { socket, remote: selected.remote };
        let is_vpn = self.paths.get(selected).is_some_and(Path::is_behind_vpn);
        if self.add(now, pair, Origin::Learned, is_vpn) {
            self.renewal.stage = Stage::Trying { pair, until: now + RENEWAL_TIME_MAX };
        } else {
            self.close_socket(socket);
            self.give_renewal_up(now);
        }
    }

    fn finish_renewal(&mut self, now: Instant, pair: Pair, until: Instant) {
        let is_sound = self.paths.get(pair).is_some_and(Path::is_sound);
        match self.state {
            State::Direct { to, .. } if is_sound => {
                self.renewal = Renewal { stage: Stage::Retiring { socket: to.socket, at: now + RETIRED_FOR }, ..Renewal::default() };
                self.move_to(now, Some(to), pair);
            }
            _ if until <= now => {
                if !self.state.uses(pair) {
                    self.close_socket(pair.socket);
                }
                self.give_renewal_up(now);
            }
            State::Relayed | State::Moving { .. } | State::Direct { .. } | State::Doubtful(_) => {}
        }
    }

    fn give_renewal_up(&mut self, now: Instant) {
        self.renewal.stage = Stage::Idle;
        self.renewal.failures += 1;
        if self.renewal.failures >= FAILURES_MAX {
            self.lifetime.forget();
            self.renewal.failures = 0;
        }
        self.renewal.not_before = self.lifetime.expected().map(|expected| now + expected);
    }

    /// Closes the extra sockets by which nothing goes or came of late.
    fn close_unused(&mut self, now: Instant) {
        let is_used = |(pair, path): (Pair, &Path)| {
            let is_alive = matches!(path.life, Life::Usable | Life::Recovering { .. });
            (is_alive || self.state.uses(pair) || path.proven_at.is_some() && now.saturating_duration_since(path.last_heard) < UNUSED_AFTER)
                .then_some(pair.socket)
        };
        let mut used: BTreeSet<SocketId> = self.paths.iter().filter_map(is_used).collect();
        match self.renewal.stage {
            Stage::Trying { pair, .. } => used.insert(pair.socket),
            Stage::Retiring { socket, .. } => used.insert(socket),
            Stage::Idle | Stage::Asking { .. } => false,
        };
        let unused: Vec<SocketId> = self.sockets.open.difference(&used).copied().collect();
        unused.into_iter().for_each(|socket| self.close_socket(socket));
    }

    fn close_socket(&mut self, socket: SocketId) {
        if socket == SocketId::MAIN {
            return;
        }
        self.sockets.close(socket);
        self.paths.remove_socket(socket);
    }
}
