//! Crossing a router that gives each destination another port (a "symmetric" NAT, endpoint-dependent mapping in RFC 4787's terms), where the
//! other side's router lets in only whom it sent something to. Neither side can know which port to send to; but it can be guessed.
//!
//! * **Prediction.** Many routers give ports out in a row, so the port towards the peer is near those that observers saw. The easy side, the
//!   one whose address is the same for everybody, tries [`PREDICTION_REACH`] ports on both sides of each.
//! * **The birthday attempt.** The hard side opens [`SOCKETS_MAX`] sockets and sends from each to the easy side, which opens as many ports at
//!   its router. The easy side tries ports at random, none twice. One in 252 is open, so 1024 tries find one with 98 %, and
//!   [`SEARCH_PROBES_MAX`] practically always. The first that is hit answers, and both sides have a path.
//!
//! Where both sides are hard nothing is tried: 54,000 probes each would be needed for an even chance.

use crate::random::Random;
use crate::route::{SocketId, Way};
use crate::types::SOCKETS_MAX;
use ahoy_protocol::invitation::CANDIDATES_MAX;
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long ordinary probing gets before anything is guessed.
const BEGIN_AFTER: Duration = Duration::from_millis(2500);
/// Ports tried on each side of an observed one.
const PREDICTION_REACH: u16 = 16;
/// Addresses of the hard side around which ports are predicted: what four observers saw.
const PREDICTED_AROUND_MAX: usize = 4;
/// Ports that the easy side tries at random in one attempt: half a minute's worth.
const SEARCH_PROBES_MAX: usize = 3000;
/// Outside addresses of the hard side that they are tried at, in turn.
const SEARCH_IPS_MAX: usize = 2;
/// The ports that a router may give out (RFC 4787, section 4.2.1 keeps the well-known ones apart).
const PORT_MIN: u16 = 1024;
/// Addresses of the easy side that the hard side sends to.
const SPRAY_TARGETS_MAX: usize = 2;
/// Times that each socket sends in one attempt, and how often: mappings and what the easy side's router lets in stay as they are.
const SPRAY_ROUNDS: u32 = 6;
const SPRAY_PAUSE: Duration = Duration::from_secs(5);
/// Guesses go out in small groups this often: 100 a second on the easy side, 140 on the hard one.
const TICK: Duration = Duration::from_millis(50);
const SEARCH_PER_TICK: usize = 5;
const SPRAY_PER_TICK: usize = 7;
/// How long the owner may take to open sockets.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
/// Attempts of one call in one network, and the pause after the first, which doubles.
const ATTEMPTS_MAX: u32 = 4;
const REST: Duration = Duration::from_secs(30);

/// Which part this device plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its address is the same for everybody; it looks for the other's port.
    Easy,
    /// Its router gives each destination another port; it opens many.
    Hard,
}

impl Role {
    /// The part that follows from both sides' NATs; `None`: guessing is not needed, or hopeless.
    pub(crate) fn of(own: Mapping, peer: Mapping) -> Option<Self> {
        match (own, peer) {
            (Mapping::EndpointDependent, Mapping::EndpointDependent) => None,
            (Mapping::EndpointDependent, _) => Some(Self::Hard),
            (_, Mapping::EndpointDependent) => Some(Self::Easy),
            (Mapping::Unknown | Mapping::Open | Mapping::EndpointIndependent, _) => None,
        }
    }
}

/// What the peer said about itself, the latest first.
#[derive(Debug, Default)]
pub(crate) struct PeerAddresses {
    said: VecDeque<Candidate>,
}

impl PeerAddresses {
    pub(crate) fn say(&mut self, candidates: &[Candidate]) {
        for candidate in candidates.iter().rev() {
            self.said.retain(|known| known.address != candidate.address);
            self.said.push_front(*candidate);
        }
        self.said.truncate(CANDIDATES_MAX);
    }

