//! What the supernodes of a look-up have returned so far: which record is the highest, who agrees, who is behind.

use crate::gate::VerifiedRecord;
use crate::merge::{Merge, Version, merge};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::directory::USER_RECORDS_MAX;
use std::collections::BTreeSet;

/// A tally of verified records of one subject. `P` is who returned one, and `K` the key under which it lay there: while two salts
/// count, one store may return the same record twice, and agrees with itself only once.
#[derive(Debug)]
pub struct Tally<P, K> {
    own: Option<Version>,
    /// The highest first; different versions, or different records of one.
    records: Vec<VerifiedRecord>,
    kept_until: UnixMillis,
    returned: Vec<(P, K, Version)>,
}

impl<P: Ord, K> Tally<P, K> {
    /// Begins with what is kept here.
    #[must_use]
    pub fn new(own: Option<(VerifiedRecord, UnixMillis)>) -> Self {
        let kept_until = own.as_ref().map_or(UnixMillis(0), |(_, until)| *until);
        let records: Vec<_> = own.into_iter().map(|(record, _)| record).collect();
        Self { own: records.first().map(VerifiedRecord::version), records, kept_until, returned: Vec::new() }
    }

    /// Counts a record that `from` returned as what lies under `key`, and keeps until `kept_until`.
    pub fn add(&mut self, from: P, key: K, record: VerifiedRecord, kept_until: UnixMillis) {
        self.returned.push((from, key, record.version()));
        let Some(best) = self.records.first() else {
            self.records.push(record);
            self.kept_until = kept_until;
            return;
        };
        let version = record.version();
        match merge(best, record.clone()) {
            Merge::Replace(merged) if version == best.version() => {
                self.records[0] = *merged;
                self.kept_until = self.kept_until.max(kept_until);
            }
            Merge::Replace(newer) => {
                self.records.insert(0, *newer);
                self.kept_until = kept_until;
            }
            Merge::Same => self.kept_until = self.kept_until.max(kept_until),
            Merge::Conflict => self.records.insert(1, record),
            Merge::Superseded => {
                if !self.records.iter().any(|known| known.version() == version) {
                    self.records.push(record);
                }
            }
        }
        self.records.truncate(USER_RECORDS_MAX);
    }

    /// True if nobody had a record so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many hold the highest version.
    #[must_use]
    pub fn agreeing(&self) -> usize {
        let Some(best) = self.records.first().map(VerifiedRecord::version) else { return 0 };
        let others: BTreeSet<&P> = self.returned.iter().filter(|(_, _, version)| *version == best).map(|(from, _, _)| from).collect();
        usize::from(self.own == Some(best)) + others.len()
    }

    /// The highest record, and until when it is kept.
    #[must_use]
    pub fn best(&self) -> Option<(&VerifiedRecord, UnixMillis)> {
        self.records.first().map(|best| (best, self.kept_until))
    }

    /// True if a lower version than the highest is kept here.
    #[must_use]
    pub fn is_own_stale(&self) -> bool {
        match (self.own, self.records.first()) {
            (Some(own), Some(best)) => own < best.version(),
            _ => false,
        }
    }

    /// Who returned a lower version than the highest, and under which key.
    pub fn stale(&self) -> impl Iterator<Item = (&P, &K)> {
        let best = self.records.first().map(VerifiedRecord::version);
        self.returned.iter().filter(move |(_, _, version)| Some(*version) < best).map(|(from, key, _)| (from, key))
    }

    /// The records, the highest first.
    #[must_use]
    pub fn into_records(self) -> Vec<VerifiedRecord> {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World};
    use ahoy_protocol::record::Record;
    use ahoy_protocol::time::HOUR;

    fn versions(tally: Tally<char, u8>) -> Vec<u64> {
        tally.into_records().iter().map(|record| record.version().seq).collect()
    }

    #[test]
    fn the_highest_record_comes_first_and_who_is_behind_is_known() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let record = |seq| world.verified(Record::User(bob.record(seq)));
        let mut tally = Tally::new(Some((record(1), NOW)));
        assert_eq!((tally.agreeing(), tally.is_own_stale()), (1, false));
        tally.add('a', 1, record(2), NOW);
        assert_eq!((tally.agreeing(), tally.is_own_stale()), (1, true));
        tally.add('b', 1, record(1), NOW);
        tally.add('c', 1, record(2), NOW.plus(HOUR));
        assert_eq!(tally.agreeing(), 2);
        assert_eq!(tally.stale().collect::<Vec<_>>(), [(&'b', &1)]);
        assert_eq!(tally.best().expect("some").1, NOW.plus(HOUR));
        assert_eq!(versions(tally), [2, 1]);
    }

    #[test]
    fn nothing_is_agreed_on_while_nobody_has_anything() {
        let tally = Tally::<char, u8>::new(None);
        assert!(tally.is_empty() && tally.best().is_none() && !tally.is_own_stale());
        assert_eq!(tally.agreeing(), 0);
    }

    #[test]
    fn a_store_that_returns_a_record_under_two_keys_agrees_only_once() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let record = world.verified(Record::User(bob.record(1)));
        let mut tally = Tally::new(None);
        tally.add('a', 1, record.clone(), NOW);
        tally.add('a', 2, record.clone(), NOW);
        assert_eq!(tally.agreeing(), 1);
        tally.add('b', 2, record, NOW);
        assert_eq!(tally.agreeing(), 2);
    }

    #[test]
    fn records_that_contradict_each_other_are_both_shown() {
        let world = World::new();
        let bob = world.user("bob", 2);
        let mut tally = Tally::new(None);
        tally.add('a', 1, world.verified(Record::User(bob.record(1))), NOW);
        tally.add('b', 1, world.verified(Record::User(bob.record_of(1, &[0]))), NOW);
        assert_eq!(versions(tally), [1, 1]);
    }

    #[test]
    fn many_different_answers_stay_few_and_the_highest_is_among_them() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let mut tally = Tally::new(None);
        for seq in [3, 9, 1, 7, 5, 8] {
            tally.add('a', 1, world.verified(Record::User(bob.record(seq))), NOW);
        }
        let kept = versions(tally);
        assert_eq!((kept.len(), kept[0]), (USER_RECORDS_MAX, 9));
    }
}
