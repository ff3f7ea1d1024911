//! The log of one other device in one conversation: which of its entries are here, which count, and which are missing.
//!
//! Bodies are in the archive. What is kept here of entries that follow one another is a [`Span`]: its ends, and the hashes that its neighbours
//! must have.

use crate::conversation::NO_ENTRY;
use crate::effect::Side;
use crate::{HISTORY_TRIES_MAX, SPANS_MAX};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::EntryHash;
use ahoy_protocol::message::{Entry, RANGES_MAX};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Highest number of an entry that is taken, far from where numbers overflow.
pub(crate) const SEQ_MAX: u64 = u64::MAX / 2;

/// Entries that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    first: u64,
    /// What the first names as the one before.
    before: EntryHash,
    last: u64,
    /// Of the last.
    hash: EntryHash,
}

/// What vouches for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It came from its author's device.
    Author,
    /// Another device of the user handed it on.
    OwnDevice,
    /// Somebody else handed it on: a later entry has to name it.
    Chain,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and kept back behind a gap.
    KeptBack,
    /// It is new and counts, and with it those up to this number, which were kept back until here.
    Counts { upto: u64 },
    /// It is here already.
    Known,
    /// Its author said something else before.
    Forked,
    /// It is not proven, or there is no room.
    Refused,
}

/// Asking for what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asking {
    /// The entry that it is about: another one is a new matter.
    missing: u64,
    /// Since when anything is missing.
    since: UnixMillis,
    /// When to ask next.
    pub(crate) next: UnixMillis,
    /// How often it was asked.
    pub(crate) attempt: u32,
}

impl Asking {
    /// Nothing began in the future, and nothing is put off beyond `latest`.
    pub(crate) fn handle_clock(&mut self, now: UnixMillis, latest: UnixMillis) {
        self.since = self.since.min(now);
        self.next = self.next.min(latest);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Log {
    pub(crate) side: Side,
    /// The first entry that the author owes this device; what is below is history. `None`: nothing came from the author, all is history.
    floor: Option<u64>,
    /// Ascending; two never touch.
    spans: Vec<Span>,
    /// All entries from the floor up to this one count, also those that were missing when it was decided.
    shown: u64,
    /// My user has read up to here.
    pub(crate) read: u64,
    /// Up to here the other person's devices have them, where the author is a device of mine.
    pub(crate) delivered: u64,
    /// And the other person has read them.
    pub(crate) seen: u64,
    pub(crate) gap: Option<Asking>,
    pub(crate) history: Option<Asking>,
    /// The author is to hear what is here.
    pub(crate) owes_receipt: bool,
    /// My other devices are to hear what was read.
    pub(crate) owes_read: bool,
    pub(crate) is_forked: bool,
}

impl Log {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            floor: None,
            spans: Vec::new(),
            shown: 0,
            read: 0,
            delivered: 0,
            seen: 0,
            gap: None,
            history: None,
            owes_receipt: false,
            owes_read: false,
            is_forked: false,
        }
    }

    /// The author says from where it owes entries. Gives what counts because of that.
    pub(crate) fn handle_floor(&mut self, first: u64) -> Option<(u64, u64)> {
        match self.floor {
            None => {
                // What is here counts already.
                let top = self.spans.last().map_or(0, |span| span.last);
                self.floor = Some(first);
                self.shown = top.max(first.saturating_sub(1));
                None
            }
            // The device was away from the author's list and is back: what lies between is history.
            Some(floor) if first > floor && first > self.have() + 1 => {
                self.floor = Some(first);
                self.shown = self.shown.max(first - 1);
                self.advance()
            }
            Some(_) => None,
        }
    }

