//! The path agent itself: routes what comes in to the parts, and gives out what they want. How it moves from state to state is in `moves`,
//! when it asks what is in `asking`, and what it does with further sockets in `extra`.

mod asking;
mod extra;
mod moves;

use self::extra::{Renewal, Sockets};
use self::moves::{Followed, Left, Sign};
use crate::budget::{Budget, Rate};
use crate::candidate::{AddressRules, Subnet, plain};
use crate::crossing::{Crossing, PeerAddresses};
use crate::legs::{LegNotice, Legs};
use crate::lifetime::Lifetime;
use crate::path::{Life, Origin, Pair};
use crate::paths::Paths;
use crate::prober::{Answered, Probe, Prober};
use crate::route::{LegId, ROUTE_WAYS_MAX, Route, SocketId, Way};
use crate::score::{LATE_SLACK, Place};
use crate::silence::Silence;
use crate::state::State;
use crate::thrift::Thrift;
use crate::types::{AgentConfig, AgentStats, Dropped, Event, Selected, Transmit};
use crate::watchdog::Watchdog;
use ahoy_protocol::datagram::{Ping, Pong};
use ahoy_protocol::peer::{Candidate, CandidateKind, LEGS_MAX, Mapping};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Steps that one input can lead through at most, such as a doubt that ends in a move.
const STEPS_MAX: usize = 4;
/// How long an address that was learned waits for its first PING where too many were.
const LEARNED_PAUSE: Duration = Duration::from_millis(500);
/// How much more than the legs a path may lose that died and is to be trusted again: less than chance makes of few probes, and copies of
/// voice repair it.
const LOSS_TOLERANCE: f64 = 0.2;
/// How long a search for an address lasts before being told it again starts it over.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);

/// Decides which way a call's packets go. See the crate's documentation for how.
///
/// After every `handle_…`, `add_…`, `set_…`, `start_…` and `sockets_…` call the owner takes all of [`poll_event`](Self::poll_event), best
/// first and in order, and of [`poll_transmit`](Self::poll_transmit), and calls [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
#[derive(Debug)]
pub struct PathAgent {
    on_link: Vec<Subnet>,
    rules: AddressRules,
    birthday: bool,
    prober: Prober,
    paths: Paths,
    legs: Legs,
    watchdog: Watchdog,
    silence: Silence,
    thrift: Thrift,
    state: State,
    is_probing: bool,
    stranger_probes: Budget,
    learned_probes: Budget,
    last_sent: Option<Instant>,
    last_move: Option<Instant>,
    last_doubt: Option<Instant>,
    /// The last doubt that was not due to another network.
    last_stutter: Option<Instant>,
    doubts: u32,
    /// Since when it is counted how long packets go two ways.
    doubled_from: Option<Instant>,
    heard_directly_at: Option<Instant>,
    followed: Option<Followed>,
    left: Option<Left>,
    own_mapping: Mapping,
    peer_mapping: Mapping,
    peer_addresses: PeerAddresses,
    crossing: Crossing,
    lifetime: Lifetime,
    renewal: Renewal,
    sockets: Sockets,
    /// What everything was last brought up to.
    settled_at: Instant,
    told: Route,
    replay: bool,
    notices: VecDeque<Event>,
    stats: AgentStats,
}

impl PathAgent {
    /// An agent without legs and candidates, that probes nothing. `seed` makes its transactions and guesses; take it from the system's
    /// randomness.
    #[must_use]
    pub fn new(config: AgentConfig, seed: u64, now: Instant) -> Self {
        Self {
            on_link: config.on_link,
            rules: config.rules,
            birthday: config.birthday,
            prober: Prober::new(config.side, config.keys, seed, now),
            paths: Paths::default(),
            legs: Legs::default(),
            watchdog: Watchdog::default(),
            silence: Silence::default(),
            thrift: Thrift::new(now),
            state: State::Relayed,
            is_probing: false,
            stranger_probes: Budget::new(now, Rate::STRANGERS),
            learned_probes: Budget::new(now, Rate::LEARNED),
            last_sent: None,
            last_move: None,
            last_doubt: None,
            last_stutter: None,
            doubts: 0,
            doubled_from: None,
            heard_directly_at: None,
            followed: None,
            left: None,
            own_mapping: Mapping::Unknown,
            peer_mapping: Mapping::Unknown,
            peer_addresses: PeerAddresses::default(),
            crossing: Crossing::default(),
            lifetime: Lifetime::default(),
            renewal: Renewal::default(),
            sockets: Sockets::default(),
            settled_at: now,
            told: Route::default(),
            replay: false,
            notices: VecDeque::new(),
            stats: AgentStats::default(),
        }
    }

