//! Which relays carry a call, and when one takes the place of another. Decides only.
//!
//! A call has a first leg from the moment it rings, and a second one, on another relay, once it has been answered and goes through a
//! relay. The callee chooses, since it knows both sides' distances, and names each relay to the caller as it goes there itself. A leg that
//! fails is replaced: the callee takes the next best relay; the caller says that the leg is gone, and meanwhile tries the same relay again,
//! which is all that can be done in a network that has only one. A relay that failed rests, longer each time, and comes last among those
//! that do not rest. While the call goes directly there is no haste: rests are much longer then, and end when it goes directly no more.

use ahoy_protocol::NodeKey;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::peer::{LEGS_MAX, LegNews};
use ahoy_resilience::Backoff;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long the other side may take to come to a relay, or to come back to it: it may have to connect first.
const PEER_TIME: Duration = Duration::from_secs(4);
/// First and longest rest of a relay that failed. A relay that is started anew is back within a second; one that is gone costs an attempt now and then.
const REST_FIRST: Duration = Duration::from_millis(250);
const REST_MOST: Duration = Duration::from_secs(2);
/// The same while the call goes directly and legs only stand by: joining one costs more than some seconds of speech on a thin link.
const STANDING_BY_REST_FIRST: Duration = Duration::from_secs(5);
const STANDING_BY_REST_MOST: Duration = Duration::from_secs(60);
/// What the callee says takes this long to come at least, so the caller waits before it tries the lost relay again by itself.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// A complaint that comes so soon after a relay was named is about the one before.
const NAMED_LATELY: Duration = Duration::from_secs(1);
/// A leg is not made anew when its relay is named again so soon: what was said came twice.
const JOINED_LATELY: Duration = Duration::from_secs(2);
/// Relays that the other side may name in one call, so that it cannot keep this one running between them for ever.
const NAMED_MAX: u32 = 512;
/// Complaints about relays that the callee follows in one call, for the same reason.
const COMPLAINTS_MAX: u32 = 512;
/// Relays whose failures are remembered: more than are ever offered for one call.
const RESTS_MAX: usize = 32;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Join the other side at this relay, then [`LegKeeper::handle_joined`] or [`LegKeeper::handle_failed`].
    Join {
        /// For this leg.
        leg: u8,
        /// The relay.
        relay: NodeKey,
    },
    /// Leave the leg's relay, or stop trying to join it.
    Leave {
        /// The leg.
        leg: u8,
    },
    /// Say this to the other side.
    Tell(LegNews),
}