    /// Takes an entry, or not. `hash` is its own.
    pub(crate) fn accept(&mut self, entry: &Entry, hash: EntryHash, proof: Proof) -> Verdict {
        let seq = entry.seq;
        if seq == 0 || seq > SEQ_MAX {
            return Verdict::Refused;
        }
        let contradiction = if proof == Proof::Author { Verdict::Forked } else { Verdict::Refused };
        if let Some(span) = self.spans.iter().find(|span| (span.first..=span.last).contains(&seq)) {
            let differs = (seq == span.last && hash != span.hash) || (seq == span.first && entry.prev != span.before);
            return if differs { contradiction } else { Verdict::Known };
        }
        let place = self.spans.partition_point(|span| span.last < seq);
        let below = place.checked_sub(1).filter(|&index| self.spans[index].last + 1 == seq);
        let above = self.spans.get(place).filter(|span| span.first == seq + 1);
        let follows = match below {
            Some(index) => self.spans[index].hash == entry.prev,
            None => (seq == 1) == (entry.prev == NO_ENTRY),
        };
        if !follows || above.is_some_and(|span| span.before != hash) {
            return contradiction;
        }
        if (proof == Proof::Chain && above.is_none())
            || !self.insert(place, below, Span { first: seq, before: entry.prev, last: seq, hash })
        {
            return Verdict::Refused;
        }
        self.judge(seq)
    }

    /// Puts an entry at its place among the spans. False: there are too many.
    fn insert(&mut self, place: usize, below: Option<usize>, one: Span) -> bool {
        let touches_above = self.spans.get(place).is_some_and(|span| span.first == one.last + 1);
        match (below, touches_above) {
            (Some(index), true) => {
                let above = self.spans.remove(place);
                self.spans[index].last = above.last;
                self.spans[index].hash = above.hash;
            }
            (Some(index), false) => {
                self.spans[index].last = one.last;
                self.spans[index].hash = one.hash;
            }
            (None, true) => {
                self.spans[place].first = one.first;
                self.spans[place].before = one.before;
            }
            (None, false) if self.spans.len() >= SPANS_MAX => return false,
            (None, false) => self.spans.insert(place, one),
        }
        true
    }

    /// Whether a new entry counts.
    fn judge(&mut self, seq: u64) -> Verdict {
        if self.is_history(seq) || seq <= self.shown {
            return Verdict::Counts { upto: seq };
        }
        match self.advance() {
            Some((_, upto)) => Verdict::Counts { upto },
            None => Verdict::KeptBack,
        }
    }

    /// Lets count what follows what counts.
    fn advance(&mut self) -> Option<(u64, u64)> {
        let next = self.shown + 1;
        let span = self.spans.iter().find(|span| (span.first..=span.last).contains(&next))?;
        self.shown = span.last;
        Some((next, span.last))
    }

    pub(crate) fn is_history(&self, seq: u64) -> bool {
        self.floor.is_none_or(|floor| seq < floor)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.spans.iter().any(|span| (span.first..=span.last).contains(&seq))
    }

    /// Whether an entry is here and counts.
    pub(crate) fn is_shown(&self, seq: u64) -> bool {
        self.contains(seq) && (self.is_history(seq) || seq <= self.shown)
    }

    /// The last entry that counts.
    pub(crate) fn last_shown(&self) -> u64 {
        if self.floor.is_some() { self.shown } else { self.last() }
    }