    /// Takes a PING or PONG that came by `way`. IPv4 addresses come as such, not IPv4-mapped.
    ///
    /// # Errors
    /// Why it was dropped; then nothing changed.
    pub fn handle_datagram(&mut self, now: Instant, way: Way, datagram: &[u8]) -> Result<(), Dropped> {
        let way = known_form(way);
        let probe = self.prober.read(datagram)?;
        match way {
            Way::Leg(leg) if self.legs.get(leg).is_none() => return Err(Dropped::UnknownWay),
            Way::Leg(_) => {}
            Way::Direct { .. } if !self.is_probing => return Err(Dropped::NotProbing),
            Way::Direct { socket, .. } if !self.sockets.has(socket) => return Err(Dropped::UnknownWay),
            Way::Direct { remote, .. } => self.rules.check(remote).map_err(Dropped::Address)?,
        }
        match probe {
            Probe::Ping(ping) => self.handle_ping(now, way, &ping)?,
            Probe::Pong(pong) => self.handle_pong(now, way, &pong)?,
        }
        self.silence.heard(now);
        self.settle(now);
        Ok(())
    }

    fn handle_ping(&mut self, now: Instant, way: Way, ping: &Ping) -> Result<(), Dropped> {
        self.prober.may_answer(now, ping)?;
        match way {
            Way::Leg(leg) => self.legs.heard(now, leg),
            Way::Direct { socket, remote } => self.handle_direct_ping(now, Pair { socket, remote })?,
        }
        self.prober.answer(now, way, ping);
        Ok(())
    }

    fn handle_direct_ping(&mut self, now: Instant, pair: Pair) -> Result<(), Dropped> {
        // Answering an address makes the peer send there from; one that there is no room for must not be answered.
        if self.paths.get(pair).is_none() && !self.add(now, pair, Origin::Learned, false) {
            return Err(Dropped::TooMany);
        }
        self.heard_directly_at = Some(now);
        if let Some(path) = self.paths.get_mut(pair) {
            path.heard(now);
            if let Some(last) = path.last_probe.filter(|_| !path.is_sound()) {
                // The peer's packets come through: an answer may as well.
                path.hasten(now.max(last + asking::TRIGGERED_PAUSE));
            }
        }
        Ok(())
    }

    fn handle_pong(&mut self, now: Instant, way: Way, pong: &Pong) -> Result<(), Dropped> {
        let answered = self.prober.answered_by(pong, way).ok_or(Dropped::UnknownTransaction)?;
        let (sent_at, was_late) = match answered {
            Answered::Ping(sent) => (sent.at, sent.is_late),
            Answered::Guess(at) => (at, false),
        };
        let usual = match way {
            Way::Leg(leg) => self.legs.rtt(leg),
            Way::Direct { socket, remote } => self.paths.get(Pair { socket, remote }).and_then(|path| path.quality.rtt()),
        };
        if let Some(usual) = usual {
            let took = now.saturating_duration_since(sent_at);
            self.thrift.answered(now, took.saturating_sub(usual));
            if was_late {
                self.prober.give_time(now, took + LATE_SLACK);
            }
        }
        match way {
            Way::Leg(leg) => self.legs.answered(now, leg, sent_at, was_late),
            Way::Direct { socket, remote } => self.handle_direct_pong(now, Pair { socket, remote }, sent_at, was_late, pong.observed),
        }
        Ok(())
    }

    fn handle_direct_pong(&mut self, now: Instant, pair: Pair, sent_at: Instant, was_late: bool, observed: SocketAddr) {
        if self.paths.get(pair).is_none() && !self.add(now, pair, Origin::Learned, false) {
            return;
        }
        self.heard_directly_at = Some(now);
        let tolerated = self.legs.loss() + LOSS_TOLERANCE;
        let Some(path) = self.paths.get_mut(pair) else { return };
        let before = path.life;
        path.answered(now, sent_at, was_late, tolerated);
        if path.life != before {
            tracing::debug!(%pair, ?before, after = ?path.life, "path answered");
            path.hasten(now + asking::FRESH_PAUSE);
        }
        if let Some(age) = path.observed_as(now, observed) {
            tracing::debug!(%pair, ?age, "the router maps this path anew");
            self.lifetime.ended(age);
        }
    }