    /// IPv4 addresses at which it may be seen from outside: IPv6 is hardly ever translated.
    fn outside(&self) -> Vec<SocketAddr> {
        // What it is seen as comes first; where nothing is translated, that is its own address. Ports are guessed at public addresses alone: a
        // peer must not have this device search the hosts of a network that it is in and the peer is not.
        let reflexive = |candidate: &&Candidate| match candidate.kind {
            CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => true,
            CandidateKind::Host | CandidateKind::VpnHost | CandidateKind::PortMapped => false,
        };
        let own = |candidate: &&Candidate| match candidate.kind {
            CandidateKind::Host | CandidateKind::PortMapped => true,
            CandidateKind::VpnHost | CandidateKind::ServerReflexive | CandidateKind::PeerReflexive => false,
        };
        let named = |is_wanted: fn(IpAddr) -> bool, kind: &dyn Fn(&&Candidate) -> bool| {
            self.said.iter().filter(kind).map(|candidate| candidate.address).filter(|address| is_wanted(address.ip())).collect::<Vec<_>>()
        };
        [named(is_outside, &reflexive), named(is_public, &own)].concat()
    }
}

fn is_public(ip: IpAddr) -> bool {
    is_outside(ip) && !ip.is_loopback()
}

/// Whether `ip` may be what a router shows. Loopback may, where both sides are on this machine; the agent's rules refuse it elsewhere.
fn is_outside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_link_local(),
        IpAddr::V6(_) => false,
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing.
    Nothing,
    /// PINGs by these ways.
    Guess(Vec<Way>),
    /// Ask for sockets.
    Open(u16),
    /// The attempt failed: close what it opened.
    Over,
}

/// At most one attempt at a time.
#[derive(Debug, Default)]
pub(crate) struct Crossing {
    stage: Stage,
    attempts: u32,
    rested_at: Option<Instant>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Resting,
    Waiting {
        until: Instant,
    },
    /// The easy side's.
    Searching(Search),
    /// The hard side waits for sockets.
    Opening {
        until: Instant,
    },
    /// The hard side's.
    Spraying(Spray),
}

impl Crossing {
    /// How many attempts there were.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether sockets may belong to an attempt.
    pub(crate) fn is_active(&self) -> bool {
        match self.stage {
            Stage::Resting | Stage::Waiting { .. } => false,
            Stage::Searching(_) | Stage::Opening { .. } | Stage::Spraying(_) => true,
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.stage, Stage::Opening { .. })
    }

    /// There is a direct path, or no part to play.
    pub(crate) fn stop(&mut self, now: Instant) {
        match self.stage {
            Stage::Resting => {}
            Stage::Waiting { .. } => self.stage = Stage::Resting,
            Stage::Searching(_) | Stage::Opening { .. } | Stage::Spraying(_) => self.rest(now),
        }
    }

    /// In another network everything may be tried again.
    pub(crate) fn start_over(&mut self) {
        *self = Self::default();
    }

    fn rest(&mut self, now: Instant) {
        self.stage = Stage::Resting;
        self.rested_at = Some(now + REST * 2u32.pow(self.attempts.saturating_sub(1).min(ATTEMPTS_MAX)));
    }

    /// When [`act`](Self::act) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Resting if self.attempts >= ATTEMPTS_MAX => None,
            Stage::Resting => self.rested_at,
            Stage::Waiting { until } | Stage::Opening { until } => Some(*until),
            Stage::Searching(search) => Some(search.next_at),
            Stage::Spraying(spray) => Some(spray.next_at),
        }
    }

    /// What is due at `now` for this side's part. `birthday`: more than prediction is allowed.
    pub(crate) fn act(&mut self, now: Instant, role: Role, peer: &PeerAddresses, birthday: bool, seed: impl FnOnce() -> u64) -> Act {
        match &mut self.stage {
            Stage::Resting if self.attempts < ATTEMPTS_MAX && self.rested_at.is_none_or(|at| at <= now) => {
                self.stage = Stage::Waiting { until: now + BEGIN_AFTER };
                Act::Nothing
            }
            Stage::Waiting { until } if *until <= now => self.begin(now, role, peer, birthday, seed),
            Stage::Opening { until } if *until <= now => self.give_up(now),
            Stage::Resting | Stage::Waiting { .. } | Stage::Opening { .. } => Act::Nothing,
            Stage::Searching(search) => match search.guesses(now) {
                Some(ways) => Act::Guess(ways),
                None => self.give_up(now),
            },
            Stage::Spraying(spray) => match spray.guesses(now) {
                Some(ways) => Act::Guess(ways),
                None => self.give_up(now),
            },
        }
    }

    fn begin(&mut self, now: Instant, role: Role, peer: &PeerAddresses, birthday: bool, seed: impl FnOnce() -> u64) -> Act {
        self.attempts += 1;
        match role {
            Role::Easy => {
                self.stage = Stage::Searching(Search::new(now, &peer.outside(), birthday, seed()));
                Act::Nothing
            }
            Role::Hard if birthday => {
                self.stage = Stage::Opening { until: now + OPEN_TIME_MAX };
                Act::Open(SOCKETS_MAX)
            }
            Role::Hard => self.give_up(now),
        }
    }

    /// The hard side has its sockets.
    pub(crate) fn opened(&mut self, now: Instant, sockets: Vec<SocketId>, peer: &PeerAddresses) {
        let mut targets = peer.outside();
        targets.truncate(SPRAY_TARGETS_MAX);
        self.stage = Stage::Spraying(Spray { sockets, targets, rounds: 0, index: 0, round_at: now, next_at: now + TICK });
    }

    fn give_up(&mut self, now: Instant) -> Act {
        self.rest(now);
        Act::Over
    }
}

