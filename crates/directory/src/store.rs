//! What a supernode keeps: the newest record of each subject, for a while, and no more than it has room for.
//!
//! Records are kept by subject, so that the daily change of the salt moves none of them; the keys under which they lie at
//! present are an index beside them.

use crate::gate::{Verified, VerifiedRecord};
use crate::merge::{Merge, merge};
use ahoy_identity::record_key;
use ahoy_protocol::ids::{RecordKey, Salt};
use ahoy_protocol::record::{Record, Subject, USER_RECORD_KEPT};
use ahoy_protocol::{UnixMillis, Wire};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use thiserror::Error;

/// Why a record that passed the gate is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PutError {
    /// A newer one is here.
    #[error("a newer record is stored")]
    Superseded(Box<Record>),
    /// Another with the same version is here.
    #[error("another record of the same version is stored")]
    Conflict(Box<Record>),
    /// There is no room for one more subject.
    #[error("the store is full")]
    Full,
}

/// A record in the store.
#[derive(Debug)]
pub struct Stored {
    verified: VerifiedRecord,
    bytes: Vec<u8>,
    kept_until: UnixMillis,
}

impl Stored {
    /// The record.
    #[must_use]
    pub fn verified(&self) -> &VerifiedRecord {
        &self.verified
    }

    /// The record's encoding.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// When it is dropped, if nobody stores it again.
    #[must_use]
    pub fn kept_until(&self) -> UnixMillis {
        self.kept_until
    }
}

/// The records that a supernode keeps.
#[derive(Debug)]
pub struct RecordStore {
    len_max: usize,
    salts: Vec<Salt>,
    records: BTreeMap<Subject, Stored>,
    keys: BTreeMap<RecordKey, Subject>,
    by_end: BTreeSet<(UnixMillis, Subject)>,
}

impl RecordStore {
    /// An empty store for at most `len_max` subjects.
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        Self { len_max, salts: Vec::new(), records: BTreeMap::new(), keys: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// Puts the salts in force in place of those before; every record then lies under its keys of these.
    pub fn set_salts(&mut self, salts: &[Salt]) {
        if self.salts == salts {
            return;
        }
        self.salts = salts.to_vec();
        self.keys = self.records.keys().flat_map(|subject| keys_of(salts, subject)).collect();
    }

    /// Stores a record as its owner does: for the full time that its kind is kept.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&mut self, now: UnixMillis, offered: VerifiedRecord) -> Result<(), PutError> {
        self.put_until(now, offered, UnixMillis(u64::MAX))
    }