/// The legs of a call with one device.
#[derive(Debug)]
pub(super) struct LegKeeper {
    side: Side,
    slots: [Slot; LEGS_MAX],
    /// How many legs there should be.
    wanted: usize,
    /// Whether the call goes directly, so that legs only stand by.
    stand_by: bool,
    /// Those that the callee may choose from, the best first.
    relays: Vec<NodeKey>,
    rests: BTreeMap<NodeKey, Rest>,
    named: u32,
    complaints: u32,
    random: u64,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
struct Slot {
    stand: Stand,
    /// When its relay was named to the caller last.
    named: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// There is no relay for it.
    Empty,
    /// Nothing is tried before then; at the caller, what is tried.
    Waiting {
        until: Instant,
        last: Option<NodeKey>,
    },
    Joining {
        relay: NodeKey,
    },
    /// `peer_due`: by when the other side should be there, while it is not.
    Up {
        relay: NodeKey,
        since: Instant,
        peer_due: Option<Instant>,
    },
}

impl Stand {
    fn relay(&self) -> Option<NodeKey> {
        match *self {
            Self::Joining { relay } | Self::Up { relay, .. } => Some(relay),
            Self::Empty | Self::Waiting { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Rest {
    backoff: Backoff,
    failures: u32,
    until: Instant,
}

impl LegKeeper {
    /// The callee's: goes to the first of `relays`, the best first, and names it.
    #[must_use]
    pub(super) fn callee(now: Instant, seed: u64, relays: Vec<NodeKey>) -> Self {
        let mut keeper = Self::new(Side::Callee, seed, relays);
        keeper.fill(now);
        keeper
    }

    /// The caller's: goes to the relay that the callee named.
    #[must_use]
    pub(super) fn caller(now: Instant, seed: u64, relay: NodeKey) -> Self {
        let mut keeper = Self::new(Side::Caller, seed, Vec::new());
        keeper.handle_named(now, 0, relay);
        keeper
    }

    fn new(side: Side, seed: u64, relays: Vec<NodeKey>) -> Self {
        let slots = std::array::from_fn(|_| Slot { stand: Stand::Empty, named: None });
        Self {
            side,
            slots,
            wanted: 1,
            stand_by: false,
            relays,
            rests: BTreeMap::new(),
            named: 0,
            complaints: 0,
            random: seed,
            steps: VecDeque::new(),
        }
    }

    /// True if a leg stands and the other side is there too, as far as its relay says.
    #[must_use]
    pub(super) fn is_met(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.stand, Stand::Up { peer_due: None, .. }))
    }

    /// The relays in use, by leg.
    pub(super) fn in_use(&self) -> impl Iterator<Item = (u8, NodeKey)> {
        (0u8..).zip(&self.slots).filter_map(|(leg, slot)| match slot.stand {
            Stand::Up { relay, .. } => Some((leg, relay)),
            Stand::Empty | Stand::Waiting { .. } | Stand::Joining { .. } => None,
        })
    }

    /// From here on there should be a leg that stands by.
    pub(super) fn handle_second_wanted(&mut self, now: Instant) {
        self.wanted = LEGS_MAX;
        self.fill(now);
    }

    /// Whether the call goes directly; where it does no more, every rest is over.
    pub(super) fn handle_direct(&mut self, now: Instant, is_direct: bool) {
        let had = std::mem::replace(&mut self.stand_by, is_direct);
        if !had || is_direct {
            return;
        }
        self.rests.clear();
        for slot in &mut self.slots {
            if let Stand::Waiting { until, .. } = &mut slot.stand {
                *until = now.min(*until);
            }
        }
        self.handle_timeout(now);
    }

    /// The relays that the callee may choose from have changed, or the order in which they are good.
    pub(super) fn handle_relays(&mut self, now: Instant, relays: Vec<NodeKey>) {
        self.relays = relays;
        self.fill(now);
    }

    /// The relay took this side; `is_peer_present`: the other side is there already. False if nobody wants that leg any more.
    pub(super) fn handle_joined(&mut self, now: Instant, leg: u8, relay: NodeKey, is_peer_present: bool) -> bool {
        match self.slot(leg) {
            Some(slot) if slot.stand == (Stand::Joining { relay }) => {
                slot.stand = Stand::Up { relay, since: now, peer_due: Some(now + PEER_TIME) };
                self.handle_peer(now, leg, is_peer_present);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The relay did not take this side.
    pub(super) fn handle_failed(&mut self, now: Instant, leg: u8, relay: NodeKey) {
        if self.slot(leg).is_some_and(|slot| slot.stand == Stand::Joining { relay }) {
            self.fail(now, leg);
        }
    }

    /// A leg that stood is no more: its relay has gone, or nothing comes through it.
    pub(super) fn handle_dead(&mut self, now: Instant, leg: u8) {
        if self.slot(leg).is_some_and(|slot| matches!(slot.stand, Stand::Up { .. })) {
            self.fail(now, leg);
        }
    }

    /// The other side has come to a leg's relay, or has left it.
    pub(super) fn handle_peer(&mut self, now: Instant, leg: u8, is_present: bool) {
        let Some(Slot { stand: Stand::Up { relay, since, peer_due }, .. }) = self.slot(leg) else { return };
        if is_present {
            *peer_due = None;
            *since = now;
            let relay = *relay;
            // One that comes and goes while it only stands by rests the longer all the same.
            if !self.stand_by {
                self.rests.remove(&relay);
            }
        } else {
            *peer_due = Some(peer_due.unwrap_or(now + PEER_TIME));
        }
    }

    /// The other side said something about a leg.
    pub(super) fn handle_news(&mut self, now: Instant, news: LegNews) {
        match (self.side, news) {
            (Side::Caller, LegNews::Join { leg, relay }) => self.handle_named(now, leg, relay),
            (Side::Callee, LegNews::Gone { leg }) => self.handle_gone(now, leg),
            // Not that side's to say.
            (Side::Caller, LegNews::Gone { .. }) | (Side::Callee, LegNews::Join { .. }) => {}
        }
    }

    /// Nothing comes from the other side: what it may not have heard is to be said again.
    pub(super) fn handle_silence(&mut self, now: Instant) {
        for leg in 0..LEGS_MAX as u8 {
            let Some(slot) = self.slot(leg) else { continue };
            let stand = slot.stand;
            match (self.side, stand) {
                (Side::Callee, Stand::Joining { relay } | Stand::Up { relay, peer_due: Some(_), .. }) => self.name(now, leg, relay),
                (Side::Caller, Stand::Waiting { .. } | Stand::Joining { .. }) => {
                    self.steps.push_back(Step::Tell(LegNews::Gone { leg }));
                }
                (Side::Callee, Stand::Empty | Stand::Waiting { .. } | Stand::Up { peer_due: None, .. })
                | (Side::Caller, Stand::Empty | Stand::Up { .. }) => {}
            }
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for leg in 0..LEGS_MAX as u8 {
            let Some(slot) = self.slot(leg) else { continue };
            match slot.stand {
                Stand::Waiting { until, last } if until <= now => match (self.side, last) {
                    (Side::Caller, Some(relay)) => self.join(leg, relay),
                    (Side::Caller, None) | (Side::Callee, _) => self.choose(now, leg),
                },
                Stand::Up { peer_due: Some(due), .. } if due <= now => self.fail(now, leg),
                Stand::Empty | Stand::Waiting { .. } | Stand::Joining { .. } | Stand::Up { .. } => {}
            }
        }
    }

    /// When [`LegKeeper::handle_timeout`] is due.
    #[must_use]
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |slot: &Slot| match slot.stand {
            Stand::Waiting { until, .. } => Some(until),
            Stand::Up { peer_due, .. } => peer_due,
            Stand::Empty | Stand::Joining { .. } => None,
        };
        self.slots.iter().filter_map(due).min()
    }

    /// The next thing to do.
    pub(super) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    fn slot(&mut self, leg: u8) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(leg))
    }

    /// Looks for relays for the legs that have none.
    fn fill(&mut self, now: Instant) {
        if self.side == Side::Callee {
            for leg in 0..self.wanted as u8 {
                if self.slot(leg).is_some_and(|slot| slot.stand == Stand::Empty) {
                    self.choose(now, leg);
                }
            }
        }
    }

    /// The callee: takes the best relay that no other leg uses and that does not rest.
    fn choose(&mut self, now: Instant, leg: u8) {
        if let Some(relay) = self.best(now, leg) {
            self.join(leg, relay);
            self.name(now, leg, relay);
            return;
        }
        let until =
            self.relays.iter().filter(|relay| self.is_free(leg, relay)).filter_map(|relay| Some(self.rests.get(relay)?.until)).min();
        if let Some(slot) = self.slot(leg) {
            slot.stand = until.map_or(Stand::Empty, |until| Stand::Waiting { until, last: None });
        }
    }

    fn best(&self, now: Instant, leg: u8) -> Option<NodeKey> {
        let rests = |relay: &NodeKey| self.rests.get(relay).is_some_and(|rest| rest.until > now);
        let failures = |relay: &NodeKey| self.rests.get(relay).map_or(0, |rest| rest.failures);
        let free = self.relays.iter().filter(|relay| self.is_free(leg, relay) && !rests(relay));
        free.min_by_key(|relay| failures(relay)).copied()
    }

    /// True if no other leg uses the relay.
    fn is_free(&self, leg: u8, relay: &NodeKey) -> bool {
        (0u8..).zip(&self.slots).all(|(other, slot)| other == leg || slot.stand.relay() != Some(*relay))
    }

    fn join(&mut self, leg: u8, relay: NodeKey) {
        if let Some(slot) = self.slot(leg) {
            slot.stand = Stand::Joining { relay };
            self.steps.push_back(Step::Join { leg, relay });
        }
    }

    fn name(&mut self, now: Instant, leg: u8, relay: NodeKey) {
        if let Some(slot) = self.slot(leg) {
            slot.named = Some(now);
            self.steps.push_back(Step::Tell(LegNews::Join { leg, relay }));
        }
    }

    /// The leg's relay is of no use.
    fn fail(&mut self, now: Instant, leg: u8) {
        let Some(stand) = self.slot(leg).map(|slot| slot.stand) else { return };
        let Some(relay) = stand.relay() else { return };
        if let Stand::Up { since, .. } = stand
            && now.saturating_duration_since(since) >= STANDING_BY_REST_MOST
        {
            self.rests.remove(&relay);
        }
        let rested = self.rest(now, relay);
        self.steps.push_back(Step::Leave { leg });
        let side = self.side;
        let Some(slot) = self.slot(leg) else { return };
        match side {
            Side::Callee => {
                slot.stand = Stand::Empty;
                self.choose(now, leg);
            }
            Side::Caller => {
                slot.stand = Stand::Waiting { until: rested + RETRY_AFTER, last: Some(relay) };
                self.steps.push_back(Step::Tell(LegNews::Gone { leg }));
            }
        }
    }

    /// Lets a relay that failed rest; until when.
    fn rest(&mut self, now: Instant, relay: NodeKey) -> Instant {
        let random = self.next_random();
        if self.rests.len() >= RESTS_MAX && !self.rests.contains_key(&relay) {
            self.rests.retain(|_, rest| rest.until > now);
        }
        let fresh = || Rest { backoff: Backoff::new(REST_FIRST, REST_MOST), failures: 0, until: now };
        let rest = self.rests.entry(relay).or_insert_with(fresh);
        let standing_by = STANDING_BY_REST_FIRST * 2u32.saturating_pow(rest.failures.min(8));
        rest.failures += 1;
        let pause = rest.backoff.after_failure(random);
        rest.until = now + if self.stand_by { standing_by.min(STANDING_BY_REST_MOST) + pause } else { pause };
        rest.until
    }

    /// The callee: the caller has lost the leg's relay.
    fn handle_gone(&mut self, now: Instant, leg: u8) {
        let Some(slot) = self.slot(leg) else { return };
        if slot.named.is_none_or(|named| now.saturating_duration_since(named) < NAMED_LATELY) {
            return;
        }
        let Some(relay) = slot.stand.relay() else { return };
        if self.complaints >= COMPLAINTS_MAX {
            return;
        }
        self.complaints += 1;
        self.rest(now, relay);
        if self.best(now, leg).is_some() {
            self.steps.push_back(Step::Leave { leg });
            self.choose(now, leg);
        } else if !self.stand_by {
            // There is no other: he may come back to this one.
            self.name(now, leg, relay);
            if let Some(Slot { stand: Stand::Up { peer_due, .. }, .. }) = self.slot(leg) {
                *peer_due = Some(now + PEER_TIME);
            }
        }
    }

    /// The caller: the callee is at this relay for the leg.
    fn handle_named(&mut self, now: Instant, leg: u8, relay: NodeKey) {
        let Some(slot) = self.slot(leg) else { return };
        let is_same = match slot.stand {
            Stand::Joining { relay: joining } => joining == relay,
            Stand::Up { relay: joined, since, peer_due: None } => joined == relay && now.saturating_duration_since(since) < JOINED_LATELY,
            Stand::Empty | Stand::Waiting { .. } | Stand::Up { .. } => false,
        };
        if is_same || self.named >= NAMED_MAX {
            return;
        }
        self.named += 1;
        // A relay keeps one leg of a call for each side, so the other leg that was there has gone too.
        for other in 0..LEGS_MAX as u8 {
            let Some(slot) = self.slot(other) else { continue };
            if slot.stand.relay().is_some_and(|used| other == leg || used == relay) {
                slot.stand = Stand::Empty;
                self.steps.push_back(Step::Leave { leg: other });
            }
        }
        self.join(leg, relay);
    }

    /// A step of SplitMix64 (Steele, Lea and Flood, 2014): enough to spread attempts.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
