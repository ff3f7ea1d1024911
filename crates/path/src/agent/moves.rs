//! How a call moves from one way to another: onto a direct path, to a better one, into doubt, and back to the legs.

use super::PathAgent;
use super::asking::DOUBT_PAUSE;
use crate::path::{Life, Origin, Pair, Path};
use crate::route::SocketId;
use crate::score::{Place, Score};
use crate::state::{Doubt, State};
use std::time::{Duration, Instant};

/// How long packets go both ways in a move, and in the first doubt: longer than a route change takes at the other side.
const OVERLAP: Duration = Duration::from_millis(200);
/// How long, of how long, packets go two ways in doubts about a path by which packets and answers come all the same, though some are lost or
/// stand in a queue: twice as many would make that worse.
const DOUBLED_MAX: Duration = Duration::from_millis(400);
const DOUBLED_OF: Duration = Duration::from_secs(2);
/// An answer to what was asked so long ago, and longer by what a queue takes, says that the way to the peer works.
const PROVEN_LATELY: Duration = Duration::from_millis(1500);
/// A queue that takes this long is one.
const QUEUE_MIN: Duration = Duration::from_millis(100);
/// Silence after which a doubtful path is dead.
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// The same while packets of the call come by it, so that PONGs may stand in a queue: then only the way to the peer can be dead, and packets
/// take the legs as well for as long as that is not known.
const DEAD_WHILE_CARRYING_AFTER: Duration = Duration::from_secs(3);
/// A doubt that comes within this time of the last lasts twice as long, so that a path that stutters is not moved to and fro.
const DOUBTS_AGAIN: Duration = Duration::from_secs(20);
/// Doublings at most: 6.4 s.
const DOUBT_DOUBLINGS_MAX: u32 = 5;
/// How long after a doubt of this side's the peer's coming to a leg is the answer to it, and no sign: through a slow relay and back.
const ANSWERING_DOUBT: Duration = Duration::from_millis(1500);
/// A path that is only better by its round trip is moved to no sooner after the last move.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// Packets that the peer must have sent from another of its ports, and for how long, before this side sends there too.
const FOLLOWED_PACKETS: u32 = 8;
const FOLLOWED_FOR: Duration = Duration::from_millis(200);
/// A path that was left to follow the peer is not followed back to within this time: where two routers show other ports for other
/// destinations, each side's following would make the other follow.
const NOT_BACK_FOR: Duration = Duration::from_secs(60);

/// Why a way is doubted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Packets of the call came at a steady pace, and then none by any way.
    TrafficStopped,
    /// PINGs in a row were not answered.
    PingsMissed,
    /// The peer has come to a leg that it did not use, as it does when it no longer hears this side.
    PeerOnLeg,
    /// There is no leg, and a path that worked once is all there is.
    NothingElse,
    /// This device's network is another.
    NetworkChanged,
}

/// Packets of the call that come by another path than the one in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed {
    pair: Pair,
    since: Instant,
    packets: u32,
}

/// A path that was left to follow the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pair: Pair,
    at: Instant,
}