    /// Stores a record that another store handed on, which says until when it keeps it itself; otherwise stores would keep a
    /// record for ever by handing it to each other.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_until(&mut self, now: UnixMillis, offered: VerifiedRecord, until: UnixMillis) -> Result<(), PutError> {
        self.drop_ended(now);
        let subject = offered.subject().clone();
        let kept_until = longest_kept(now, &offered).min(until);
        let Some(held) = self.records.get(&subject) else {
            return self.insert(subject, offered, kept_until);
        };
        let held_until = held.kept_until;
        match merge(&held.verified, offered) {
            Merge::Same => self.keep(&subject, kept_until.max(held_until)),
            Merge::Superseded => return Err(PutError::Superseded(Box::new(held.verified.record().clone()))),
            Merge::Conflict => return Err(PutError::Conflict(Box::new(held.verified.record().clone()))),
            Merge::Replace(newer) if newer.version() == held.verified.version() => {
                return self.insert(subject, *newer, kept_until.max(held_until));
            }
            Merge::Replace(newer) => return self.insert(subject, *newer, kept_until),
        }
        Ok(())
    }

    /// Whether exactly `bytes` are stored under `key`, which spares the check of a copy. If so they are kept until `until`, as
    /// by [`RecordStore::put_until`].
    pub fn holds(&mut self, now: UnixMillis, key: &RecordKey, bytes: &[u8], until: UnixMillis) -> bool {
        let Some(subject) = self.keys.get(key).cloned() else { return false };
        let Some(stored) = self.get(now, &subject).filter(|stored| stored.bytes == bytes) else { return false };
        let kept_until = longest_kept(now, &stored.verified).min(until).max(stored.kept_until);
        self.keep(&subject, kept_until);
        true
    }

    /// The record of a subject, if one is kept at `now`.
    #[must_use]
    pub fn get(&self, now: UnixMillis, subject: &Subject) -> Option<&Stored> {
        self.records.get(subject).filter(|stored| stored.kept_until > now)
    }

    /// The record under a key, if one is kept at `now`.
    #[must_use]
    pub fn get_at(&self, now: UnixMillis, key: &RecordKey) -> Option<&Stored> {
        self.get(now, self.keys.get(key)?)
    }

    /// All records, each under each of its keys.
    pub fn iter(&self) -> impl Iterator<Item = (&RecordKey, &Stored)> {
        self.keys.iter().filter_map(|(key, subject)| Some((key, self.records.get(subject)?)))
    }

    /// The first `count` keys after `last`, or from the beginning, and what lies under them: a way through the whole store in
    /// steps, which misses nothing that is there all the time.
    pub fn page(&self, last: Option<RecordKey>, count: usize) -> impl Iterator<Item = (&RecordKey, &Stored)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.keys.range((from, Bound::Unbounded)).take(count);
        keys.filter_map(|(key, subject)| Some((key, self.records.get(subject)?)))
    }

    /// Forgets what is under a key.
    pub fn remove_at(&mut self, key: &RecordKey) {
        if let Some(subject) = self.keys.get(key).cloned() {
            self.remove(&subject);
        }
    }

    /// How many subjects have a record here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True if there is no record here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Drops every record whose time has ended.
    pub fn drop_ended(&mut self, now: UnixMillis) {
        while let Some((_, subject)) = self.by_end.first().filter(|(end, _)| *end <= now).cloned() {
            self.remove(&subject);
        }
    }

    /// Drops every record that `counts` says counts no more.
    pub fn retain(&mut self, counts: impl Fn(&Stored) -> bool) {
        let gone: Vec<_> = self.records.iter().filter(|(_, stored)| !counts(stored)).map(|(subject, _)| subject.clone()).collect();
        for subject in gone {
            self.remove(&subject);
        }
    }

    fn insert(&mut self, subject: Subject, verified: VerifiedRecord, kept_until: UnixMillis) -> Result<(), PutError> {
        let known = self.records.contains_key(&subject);
        // Merged certificates may in theory be larger than either record was; what has no encoding cannot be handed on.
        let Ok(bytes) = verified.record().encode() else { return Err(PutError::Full) };
        if !known && self.records.len() >= self.len_max {
            return Err(PutError::Full);
        }
        self.remove(&subject);
        self.keys.extend(keys_of(&self.salts, &subject));
        self.by_end.insert((kept_until, subject.clone()));
        self.records.insert(subject, Stored { verified, bytes, kept_until });
        Ok(())
    }

    fn keep(&mut self, subject: &Subject, kept_until: UnixMillis) {
        if let Some(stored) = self.records.get_mut(subject) {
            self.by_end.remove(&(stored.kept_until, subject.clone()));
            stored.kept_until = kept_until;
            self.by_end.insert((kept_until, subject.clone()));
        }
    }

    fn remove(&mut self, subject: &Subject) {
        if let Some(stored) = self.records.remove(subject) {
            self.by_end.remove(&(stored.kept_until, subject.clone()));
            for (key, _) in keys_of(&self.salts, subject) {
                self.keys.remove(&key);
            }
        }
    }
}

/// The last moment to which a store keeps a record that its owner stores at `now`.
fn longest_kept(now: UnixMillis, record: &VerifiedRecord) -> UnixMillis {
    match record.content() {
        Verified::User(user) => now.plus(USER_RECORD_KEPT).min(record.not_after()).min(user.certificate.not_after),
        Verified::Presence(presence) => record.not_after().min(presence.certificate.certificate.not_after),
    }
}