    fn last(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.last)
    }

    /// All that the author owes is here up to this number.
    pub(crate) fn have(&self) -> u64 {
        let Some(floor) = self.floor else { return self.last() };
        self.spans.iter().find(|span| (span.first..=span.last).contains(&floor)).map_or(floor - 1, |span| span.last)
    }

    /// What is here beyond that.
    pub(crate) fn beyond(&self) -> impl Iterator<Item = (u64, u64)> {
        let have = self.have();
        self.spans.iter().filter(move |span| span.first > have).take(RANGES_MAX).map(|span| (span.first, span.last))
    }

    /// Whether anything that the author owes has come: only then has a receipt something to say.
    pub(crate) fn has_owed(&self) -> bool {
        self.floor.is_some_and(|floor| self.last() >= floor)
    }

    /// The first entries that are owed and missing while later ones are here.
    pub(crate) fn missing(&self) -> Option<(u64, u64)> {
        self.floor?;
        let have = self.have();
        let beyond = self.spans.iter().find(|span| span.first > have)?;
        Some((have + 1, beyond.first - 1))
    }

    /// The latest entries that are missing of history. `announced` is how far another device of the user has it.
    pub(crate) fn missing_history(&self, announced: u64) -> Option<(u64, u64)> {
        let mut top = self.floor.map_or(announced, |floor| floor - 1).min(SEQ_MAX);
        for span in self.spans.iter().rev() {
            if span.first > top {
                continue;
            }
            if span.last < top {
                return Some((span.last + 1, top));
            }
            top = span.first - 1;
        }
        (top > 0).then_some((1, top))
    }

    /// Begins, goes on with, or ends the asking for what is missing.
    pub(crate) fn review(&mut self, now: UnixMillis, wait: Duration) {
        self.gap = self.missing().map(|(first, _)| match self.gap {
            Some(asking) if asking.missing == first => asking,
            // What was asked for came: the next at once.
            Some(asking) if asking.attempt > 0 => Asking { missing: first, since: asking.since, next: now, attempt: 0 },
            Some(asking) => Asking { missing: first, ..asking },
            None => Asking { missing: first, since: now, next: now.plus(wait), attempt: 0 },
        });
    }

    /// As [`Self::review`], for history.
    pub(crate) fn review_history(&mut self, now: UnixMillis, announced: u64) {
        self.history = self.missing_history(announced).map(|(_, last)| match self.history {
            Some(asking) if asking.missing == last => asking,
            Some(_) | None => Asking { missing: last, since: now, next: now, attempt: 0 },
        });
    }

    /// Asks for history anew, if it was given up or waits.
    pub(crate) fn revive_history(&mut self, now: UnixMillis) {
        if let Some(asking) = &mut self.history
            && asking.attempt > 0
        {
            *asking = Asking { next: now, attempt: 0, ..*asking };
        }
    }

    /// Lets count what is behind a gap that is older than `limit`: what is missing, and what counts.
    pub(crate) fn pass_gap(&mut self, now: UnixMillis, limit: Duration) -> Option<((u64, u64), (u64, u64))> {
        if now < self.gap_passed_at(limit)? {
            return None;
        }
        let beyond = self.spans.iter().find(|span| span.first > self.shown)?;
        let missing = (self.shown + 1, beyond.first - 1);
        self.shown = beyond.first - 1;
        Some((missing, self.advance()?))
    }

    /// When the gap that holds something back is passed over.
    pub(crate) fn gap_passed_at(&self, limit: Duration) -> Option<UnixMillis> {
        (self.floor.is_some() && self.last() > self.shown).then_some(self.gap?.since.plus(limit))
    }

    /// When history is to be asked for.
    pub(crate) fn history_at(&self) -> Option<UnixMillis> {
        self.history.filter(|asking| asking.attempt < HISTORY_TRIES_MAX).map(|asking| asking.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::entry_hash;
    use ahoy_protocol::ids::ConversationId;
    use ahoy_protocol::message::Body;
    use ahoy_protocol::{DeviceKey, Prose};

    const AUTHOR: DeviceKey = DeviceKey([1; 32]);

    fn chain(len: u64) -> Vec<(Entry, EntryHash)> {
        let mut prev = NO_ENTRY;
        let entry = |seq| {
            let body = Body::Text { text: Prose::new(format!("entry {seq}")).unwrap(), reply_to: None };
            let entry = Entry { conversation: ConversationId([2; 16]), seq, prev, written: UnixMillis(seq), body };
            prev = entry_hash(&AUTHOR, &entry).unwrap();
            (entry, prev)
        };
        (1..=len).map(entry).collect()
    }

    fn log(floor: u64) -> Log {
        let mut log = Log::new(Side::Theirs);
        log.handle_floor(floor);
        log
    }

    fn give(log: &mut Log, chain: &[(Entry, EntryHash)], seq: usize, proof: Proof) -> Verdict {
        let (entry, hash) = &chain[seq - 1];
        log.accept(entry, *hash, proof)
    }

    #[test]
    fn entries_behind_a_gap_count_when_it_closes() {
        let (mut log, chain) = (log(1), chain(4));
        assert_eq!(give(&mut log, &chain, 1, Proof::Author), Verdict::Counts { upto: 1 });
        assert_eq!(give(&mut log, &chain, 4, Proof::Author), Verdict::KeptBack);
        assert_eq!(give(&mut log, &chain, 3, Proof::Author), Verdict::KeptBack);
        assert_eq!((log.have(), log.missing()), (1, Some((2, 2))));
        assert_eq!(log.beyond().collect::<Vec<_>>(), [(3, 4)]);
        assert_eq!(give(&mut log, &chain, 2, Proof::Author), Verdict::Counts { upto: 4 });
        assert_eq!((log.have(), log.missing()), (4, None));
        assert_eq!(give(&mut log, &chain, 3, Proof::Author), Verdict::Known);
    }

    #[test]
    fn what_somebody_else_hands_on_is_proven_by_a_later_entry() {
        let (mut log, chain) = (log(1), chain(4));
        assert_eq!(give(&mut log, &chain, 2, Proof::Chain), Verdict::Refused);
        give(&mut log, &chain, 4, Proof::Author);
        assert_eq!(give(&mut log, &chain, 2, Proof::Chain), Verdict::Refused);
        let mut forged = chain[2].clone();
        forged.0.written = UnixMillis(77);
        forged.1 = entry_hash(&AUTHOR, &forged.0).unwrap();
        assert_eq!(log.accept(&forged.0, forged.1, Proof::Chain), Verdict::Refused);
        assert_eq!(give(&mut log, &chain, 3, Proof::Chain), Verdict::KeptBack);
        assert_eq!(give(&mut log, &chain, 2, Proof::Chain), Verdict::KeptBack);
        assert_eq!(give(&mut log, &chain, 1, Proof::Chain), Verdict::Counts { upto: 4 });
    }

    #[test]
    fn an_author_that_contradicts_itself_is_noticed() {
        let (mut log, chain) = (log(1), chain(3));
        give(&mut log, &chain, 1, Proof::Author);
        let mut other = chain[1].0.clone();
        other.prev = EntryHash([9; 32]);
        assert_eq!(log.accept(&other, EntryHash([8; 32]), Proof::Author), Verdict::Forked);
        assert_eq!(log.accept(&chain[0].0, EntryHash([8; 32]), Proof::Author), Verdict::Forked);
    }

    #[test]
    fn a_device_that_came_later_needs_no_history_to_go_on() {
        let (mut log, chain) = (log(3), chain(4));
        assert_eq!(give(&mut log, &chain, 3, Proof::Author), Verdict::Counts { upto: 3 });
        assert_eq!((log.have(), log.missing(), log.missing_history(0)), (3, None, Some((1, 2))));
        assert_eq!(give(&mut log, &chain, 2, Proof::Chain), Verdict::Counts { upto: 2 });
        assert_eq!(give(&mut log, &chain, 1, Proof::OwnDevice), Verdict::Counts { upto: 1 });
        assert_eq!(log.missing_history(0), None);
        assert_eq!(give(&mut log, &chain, 4, Proof::Author), Verdict::Counts { upto: 4 });
    }

    #[test]
    fn a_gap_is_passed_over_in_the_end_and_filled_later() {
        let (mut log, chain) = (log(1), chain(4));
        let (wait, limit) = (Duration::from_secs(2), Duration::from_secs(60));
        give(&mut log, &chain, 3, Proof::Author);
        log.review(UnixMillis(0), wait);
        assert_eq!(log.pass_gap(UnixMillis(59_999), limit), None);
        assert_eq!(log.pass_gap(UnixMillis(60_000), limit), Some(((1, 2), (3, 3))));
        assert_eq!(give(&mut log, &chain, 4, Proof::Author), Verdict::Counts { upto: 4 });
        assert_eq!(give(&mut log, &chain, 2, Proof::Author), Verdict::Counts { upto: 2 });
        assert_eq!((log.have(), log.missing()), (0, Some((1, 1))));
        assert_eq!(give(&mut log, &chain, 1, Proof::Author), Verdict::Counts { upto: 1 });
        assert_eq!(log.have(), 4);
    }

    #[test]
    fn there_are_never_more_pieces_than_their_bound() {
        let (mut log, chain) = (log(1), chain(2 * SPANS_MAX as u64 + 2));
        for piece in 1..=SPANS_MAX {
            assert_eq!(give(&mut log, &chain, 2 * piece, Proof::Author), Verdict::KeptBack);
        }
        assert_eq!(give(&mut log, &chain, 2 * SPANS_MAX + 2, Proof::Author), Verdict::Refused);
        assert_eq!(give(&mut log, &chain, 2 * SPANS_MAX + 1, Proof::Author), Verdict::KeptBack);
    }
}
