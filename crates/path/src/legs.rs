//! The call's legs on relays: whether packets get through each of them to the peer and back, and which one carries a relayed call.
//!
//! A leg is probed end to end, PING through the relay to the peer and PONG back, since what matters is whether the peer is at the other
//! end, and how far away. One a second, or fewer where a call has little to spend, is enough to know the round trip; what notices a death
//! early is the call's own packets, and the peer. On lines that lose much, answers stay out all the time, and count for the less.

use crate::route::{LegId, Way};
use crate::score::{Odds, Quality};
use crate::thrift::{Thrift, Use};
use ahoy_protocol::peer::LEGS_MAX;
use std::time::{Duration, Instant};

/// Between PINGs while the peer has not been heard through a leg that was only just set up, and how long that is for.
const FRESH_PAUSE: Duration = Duration::from_millis(200);
const FRESH: Duration = Duration::from_secs(10);
/// Between PINGs through a leg that does not answer: in the first two seconds, in the ten after, and from then on.
const SUSPECT_PAUSES: [(Duration, Duration); 2] =
    [(Duration::from_secs(2), Duration::from_millis(100)), (Duration::from_secs(12), Duration::from_millis(250))];
const SILENT_PAUSE: Duration = Duration::from_secs(1);
/// Between PINGs while the losses of several ways are compared.
const COMPARE_PAUSE: Duration = Duration::from_millis(150);
/// Between PINGs in haste when there were too many.
const SPENT_PAUSE: Duration = Duration::from_millis(250);
/// PINGs missing in a row after which a leg is under suspicion, where hardly any did before. One is lost now and then.
const MISSED_MAX: u32 = 2;
/// A leg that was heard within this time is not suspected because something else is silent.
const HEARD_JUST_NOW: Duration = Duration::from_millis(100);
/// How long answers must stay out on a leg that is known to lose while the peer is heard through it: only the way to the peer may be dead,
/// which the peer notices sooner.
const UNPROVEN_WHILE_HEARD: Duration = Duration::from_secs(3);
const HEARD_OF_LATE: Duration = Duration::from_millis(300);
/// Time without an answer after which a leg under suspicion is not counted upon.
const UNRELIABLE_AFTER: Duration = Duration::from_secs(1);
/// Time without an answer after which a leg should be replaced: where the peer is heard by another way, and where it is not, since then the
/// reason may be this device's network.
const DEAD_AFTER_ALONE: Duration = Duration::from_millis(1500);
const DEAD_AFTER: Duration = Duration::from_secs(3);
/// The same for a leg that only stands by, while the call goes directly: there is no haste, and joining another costs a thin link seconds.
const DEAD_AFTER_STANDING_BY: Duration = Duration::from_secs(4);
/// How long a leg waits for the peer to join its other end, and after how long the relay is told of a move in that time: the peer may have
/// joined long ago, and this device's router have restarted since.
const JOIN_GRACE: Duration = Duration::from_secs(6);
const JOIN_TOLD_AFTER: Duration = Duration::from_secs(3);
/// Pauses between moves told to the relay while a leg stays silent: a move may be lost, and the router not yet be back.
const TELL_PAUSE: Duration = Duration::from_millis(250);
const TELL_DOUBLINGS_MAX: u32 = 3;
/// How long after a suspicion a leg is asked: a relay has to have been told of a move before it takes in what comes after it.
const ASK_AFTER_MOVE: Duration = Duration::from_millis(5);
/// How long packets take both legs when the one in use changes.
const OVERLAP: Duration = Duration::from_millis(200);
/// A leg is left for one with a shorter round trip no sooner after the last change.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// PINGs through a leg that must be known for that.
const COMPARED_SAMPLES_MIN: u32 = 4;
/// The least margin by which the other's round trip must be shorter, and the same as a share.
const MARGIN: Duration = Duration::from_millis(10);
const MARGIN_SHARE: f64 = 0.15;

/// How much a leg can be counted upon, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// The peer answers through it.
    Well,
    /// The peer was not heard through it yet; it may only be about to join.
    Fresh,
    /// The peer did answer and does not.
    Suspect,
}