    /// A packet of the call came this way. From an address for which [`is_peer_address`](Self::is_peer_address) does not hold, the packet is
    /// to be dropped and not told.
    pub fn handle_traffic(&mut self, now: Instant, way: Way) {
        let way = known_form(way);
        match way {
            Way::Leg(leg) if self.legs.get(leg).is_none() => return,
            Way::Leg(leg) => self.legs.heard(now, leg),
            Way::Direct { socket, remote } => {
                let pair = Pair { socket, remote };
                let Some(path) = self.paths.get_mut(pair).filter(|path| path.is_vouched) else { return };
                path.heard(now);
                path.carried_at = Some(now);
                self.heard_directly_at = Some(now);
                self.follow(now, pair);
            }
        }
        self.silence.heard(now);
        if self.watchdog.packet(now, way) {
            self.peer_came_to_a_leg(now);
        }
        self.settle(now);
    }

    /// A packet of the call, of so many bytes on the wire, was sent along [`route`](Self::route).
    pub fn handle_sent(&mut self, now: Instant, bytes: usize) {
        let was_idle = !self.is_busy(now);
        self.last_sent = Some(now);
        self.thrift.sent(now, bytes);
        if let Some(selected) = self.state.selected().filter(|_| was_idle) {
            self.hasten(selected, now + self.thrift.in_use());
        }
    }

    /// The owner has a leg that is joined, or has lost it. `true` again for a leg that it had: it is another relay's now.
    pub fn set_leg(&mut self, now: Instant, leg: LegId, up: bool) {
        let is_rescue = up && self.legs.is_empty() && matches!(self.state, State::Doubtful(_));
        if self.legs.set(now, leg, up) && is_rescue {
            self.tell_replay();
        }
        self.settle(now);
    }

    /// Takes the addresses at which the peer says it may be reached, all of them; gives back how many are known that were not before. Refused
    /// ones are left out. Those that are known and lead nowhere are searched again: the peer has a reason to name them. Those that it named
    /// before and names no more are forgotten, unless they were heard from.
    pub fn add_remote(&mut self, now: Instant, candidates: &[Candidate]) -> usize {
        let mut added = 0;
        let mut allowed = Vec::new();
        for candidate in candidates {
            let candidate = Candidate { address: plain(candidate.address), kind: candidate.kind };
            match self.rules.check(candidate.address) {
                Ok(()) => {
                    added += usize::from(self.add_or_search(now, candidate));
                    allowed.push(candidate);
                }
                Err(refused) => tracing::debug!(address = %candidate.address, %refused, "candidate refused"),
            }
        }
        if !allowed.is_empty() {
            let selected = self.state.selected();
            self.paths.forget_unnamed(|pair| selected == Some(pair) || allowed.iter().any(|named| named.address == pair.remote));
        }
        self.peer_addresses.say(&allowed);
        self.settle(now);
        added
    }

    fn add_or_search(&mut self, now: Instant, candidate: Candidate) -> bool {
        let pair = Pair::main(candidate.address);
        if self.add(now, pair, Origin::Signalled, candidate.kind == CandidateKind::VpnHost) {
            return true;
        }
        let is_wanted = self.is_probing && matches!(self.state, State::Relayed | State::Doubtful(_));
        if let Some(path) = self.paths.get_mut(pair).filter(|path| is_wanted && path.life != Life::Usable)
            && path.hunt_since.is_none_or(|since| now.saturating_duration_since(since) >= SEARCH_AGAIN)
        {
            path.hunt_again(now);
        }
        false
    }

    /// What the peer says its NAT does.
    pub fn set_peer_mapping(&mut self, now: Instant, mapping: Mapping) {
        self.peer_mapping = mapping;
        self.settle(now);
    }

    /// What this device's NAT does.
    pub fn set_own_mapping(&mut self, now: Instant, mapping: Mapping) {
        self.own_mapping = mapping;
        self.settle(now);
    }

