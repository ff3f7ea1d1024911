//! Decides for one IP version when a router is asked, and how: a state machine without I/O.
//!
//! A *round* asks by one protocol after the other until one grants a mapping, the one that did so last first. After a round in vain it
//! rests, longer each time: most networks that have no such router today have none tomorrow, and asking costs battery and log lines. What
//! was granted is renewed at half its life. A renewal in vain ends nothing before the mapping lapses.

use crate::mapped::Protocol;
use ahoy_resilience::share_of;
use std::time::{Duration, Instant};

/// How long a mapping is asked for. A device that vanishes leaves a door open for this long; a router that restarts forgets the mapping, and
/// gets it again within half of this.
pub const LEASE: Duration = Duration::from_secs(3600);
/// A router that grants less than this is asked again only this often.
const LEASE_MIN: Duration = Duration::from_secs(60);
/// Rest after the first round in vain.
const REST_FIRST: Duration = Duration::from_secs(5 * 60);
/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(3600);
/// Shortest rest after a renewal in vain: the router may be starting again.
const RENEWAL_REST_MIN: Duration = Duration::from_secs(15);
/// A network that changes again and again is not asked faster than this.
const CHANGE_REST: Duration = Duration::from_secs(2);

/// What is to be asked of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) protocol: Protocol,
    pub(crate) patience: Patience,
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Full,
    /// The router was silent on the same port a moment ago.
    Short,
}

/// Why a router grants nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no router to ask. No protocol will find one.
    NoRouter,
    /// Nothing answers.
    NoAnswer,
    /// It does not have this protocol.
    Unsupported,
    /// It answered, and will not.
    Refused(String),
}

#[derive(Debug)]
struct Held {
    protocol: Protocol,
    lapses: Instant,
}

#[derive(Debug)]
enum State {
    /// Nothing to do before then.
    Resting(Instant),
    /// These are still to be asked in this round, the next one last.
    Asking(Vec<Protocol>),
    /// This one has been asked; an answer will come.
    Waiting(Protocol, Vec<Protocol>),
}

/// Keeps one port mapped.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Protocols that exist for the IP version, in the order in which they are tried.
    protocols: &'static [Protocol],
    random: u64,
    state: State,
    held: Option<Held>,
    /// Rounds in vain since the last grant.
    failures: u32,
    /// The network has changed: what is held may be another network's.
    is_in_doubt: bool,
    last_round: Instant,
    /// The most telling refusal of this round.
    refusal: Option<Refusal>,
    /// That of the last round in vain.
    problem: Option<Refusal>,
    has_finished_a_round: bool,
}

impl Keeper {
    /// Asks first at `now`.
    pub(crate) fn new(protocols: &'static [Protocol], seed: u64, now: Instant) -> Self {
        Self {
            protocols,
            random: seed,
            state: State::Resting(now),
            held: None,
            failures: 0,
            is_in_doubt: false,
            last_round: now,
            refusal: None,
            problem: None,
            has_finished_a_round: false,
        }
    }