/// One leg that the owner has.
#[derive(Debug)]
pub(crate) struct Leg {
    up_since: Instant,
    pub(crate) quality: Quality,
    next_probe: Instant,
    heard_at: Option<Instant>,
    /// When the last PING that was answered through it was sent.
    proven_at: Option<Instant>,
    /// When the first one was: what was lost before says nothing about the leg.
    proven_from: Option<Instant>,
    missed: u32,
    /// Since when there is reason to think that it is dead, and no answer to the contrary.
    suspect_since: Option<Instant>,
    tell_silent_at: Option<Instant>,
    told_silent: u32,
    is_told_dead: bool,
}

impl Leg {
    fn new(now: Instant) -> Self {
        Self {
            up_since: now,
            quality: Quality::default(),
            next_probe: now,
            heard_at: None,
            proven_at: None,
            proven_from: None,
            missed: 0,
            suspect_since: None,
            tell_silent_at: Some(now + JOIN_TOLD_AFTER),
            told_silent: TELL_DOUBLINGS_MAX,
            is_told_dead: false,
        }
    }

    fn standing(&self) -> Standing {
        match (self.suspect_since, self.proven_at) {
            (Some(_), _) => Standing::Suspect,
            (None, Some(_)) => Standing::Well,
            (None, None) => Standing::Fresh,
        }
    }

    /// When it is no longer counted upon, unless an answer comes.
    fn unreliable_at(&self) -> Option<Instant> {
        match self.proven_at {
            Some(_) => Some(self.suspect_since? + UNRELIABLE_AFTER),
            None => Some(self.up_since + JOIN_GRACE),
        }
    }

    fn is_reliable(&self, now: Instant) -> bool {
        self.unreliable_at().is_none_or(|at| at > now) || self.proven_at.is_some() && !self.is_past_hope()
    }

    /// Whether answers stay out, more than its losses explain.
    fn is_odd(&self) -> bool {
        self.quality.is_beyond_chance(self.missed, 1, Odds::Odd)
    }

    /// The same, so many that it is to be doubted.
    fn is_silent(&self, now: Instant) -> bool {
        let is_heard = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < HEARD_OF_LATE);
        if !is_heard || !self.quality.is_known_to_lose() {
            return self.quality.is_beyond_chance(self.missed, MISSED_MAX, Odds::Sign);
        }
        let is_unproven = self.proven_at.is_none_or(|at| now.saturating_duration_since(at) >= UNPROVEN_WHILE_HEARD);
        is_unproven && self.is_past_hope()
    }

    /// The same, so many that it is dead.
    fn is_past_hope(&self) -> bool {
        self.quality.is_beyond_chance(self.missed, MISSED_MAX, Odds::Dead)
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
        (self.tell_silent_at, self.told_silent) = match self.proven_at {
            Some(_) => (None, 0),
            // Until an answer has come through it, silence shows in nothing else.
            None => (Some(now + JOIN_TOLD_AFTER), TELL_DOUBLINGS_MAX),
        };
    }

    fn answered(&mut self, now: Instant, sent_at: Instant, was_late: bool) {
        self.proven_at = self.proven_at.max(Some(sent_at));
        self.proven_from.get_or_insert(sent_at);
        self.heard(now);
        self.quality.answered(now.saturating_duration_since(sent_at));
        if self.is_past_hope() {
            self.quality.forget_death();
        } else if was_late {
            self.quality.was_late();
        }
        if !was_late {
            self.quality.count(now, false);
        }
        self.missed = 0;
        if self.suspect_since.is_some_and(|since| sent_at >= since) {
            self.suspect_since = None;
            self.is_told_dead = false;
        }
    }

    fn missed_one(&mut self, now: Instant, sent_at: Instant) {
        if self.proven_from.is_none_or(|from| sent_at < from) {
            return;
        }
        self.quality.count(now, true);
        self.missed = self.missed.saturating_add(1);
        if !self.is_odd() {
            return;
        }
        self.next_probe = self.next_probe.min(now);
        if self.is_silent(now) {
            self.suspect_since.get_or_insert(sent_at);
        }
        if self.heard_at < Some(sent_at) && self.quality.is_beyond_chance(self.missed, 1, Odds::Sign) {
            self.tell_silent_at.get_or_insert(now);
        }
    }

    /// Something else fell silent: this leg may have as well.
    fn suspect(&mut self, now: Instant) {
        self.next_probe = now + ASK_AFTER_MOVE;
        let is_heard = self.heard_at.is_some_and(|at| now.saturating_duration_since(at) < HEARD_JUST_NOW);
        // Where losses are known, a silence elsewhere says less than the answers that come or do not.
        let is_answering = self.quality.is_known_to_lose() && !self.is_odd();
        if self.proven_at.is_none() || is_heard || is_answering {
            return;
        }
        self.suspect_since.get_or_insert(now);
        self.tell_silent_at.get_or_insert(now);
    }

    /// The pause until the next PING. `steady`: where there is no haste.
    fn pause(&self, now: Instant, thrift: &mut Thrift, steady: Duration, is_compared: bool) -> Duration {
        let wished = match (self.suspect_since, self.proven_at) {
            (Some(since), _) => {
                let age = now.saturating_duration_since(since);
                SUSPECT_PAUSES.iter().find(|(until, _)| age < *until).map_or(SILENT_PAUSE, |(_, pause)| *pause)
            }
            (None, None) if now.saturating_duration_since(self.up_since) < FRESH => FRESH_PAUSE,
            (None, Some(_)) if self.is_odd() || is_compared => COMPARE_PAUSE,
            (None, _) => return steady,
        };
        match thrift.hasty(now, wished) {
            Some(pause) => {
                thrift.spend(now);
                pause
            }
            // A suspicion has to come to an end, whatever was asked before it.
            None => wished.max(if self.suspect_since.is_some() { SPENT_PAUSE } else { steady }),
        }
    }

    /// When it should be replaced.
    fn dead_at(&self, silence: Duration) -> Option<Instant> {
        if self.is_told_dead {
            return None;
        }
        match self.proven_at {
            Some(_) if !self.is_past_hope() => None,
            Some(_) => Some(self.suspect_since? + silence),
            None => Some(self.up_since + JOIN_GRACE),
        }
    }
}

