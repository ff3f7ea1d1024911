//! What a user's devices share: contacts, what was read, settings that follow the account.
//!
//! Each record is a set of registers of which the last write counts, by time and then by device, so that devices that wrote at once agree after they
//! have merged. A [`Cipher`] turns a record into an item of the vault, where nobody without the account secret learns what it is about.

use ahoy_identity::{aead, sha256};
use ahoy_protocol::ids::{UserKey, VaultKey};
use ahoy_protocol::letter::REQUEST_TEXT_BYTES_MAX;
use ahoy_protocol::mail::Pass;
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{Blob, DeviceKey, List, Name, Prose, Text, UnixMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest name that a user gives a contact, in bytes.
pub const ALIAS_BYTES_MAX: usize = 64;
/// Most logs of one conversation whose read marks follow the account. The other person has fewer devices.
pub const READ_MARKS_MAX: usize = 18;
/// Longest name of a setting, in bytes.
pub const SETTING_NAME_BYTES_MAX: usize = 48;
/// Longest value of a setting, in bytes.
pub const SETTING_BYTES_MAX: usize = 512;
/// Most records. What would be one more is refused, well before the supernode would.
pub const RECORDS_MAX: usize = ahoy_protocol::vault::VAULT_ITEMS_MAX / 2;
/// When a record is to be put again, if nobody said that it is kept.
const PUT_AGAIN: Duration = Duration::from_secs(60);

/// Who wrote a register, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stamp {
    at: u64,
    /// The beginning of the device's key.
    by: [u8; 8],
}

/// A register: the last write counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Register<T> {
    stamp: Stamp,
    value: T,
}

impl<T: Clone> Register<T> {
    fn set(&mut self, now: UnixMillis, device: &DeviceKey, value: T) {
        let mut by = [0; 8];
        by.copy_from_slice(&device.as_bytes()[..8]);
        self.stamp = Stamp { at: now.0.max(self.stamp.at.saturating_add(1)), by };
        self.value = value;
    }

    fn merge(&mut self, other: &Self) {
        if other.stamp > self.stamp {
            self.clone_from(other);
        }
    }
}

/// What two people are to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ContactState {
    /// Nothing.
    #[default]
    None,
    /// I have asked.
    Asked,
    /// The other has asked.
    Asking,
    /// Contacts.
    Contact,
    /// Nothing of the other is taken.
    Blocked,
}

/// Somebody, and what I know and think of him.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    name: Name,
    state: Register<ContactState>,
    key: Register<Option<UserKey>>,
    verified: Register<Option<UserKey>>,
    alias: Register<Option<Text<ALIAS_BYTES_MAX>>>,
    favourite: Register<bool>,
    given: Register<Option<Pass>>,
    held: Register<Option<Pass>>,
    request: Register<Prose<REQUEST_TEXT_BYTES_MAX>>,
}

/// A change of one register of a [`Contact`].
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    State(ContactState),
    Key(Option<UserKey>),
    Verified(Option<UserKey>),
    Alias(Option<Text<ALIAS_BYTES_MAX>>),
    Favourite(bool),
    Given(Option<Pass>),
    Held(Option<Pass>),
    Request(Prose<REQUEST_TEXT_BYTES_MAX>),
}

impl Contact {
    fn new(name: Name) -> Self {
        Self {
            name,
            state: Register::default(),
            key: Register::default(),
            verified: Register::default(),
            alias: Register::default(),
            favourite: Register::default(),
            given: Register::default(),
            held: Register::default(),
            request: Register::default(),
        }
    }

    /// His name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What we are to each other.
    #[must_use]
    pub fn state(&self) -> ContactState {
        self.state.value
    }

    /// The key that he showed first, or that I have come to trust.
    #[must_use]
    pub fn key(&self) -> Option<UserKey> {
        self.key.value
    }

    /// Whether I compared safety numbers with him under the key that he has.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified.value.is_some() && self.verified.value == self.key.value
    }

    /// What I call him.
    #[must_use]
    pub fn alias(&self) -> Option<&str> {
        self.alias.value.as_deref()
    }

    /// Whether he is a favourite.
    #[must_use]
    pub fn is_favourite(&self) -> bool {
        self.favourite.value
    }

    /// The pass with which he writes to me.
    #[must_use]
    pub fn given(&self) -> Option<Pass> {
        self.given.value
    }

    /// The pass with which I write to him.
    #[must_use]
    pub fn held(&self) -> Option<Pass> {
        self.held.value
    }

    /// What he wrote when he asked, while that has no answer.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request.value
    }

    fn edit(&mut self, now: UnixMillis, device: &DeviceKey, edit: Edit) {
        match edit {
            Edit::State(value) => self.state.set(now, device, value),
            Edit::Key(value) => self.key.set(now, device, value),
            Edit::Verified(value) => self.verified.set(now, device, value),
            Edit::Alias(value) => self.alias.set(now, device, value),
            Edit::Favourite(value) => self.favourite.set(now, device, value),
            Edit::Given(value) => self.given.set(now, device, value),
            Edit::Held(value) => self.held.set(now, device, value),
            Edit::Request(value) => self.request.set(now, device, value),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.state.merge(&other.state);
        self.key.merge(&other.key);
        self.verified.merge(&other.verified);
        self.alias.merge(&other.alias);
        self.favourite.merge(&other.favourite);
        self.given.merge(&other.given);
        self.held.merge(&other.held);
        self.request.merge(&other.request);
    }
}