/// The easy side's attempt.
#[derive(Debug)]
struct Search {
    predicted: VecDeque<SocketAddr>,
    ips: Vec<IpAddr>,
    /// The ports that were not tried at random yet, after the first `tried`.
    ports: Vec<u16>,
    tried: usize,
    random: Random,
    next_at: Instant,
}

impl Search {
    fn new(now: Instant, outside: &[SocketAddr], birthday: bool, seed: u64) -> Self {
        let observed = &outside[..outside.len().min(PREDICTED_AROUND_MAX)];
        let mut known: BTreeSet<SocketAddr> = observed.iter().copied().collect();
        let mut predicted = VecDeque::new();
        for distance in 1..=PREDICTION_REACH {
            for address in observed {
                let ports = [address.port().checked_add(distance), address.port().checked_sub(distance)];
                let near = ports.into_iter().flatten().filter(|port| *port >= PORT_MIN).map(|port| SocketAddr::new(address.ip(), port));
                predicted.extend(near.filter(|near| known.insert(*near)));
            }
        }
        let mut ips: Vec<IpAddr> = Vec::new();
        for address in outside {
            if ips.len() < SEARCH_IPS_MAX && !ips.contains(&address.ip()) {
                ips.push(address.ip());
            }
        }
        let ports = if birthday && !ips.is_empty() { (PORT_MIN..=u16::MAX).collect() } else { Vec::new() };
        Self { predicted, ips, ports, tried: 0, random: Random::new(seed), next_at: now + TICK }
    }

    /// The ports to try now; `None`: all were.
    fn guesses(&mut self, now: Instant) -> Option<Vec<Way>> {
        if self.next_at > now {
            return Some(Vec::new());
        }
        self.next_at = now + TICK;
        let ways: Vec<Way> = (0..SEARCH_PER_TICK).map_while(|_| self.next_target()).map(Way::direct).collect();
        (!ways.is_empty()).then_some(ways)
    }

    fn next_target(&mut self) -> Option<SocketAddr> {
        if let Some(address) = self.predicted.pop_front() {
            return Some(address);
        }
        let left = self.ports.len().checked_sub(self.tried).filter(|left| *left > 0 && self.tried < SEARCH_PROBES_MAX)?;
        let left = u64::try_from(left).ok()?;
        let chosen = self.tried + usize::try_from(self.random.next() % left).ok()?;
        self.ports.swap(self.tried, chosen);
        let port = self.ports[self.tried];
        let ip = self.ips[self.tried % self.ips.len()];
        self.tried += 1;
        Some(SocketAddr::new(ip, port))
    }
}

/// The hard side's attempt.
#[derive(Debug)]
struct Spray {
    sockets: Vec<SocketId>,
    targets: Vec<SocketAddr>,
    rounds: u32,
    /// Of the next way of the round.
    index: usize,
    round_at: Instant,
    next_at: Instant,
}