    /// What is to be asked now, if anything. After an answer it is to be called again.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        if self.held.as_ref().is_some_and(|held| held.lapses <= now) {
            self.held = None;
        }
        if matches!(self.state, State::Resting(until) if until <= now) {
            self.begin_round(now);
        }
        let State::Asking(left) = &mut self.state else { return None };
        let protocol = left.pop()?;
        let left = std::mem::take(left);
        // Both of these talk to the same port of the router.
        let is_silent_port = protocol == Protocol::NatPmp && self.refusal == Some(Refusal::NoAnswer);
        self.state = State::Waiting(protocol, left);
        Some(Ask { protocol, patience: if is_silent_port { Patience::Short } else { Patience::Full } })
    }

    /// When [`poll_ask`](Self::poll_ask) is to be called again, without an answer.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let rest = match self.state {
            State::Resting(until) => Some(until),
            State::Asking(_) | State::Waiting(..) => None,
        };
        rest.into_iter().chain(self.held.as_ref().map(|held| held.lapses)).min()
    }

    /// The router has granted what was asked.
    pub(crate) fn handle_granted(&mut self, now: Instant, lease: Duration) {
        let State::Waiting(protocol, _) = self.state else { return };
        let lease = lease.clamp(LEASE_MIN, LEASE);
        self.held = Some(Held { protocol, lapses: now + lease });
        self.failures = 0;
        self.is_in_doubt = false;
        self.problem = None;
        self.has_finished_a_round = true;
        // Between 40 % and 60 % of its life.
        let random = self.next_random();
        self.state = State::Resting(now + lease * 2 / 5 + share_of(lease / 5, random));
    }

    /// The router has refused, or was silent.
    pub(crate) fn handle_refused(&mut self, now: Instant, refusal: Refusal) {
        let State::Waiting(_, left) = &mut self.state else { return };
        let left = if refusal == Refusal::NoRouter { Vec::new() } else { std::mem::take(left) };
        if self.refusal.as_ref().is_none_or(|known| weight(known) <= weight(&refusal)) {
            self.refusal = Some(refusal);
        }
        if left.is_empty() { self.end_round(now) } else { self.state = State::Asking(left) }
    }

    /// The network is another one, or may be: asks again at once, though not without end.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.is_in_doubt = true;
        self.failures = 0;
        // An answer that is still to come is the old network's: a new round does not wait for it.
        self.state = State::Resting(now.max(self.last_round + CHANGE_REST));
    }

    /// True while a mapping is held to be there.
    pub(crate) fn is_mapped(&self) -> bool {
        self.held.is_some()
    }

    /// True once every protocol has been tried, or one has granted something.
    pub(crate) fn is_settled(&self) -> bool {
        self.has_finished_a_round
    }

    /// Why nothing is mapped.
    pub(crate) fn problem(&self) -> Option<String> {
        match self.problem.as_ref().filter(|_| self.held.is_none())? {
            Refusal::NoRouter => Some("there is no router to ask".to_owned()),
            Refusal::NoAnswer | Refusal::Unsupported => Some("the router offers no port mapping".to_owned()),
            Refusal::Refused(reason) => Some(format!("the router refuses: {reason}")),
        }
    }

    fn begin_round(&mut self, now: Instant) {
        self.last_round = now;
        self.refusal = None;
        let first = self.held.as_ref().map(|held| held.protocol);
        let others = self.protocols.iter().copied().filter(|protocol| Some(*protocol) != first);
        let mut order: Vec<Protocol> = first.into_iter().chain(others).collect();
        order.reverse();
        self.state = State::Asking(order);
    }

    fn end_round(&mut self, now: Instant) {
        self.has_finished_a_round = true;
        self.problem = self.refusal.take();
        if self.is_in_doubt {
            self.held = None;
            self.is_in_doubt = false;
        }
        let random = self.next_random();
        let rest = match &self.held {
            // What is left is halved each time: a handful of tries before it lapses.
            Some(held) => (held.lapses.saturating_duration_since(now) / 2).max(RENEWAL_REST_MIN),
            None => {
                let whole = REST_FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(REST_MAX);
                self.failures = self.failures.saturating_add(1);
                // Between 80 % and 100 %, so that it is never nothing.
                whole * 4 / 5 + share_of(whole / 5, random)
            }
        };
        self.state = State::Resting(now + rest);
    }

    /// SplitMix64: good enough to spread times.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Which of two refusals says more.