/// How far logs of one conversation were read. Marks only rise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarks {
    with: Name,
    /// Ascending by device.
    marks: List<(DeviceKey, u64), READ_MARKS_MAX>,
}

impl ReadMarks {
    /// The marks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DeviceKey, u64)> {
        self.marks.iter().copied()
    }

    fn merge(&mut self, other: &[(DeviceKey, u64)]) {
        let mut marks: BTreeMap<DeviceKey, u64> = self.marks.iter().copied().collect();
        for (author, read) in other {
            let mark = marks.entry(*author).or_default();
            *mark = (*mark).max(*read);
        }
        self.marks = List::first_of(marks);
    }
}

/// A setting that follows the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    name: Text<SETTING_NAME_BYTES_MAX>,
    value: Register<Blob<SETTING_BYTES_MAX>>,
}

/// A record of the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Somebody.
    Contact(Box<Contact>),
    /// What was read.
    Read(ReadMarks),
    /// A setting.
    Setting(Setting),
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// Somebody.
    Contact(Name),
    /// What was read in the conversation with somebody.
    Read(Name),
    /// The setting of this name.
    Setting(Text<SETTING_NAME_BYTES_MAX>),
}

impl Record {
    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Contact(contact) => Subject::Contact(contact.name.clone()),
            Self::Read(marks) => Subject::Read(marks.with.clone()),
            Self::Setting(setting) => Subject::Setting(setting.name.clone()),
        }
    }

    /// What two records about the same say together.
    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Contact(one), Self::Contact(other)) => one.merge(other),
            (Self::Read(one), Self::Read(other)) => one.merge(&other.marks),
            (Self::Setting(one), Self::Setting(other)) => one.value.merge(&other.value),
            (Self::Contact(_) | Self::Read(_) | Self::Setting(_), _) => {}
        }
    }
}

/// Seals records under the account secret, and opens them.
pub struct Cipher {
    contents: Zeroizing<[u8; 32]>,
    names: Zeroizing<[u8; 32]>,
}

impl Cipher {
    /// For the account with this secret.
    #[must_use]
    pub fn new(account_secret: &[u8; 32]) -> Self {
        Self {
            contents: Zeroizing::new(sha256(&[b"ahoy/vault/contents/1\0", account_secret])),
            names: Zeroizing::new(sha256(&[b"ahoy/vault/names/1\0", account_secret])),
        }
    }

    /// Where a record about `subject` lies.
    #[must_use]
    pub fn key(&self, subject: &Subject) -> VaultKey {
        let subject = postcard::to_stdvec(subject).expect("a subject is made of bounded parts");
        // A keyed prefix is enough: half of the hash is left out, so that it cannot be continued.
        let hash = sha256(&[&*self.names, &subject]);
        let mut key = [0; VaultKey::LEN];
        key.copy_from_slice(&hash[..VaultKey::LEN]);
        VaultKey(key)
    }

    /// A record as an item. `None`: it is too long, which bounded records are not.
    #[must_use]
    pub fn seal(&self, version: u64, record: &Record) -> Option<VaultItem> {
        let key = self.key(&record.subject());
        let plain = postcard::to_stdvec(record).ok()?;
        let sealed = Blob::new(aead::seal(&self.contents, &context(&key, version), &plain))?;
        Some(VaultItem { key, version, sealed })
    }

    /// The record in an item. `None`: it is not of this account, or was moved, or given another version.
    #[must_use]
    pub fn open(&self, item: &VaultItem) -> Option<Record> {
        let plain = aead::open(&self.contents, &context(&item.key, item.version), &item.sealed)?;
        let record: Record = postcard::from_bytes(&plain).ok()?;
        (self.key(&record.subject()) == item.key).then_some(record)
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

fn context(key: &VaultKey, version: u64) -> Vec<u8> {
    [b"ahoy/vault/item/1\0".as_slice(), key.as_bytes(), &version.to_be_bytes()].concat()
}

/// A record, and what the vault has of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) record: Record,
    version: u64,
    /// When it is to be put into the vault.
    due_at: Option<UnixMillis>,
}

/// All records of the account, as this device knows them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    slots: BTreeMap<Subject, Slot>,
    changed: Vec<Subject>,
}

