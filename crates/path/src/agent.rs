//! The path agent itself: routes what comes in to the parts, and moves between the few states that a call's way can be in.

use crate::candidate::{AddressRules, Subnet, plain};
use crate::prober::{Probe, Prober};
use crate::remote::{Life, MISSED_MAX, Origin, Remote, Remotes};
use crate::score::Score;
use crate::types::{AgentConfig, Dropped, Event, Route, Selected, Transmit, Via};
use crate::watchdog::Watchdog;
use crate::way::Way;
use ahoy_protocol::datagram::{Ping, Pong};
use ahoy_protocol::peer::Candidate;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// PINGs of one call to addresses that never answered: what the peer can have sent to strangers, 35 kB. Then only addresses that answer are
/// probed.
const STRANGER_PROBES_MAX: u32 = 1024;
/// How long packets go both ways in a move, and in the first doubt: longer than a route change takes at the other side.
const OVERLAP: Duration = Duration::from_millis(200);
/// Silence after which a doubtful path is dead.
const DEAD_AFTER: Duration = Duration::from_secs(1);
/// A doubt that comes within this time of the last lasts twice as long, so that a path that stutters is not moved to and fro.
const DOUBTS_AGAIN: Duration = Duration::from_secs(20);
/// Doublings at most: 6.4 s.
const DOUBT_DOUBLINGS_MAX: u32 = 5;
/// A path that is only better by its round trip is moved to no sooner after the last move.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// PINGs that must be known of a path before it is moved to for its round trip.
const COMPARED_SAMPLES_MIN: u32 = 8;

/// Between a PING of the peer's and the last to where it came from, at least.
const TRIGGERED_PAUSE: Duration = Duration::from_millis(100);
/// Between PINGs that the budget did not allow.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Between PINGs to a path in doubt or being moved to.
const DOUBT_PAUSE: Duration = Duration::from_millis(100);
/// Between PINGs after one was missed on the path in use.
const MISSED_PAUSE: Duration = Duration::from_millis(60);
/// Between PINGs in the first seconds on a path, and while a path recovers.
const FRESH_PAUSE: Duration = Duration::from_millis(200);
/// How long these seconds are.
const FRESH: Duration = Duration::from_secs(5);
/// Between PINGs on the path in use while packets are sent.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Between PINGs on the path in use while none are, and on paths kept for comparison.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// Between PINGs to an address that answered once, when the search is over.
const DEAD_PAUSE: Duration = Duration::from_secs(5);
/// Between PINGs to an address that never did.
const STRANGER_PAUSE: Duration = Duration::from_secs(30);
/// Steps that one input can lead through at most, such as a doubt that ends in a move.
const STEPS_MAX: usize = 4;

/// Decides which way a call's packets go. See the crate's documentation for how.
///
/// After every `handle_…`, `add_…`, `set_…` and `start_…` call the owner takes all of [`poll_transmit`](Self::poll_transmit) and
/// [`poll_event`](Self::poll_event), and calls [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) has come.
#[derive(Debug)]
pub struct PathAgent {
    on_link: Vec<Subnet>,
    rules: AddressRules,
    prober: Prober,
    remotes: Remotes,
    watchdog: Watchdog,
    way: Way,
    has_relay: bool,
    is_probing: bool,
    stranger_probes: u32,
    last_sent: Option<Instant>,
    last_move: Option<Instant>,
    last_doubt: Option<Instant>,
    doubts: u32,
    told: Route,
    replay: bool,
}

impl PathAgent {
    /// An agent without relay and candidates, that probes nothing. `seed` makes its transactions; take it from the system's randomness.
    #[must_use]
    pub fn new(config: AgentConfig, seed: u64, now: Instant) -> Self {
        Self {
            on_link: config.on_link,
            rules: config.rules,
            prober: Prober::new(config.side, config.keys, seed, now),
            remotes: Remotes::default(),
            watchdog: Watchdog::default(),
            way: Way::Relayed,
            has_relay: false,
            is_probing: false,
            stranger_probes: 0,
            last_sent: None,
            last_move: None,
            last_doubt: None,
            doubts: 0,
            told: Route::None,
            replay: false,
        }
    }