    /// From here on addresses are probed and probes from them answered. Again is nothing.
    pub fn start_probing(&mut self, now: Instant) {
        if self.is_probing {
            return;
        }
        self.is_probing = true;
        self.paths.iter_mut().for_each(|(_, path)| path.hunt_again(now));
        self.settle(now);
    }

    /// This device's addresses changed, or it woke up: every way is in doubt, and all are asked at once. `on_link`: the address ranges at
    /// its interfaces now.
    pub fn handle_network_change(&mut self, now: Instant, on_link: Vec<Subnet>) {
        self.on_link = on_link;
        self.lifetime.forget();
        self.crossing.start_over();
        self.doubt_everything(now);
        self.settle(now);
    }

    /// The sockets that [`Event::OpenSockets`] asked for: fewer than that, or none, where the system gives no more.
    pub fn sockets_opened(&mut self, now: Instant, sockets: &[SocketId]) {
        self.take_sockets(now, sockets);
        self.settle(now);
    }

    /// Does what is due at `now`. Early, late or twice does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// The next probe to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.prober.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        // A relay has to know where a leg is before anything is sent through it.
        if let Some(Event::LegSilent(_)) = self.notices.front() {
            return self.notices.pop_front();
        }
        let route = self.route();
        if route != self.told {
            self.told = route;
            return Some(Event::RouteChanged(route));
        }
        if std::mem::take(&mut self.replay) {
            return Some(Event::Replay);
        }
        self.notices.pop_front().or_else(|| self.sockets.poll_event())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None`: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let now = self.settled_at;
        let always = [self.prober.deadline(), self.legs.deadline(now), self.silence.deadline(), self.watchdog.deadline()];
        let while_probing = [self.asking_deadline(), self.state_deadline(), self.extra_deadline()];
        let while_probing = while_probing.into_iter().flatten().filter(|_| self.is_probing);
        always.into_iter().flatten().chain(while_probing).min()
    }

    /// Where packets go.
    #[must_use]
    pub fn route(&self) -> Route {
        match self.state {
            State::Relayed => Route::new(self.legs.ways()),
            State::Moving { from: Some(from), to, .. } => Route::new([to.way(), from.way()]),
            State::Moving { from: None, to, .. } => Route::new([to.way()].into_iter().chain(self.legs.ways())),
            State::Direct { to, .. } => Route::new([to.way()]),
            State::Doubtful(doubt) if self.has_doubled_enough(doubt) => Route::new([doubt.to.way()]),
            State::Doubtful(doubt) => Route::new([doubt.to.way()].into_iter().chain(self.ways_in_doubt())),
        }
    }

    /// Every leg; where there are fewer than may be, also paths that worked before.
    fn ways_in_doubt(&self) -> Vec<Way> {
        let mut ways: Vec<Way> = self.legs.all_ways().collect();
        if ways.len() < LEGS_MAX && !self.legs.is_well(self.settled_at) {
            ways.extend(self.paths.proven_last().into_iter().map(Pair::way).take(ROUTE_WAYS_MAX));
        }
        ways
    }

    /// The way that counts as the call's path, in doubt or not; `None`: there is none.
    #[must_use]
    pub fn selected(&self) -> Option<Selected> {
        match self.state.selected() {
            Some(pair) => {
                let path = self.paths.get(pair)?;
                Some(Selected { way: pair.way(), rtt: path.quality.rtt(), on_link: path.place == Place::OnLink })
            }
            None => {
                let leg = self.legs.in_use()?;
                Some(Selected { way: Way::Leg(leg), rtt: self.legs.rtt(leg), on_link: false })
            }
        }
    }

    /// Smoothed round trip between the two devices through a leg, once known.
    #[must_use]
    pub fn leg_rtt(&self, leg: LegId) -> Option<Duration> {
        self.legs.rtt(leg)
    }

    /// Whether an authenticated probe came from `remote` to `socket`, so that packets of the call may.
    #[must_use]
    pub fn is_peer_address(&self, socket: SocketId, remote: SocketAddr) -> bool {
        self.paths.get(Pair { socket, remote: plain(remote) }).is_some_and(|path| path.is_vouched)
    }

    /// Which call's probes are for this agent: the eight bytes after the first of every PING and PONG.
    #[must_use]
    pub fn tag(&self) -> [u8; 8] {
        self.prober.tag()
    }

    /// What the agent has done so far.
    #[must_use]
    pub fn stats(&self) -> AgentStats {
        let sums = self.prober.sums();
        AgentStats {
            pings: sums.pings,
            pongs: sums.pongs,
            guesses: sums.guesses,
            leg_changes: self.legs.changes(),
            attempts: self.crossing.attempts(),
            ..self.stats
        }
    }

    fn add(&mut self, now: Instant, pair: Pair, origin: Origin, is_vpn: bool) -> bool {
        let place = self.place_of(pair.remote, is_vpn);
        let is_new = self.paths.add(now, pair, origin, place, self.state.selected());
        if is_new && self.is_probing {
            let is_at_once = origin == Origin::Signalled || self.learned_probes.take(now);
            self.hasten(pair, if is_at_once { now } else { now + LEARNED_PAUSE });
        }
        is_new
    }

    fn place_of(&self, remote: SocketAddr, is_vpn: bool) -> Place {
        let ip = remote.ip();
        if is_vpn {
            Place::BehindVpn
        } else if ip.is_loopback() || self.on_link.iter().any(|subnet| subnet.contains(ip)) {
            Place::OnLink
        } else {
            Place::Elsewhere
        }
    }

    fn tell_replay(&mut self) {
        if !self.legs.is_empty() {
            self.replay = true;
            self.stats.replays = self.stats.replays.saturating_add(1);
        }
    }

    /// Brings everything up to `now`: what is late, which way, what to ask. Every input ends here, so that it does not matter which one is
    /// the first after a deadline.
    fn settle(&mut self, now: Instant) {
        self.settled_at = now;
        self.count_late(now);
        if self.watchdog.deadline().is_some_and(|deadline| deadline <= now) {
            self.watchdog.disarm();
            self.doubt_way_in_use(now, Sign::TrafficStopped);
        }
        self.legs.settle(now);
        if self.is_probing {
            for _ in 0..STEPS_MAX {
                if !self.step(now) {
                    break;
                }
            }
            self.settle_extra(now);
            self.probe(now);
        }
        self.probe_legs(now);
        self.tell(now);
    }

    fn count_late(&mut self, now: Instant) {
        let selected = self.state.selected();
        for sent in self.prober.become_late(now) {
            let Way::Direct { socket, remote } = sent.way else {
                self.count_late_by_leg(now, sent.way, sent.at);
                continue;
            };
            let pair = Pair { socket, remote };
            let Some(path) = self.paths.get_mut(pair) else { continue };
            path.missed_one(now);
            if selected == Some(pair) {
                if path.is_odd() {
                    path.hasten(now);
                }
            } else if path.life == Life::Usable && path.is_past_hope() {
                path.died(now);
            }
        }
    }

    fn count_late_by_leg(&mut self, now: Instant, way: Way, sent_at: Instant) {
        let Way::Leg(leg) = way else { return };
        if self.legs.missed(now, leg, sent_at) && self.state == State::Relayed {
            self.doubt_legs(now, Sign::PingsMissed);
        }
    }

    /// Says what the owner has to know by now.
    fn tell(&mut self, now: Instant) {
        let is_heard_directly = self.heard_directly_at.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        for notice in self.legs.notices(now, is_heard_directly) {
            match notice {
                LegNotice::Silent(leg) => self.notices.push_front(Event::LegSilent(leg)),
                LegNotice::Dead(leg) => self.notices.push_back(Event::LegDead(leg)),
            }
        }
        if let Some(is_silent) = self.silence.change(now) {
            tracing::debug!(is_silent, "silence");
            self.notices.push_back(Event::Silence(is_silent));
            if !is_silent {
                // QUIC may have stopped sending until its probe is due; something new to acknowledge wakes it.
                self.tell_replay();
            }
        }
        // An owner that does not fetch its events loses the oldest.
        while self.notices.len() > NOTICES_MAX {
            self.notices.pop_front();
        }
    }
}

/// Events that wait for the owner at most.
const NOTICES_MAX: usize = 16;

/// `way` with its address in the form in which it is a key.
fn known_form(way: Way) -> Way {
    match way {
        Way::Leg(_) => way,
        Way::Direct { socket, remote } => Way::Direct { socket, remote: plain(remote) },
    }
}