impl Spray {
    /// The ways to send by now; `None`: all rounds are over, and so is the time for the last to be found.
    fn guesses(&mut self, now: Instant) -> Option<Vec<Way>> {
        let ways = self.sockets.len() * self.targets.len();
        if self.rounds >= SPRAY_ROUNDS || ways == 0 {
            return None;
        }
        if self.next_at > now {
            return Some(Vec::new());
        }
        if self.index == 0 {
            self.round_at = now;
        }
        let until = (self.index + SPRAY_PER_TICK).min(ways);
        let way = |index: usize| Way::Direct {
            socket: self.sockets[index % self.sockets.len()],
            remote: self.targets[index / self.sockets.len()],
        };
        let due = (self.index..until).map(way).collect();
        self.index = until;
        self.next_at = now + TICK;
        if self.index == ways {
            self.index = 0;
            self.rounds += 1;
            // A machine that slept within a round is late for the next one.
            self.next_at = (self.round_at + SPRAY_PAUSE).max(now + TICK);
        }
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reflexive(address: &str) -> Candidate {
        Candidate { address: address.parse().expect("address"), kind: CandidateKind::ServerReflexive }
    }

    fn peer() -> PeerAddresses {
        let mut peer = PeerAddresses::default();
        peer.say(&[reflexive("203.0.113.2:40000"), reflexive("203.0.113.2:40001")]);
        peer
    }

    /// Lets time pass until the attempt is over; gives back what it guessed and how long it took.
    fn run(crossing: &mut Crossing, role: Role, sockets: u16) -> (Vec<Way>, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut ways = Vec::new();
        loop {
            match crossing.act(now, role, &peer(), true, || 7) {
                Act::Nothing => {}
                Act::Guess(more) => ways.extend(more),
                Act::Open(count) => {
                    assert_eq!(count, SOCKETS_MAX);
                    crossing.opened(now, (1..=sockets).map(SocketId).collect(), &peer());
                }
                Act::Over => return (ways, now - start),
            }
            now = crossing.deadline().expect("an attempt goes on").max(now);
        }
    }

    #[test]
    fn parts_follow_from_both_mappings() {
        use Mapping::{EndpointDependent, EndpointIndependent, Open, Unknown};
        for easy in [EndpointIndependent, Open, Unknown] {
            assert_eq!(Role::of(easy, EndpointDependent), Some(Role::Easy));
            assert_eq!(Role::of(EndpointDependent, easy), Some(Role::Hard));
            assert_eq!(Role::of(easy, Open), None);
        }
        assert_eq!(Role::of(EndpointDependent, EndpointDependent), None);
    }

    #[test]
    fn the_easy_side_tries_near_ports_first_and_then_others_each_once() {
        let (ways, time) = run(&mut Crossing::default(), Role::Easy, 0);
        let ports: Vec<u16> = ways
            .iter()
            .map(|way| match way {
                Way::Direct { socket: SocketId::MAIN, remote } => remote.port(),
                Way::Direct { .. } | Way::Leg(_) => unreachable!("the easy side has one socket"),
            })
            .collect();
        let predicted = usize::from(2 * PREDICTION_REACH);
        assert!(ports[..predicted].iter().all(|port| (39_984..=40_017).contains(port)), "{:?}", &ports[..predicted]);
        assert_eq!(ports.len(), predicted + SEARCH_PROBES_MAX);
        assert_eq!(ports[predicted..].iter().collect::<BTreeSet<_>>().len(), SEARCH_PROBES_MAX);
        assert!(time < Duration::from_secs(34), "{time:?}");
    }

    #[test]
    fn the_hard_side_sends_from_all_sockets_again_and_again() {
        let (ways, time) = run(&mut Crossing::default(), Role::Hard, 256);
        assert_eq!(ways.len(), 256 * 2 * usize::try_from(SPRAY_ROUNDS).expect("small"));
        assert!(time >= Duration::from_secs(30) && time < Duration::from_secs(40), "{time:?}");
        assert_eq!(run(&mut Crossing::default(), Role::Hard, 0).0, []);
    }

    #[test]
    fn attempts_are_few() {
        let mut crossing = Crossing::default();
        for attempt in 1..=ATTEMPTS_MAX {
            run(&mut crossing, Role::Easy, 0);
            assert_eq!(crossing.attempts(), attempt);
            crossing.rested_at = None;
        }
        assert_eq!(crossing.act(Instant::now(), Role::Easy, &peer(), true, || 7), Act::Nothing);
        assert_eq!(crossing.deadline(), None);
    }

    #[test]
    fn guesses_go_only_to_where_the_peer_is_seen_from_outside() {
        let mut peer = PeerAddresses::default();
        let host = |address| Candidate { kind: CandidateKind::Host, ..reflexive(address) };
        peer.say(&[host("192.168.1.1:5"), reflexive("[2001:db8::1]:5"), host("203.0.113.2:5"), reflexive("203.0.113.2:6")]);
        let outside: Vec<String> = peer.outside().iter().map(ToString::to_string).collect();
        assert_eq!(outside, ["203.0.113.2:6", "203.0.113.2:5"]);
    }
}