    /// Takes a PING or PONG that came from `from`. IPv4 addresses come as such, not IPv4-mapped.
    ///
    /// # Errors
    /// Why it was dropped; then nothing changed.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), Dropped> {
        let from = plain(from);
        let probe = self.prober.read(datagram)?;
        if !self.is_probing {
            return Err(Dropped::NotProbing);
        }
        self.rules.check(from).map_err(Dropped::Address)?;
        match probe {
            Probe::Ping(ping) => self.handle_ping(now, from, &ping)?,
            Probe::Pong(pong) => self.handle_pong(now, from, &pong)?,
        }
        self.settle(now);
        Ok(())
    }

    fn handle_ping(&mut self, now: Instant, from: SocketAddr, ping: &Ping) -> Result<(), Dropped> {
        self.prober.may_answer(now, ping)?;
        // Answering an address makes the peer send there from; one that there is no room for must not be answered.
        if self.remotes.get(from).is_none() && self.add(now, from, Origin::Learned).is_none() {
            return Err(Dropped::TooMany);
        }
        self.prober.answer(now, from, ping);
        let Some(remote) = self.remotes.get_mut(from) else { return Ok(()) };
        remote.heard(now);
        if remote.life != Life::Usable || remote.missed > 0 {
            // The peer's packets come through: an answer may as well.
            remote.hasten(remote.last_probe.map_or(now, |last| now.max(last + TRIGGERED_PAUSE)));
        }
        Ok(())
    }

    fn handle_pong(&mut self, now: Instant, from: SocketAddr, pong: &Pong) -> Result<(), Dropped> {
        let sent = self.prober.answered_by(pong, from).ok_or(Dropped::UnknownTransaction)?;
        let remote = self.remotes.get_mut(from).ok_or(Dropped::UnknownTransaction)?;
        let before = remote.life;
        remote.answered(now, sent.at, sent.is_late);
        if remote.life != before {
            tracing::debug!(address = %from, before = ?before, after = ?remote.life, "path answered");
            remote.hasten(now + FRESH_PAUSE);
        }
        Ok(())
    }

    /// A packet of the call came this way. From an address for which [`is_peer_address`](Self::is_peer_address) does not hold, the packet is
    /// to be dropped and not told.
    pub fn handle_traffic(&mut self, now: Instant, via: Via) {
        match via {
            Via::Relay => self.handle_relayed(now),
            Via::Direct(from) => self.handle_direct(now, plain(from)),
        }
        self.settle(now);
    }

    fn handle_relayed(&mut self, now: Instant) {
        let peer_returned = self.watchdog.relay(now);
        if let Way::Direct { to, .. } = self.way
            && peer_returned
        {
            self.doubt(now, to, "the peer is back on the relay");
        }
    }

    fn handle_direct(&mut self, now: Instant, from: SocketAddr) {
        if let Some(remote) = self.remotes.get_mut(from).filter(|remote| remote.is_vouched) {
            remote.heard(now);
            self.watchdog.direct(now);
        }
    }

    /// A packet of the call was sent along [`route`](Self::route).
    pub fn handle_sent(&mut self, now: Instant) {
        let was_idle = !self.is_busy(now);
        self.last_sent = Some(now);
        if let Some(selected) = self.way.selected().filter(|_| was_idle) {
            self.hasten(selected, now + BUSY_PAUSE);
        }
    }

    /// The relay leg works, or does not.
    pub fn set_relay(&mut self, now: Instant, available: bool) {
        if available && !self.has_relay && matches!(self.way, Way::Doubtful { .. }) {
            self.replay = true;
        }
        self.has_relay = available;
        self.settle(now);
    }

    /// Adds addresses at which the peer says it may be reached; gives back how many are known that were not before. Refused ones are left out.
    pub fn add_remote(&mut self, now: Instant, candidates: &[Candidate]) -> usize {
        let mut added = 0;
        for candidate in candidates {
            let address = plain(candidate.address);
            match self.rules.check(address) {
                Ok(()) => added += usize::from(self.add(now, address, Origin::Signalled).is_some()),
                Err(refused) => tracing::debug!(%address, %refused, "candidate refused"),
            }
        }
        self.settle(now);
        added
    }

    /// From here on addresses are probed and probes answered. Again is nothing.
    pub fn start_probing(&mut self, now: Instant) {
        if self.is_probing {
            return;
        }
        self.is_probing = true;
        self.search(now);
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
        let route = self.route();
        if route != self.told {
            self.told = route;
            return Some(Event::RouteChanged(route));
        }
        std::mem::take(&mut self.replay).then_some(Event::Replay)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None`: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_probing {
            return None;
        }
        let probes = self.remotes.iter().filter_map(|(_, remote)| remote.next_probe).min();
        [probes, self.prober.deadline(), self.way_deadline()].into_iter().flatten().min()
    }

    fn way_deadline(&self) -> Option<Instant> {
        match self.way {
            Way::Relayed => None,
            Way::Moving { until, .. } => Some(until),
            Way::Direct { .. } => self.watchdog.deadline(),
            Way::Doubtful { to, since, until, searched } => {
                let proven_at = self.proven_at(to).filter(|at| *at >= since);
                let dead_at = (self.has_relay || !searched).then_some(proven_at.unwrap_or(since) + DEAD_AFTER);
                // Without a PONG the end of the overlap changes nothing.
                let well_at = proven_at.filter(|_| self.missed(to) == 0).map(|_| until);
                [dead_at, well_at].into_iter().flatten().min()
            }
        }
    }

    /// Where packets go.
    #[must_use]
    pub fn route(&self) -> Route {
        self.way.route(self.has_relay)
    }

    /// The direct path in use, if one is (in doubt or not).
    #[must_use]
    pub fn selected(&self) -> Option<Selected> {
        let address = self.way.selected()?;
        let remote = self.remotes.get(address)?;
        Some(Selected { address, rtt: remote.quality.rtt()?, on_link: remote.on_link })
    }

    /// Whether there is a relay to fall back on.
    #[must_use]
    pub fn relay_available(&self) -> bool {
        self.has_relay
    }

    /// Whether an authenticated probe came from `address`, so that packets of the call may.
    #[must_use]
    pub fn is_peer_address(&self, address: SocketAddr) -> bool {
        self.remotes.get(plain(address)).is_some_and(|remote| remote.is_vouched)
    }

    /// Which call's probes are for this agent: the eight bytes after the first of every PING and PONG.
    #[must_use]
    pub fn tag(&self) -> [u8; 8] {
        self.prober.tag()
    }

    fn add(&mut self, now: Instant, address: SocketAddr, origin: Origin) -> Option<()> {
        let on_link = address.ip().is_loopback() || self.on_link.iter().any(|subnet| subnet.contains(address.ip()));
        let remote = self.remotes.add(now, address, origin, on_link, self.way.selected())?;
        if self.is_probing {
            remote.hasten(now);
        }
        Some(())
    }

    /// Brings everything up to `now`: what is late, which way, what to ask. Every input ends here, so that it does not matter which one is
    /// the first after a deadline.
    fn settle(&mut self, now: Instant) {
        if !self.is_probing {
            return;
        }
        self.count_late(now);
        for _ in 0..STEPS_MAX {
            if !self.step(now) {
                break;
            }
        }
        self.probe(now);
    }

    fn count_late(&mut self, now: Instant) {
        let selected = self.way.selected();
        for address in self.prober.become_late(now) {
            let Some(remote) = self.remotes.get_mut(address) else { continue };
            remote.missed_one(now);
            if selected == Some(address) {
                remote.hasten(now);
            } else if remote.life == Life::Usable && remote.missed >= MISSED_MAX {
                remote.died(now);
            }
        }
    }

    /// Takes one step from state to state; `false`: there is none to take.
    fn step(&mut self, now: Instant) -> bool {
        match self.way {
            Way::Relayed => self.step_relayed(now),
            Way::Moving { to, until } => self.move_up(now, to) || self.finish_move(now, to, until),
            Way::Direct { to, .. } => self.step_direct(now, to),
            Way::Doubtful { to, since, until, searched } => self.step_doubtful(now, to, since, until, searched),
        }
    }

    fn step_relayed(&mut self, now: Instant) -> bool {
        let is_sound = |remote: &Remote| remote.life == Life::Usable && remote.missed == 0;
        if let Some((to, _)) = self.remotes.best(None, is_sound) {
            self.move_to(now, to);
            return true;
        }
        if self.has_relay {
            return false;
        }
        // Neither relay nor direct path: an address that worked once is worth more than nothing.
        let last_resort = self.remotes.iter().filter(|(_, remote)| remote.proven_at.is_some()).max_by_key(|(_, remote)| remote.proven_at);
        let Some((to, _)) = last_resort else { return false };
        self.doubt(now, to, "neither relay nor direct path");
        true
    }

    fn finish_move(&mut self, now: Instant, to: SocketAddr, until: Instant) -> bool {
        if now < until {
            return false;
        }
        self.way = Way::Direct { to, since: now };
        true
    }

    fn step_direct(&mut self, now: Instant, to: SocketAddr) -> bool {
        if self.watchdog.deadline().is_some_and(|deadline| deadline <= now) {
            self.doubt(now, to, "the peer's packets stopped coming");
            true
        } else if self.missed(to) >= MISSED_MAX {
            self.doubt(now, to, "the peer does not answer");
            true
        } else {
            self.move_up(now, to) || self.move_aside(now, to)
        }
    }

    fn step_doubtful(&mut self, now: Instant, to: SocketAddr, since: Instant, until: Instant, searched: bool) -> bool {
        let proven_at = self.proven_at(to).filter(|at| *at >= since);
        if proven_at.is_none()
            && let Some(other) = self.refuge(to, since)
        {
            self.move_to(now, other);
            return true;
        }
        if proven_at.is_some() && self.missed(to) == 0 && now >= until {
            self.trust(now, to);
            self.way = Way::Direct { to, since: now };
            if self.remotes.get(to).is_some_and(|remote| remote.missed_at < Some(since)) {
                // Every PING was answered: the peer only had nothing to say, and the next doubt is a first one again.
                self.last_doubt = None;
            }
            return true;
        }
        if now.saturating_duration_since(proven_at.unwrap_or(since)) < DEAD_AFTER {
            return false;
        }
        if self.has_relay {
            self.fall_back(now, to, since);
            return true;
        }
        if !searched {
            self.way = Way::Doubtful { to, since, until, searched: true };
            self.search(now);
        }
        false
    }

    /// Another path that answered since the doubt began.
    fn refuge(&self, to: SocketAddr, since: Instant) -> Option<SocketAddr> {
        let (refuge, _) = self.remotes.best(Some(to), |remote| {
            let is_trusted = remote.life == Life::Usable || !self.has_relay && matches!(remote.life, Life::Recovering { .. });
            is_trusted && remote.proven_at >= Some(since)
        })?;
        Some(refuge)
    }

    /// Moves to a path of a better tier, at once.
    fn move_up(&mut self, now: Instant, current: SocketAddr) -> bool {
        let Some((score, other, other_score)) = self.rival(current) else { return false };
        let moves = other_score.outranks(&score);
        if moves {
            self.move_to(now, other);
        }
        moves
    }

    /// Moves to a path of the same tier that is clearly better, now and then.
    fn move_aside(&mut self, now: Instant, current: SocketAddr) -> bool {
        if self.last_move.is_some_and(|last| now.saturating_duration_since(last) < SETTLED_AFTER) {
            return false;
        }
        let Some((score, other, other_score)) = self.rival(current) else { return false };
        let is_known = self.remotes.get(other).is_some_and(|remote| remote.quality.samples() >= COMPARED_SAMPLES_MIN);
        let moves = is_known && other_score.clearly_beats(&score);
        if moves {
            self.move_to(now, other);
        }
        moves
    }

    /// Score of the path in use, and the best of the others.
    fn rival(&self, current: SocketAddr) -> Option<(Score, SocketAddr, Score)> {
        let remote = self.remotes.get(current)?;
        let (other, score) = self.remotes.best(Some(current), |remote| remote.life == Life::Usable && remote.missed == 0)?;
        Some((Score::new(current, remote.on_link, &remote.quality), other, score))
    }

    fn move_to(&mut self, now: Instant, to: SocketAddr) {
        tracing::debug!(from = ?self.way.selected(), %to, "moving to a direct path");
        self.trust(now, to);
        self.last_move = Some(now);
        self.way = Way::Moving { to, until: now + OVERLAP };
        self.hasten(to, now + DOUBT_PAUSE);
    }

    /// Sends packets both ways, the last ones again, and asks.
    fn doubt(&mut self, now: Instant, to: SocketAddr, sign: &'static str) {
        let is_again = self.last_doubt.is_some_and(|last| now.saturating_duration_since(last) < DOUBTS_AGAIN);
        self.doubts = if is_again { (self.doubts + 1).min(DOUBT_DOUBLINGS_MAX) } else { 0 };
        self.last_doubt = Some(now);
        tracing::debug!(%to, sign, doubts = self.doubts, "direct path in doubt");
        self.watchdog.disarm();
        self.way = Way::Doubtful { to, since: now, until: now + OVERLAP * 2u32.pow(self.doubts), searched: false };
        self.replay |= self.has_relay;
        for (address, remote) in self.remotes.iter_mut() {
            if address == to || matches!(remote.life, Life::Usable | Life::Recovering { .. }) {
                remote.hasten(now);
            }
        }
    }

    /// Back to the relay; every path that did not answer since the doubt began is dead.
    fn fall_back(&mut self, now: Instant, to: SocketAddr, since: Instant) {
        tracing::debug!(%to, "direct path is dead");
        self.way = Way::Relayed;
        self.watchdog.disarm();
        for (address, remote) in self.remotes.iter_mut() {
            if address == to || remote.life == Life::Usable && remote.proven_at < Some(since) {
                remote.died(now);
            }
        }
        self.search(now);
    }

    /// Probes every address that is not usable from the start.
    fn search(&mut self, now: Instant) {
        for (_, remote) in self.remotes.iter_mut() {
            if remote.life != Life::Usable {
                remote.hunt_again(now);
            }
        }
    }

    /// Sends the PINGs that are due.
    fn probe(&mut self, now: Instant) {
        let due: Vec<SocketAddr> =
            self.remotes.iter().filter(|(_, remote)| remote.next_probe.is_some_and(|at| at <= now)).map(|(address, _)| address).collect();
        for address in due {
            let pause = self.probe_one(now, address);
            if let Some(remote) = self.remotes.get_mut(address) {
                remote.next_probe = pause.map(|pause| now + pause);
            }
        }
    }

    /// Probes one address; gives back the pause until the next time.
    fn probe_one(&mut self, now: Instant, address: SocketAddr) -> Option<Duration> {
        let remote = self.remotes.get_mut(address)?;
        let is_stranger = remote.proven_at.is_none();
        if remote.is_given_up() || is_stranger && self.stranger_probes >= STRANGER_PROBES_MAX {
            return None;
        }
        if !self.prober.ping(now, address, remote.quality.late_after()) {
            return Some(REFUSED_PAUSE);
        }
        self.stranger_probes += u32::from(is_stranger);
        remote.probed(now);
        if self.way.selected() == Some(address) {
            return Some(self.pause_in_use(now, address));
        }
        match remote.life {
            Life::Recovering { .. } => Some(FRESH_PAUSE),
            Life::Usable if remote.missed > 0 || remote.quality.samples() < COMPARED_SAMPLES_MIN => Some(FRESH_PAUSE),
            Life::Usable => Some(IDLE_PAUSE),
            Life::Dead => Some(remote.hunt.pause().unwrap_or(DEAD_PAUSE)),
            // With a direct path found, what did not answer in the first seconds is not worth asking again.
            Life::Untried => remote.hunt.pause().or((self.way == Way::Relayed).then_some(STRANGER_PAUSE)),
        }
    }

    /// Pause between PINGs on the path in use.
    fn pause_in_use(&self, now: Instant, to: SocketAddr) -> Duration {
        match self.way {
            Way::Relayed | Way::Moving { .. } | Way::Doubtful { searched: false, .. } => DOUBT_PAUSE,
            Way::Doubtful { searched: true, .. } => BUSY_PAUSE,
            Way::Direct { .. } if self.missed(to) > 0 => MISSED_PAUSE,
            Way::Direct { since, .. } if now.saturating_duration_since(since) < FRESH => FRESH_PAUSE,
            Way::Direct { .. } if self.is_busy(now) => BUSY_PAUSE,
            Way::Direct { .. } => IDLE_PAUSE,
        }
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|last| now.saturating_duration_since(last) < BUSY_PAUSE)
    }

    fn hasten(&mut self, address: SocketAddr, at: Instant) {
        if let Some(remote) = self.remotes.get_mut(address) {
            remote.hasten(at);
        }
    }

    fn trust(&mut self, now: Instant, address: SocketAddr) {
        if let Some(remote) = self.remotes.get_mut(address).filter(|remote| remote.life != Life::Usable) {
            remote.trust(now);
        }
    }

    fn missed(&self, address: SocketAddr) -> u32 {
        self.remotes.get(address).map_or(0, |remote| remote.missed)
    }

    fn proven_at(&self, address: SocketAddr) -> Option<Instant> {
        self.remotes.get(address)?.proven_at
    }
}