impl PathAgent {
    /// When the state is due to change by itself.
    pub(super) fn state_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Relayed | State::Direct { .. } => None,
            State::Moving { until, .. } => Some(until),
            State::Doubtful(doubt) => {
                let Doubt { to, since, until, .. } = doubt;
                let proven_at = self.proven_at(to).filter(|at| *at >= since);
                // A way that loses much may be given up later than that, with the PING that makes it certain.
                let dead_at = Some(proven_at.unwrap_or(since) + DEAD_AFTER).filter(|at| *at > self.settled_at);
                // Without a PONG the end of the overlap changes nothing.
                let is_well = proven_at.is_some() && !self.is_odd(to) || self.carries_again(doubt);
                let well_at = is_well.then_some(until);
                let doubled_from = self.doubled_from.unwrap_or(since);
                let carries_until = self.paths.get(to).and_then(Path::carries_until);
                let route_changes = [Some(doubled_from + DOUBLED_MAX), Some(doubled_from + DOUBLED_OF), carries_until];
                let route_changes = route_changes.into_iter().flatten().filter(|at| *at > self.settled_at);
                [dead_at, well_at].into_iter().flatten().chain(route_changes).min()
            }
        }
    }

    /// Takes one step from state to state; `false`: there is none to take.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        match self.state {
            State::Relayed => self.step_relayed(now),
            State::Moving { to, until, .. } => self.move_up(now, to) || self.finish_move(now, to, until),
            State::Direct { to, .. } => self.step_direct(now, to),
            State::Doubtful(doubt) => self.step_doubtful(now, doubt),
        }
    }

    fn step_relayed(&mut self, now: Instant) -> bool {
        let has_leg = self.legs.is_reliable(now);
        let is_good = |path: &Path| path.is_sound() || !has_leg && matches!(path.life, Life::Recovering { .. });
        if let Some((to, _)) = self.paths.best(None, is_good) {
            self.move_to(now, None, to);
            return true;
        }
        if has_leg {
            return false;
        }
        // Neither leg nor direct path: an address that worked once is worth more than nothing.
        let Some(to) = self.paths.proven_last().first().copied() else { return false };
        self.doubt(now, to, Sign::NothingElse);
        true
    }

    fn finish_move(&mut self, now: Instant, to: Pair, until: Instant) -> bool {
        if now < until {
            return false;
        }
        self.state = State::Direct { to, since: now };
        true
    }

    fn step_direct(&mut self, now: Instant, to: Pair) -> bool {
        if self.paths.get(to).is_some_and(|path| path.is_silent(now)) {
            self.doubt(now, to, Sign::PingsMissed);
            return true;
        }
        self.demote(now, to) || self.move_up(now, to) || self.follow_peer(now, to) || self.move_aside(now, to)
    }

    fn step_doubtful(&mut self, now: Instant, doubt: Doubt) -> bool {
        let Doubt { to, since, until, .. } = doubt;
        self.may_double(now);
        let proven_at = self.proven_at(to).filter(|at| *at >= since);
        if proven_at.is_none()
            && self.paths.get(to).is_none_or(|path| path.is_past_hope() || !path.quality.is_known_to_lose() && !path.is_carrying(now))
            && let Some(other) = self.refuge(now, to, since)
        {
            self.bury(now, doubt);
            self.move_to(now, None, other);
            return true;
        }
        if proven_at.is_some() && !self.is_odd(to) && now >= until {
            self.trust(now, to);
            self.state = State::Direct { to, since: now };
            if self.paths.get(to).is_some_and(|path| path.missed_at < Some(since)) {
                // Every PING was answered: the peer only had nothing to say, and the next doubt is a first one again.
                (self.last_doubt, self.last_stutter) = (None, None);
            }
            return true;
        }
        if self.carries_again(doubt) && now >= until {
            self.state = State::Direct { to, since: now };
            return true;
        }
        if self.demote(now, to) {
            return true;
        }
        let is_past_hope = self.paths.get(to).is_none_or(Path::is_past_hope);
        let is_carrying = self.paths.get(to).is_some_and(|path| path.is_carrying(now));
        let dead_after = if is_carrying { DEAD_WHILE_CARRYING_AFTER } else { DEAD_AFTER };
        if now.saturating_duration_since(proven_at.unwrap_or(since)) < dead_after || !is_past_hope {
            return false;
        }
        if self.legs.is_well(now) {
            self.fall_back(now, doubt);
            return true;
        }
        if !doubt.has_searched {
            self.state = State::Doubtful(Doubt { has_searched: true, ..doubt });
            self.search(now);
        }
        false
    }

    /// Another path that answered since the doubt began.
    fn refuge(&self, now: Instant, to: Pair, since: Instant) -> Option<Pair> {
        let has_leg = self.legs.is_well(now);
        let is_refuge = |path: &Path| {
            let is_trusted = path.life == Life::Usable || !has_leg && matches!(path.life, Life::Recovering { .. });
            is_trusted && path.proven_at >= Some(since)
        };
        self.paths.best(Some(to), is_refuge).map(|(refuge, _)| refuge)
    }

    /// Moves to a path of a better tier, at once.
    fn move_up(&mut self, now: Instant, current: Pair) -> bool {
        let Some((score, other, other_score)) = self.rival(current) else { return false };
        let moves = other_score.outranks(&score);
        if moves {
            self.move_to(now, Some(current), other);
        }
        moves
    }

    /// Moves to a path of the same tier that is clearly better, now and then.
    fn move_aside(&mut self, now: Instant, current: Pair) -> bool {
        if self.last_move.is_some_and(|last| now.saturating_duration_since(last) < SETTLED_AFTER) {
            return false;
        }
        let Some((score, other, other_score)) = self.rival(current) else { return false };
        let is_known = self.paths.get(other).is_some_and(Path::is_compared);
        let moves = is_known && other_score.clearly_beats(&score);
        if moves {
            self.move_to(now, Some(current), other);
        }
        moves
    }

    /// Score of the path in use, and the best of the others.
    fn rival(&self, current: Pair) -> Option<(Score, Pair, Score)> {
        let path = self.paths.get(current)?;
        let (other, score) = self.paths.best(Some(current), Path::is_sound)?;
        Some((path.score(current.remote), other, score))
    }

    /// A packet of the call came by `pair`.
    pub(super) fn follow(&mut self, now: Instant, pair: Pair) {
        let State::Direct { to, .. } = self.state else {
            self.followed = None;
            return;
        };
        let is_beside = pair != to && pair.socket == to.socket && pair.remote.ip() == to.remote.ip();
        self.followed = match self.followed {
            _ if !is_beside => None,
            Some(known) if known.pair == pair => Some(Followed { packets: known.packets.saturating_add(1), ..known }),
            Some(_) | None => Some(Followed { pair, since: now, packets: 1 }),
        };
    }

    /// The peer, which knows its own router, speaks from another of its ports for good: sends there too. Both ends of a mapping that is
    /// about to be dropped have to leave it.
    fn follow_peer(&mut self, now: Instant, current: Pair) -> bool {
        let Some(followed) = self.followed else { return false };
        let is_for_good = followed.packets >= FOLLOWED_PACKETS && now.saturating_duration_since(followed.since) >= FOLLOWED_FOR;
        let was_left = |left: Left| left.pair == followed.pair && now.saturating_duration_since(left.at) < NOT_BACK_FOR;
        let moves = is_for_good && !self.left.is_some_and(was_left) && self.paths.get(followed.pair).is_some_and(Path::is_sound);
        if moves {
            self.followed = None;
            self.left = Some(Left { pair: current, at: now });
            self.move_to(now, Some(current), followed.pair);
        }
        moves
    }

    /// Moves to a direct path: until it is certain that the peer hears it, packets also go by `from`, or without it through a leg.
    pub(super) fn move_to(&mut self, now: Instant, from: Option<Pair>, to: Pair) {
        tracing::debug!(from = ?self.state.selected(), %to, "moving to a direct path");
        self.trust(now, to);
        self.last_move = Some(now);
        self.state = State::Moving { from, to, until: now + OVERLAP };
        self.stats.moves = self.stats.moves.saturating_add(1);
        self.hasten(to, now + DOUBT_PAUSE);
    }

    /// The peer, settled elsewhere, came to a leg.
    pub(super) fn peer_came_to_a_leg(&mut self, now: Instant) {
        if self.last_doubt.is_none_or(|last| now.saturating_duration_since(last) >= ANSWERING_DOUBT) {
            self.doubt_way_in_use(now, Sign::PeerOnLeg);
        }
    }

    pub(super) fn doubt_way_in_use(&mut self, now: Instant, sign: Sign) {
        match self.state {
            State::Direct { to, .. } => self.doubt(now, to, sign),
            // The peer is expected on a leg while this side moves.
            State::Moving { to, .. } if sign != Sign::PeerOnLeg => self.doubt(now, to, sign),
            State::Relayed => self.doubt_legs(now, sign),
            State::Moving { .. } | State::Doubtful(_) => {}
        }
    }

    /// Sends packets by every way, the last ones again, and asks.
    fn doubt(&mut self, now: Instant, to: Pair, sign: Sign) {
        let is_used_to_losses = self.is_used_to_losses(to);
        let until = now + self.doubt_time(now, sign, is_used_to_losses);
        tracing::debug!(%to, ?sign, doubts = self.doubts, "direct path in doubt");
        let is_blameless = sign == Sign::NetworkChanged;
        let ends_with_traffic = is_used_to_losses && sign == Sign::TrafficStopped;
        self.state = State::Doubtful(Doubt { to, since: now, until, has_searched: false, is_blameless, ends_with_traffic });
        self.may_double(now);
        for (pair, path) in self.paths.iter_mut() {
            if pair == to || matches!(path.life, Life::Usable | Life::Recovering { .. }) {
                path.hasten(now);
            }
        }
        self.count_doubt(now, sign, is_used_to_losses);
    }

    /// Sends packets through every leg, the last ones again, and asks.
    pub(super) fn doubt_legs(&mut self, now: Instant, sign: Sign) {
        if self.legs.is_doubled() && sign != Sign::NetworkChanged {
            // More copies would only fill a line that is full as it is.
            self.legs.suspect(now);
            return;
        }
        let is_used_to_losses = self.legs.are_known_to_lose() || self.watchdog.sees_losses();
        let time = self.doubt_time(now, sign, is_used_to_losses);
        tracing::debug!(?sign, doubts = self.doubts, "legs in doubt");
        self.legs.double(now, time);
        self.count_doubt(now, sign, is_used_to_losses);
    }

    /// How long a doubt that begins now lasts at least. Another network is no stutter: packets that went by the leg on and on would hide the
    /// next change from the peer, which notices it by what stops, or comes to a leg anew. Nor is it one where losses are known: more packets
    /// at once would not make them fewer.
    fn doubt_time(&mut self, now: Instant, sign: Sign, is_used_to_losses: bool) -> Duration {
        if sign == Sign::NetworkChanged || is_used_to_losses {
            return OVERLAP;
        }
        let is_again = self.last_stutter.replace(now).is_some_and(|last| now.saturating_duration_since(last) < DOUBTS_AGAIN);
        self.doubts = if is_again { (self.doubts + 1).min(DOUBT_DOUBLINGS_MAX) } else { 0 };
        OVERLAP * 2u32.pow(self.doubts)
    }

    fn count_doubt(&mut self, now: Instant, sign: Sign, is_used_to_losses: bool) {
        match sign {
            Sign::TrafficStopped | Sign::PingsMissed | Sign::NothingElse => self.legs.suspect(now),
            Sign::PeerOnLeg => self.legs.ask(now),
            Sign::NetworkChanged => self.legs.network_changed(now),
        }
        self.watchdog.disarm();
        self.last_doubt = Some(now);
        self.stats.doubts = self.stats.doubts.saturating_add(1);
        // Where losses are usual, voice carries copies of its last frames, and a second's packets at once would be lost in their turn.
        let is_rather_loss = matches!(sign, Sign::TrafficStopped | Sign::PingsMissed | Sign::PeerOnLeg);
        if !(is_used_to_losses && is_rather_loss) {
            self.tell_replay();
        }
    }

    /// Whether losses are usual on a path, as PINGs or the packets of the call show.
    fn is_used_to_losses(&self, pair: Pair) -> bool {
        self.watchdog.sees_losses() || self.paths.get(pair).is_some_and(|path| path.quality.is_used_to_losses())
    }

    /// Whether a doubt is over because packets come again.
    fn carries_again(&self, doubt: Doubt) -> bool {
        doubt.ends_with_traffic && self.paths.get(doubt.to).is_some_and(|path| path.carried_at > Some(doubt.since))
    }

    /// Begins to count anew how long packets go two ways, when it is time.
    fn may_double(&mut self, now: Instant) {
        if self.doubled_from.is_none_or(|from| now.saturating_duration_since(from) >= DOUBLED_OF) {
            self.doubled_from = Some(now);
        }
    }

    /// Whether packets went two ways for long enough, and the path in doubt shows both ways that it is not dead.
    pub(super) fn has_doubled_enough(&self, doubt: Doubt) -> bool {
        let now = self.settled_at;
        let age = |at: Instant| now.saturating_duration_since(at);
        let queue = self.thrift.queue(now);
        let Some(path) = self.paths.get(doubt.to).filter(|_| !doubt.is_blameless) else { return false };
        self.doubled_from.is_some_and(|from| age(from) >= DOUBLED_MAX)
            && path.is_carrying(now)
            && path.proven_at.is_some_and(|at| age(at) < PROVEN_LATELY + queue)
            && (queue >= QUEUE_MIN || self.is_used_to_losses(doubt.to))
    }

    /// The network is another: nothing that was known of any way still counts, and every address is searched at once.
    pub(super) fn doubt_everything(&mut self, now: Instant) {
        let selected = self.state.selected();
        self.thrift.network_changed(now);
        // What is known from an extra socket may be reached from the device's own port now as well.
        for (remote, place) in self.paths.remotes() {
            self.add(now, Pair { socket: SocketId::MAIN, remote }, Origin::Learned, place == Place::BehindVpn);
        }
        let places: Vec<_> = self.paths.iter().map(|(pair, path)| (pair, self.place_of(pair.remote, path.is_behind_vpn()))).collect();
        for (pair, place) in places {
            let Some(path) = self.paths.get_mut(pair) else { continue };
            path.place = place;
            if selected == Some(pair) { path.hunt_again(now) } else { path.start_over(now) }
        }
        match selected {
            Some(to) => self.doubt(now, to, Sign::NetworkChanged),
            None => self.doubt_legs(now, Sign::NetworkChanged),
        }
    }

    /// Leaves a path by which too much is lost for one that loses clearly less.
    fn demote(&mut self, now: Instant, to: Pair) -> bool {
        let Some(path) = self.paths.get(to).filter(|path| path.quality.is_lossy()) else { return false };
        let quality = path.quality;
        let other = self.paths.best(Some(to), |other| other.is_sound() && other.quality.loses_less_than(now, &quality));
        if other.is_none() && !self.legs.lose_less_than(now, &quality) {
            return false;
        }
        tracing::debug!(%to, "direct path loses too much");
        self.stats.demotions = self.stats.demotions.saturating_add(1);
        if let Some(path) = self.paths.get_mut(to) {
            path.died(now);
        }
        match other {
            Some((other, _)) => self.move_to(now, None, other),
            None => self.back_to_legs(now),
        }
        true
    }

    /// Back to the legs; every path that did not answer since the doubt began is dead.
    fn fall_back(&mut self, now: Instant, doubt: Doubt) {
        tracing::debug!(to = %doubt.to, "direct path is dead");
        self.bury(now, doubt);
        for (_, path) in self.paths.iter_mut() {
            if path.life == Life::Usable && path.proven_at < Some(doubt.since) {
                path.died(now);
            }
        }
        self.back_to_legs(now);
        self.search(now);
    }

    fn back_to_legs(&mut self, now: Instant) {
        self.state = State::Relayed;
        self.watchdog.disarm();
        self.legs.ask(now);
        self.stats.falls_back = self.stats.falls_back.saturating_add(1);
    }

    /// The doubtful path is dead.
    fn bury(&mut self, now: Instant, doubt: Doubt) {
        if let Some(path) = self.paths.get_mut(doubt.to) {
            if doubt.is_blameless { path.start_over(now) } else { path.died(now) }
        }
    }

    /// Probes every address that is not usable again.
    pub(super) fn search(&mut self, now: Instant) {
        for (_, path) in self.paths.iter_mut() {
            if path.life != Life::Usable {
                path.search_again(now);
            }
        }
    }

    fn trust(&mut self, now: Instant, pair: Pair) {
        if let Some(path) = self.paths.get_mut(pair).filter(|path| path.life != Life::Usable) {
            path.trust(now);
        }
    }

    fn is_odd(&self, pair: Pair) -> bool {
        self.paths.get(pair).is_some_and(Path::is_odd)
    }

    fn proven_at(&self, pair: Pair) -> Option<Instant> {
        self.paths.get(pair)?.proven_at
    }
}