fn keys_of<'a>(salts: &'a [Salt], subject: &'a Subject) -> impl Iterator<Item = (RecordKey, Subject)> + 'a {
    salts.iter().map(move |salt| (record_key(salt, subject), subject.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World};
    use ahoy_protocol::time::{DAY, HOUR};
    use proptest::prelude::*;

    fn store(world: &World, len_max: usize) -> RecordStore {
        let mut store = RecordStore::new(len_max);
        store.set_salts(&world.roster.salts_at(NOW));
        store
    }

    #[test]
    fn a_record_lies_under_its_key_and_moves_with_the_salt() {
        let mut world = World::new();
        let bob = world.user("bob", 1);
        let mut store = store(&world, 10);
        let verified = world.verified(Record::User(bob.record(1)));
        let subject = verified.subject().clone();
        let before = world.gate().keys(NOW, &subject);
        store.put(NOW, verified).expect("stored");
        assert!(store.get_at(NOW, &before[0]).is_some());
        world.change_salt(NOW);
        store.set_salts(&world.roster.salts_at(NOW));
        let after = world.gate().keys(NOW, &subject);
        assert_eq!(after.len(), 2, "both salts count for a while");
        assert!(after.iter().all(|key| store.get_at(NOW, key).is_some()));
        assert_eq!(store.iter().count(), 2);
        store.set_salts(&world.roster.salts_at(NOW.plus(2 * HOUR)));
        assert!(store.get_at(NOW, &before[0]).is_none());
    }

    #[test]
    fn a_user_record_is_kept_for_two_days_after_its_owner_stored_it() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let mut store = store(&world, 10);
        let verified = world.verified(Record::User(bob.record(1)));
        let subject = verified.subject().clone();
        store.put(NOW, verified.clone()).expect("stored");
        assert!(store.get(NOW.plus(2 * DAY).minus(HOUR), &subject).is_some());
        assert!(store.get(NOW.plus(2 * DAY), &subject).is_none());
        // Another store hands it on, and with that does not lengthen its life.
        store.put_until(NOW.plus(DAY), verified.clone(), NOW.plus(2 * DAY)).expect("stored");
        assert!(store.get(NOW.plus(2 * DAY), &subject).is_none());
        store.put(NOW.plus(DAY), verified).expect("stored");
        assert!(store.get(NOW.plus(2 * DAY), &subject).is_some());
        store.drop_ended(NOW.plus(3 * DAY));
        assert!(store.is_empty() && store.keys.is_empty() && store.by_end.is_empty());
    }

    #[test]
    fn a_copy_is_known_by_its_bytes_and_its_key() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let mut store = store(&world, 10);
        let verified = world.verified(Record::User(bob.record(1)));
        let (bytes, key) = (verified.record().encode().expect("fits"), world.gate().keys(NOW, verified.subject())[0]);
        assert!(!store.holds(NOW, &key, &bytes, NOW.plus(DAY)));
        store.put_until(NOW, verified.clone(), NOW.plus(HOUR)).expect("stored");
        assert!(!store.holds(NOW, &key, &bytes[1..], NOW.plus(DAY)));
        assert!(!store.holds(NOW, &RecordKey([0; 32]), &bytes, NOW.plus(DAY)));
        assert!(store.holds(NOW, &key, &bytes, NOW.plus(DAY)));
        assert!(store.get(NOW.plus(2 * HOUR), verified.subject()).is_some(), "kept for longer");
    }

    #[test]
    fn pages_go_through_the_whole_store() {
        let world = World::new();
        let mut store = store(&world, 10);
        for name in ["bob", "eve", "ann", "joe", "kim"] {
            store.put(NOW, world.verified(Record::User(world.user(name, 1).record(1)))).expect("stored");
        }
        let (mut last, mut seen) = (None, Vec::new());
        loop {
            let page: Vec<_> = store.page(last, 2).map(|(key, _)| *key).collect();
            let Some(end) = page.last() else { break };
            last = Some(*end);
            seen.extend(page);
        }
        assert_eq!(seen, store.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_full_store_makes_room_only_by_what_has_ended() {
        let world = World::new();
        let mut store = store(&world, 2);
        let (bob, eve, ann) = (world.user("bob", 1), world.user("eve", 1), world.user("ann", 1));
        store.put(NOW, world.verified(Record::Presence(bob.presence(0, 1)))).expect("stored");
        store.put(NOW, world.verified(Record::User(eve.record(1)))).expect("stored");
        let third = world.verified(Record::User(ann.record(1)));
        assert_eq!(store.put(NOW, third.clone()), Err(PutError::Full));
        store.put(NOW, world.verified(Record::User(eve.record(2)))).expect("a known subject finds room");
        store.put(NOW.plus(HOUR), third).expect("the presence record has ended");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn an_old_sequence_number_never_replaces_a_newer(seqs in prop::collection::vec(1_u64..1000, 1..20)) {
            let world = World::new();
            let bob = world.user("bob", 1);
            let mut store = store(&world, 4);
            let subject = Subject::Device(bob.devices[0].device_key());
            let mut highest = 0;
            for seq in seqs {
                let outcome = store.put(NOW, world.verified(Record::Presence(bob.presence(0, seq))));
                prop_assert_eq!(outcome.is_ok(), seq >= highest);
                highest = highest.max(seq);
                prop_assert_eq!(store.get(NOW, &subject).expect("kept").verified().version().seq, highest);
            }
        }
    }
}