fn weight(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NoAnswer => 0,
        Refusal::Unsupported => 1,
        Refusal::Refused(_) => 2,
        Refusal::NoRouter => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{NatPmp, Pcp, UpnpIgd};

    const ALL: &[Protocol] = &[Pcp, NatPmp, UpnpIgd];

    #[test]
    fn protocols_are_tried_in_order_until_one_grants() {
        let (mut keeper, now) = keeper(1);
        assert_eq!(asked(&mut keeper, now), Some(Pcp));
        assert_eq!(keeper.poll_ask(now), None, "one at a time");
        keeper.handle_refused(now, Refusal::Unsupported);
        assert_eq!(asked(&mut keeper, now), Some(NatPmp));
        keeper.handle_granted(now, LEASE);
        assert!(keeper.is_mapped() && keeper.is_settled());
        assert_eq!(keeper.poll_ask(now), None);
    }

    #[test]
    fn it_renews_around_half_of_the_life_by_the_protocol_that_worked() {
        for seed in 0..200 {
            let (mut keeper, now) = keeper(seed);
            grant_by_upnp(&mut keeper, now);
            let renewal = keeper.poll_timeout().expect("it will renew") - now;
            assert!(renewal >= LEASE * 2 / 5 && renewal <= LEASE * 3 / 5, "seed {seed}: {renewal:?}");
            assert_eq!(asked(&mut keeper, now + renewal), Some(UpnpIgd));
        }
    }

    #[test]
    fn times_of_renewal_differ() {
        let times: std::collections::BTreeSet<Duration> = (0..50)
            .map(|seed| {
                let (mut keeper, now) = keeper(seed);
                grant_by_upnp(&mut keeper, now);
                keeper.poll_timeout().expect("it will renew") - now
            })
            .collect();
        assert!(times.len() > 40, "only {} of 50 differ", times.len());
    }

    #[test]
    fn a_network_without_such_a_router_is_asked_rarely_and_never_faster() {
        let (mut keeper, start) = keeper(7);
        let mut now = start;
        let mut rounds = 0;
        while now < start + Duration::from_secs(24 * 3600) {
            while let Some(ask) = keeper.poll_ask(now) {
                rounds += u32::from(ask.protocol == Pcp);
                keeper.handle_refused(now, Refusal::NoAnswer);
            }
            now = keeper.poll_timeout().expect("it tries again");
        }
        assert!((20..=40).contains(&rounds), "{rounds} rounds in a day");
        assert_eq!(keeper.problem().as_deref(), Some("the router offers no port mapping"));
    }

    #[test]
    fn a_silent_port_is_not_waited_for_twice_as_long() {
        let (mut keeper, now) = keeper(1);
        keeper.poll_ask(now);
        keeper.handle_refused(now, Refusal::NoAnswer);
        assert_eq!(keeper.poll_ask(now), Some(Ask { protocol: NatPmp, patience: Patience::Short }));
        keeper.handle_refused(now, Refusal::NoAnswer);
        assert_eq!(keeper.poll_ask(now), Some(Ask { protocol: UpnpIgd, patience: Patience::Full }));
    }

    #[test]
    fn a_renewal_in_vain_keeps_the_mapping_until_it_lapses() {
        let (mut keeper, start) = keeper(3);
        grant_by_upnp(&mut keeper, start);
        let mut tries = 0;
        while keeper.is_mapped() {
            let now = keeper.poll_timeout().expect("there is something to do");
            while keeper.poll_ask(now).is_some() {
                tries += 1;
                keeper.handle_refused(now, Refusal::NoAnswer);
            }
            assert_eq!(keeper.is_mapped(), now < start + LEASE, "it lapses at its time, not before");
        }
        assert!((9..=40).contains(&tries), "{tries} questions");
        assert!(keeper.problem().is_some());
    }

    #[test]
    fn a_changed_network_is_asked_at_once_and_what_it_does_not_grant_is_gone() {
        let (mut keeper, start) = keeper(4);
        grant_by_upnp(&mut keeper, start);
        let now = start + Duration::from_secs(60);
        keeper.handle_network_change(now);
        assert!(keeper.is_mapped(), "a cable that was pulled for a second costs nothing");
        assert_eq!(keeper.poll_timeout(), Some(now));
        assert_eq!(asked(&mut keeper, now), Some(UpnpIgd));
        for _ in ALL {
            keeper.handle_refused(now, Refusal::NoAnswer);
            keeper.poll_ask(now);
        }
        assert!(!keeper.is_mapped());
    }

    #[test]
    fn an_answer_of_the_network_before_does_not_stop_the_new_round() {
        let (mut keeper, now) = keeper(4);
        keeper.poll_ask(now);
        keeper.handle_network_change(now);
        keeper.handle_granted(now, LEASE);
        assert!(!keeper.is_mapped());
        assert_eq!(asked(&mut keeper, now + CHANGE_REST), Some(Pcp));
    }

    #[test]
    fn a_network_that_changes_all_the_time_is_not_flooded() {
        let (mut keeper, start) = keeper(5);
        let mut questions = 0;
        for tick in 0..10_000 {
            let now = start + Duration::from_millis(tick);
            keeper.handle_network_change(now);
            questions += u32::from(keeper.poll_ask(now).is_some());
        }
        assert!(questions <= 6, "{questions} in ten seconds");
    }

    #[test]
    fn without_a_router_no_protocol_is_tried_after_the_first() {
        let (mut keeper, now) = keeper(5);
        keeper.poll_ask(now);
        keeper.handle_refused(now, Refusal::NoRouter);
        assert_eq!(keeper.poll_ask(now), None);
        assert_eq!(keeper.problem().as_deref(), Some("there is no router to ask"));
    }

    #[test]
    fn the_most_telling_reason_is_given() {
        let (mut keeper, now) = keeper(5);
        for refusal in [Refusal::Refused("quota".into()), Refusal::Unsupported, Refusal::NoAnswer] {
            keeper.poll_ask(now);
            keeper.handle_refused(now, refusal);
        }
        assert_eq!(keeper.problem().as_deref(), Some("the router refuses: quota"));
    }

    #[test]
    fn strange_leases_are_brought_to_sense() {
        for (lease, longest) in [(Duration::ZERO, LEASE_MIN), (Duration::from_secs(u64::from(u32::MAX)), LEASE)] {
            let (mut keeper, now) = keeper(6);
            keeper.poll_ask(now);
            keeper.handle_granted(now, lease);
            let renewal = keeper.poll_timeout().expect("it will renew") - now;
            assert!(renewal >= LEASE_MIN * 2 / 5 && renewal <= longest * 3 / 5, "{lease:?}: {renewal:?}");
        }
    }

    fn keeper(seed: u64) -> (Keeper, Instant) {
        let now = Instant::now();
        (Keeper::new(ALL, seed, now), now)
    }

    fn asked(keeper: &mut Keeper, now: Instant) -> Option<Protocol> {
        keeper.poll_ask(now).map(|ask| ask.protocol)
    }

    fn grant_by_upnp(keeper: &mut Keeper, now: Instant) {
        for _ in 0..2 {
            keeper.poll_ask(now);
            keeper.handle_refused(now, Refusal::NoAnswer);
        }
        assert_eq!(asked(keeper, now), Some(UpnpIgd));
        keeper.handle_granted(now, LEASE);
    }
}