impl Shelf {
    pub(crate) fn contact(&self, name: &Name) -> Option<&Contact> {
        match &self.slots.get(&Subject::Contact(name.clone()))?.record {
            Record::Contact(contact) => Some(contact),
            Record::Read(_) | Record::Setting(_) => None,
        }
    }

    pub(crate) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.slots.values().filter_map(|slot| match &slot.record {
            Record::Contact(contact) => Some(&**contact),
            Record::Read(_) | Record::Setting(_) => None,
        })
    }

    pub(crate) fn setting(&self, name: &Text<SETTING_NAME_BYTES_MAX>) -> Option<&[u8]> {
        match &self.slots.get(&Subject::Setting(name.clone()))?.record {
            Record::Setting(setting) => Some(&setting.value.value),
            Record::Contact(_) | Record::Read(_) => None,
        }
    }

    pub(crate) fn read_marks(&self, with: &Name) -> impl Iterator<Item = (DeviceKey, u64)> {
        let marks = self.slots.get(&Subject::Read(with.clone())).and_then(|slot| match &slot.record {
            Record::Read(marks) => Some(marks.iter()),
            Record::Contact(_) | Record::Setting(_) => None,
        });
        marks.into_iter().flatten()
    }

    /// Writes registers of a contact. False: there is no room.
    pub(crate) fn edit_contact(&mut self, now: UnixMillis, device: &DeviceKey, name: &Name, edits: impl IntoIterator<Item = Edit>) -> bool {
        let fresh = Record::Contact(Box::new(Contact::new(name.clone())));
        self.write(now, fresh, Duration::ZERO, |record| {
            if let Record::Contact(contact) = record {
                edits.into_iter().for_each(|edit| contact.edit(now, device, edit));
            }
        })
    }

    pub(crate) fn mark_read(&mut self, now: UnixMillis, with: &Name, marks: &[(DeviceKey, u64)]) -> bool {
        let fresh = Record::Read(ReadMarks { with: with.clone(), marks: List::default() });
        self.write(now, fresh, crate::READ_MARKS_WAIT, |record| {
            if let Record::Read(read) = record {
                read.merge(marks);
            }
        })
    }

    pub(crate) fn set(
        &mut self,
        now: UnixMillis,
        device: &DeviceKey,
        name: Text<SETTING_NAME_BYTES_MAX>,
        value: Blob<SETTING_BYTES_MAX>,
    ) -> bool {
        let fresh = Record::Setting(Setting { name, value: Register::default() });
        self.write(now, fresh, Duration::ZERO, |record| {
            if let Record::Setting(setting) = record {
                setting.value.set(now, device, value);
            }
        })
    }

    fn write(&mut self, now: UnixMillis, fresh: Record, wait: Duration, change: impl FnOnce(&mut Record)) -> bool {
        let subject = fresh.subject();
        if !self.slots.contains_key(&subject) && self.slots.len() >= RECORDS_MAX {
            return false;
        }
        let slot = self.slots.entry(subject.clone()).or_insert(Slot { record: fresh, version: 0, due_at: None });
        change(&mut slot.record);
        slot.version = now.0.max(slot.version.saturating_add(1));
        slot.due_at = Some(slot.due_at.map_or(now.plus(wait), |due| due.min(now.plus(wait))));
        self.changed.push(subject);
        true
    }

    /// A record came from the vault. Gives what is known together with what was known, if it is anything new.
    pub(crate) fn handle(&mut self, now: UnixMillis, version: u64, record: Record) -> Option<Record> {
        let subject = record.subject();
        if !self.slots.contains_key(&subject) {
            if self.slots.len() >= RECORDS_MAX {
                return None;
            }
            self.changed.push(subject.clone());
            self.slots.insert(subject, Slot { record: record.clone(), version, due_at: None });
            return Some(record);
        }
        let slot = self.slots.get_mut(&subject)?;
        let before = slot.record.clone();
        slot.record.merge(&record);
        if slot.record == record {
            // The vault has all that is known here.
            if version >= slot.version {
                slot.due_at = None;
            }
        } else {
            slot.due_at.get_or_insert(now);
            slot.version = slot.version.max(version.saturating_add(1));
        }
        slot.version = slot.version.max(version);
        let merged = (slot.record != before).then(|| slot.record.clone());
        self.changed.push(subject);
        merged
    }

    /// The vault keeps a record of this version.
    pub(crate) fn handle_kept(&mut self, subject: &Subject, version: u64) {
        if let Some(slot) = self.slots.get_mut(subject)
            && slot.version == version
            && slot.due_at.take().is_some()
        {
            self.changed.push(subject.clone());
        }
    }

    /// A record that is to be put into the vault.
    pub(crate) fn poll_due(&mut self, now: UnixMillis) -> Option<(Subject, u64, Record)> {
        let (subject, slot) = self.slots.iter_mut().find(|(_, slot)| slot.due_at.is_some_and(|at| at <= now))?;
        slot.due_at = Some(now.plus(PUT_AGAIN));
        Some((subject.clone(), slot.version, slot.record.clone()))
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixMillis> {
        self.slots.values().filter_map(|slot| slot.due_at).min()
    }

    /// A slot that changed since the last time.
    pub(crate) fn poll_changed(&mut self) -> Option<(Subject, &Slot)> {
        let subject = self.changed.pop()?;
        self.changed.retain(|other| *other != subject);
        let slot = self.slots.get(&subject)?;
        Some((subject, slot))
    }

    pub(crate) fn restore(&mut self, slot: Slot) {
        self.slots.insert(slot.record.subject(), slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::ids::{PassId, PassTag};

    const ONE: DeviceKey = DeviceKey([1; 32]);
    const OTHER: DeviceKey = DeviceKey([2; 32]);

    fn bob() -> Name {
        Name::parse("bob").unwrap()
    }

    fn put(from: &mut Shelf, to: &mut Shelf, now: UnixMillis) -> usize {
        let mut count = 0;
        while let Some((subject, version, record)) = from.poll_due(now) {
            to.handle(now, version, record);
            from.handle_kept(&subject, version);
            count += 1;
        }
        count
    }

    #[test]
    fn two_devices_that_write_at_once_agree_and_then_rest() {
        let (mut one, mut other) = (Shelf::default(), Shelf::default());
        let now = UnixMillis(1000);
        one.edit_contact(now, &ONE, &bob(), [Edit::State(ContactState::Contact), Edit::Favourite(true)]);
        other.edit_contact(now, &OTHER, &bob(), [Edit::Favourite(false), Edit::Alias(Some(Text::fitting("Bobby")))]);
        let mut rounds = 0;
        while put(&mut one, &mut other, now) + put(&mut other, &mut one, now) > 0 {
            rounds += 1;
            assert!(rounds < 5, "they never rest");
        }
        assert_eq!(one.contact(&bob()), other.contact(&bob()));
        let contact = one.contact(&bob()).unwrap();
        assert_eq!((contact.state(), contact.is_favourite(), contact.alias()), (ContactState::Contact, false, Some("Bobby")));
    }

    #[test]
    fn the_longest_records_fit_into_an_item() {
        let cipher = Cipher::new(&[7; 32]);
        let name = Name::parse(&"一".repeat(Name::CHARS_MAX)).unwrap();
        let mut contact = Contact::new(name.clone());
        let pass = Pass { id: PassId([255; 16]), tag: PassTag([255; 16]) };
        let now = UnixMillis(u64::MAX - 9);
        let edits = [
            Edit::State(ContactState::Blocked),
            Edit::Key(Some(UserKey([255; 32]))),
            Edit::Verified(Some(UserKey([255; 32]))),
            Edit::Alias(Some(Text::fitting(&"x".repeat(ALIAS_BYTES_MAX)))),
            Edit::Favourite(true),
            Edit::Given(Some(pass)),
            Edit::Held(Some(pass)),
            Edit::Request(Prose::new("t".repeat(REQUEST_TEXT_BYTES_MAX)).unwrap()),
        ];
        edits.into_iter().for_each(|edit| contact.edit(now, &ONE, edit));
        assert!(cipher.seal(u64::MAX, &Record::Contact(Box::new(contact))).is_some());
        let marks = List::first_of((0..READ_MARKS_MAX).map(|_| (ONE, u64::MAX)));
        assert!(cipher.seal(u64::MAX, &Record::Read(ReadMarks { with: name, marks })).is_some());
        let value = Register { stamp: Stamp { at: u64::MAX, by: [255; 8] }, value: Blob::new(vec![1; SETTING_BYTES_MAX]).unwrap() };
        let setting = Setting { name: Text::fitting(&"n".repeat(SETTING_NAME_BYTES_MAX)), value };
        assert!(cipher.seal(u64::MAX, &Record::Setting(setting)).is_some());
    }

    #[test]
    fn an_item_opens_only_where_it_was_put_and_under_its_version() {
        let cipher = Cipher::new(&[7; 32]);
        let record = Record::Contact(Box::new(Contact::new(bob())));
        let item = cipher.seal(5, &record).unwrap();
        assert_eq!(cipher.open(&item), Some(record));
        assert_eq!(cipher.open(&VaultItem { version: 6, ..item.clone() }), None);
        assert_eq!(cipher.open(&VaultItem { key: VaultKey([0; 16]), ..item.clone() }), None);
        assert_eq!(Cipher::new(&[8; 32]).open(&item), None);
    }
}