/// What a leg wants its owner to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegNotice {
    Silent(LegId),
    Dead(LegId),
}

/// All legs of the call.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    legs: [Option<Leg>; LEGS_MAX],
    in_use: Option<LegId>,
    changed_at: Option<Instant>,
    changes: u32,
    /// Packets take all legs until then, and until one has answered a PING sent after the other time.
    doubled: Option<Doubled>,
}

#[derive(Debug, Clone, Copy)]
struct Doubled {
    until: Instant,
    proven_after: Option<Instant>,
}

impl Legs {
    pub(crate) fn get(&self, id: LegId) -> Option<&Leg> {
        self.legs.get(usize::from(id.0))?.as_ref()
    }

    fn get_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.get_mut(usize::from(id.0))?.as_mut()
    }

    fn iter(&self) -> impl Iterator<Item = (LegId, &Leg)> {
        (0..).map(LegId).zip(&self.legs).filter_map(|(id, leg)| Some((id, leg.as_ref()?)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (LegId, &mut Leg)> {
        (0..).map(LegId).zip(&mut self.legs).filter_map(|(id, leg)| Some((id, leg.as_mut()?)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.legs.iter().all(Option::is_none)
    }

    /// The owner has this leg, a new one even if it had one before; or has it no more. `false`: there can be no such leg.
    pub(crate) fn set(&mut self, now: Instant, id: LegId, up: bool) -> bool {
        let Some(leg) = self.legs.get_mut(usize::from(id.0)) else { return false };
        *leg = up.then(|| Leg::new(now));
        if self.in_use == Some(id) {
            self.in_use = None;
        }
        self.choose(now);
        true
    }

    /// Something of the peer's came through the leg.
    pub(crate) fn heard(&mut self, now: Instant, id: LegId) {
        if let Some(leg) = self.get_mut(id) {
            leg.heard(now);
        }
    }

    /// The PING sent at `sent_at` was answered.
    pub(crate) fn answered(&mut self, now: Instant, id: LegId, sent_at: Instant, was_late: bool) {
        if let Some(leg) = self.get_mut(id) {
            leg.answered(now, sent_at, was_late);
        }
    }

    /// A PING was not answered in time. `true`: so many by the leg in use that it is to be doubted.
    pub(crate) fn missed(&mut self, now: Instant, id: LegId, sent_at: Instant) -> bool {
        let is_in_use = self.in_use == Some(id);
        let Some(leg) = self.get_mut(id) else { return false };
        let was_suspect = leg.suspect_since.is_some();
        leg.missed_one(now, sent_at);
        is_in_use && leg.suspect_since.is_some() && (!was_suspect || leg.missed == MISSED_MAX)
    }

    /// Everything may have died at once: asks every leg, and the owner to tell the relays.
    pub(crate) fn suspect(&mut self, now: Instant) {
        self.iter_mut().for_each(|(_, leg)| leg.suspect(now));
    }

    /// This device's addresses changed: no leg knows where it is any more, however lately it was heard.
    pub(crate) fn network_changed(&mut self, now: Instant) {
        for (_, leg) in self.iter_mut() {
            leg.next_probe = now + ASK_AFTER_MOVE;
            leg.tell_silent_at = Some(now);
            leg.told_silent = 0;
            if leg.proven_at.is_some() {
                leg.suspect_since = Some(now);
                leg.is_told_dead = false;
            }
        }
    }

    /// Asks every leg now, without suspicion.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.iter_mut().for_each(|(_, leg)| leg.next_probe = now);
    }

    /// Packets take all legs for so long, and until one has answered.
    pub(crate) fn double(&mut self, now: Instant, time: Duration) {
        self.doubled = Some(Doubled { until: now + time, proven_after: Some(now) });
    }

    pub(crate) fn is_doubled(&self) -> bool {
        self.doubled.is_some()
    }

    /// The leg that carries a relayed call.
    pub(crate) fn in_use(&self) -> Option<LegId> {
        self.in_use
    }

    pub(crate) fn changes(&self) -> u32 {
        self.changes
    }

    pub(crate) fn rtt(&self, id: LegId) -> Option<Duration> {
        self.get(id)?.quality.rtt()
    }

    /// Whether there is a leg that can be fallen back on or stayed with.
    pub(crate) fn is_reliable(&self, now: Instant) -> bool {
        self.iter().any(|(_, leg)| leg.is_reliable(now))
    }

    /// Whether the peer answers through a leg: one to leave a direct path for.
    pub(crate) fn is_well(&self, now: Instant) -> bool {
        self.iter().any(|(_, leg)| leg.proven_at.is_some() && leg.is_reliable(now))
    }

    /// Share of PINGs that the leg that loses least has lost of late; none where there is no leg.
    pub(crate) fn loss(&self) -> f64 {
        self.iter()
            .filter(|(_, leg)| leg.standing() == Standing::Well)
            .map(|(_, leg)| leg.quality.recent_loss())
            .reduce(f64::min)
            .unwrap_or(0.0)
    }

    /// Whether losses are nothing to wonder at on the leg in use.
    pub(crate) fn are_known_to_lose(&self) -> bool {
        self.in_use.and_then(|id| self.get(id)).is_some_and(|leg| leg.quality.is_known_to_lose())
    }

    /// Whether a leg loses clearly less than a path of this quality.
    pub(crate) fn lose_less_than(&self, now: Instant, quality: &Quality) -> bool {
        self.iter().any(|(_, leg)| leg.standing() == Standing::Well && leg.quality.loses_less_than(now, quality))
    }

    /// Whether the peer was heard through another leg than this within `time`.
    fn is_heard_beside(&self, id: LegId, now: Instant, time: Duration) -> bool {
        self.iter().any(|(other, leg)| other != id && leg.heard_at.is_some_and(|at| now.saturating_duration_since(at) < time))
    }

    /// Ways of a relayed call: all legs in a doubt, or while none has proved itself, else the one in use.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        let is_single =
            self.doubled.is_none() && self.in_use.and_then(|id| self.get(id)).is_some_and(|leg| leg.standing() == Standing::Well);
        self.all_ways().take(if is_single { 1 } else { LEGS_MAX })
    }

    /// All legs, the one in use first.
    pub(crate) fn all_ways(&self) -> impl Iterator<Item = Way> + '_ {
        let others = self.iter().map(|(id, _)| id).filter(|id| self.in_use != Some(*id));
        self.in_use.into_iter().chain(others).map(Way::Leg)
    }

    /// Brings the choice up to `now`.
    pub(crate) fn settle(&mut self, now: Instant) {
        if let Some(Doubled { until, proven_after }) = self.doubled {
            let is_proven = proven_after.is_none_or(|after| self.iter().any(|(_, leg)| leg.proven_at >= Some(after)));
            if now >= until && is_proven {
                self.doubled = None;
            }
        }
        self.choose(now);
    }

    fn choose(&mut self, now: Instant) {
        let order = |leg: &Leg| (leg.standing(), leg.quality.rtt().unwrap_or(Duration::MAX));
        let best = self.iter().min_by_key(|(_, leg)| order(leg)).map(|(id, leg)| (id, leg.standing()));
        let current = self.in_use.and_then(|id| Some((id, self.get(id)?.standing())));
        let chosen = match (current, best) {
            // All legs are in use; which is the better one will be known at the end.
            (Some((id, _)), _) if self.doubled.is_some() => Some(id),
            (Some((id, standing)), Some((best, best_standing))) if best_standing == standing => {
                if best != id && self.is_clearly_nearer(now, best, id) { Some(best) } else { Some(id) }
            }
            (_, best) => best.map(|(id, _)| id),
        };
        if chosen == self.in_use {
            return;
        }
        if self.in_use.is_some() {
            self.changes = self.changes.saturating_add(1);
            self.doubled = self.doubled.or(Some(Doubled { until: now + OVERLAP, proven_after: None }));
        }
        tracing::debug!(from = ?self.in_use, to = ?chosen, "leg chosen");
        self.changed_at = Some(now);
        self.in_use = chosen;
    }

    fn is_clearly_nearer(&self, now: Instant, other: LegId, current: LegId) -> bool {
        let (Some(other), Some(current)) = (self.get(other), self.get(current)) else { return false };
        let (Some(other_rtt), Some(rtt)) = (other.quality.rtt(), current.quality.rtt()) else { return false };
        let is_settled = self.changed_at.is_none_or(|at| now.saturating_duration_since(at) >= SETTLED_AFTER);
        let is_known = [other, current].iter().all(|leg| leg.quality.samples() >= COMPARED_SAMPLES_MIN);
        is_settled && is_known && other_rtt + MARGIN.max(rtt.mul_f64(MARGIN_SHARE)) < rtt
    }

    /// The legs to probe now, each with the time after which the answer is late. `is_direct`: the call goes by none of them. `is_compared`:
    /// to know their losses as well.
    pub(crate) fn due(&mut self, now: Instant, thrift: &mut Thrift, is_direct: bool, is_compared: bool) -> Vec<(LegId, Duration)> {
        let in_use = self.in_use.filter(|_| !is_direct);
        let mut due = Vec::new();
        for (id, leg) in self.iter_mut() {
            if leg.next_probe <= now {
                if let Some(wait) = thrift.wait(now, Use::StandBy) {
                    leg.next_probe = now + wait;
                    continue;
                }
                let steady = if in_use == Some(id) { thrift.in_use() } else { thrift.standing_by() };
                leg.next_probe = now + leg.pause(now, thrift, steady, is_compared);
                due.push((id, leg.quality.late_after(thrift.slack(now))));
            }
        }
        due
    }

    /// What the owner has to know by now. `is_heard_directly`: the peer was heard by a direct path of late.
    pub(crate) fn notices(&mut self, now: Instant, is_heard_directly: bool) -> Vec<LegNotice> {
        let mut notices = Vec::new();
        for id in (0..).map(LegId).take(LEGS_MAX) {
            let dead_after = match self.is_heard_beside(id, now, UNRELIABLE_AFTER) {
                _ if is_heard_directly => DEAD_AFTER_STANDING_BY,
                true => DEAD_AFTER_ALONE,
                false => DEAD_AFTER,
            };
            let Some(leg) = self.get_mut(id) else { continue };
            if leg.tell_silent_at.is_some_and(|at| at <= now) {
                leg.tell_silent_at = Some(now + TELL_PAUSE * 2u32.pow(leg.told_silent.min(TELL_DOUBLINGS_MAX)));
                leg.told_silent = leg.told_silent.saturating_add(1);
                notices.push(LegNotice::Silent(id));
            }
            if leg.dead_at(dead_after).is_some_and(|at| at <= now) {
                leg.is_told_dead = true;
                notices.push(LegNotice::Dead(id));
            }
        }
        notices
    }

    /// When something is due.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let doubled = self.doubled.map(|doubled| doubled.until).filter(|at| *at > now);
        let of_leg = |leg: &Leg| {
            let dead = [DEAD_AFTER_ALONE, DEAD_AFTER, DEAD_AFTER_STANDING_BY].map(|silence| leg.dead_at(silence));
            let dead = dead.into_iter().chain([leg.unreliable_at()]).flatten().filter(|at| *at > now).min();
            [Some(leg.next_probe), leg.tell_silent_at, dead].into_iter().flatten().min()
        };
        self.iter().filter_map(|(_, leg)| of_leg(leg)).chain(doubled).min()
    }
}
