//! One device's side of all its user's conversations: who may say what, and to which conversation it goes.

mod company;
mod contacts;

pub use contacts::ContactError;

use crate::chance::Chance;
use crate::conversation::conversation_id;
use crate::effect::{Carried, ChatEvent, DeliveryState, Effect, Need, Outgoing, Side};
use crate::log::Proof;
use crate::outbox::{Outbox, pack};
use crate::people::{Held, Person};
use crate::presence::Presence;
use crate::thread::{Scene, Thread};
use crate::vault::{Contact, ContactState, Shelf, Slot, Subject};
use crate::{ANNOUNCEMENTS, CONVERSATIONS_MAX, ITEMS_HELD_MAX, RECEIPT_WAIT, WANT_AGAIN, WANTS_ANSWERED_MAX};
use ahoy_protocol::ids::ConversationId;
use ahoy_protocol::mail::Permit;
use ahoy_protocol::message::{Body, Entry, EntryRef, Gap, Item, Parcel, Status};
use ahoy_protocol::record::DEVICES_MAX;
use ahoy_protocol::{DeviceKey, Name, NetworkId, Text, UnixMillis, UserKey};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most people of whom anything is remembered: contacts, and those with whom there was a conversation.
const PEOPLE_MAX: usize = 2 * CONVERSATIONS_MAX;
/// The setting that says whether others are told what was read: 0 is no.
const READ_RECEIPTS: &str = "read-receipts";
/// What the keys of all registers begin with.
pub const REGISTERS: &str = "chat/";
/// The version of all registers, their first byte.
const REGISTER_VERSION: u8 = 1;

/// Whose device this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The network, in which names are unique.
    pub network: NetworkId,
    /// My name.
    pub name: Name,
    /// My user key.
    pub user: UserKey,
    /// This device.
    pub device: DeviceKey,
}

/// From whom something came, as certificates and ratchet prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The user's name.
    pub name: Name,
    /// The user's key.
    pub user: UserKey,
    /// The device.
    pub device: DeviceKey,
}

/// Why something cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The two are no contacts.
    #[error("you can write to contacts only; add them first")]
    NotAContact,
    /// The other person shows a key that nobody vouches for.
    #[error("the key of this contact has changed; compare safety numbers, then trust the new key to go on")]
    KeyChanged,
    /// There is no such message in the conversation.
    #[error("there is no such message in this conversation")]
    NoSuchMessage,
    /// It is somebody else's.
    #[error("only your own messages can be edited or deleted")]
    NotYours,
    /// It does not fit into an entry.
    #[error("the message is too long")]
    TooLong,
    /// There are too many conversations.
    #[error("there are too many conversations")]
    TooMany,
}

/// A register that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the saved register {key} cannot be read")]
pub struct RestoreError {
    /// Its key.
    pub key: String,
}

/// How many wants of a device are answered.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: UnixMillis,
}

impl Allowance {
    fn take(&mut self, now: UnixMillis) -> bool {
        let earned = now.since(self.since).as_millis() / WANT_AGAIN.as_millis();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(WANTS_ANSWERED_MAX);
            self.since = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

/// Which of the announcements another device of mine hears next, and when.
type Announcing = BTreeMap<DeviceKey, (u8, UnixMillis)>;

/// One device's side of all conversations.
#[derive(Debug)]
pub struct Chat {
    me: Me,
    threads: BTreeMap<ConversationId, Thread>,
    people: BTreeMap<Name, Person>,
    shelf: Shelf,
    presence: Presence,
    announcing: Announcing,
    /// When receipts are sent, if any are owed.
    receipts_at: Option<UnixMillis>,
    allowances: BTreeMap<DeviceKey, Allowance>,
    /// Devices whose entries were not taken because their users were no contacts.
    turned_away: BTreeSet<DeviceKey>,
    out: Outbox,
    chance: Chance,
    dirty_threads: BTreeSet<ConversationId>,
    dirty_people: BTreeSet<Name>,
    is_announcing_dirty: bool,
}

impl Chat {
    /// A device on which nothing has happened.
    #[must_use]
    pub fn new(me: Me, seed: u64) -> Self {
        let people = BTreeMap::from([(me.name.clone(), Person::default())]);
        Self {
            me,
            threads: BTreeMap::new(),
            people,
            shelf: Shelf::default(),
            presence: Presence::new(),
            announcing: Announcing::new(),
            receipts_at: None,
            allowances: BTreeMap::new(),
            turned_away: BTreeSet::new(),
            out: Outbox::default(),
            chance: Chance::new(seed),
            dirty_threads: BTreeSet::new(),
            dirty_people: BTreeSet::new(),
            is_announcing_dirty: false,
        }
    }

    /// A device that goes on from the registers that were saved.
    ///
    /// # Errors
    /// [`RestoreError`] if one of them is not what this program saves.
    pub fn restore(
        now: UnixMillis,
        me: Me,
        seed: u64,
        registers: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, RestoreError> {
        let mut chat = Self::new(me, seed);
        for (key, bytes) in registers {
            if chat.restore_register(&key, &bytes).is_none() {
                return Err(RestoreError { key });
            }
        }
        chat.threads.values_mut().for_each(|thread| thread.handle_clock(now));
        if chat.threads.values().any(Thread::owes_receipts) {
            chat.receipts_at = Some(now);
        }
        let unknown: Vec<Name> = chat
            .people
            .iter()
            .filter(|(name, person)| person.devices.is_empty() && **name != chat.me.name)
            .map(|(name, _)| name.clone())
            .collect();
        for name in unknown {
            chat.need_devices(now, &name);
        }
        Ok(chat)
    }

    fn restore_register(&mut self, key: &str, bytes: &[u8]) -> Option<()> {
        let (&REGISTER_VERSION, bytes) = bytes.split_first()? else { return None };
        let key = key.strip_prefix(REGISTERS)?;
        match key.split_once('/').map_or((key, ""), |parts| parts) {
            ("thread", id) => drop(self.threads.insert(ConversationId::from_hex(id)?, postcard::from_bytes(bytes).ok()?)),
            ("person", name) => drop(self.people.insert(Name::parse(name).ok()?, postcard::from_bytes(bytes).ok()?)),
            ("vault", _) => self.shelf.restore(postcard::from_bytes::<Slot>(bytes).ok()?),
            ("announcing", _) => self.announcing = postcard::from_bytes(bytes).ok()?,
            _ => return None,
        }
        Some(())
    }

    /// The conversation with somebody.
    #[must_use]
    pub fn conversation(&self, with: &Name) -> ConversationId {
        conversation_id(&self.me.network, &self.me.name, with)
    }

    /// With whom a conversation is.
    #[must_use]
    pub fn with(&self, conversation: &ConversationId) -> Option<&Name> {
        Some(&self.threads.get(conversation)?.with)
    }

    /// What is known of somebody.
    #[must_use]
    pub fn contact(&self, name: &Name) -> Option<&Contact> {
        self.shelf.contact(name)
    }

    /// All of whom anything is known.
    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.shelf.contacts()
    }

    /// Somebody's devices, as far as they were looked up; of oneself, the others.
    #[must_use]
    pub fn devices(&self, name: &Name) -> &[DeviceKey] {
        self.people.get(name).map_or(&[], |person| &person.devices)
    }

    /// How a contact is.
    #[must_use]
    pub fn status_of(&self, name: &Name) -> Status {
        self.presence.status_of(name)
    }

    /// How far an own entry has got.
    #[must_use]
    pub fn state(&self, with: &Name, entry: EntryRef) -> DeliveryState {
        let thread = self.threads.get(&self.conversation(with));
        thread.map_or(DeliveryState::Waiting, |thread| thread.state(self.me.device, entry))
    }

    /// A setting that follows the account.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&[u8]> {
        self.shelf.setting(&Text::new(name.to_owned())?)
    }

    fn tells_read(&self) -> bool {
        self.setting(READ_RECEIPTS) != Some(&[0])
    }

    fn state_of(&self, name: &Name) -> ContactState {
        self.shelf.contact(name).map_or(ContactState::None, Contact::state)
    }

    /// Whether anything may be sent to somebody else.
    fn is_open(&self, with: &Name) -> bool {
        let is_contact =
            self.shelf.contact(with).is_some_and(|contact| contact.state() == ContactState::Contact && contact.held().is_some());
        is_contact && !self.people.get(with).is_some_and(|person| person.has_changed_key)
    }

    /// Does something in a conversation that there is.
    fn in_thread<R>(&mut self, now: UnixMillis, id: ConversationId, act: impl FnOnce(&mut Thread, &mut Scene<'_>) -> R) -> Option<R> {
        let with = self.threads.get(&id)?.with.clone();
        let (is_open, tells_read) = (self.is_open(&with), self.tells_read());
        let thread = self.threads.get_mut(&id)?;
        let devices_of = |name: &Name| self.people.get(name).map_or(&[][..], |person| &person.devices);
        let mut scene = Scene {
            now,
            me: &self.me,
            id,
            mine: devices_of(&self.me.name),
            theirs: if with == self.me.name { &[] } else { devices_of(&with) },
            is_open,
            tells_read,
            out: &mut self.out,
            chance: &mut self.chance,
        };
        self.dirty_threads.insert(id);
        Some(act(thread, &mut scene))
    }

    /// The conversation with somebody, begun if need be. `None`: there are too many.
    fn open_thread(&mut self, now: UnixMillis, with: &Name) -> Option<ConversationId> {
        let id = self.conversation(with);
        if !self.threads.contains_key(&id) {
            if self.threads.len() >= CONVERSATIONS_MAX {
                return None;
            }
            self.threads.insert(id, Thread::new(with.clone()));
            self.in_thread(now, id, |thread, scene| thread.sync_devices(scene));
            self.apply_read_marks(now, with);
        }
        Some(id)
    }

    /// Writes an entry. It is accepted once the effects are durable.
    ///
    /// # Errors
    /// See [`WriteError`]; its messages are meant for the user.
    pub fn write(&mut self, now: UnixMillis, with: &Name, body: Body) -> Result<EntryRef, WriteError> {
        if *with != self.me.name {
            if self.people.get(with).is_some_and(|person| person.has_changed_key) {
                return Err(WriteError::KeyChanged);
            }
            if !self.is_open(with) {
                return Err(WriteError::NotAContact);
            }
        }
        let id = self.open_thread(now, with).ok_or(WriteError::TooMany)?;
        if self.devices(with).is_empty() && *with != self.me.name {
            self.need_devices(now, with);
        }
        let written = self.in_thread(now, id, |thread, scene| thread.write(scene, body));
        self.presence.poll_typing(now, with, false);
        self.settle(now);
        written.expect("the conversation was just opened")
    }

    /// The user has read a log of the conversation with somebody up to an entry.
    pub fn mark_read(&mut self, now: UnixMillis, with: &Name, upto: EntryRef) {
        let id = self.conversation(with);
        if self.in_thread(now, id, |thread, scene| thread.mark_read(scene, upto)) == Some(true) {
            let marks: Vec<_> =
                self.threads.get(&id).into_iter().flat_map(Thread::readable).map(|(last, read)| (last.author, read)).collect();
            self.shelf.mark_read(now, with, &marks);
        }
        self.settle(now);
    }

    /// The user has read all of the conversation with somebody that counts.
    pub fn mark_all_read(&mut self, now: UnixMillis, with: &Name) {
        let id = self.conversation(with);
        let unread: Vec<EntryRef> = self
            .threads
            .get(&id)
            .into_iter()
            .flat_map(Thread::readable)
            .filter(|(last, read)| last.seq > *read)
            .map(|(last, _)| last)
            .collect();
        for last in unread {
            self.mark_read(now, with, last);
        }
    }

    /// A parcel came. That it is from this device of this user was checked; that the device is one that counts is checked here.
    pub fn handle_parcel(&mut self, now: UnixMillis, from: &Author, parcel: Parcel) {
        if from.device != self.me.device && self.is_genuine(from) {
            if self.devices(&from.name).contains(&from.device) {
                self.handle_sign_of_life(&from.name);
                for item in parcel.0 {
                    self.handle_item(now, from, item);
                }
            } else {
                self.hold(now, from, parcel);
            }
        }
        self.settle(now);
    }

    /// Whether the key is the one that is known, and its user is heard at all.
    fn is_genuine(&mut self, from: &Author) -> bool {
        if from.name == self.me.name {
            return from.user == self.me.user;
        }
        if self.state_of(&from.name) == ContactState::Blocked {
            return false;
        }
        self.check_key(&from.name, from.user)
    }

    /// Whether a key is the one that is known of somebody. If not, the user is warned, and nothing is sent to him.
    fn check_key(&mut self, name: &Name, key: UserKey) -> bool {
        let pinned = self.shelf.contact(name).and_then(Contact::key);
        let is_known = pinned.is_none_or(|pinned| pinned == key);
        if !is_known && self.state_of(name) != ContactState::None && !self.person(name).is_some_and(|person| person.has_changed_key) {
            if let Some(person) = self.person(name) {
                person.has_changed_key = true;
            }
            self.out.tell(ChatEvent::KeyChanged(name.clone()));
        }
        is_known
    }

    /// What is remembered of somebody, to be changed. `None`: there are too many people.
    fn person(&mut self, name: &Name) -> Option<&mut Person> {
        if !self.people.contains_key(name) && self.people.len() >= PEOPLE_MAX {
            return None;
        }
        self.dirty_people.insert(name.clone());
        Some(self.people.entry(name.clone()).or_default())
    }

    fn need_devices(&mut self, now: UnixMillis, name: &Name) {
        if self.person(name).is_some_and(|person| person.poll_look_up(now)) {
            self.out.push(Effect::NeedDevices(name.clone()));
        }
    }

    fn hold(&mut self, now: UnixMillis, from: &Author, parcel: Parcel) {
        let is_stranger = from.name != self.me.name && self.state_of(&from.name) == ContactState::None;
        if is_stranger {
            return;
        }
        self.need_devices(now, &from.name);
        if let Some(person) = self.people.get_mut(&from.name) {
            for item in parcel.0 {
                person.hold(Held { user: from.user, device: from.device, item });
            }
        }
    }

    fn handle_sign_of_life(&mut self, name: &Name) {
        if self.people.get_mut(name).is_some_and(Person::handle_sign_of_life) {
            self.dirty_people.insert(name.clone());
        }
    }

    fn handle_item(&mut self, now: UnixMillis, from: &Author, item: Item) {
        let is_own = from.name == self.me.name;
        if !is_own && let Item::Contact(news) = item {
            self.handle_contact_news(now, &from.name, &news);
            return;
        }
        if !is_own && self.state_of(&from.name) != ContactState::Contact {
            if matches!(item, Item::Entry { .. }) && self.turned_away.len() < ITEMS_HELD_MAX {
                self.turned_away.insert(from.device);
            }
            return;
        }
        match item {
            Item::Entry { first, entry } => self.handle_entry(now, from, first, entry),
            Item::HandedOn { author, user, entries } => self.handle_handed_on(now, from, author, &user, entries.into_vec()),
            Item::Receipts(receipts) => {
                for receipt in receipts {
                    self.heard_in(now, from, receipt.conversation, |thread, scene, side| {
                        thread.handle_receipt(scene, from.device, side, &receipt);
                    });
                }
            }
            Item::Want(gap) => self.handle_want(now, from, gap),
            Item::Conversation(with) if is_own => drop(self.open_thread(now, &with)),
            Item::Presence { status, answer } => self.handle_presence(now, from, status, answer),
            Item::Typing { conversation, on } if !is_own && conversation == self.conversation(&from.name) => {
                let mut events = Vec::new();
                self.presence.hear_typing(now, &from.name, from.device, on, &mut events);
                events.into_iter().for_each(|event| self.out.tell(event));
            }
            // Leaving an account is the directory's word to believe, and what a device tells itself about contacts comes by the vault.
            Item::Conversation(_) | Item::Typing { .. } | Item::Contact(_) | Item::Farewell => {}
        }
    }

    /// Does something in the conversation of which somebody speaks, if he takes part in it.
    fn heard_in(&mut self, now: UnixMillis, from: &Author, id: ConversationId, act: impl FnOnce(&mut Thread, &mut Scene<'_>, Side)) {
        let side = if from.name == self.me.name { Side::Mine } else { Side::Theirs };
        if side == Side::Mine || id == self.conversation(&from.name) {
            self.in_thread(now, id, |thread, scene| act(thread, scene, side));
        }
    }

    fn handle_entry(&mut self, now: UnixMillis, from: &Author, first: u64, entry: Entry) {
        let id = entry.conversation;
        if id == self.conversation(&from.name) {
            let _ = self.open_thread(now, &from.name);
        }
        self.heard_in(now, from, id, |thread, scene, side| thread.handle_entry(scene, from.device, side, first, entry));
        let mut events = Vec::new();
        self.presence.hear_typing(now, &from.name, from.device, false, &mut events);
        events.into_iter().for_each(|event| self.out.tell(event));
    }

    fn handle_handed_on(&mut self, now: UnixMillis, from: &Author, author: DeviceKey, user: &Name, entries: Vec<Entry>) {
        let Some(id) = entries.first().map(|entry| entry.conversation) else { return };
        let entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.conversation == id).collect();
        let side = if *user == self.me.name { Side::Mine } else { Side::Theirs };
        let proof = match (from.name == self.me.name, from.device == author) {
            (true, _) => Proof::OwnDevice,
            (false, true) => Proof::Author,
            (false, false) => Proof::Chain,
        };
        let is_of_two = *user == self.me.name || self.threads.get(&id).is_some_and(|thread| thread.with == *user);
        if is_of_two {
            self.heard_in(now, from, id, |thread, scene, _| thread.handle_handed_on(scene, proof, author, side, entries));
        }
    }

    fn handle_want(&mut self, now: UnixMillis, from: &Author, gap: Gap) {
        // Only devices that the directory knows come here, so that this table is bounded by theirs.
        let allowance = self.allowances.entry(from.device).or_insert(Allowance { left: WANTS_ANSWERED_MAX, since: now });
        if from.name == self.me.name || allowance.take(now) {
            self.heard_in(now, from, gap.conversation, |thread, scene, side| thread.handle_want(scene, from.device, side, gap));
        }
    }

    /// The archive gave what was needed: the entries from `need.first` on, as many as there are and fit into a message.
    pub fn handle_entries(&mut self, now: UnixMillis, need: &Need, entries: Vec<Entry>) {
        self.in_thread(now, need.conversation, |thread, scene| thread.handle_entries(scene, need, entries));
        self.settle(now);
    }

    /// Two mailboxes keep what was sent to a device, or all that there are.
    pub fn handle_posted(&mut self, now: UnixMillis, to: DeviceKey, carries: &[Carried]) {
        for carried in carries {
            self.in_thread(now, carried.conversation, |thread, scene| thread.handle_posted(scene, to, *carried));
        }
        self.settle(now);
    }

    /// Somebody's devices are these, as his user key says; or one's own.
    pub fn set_devices(&mut self, now: UnixMillis, name: &Name, user: UserKey, devices: &[DeviceKey]) {
        if *name == self.me.name {
            self.me.user = user;
        } else if !self.check_key(name, user) {
            self.settle(now);
            return;
        }
        let me = self.me.device;
        let devices: Vec<DeviceKey> = devices.iter().copied().filter(|device| *device != me).take(DEVICES_MAX).collect();
        let Some(person) = self.person(name) else { return };
        let before = std::mem::replace(&mut person.devices, devices.clone());
        let held = person.take_held();
        if *name == self.me.name {
            self.handle_own_devices(now, &before, &devices);
        } else {
            self.forget_devices(name, &devices);
        }
        self.allowances.retain(|device, _| self.people.values().any(|person| person.devices.contains(device)));
        let concerned: Vec<ConversationId> = self
            .threads
            .iter()
            .filter(|(_, thread)| before != devices && (*name == self.me.name || thread.with == *name))
            .map(|(id, _)| *id)
            .collect();
        for id in concerned {
            self.in_thread(now, id, |thread, scene| {
                thread.sync_devices(scene);
                thread.review_all(scene);
            });
        }
        for Held { user, device, item } in held {
            if devices.contains(&device) {
                self.handle_item(now, &Author { name: name.clone(), user, device }, item);
            }
        }
        self.tell_news(now, name);
        self.settle(now);
    }

    fn handle_own_devices(&mut self, now: UnixMillis, before: &[DeviceKey], devices: &[DeviceKey]) {
        self.announcing.retain(|device, _| devices.contains(device));
        for device in devices.iter().filter(|device| !before.contains(device)) {
            self.announcing.insert(*device, (0, now));
        }
        self.is_announcing_dirty = true;
    }

    fn announce(&mut self, now: UnixMillis) {
        let due: Vec<_> = self.announcing.iter().filter(|(_, (_, at))| *at <= now).map(|(to, (told, _))| (*to, *told)).collect();
        for (to, told) in due {
            let ids: Vec<ConversationId> = self.threads.keys().copied().collect();
            for id in ids {
                self.in_thread(now, id, |thread, scene| thread.announce(scene, to));
            }
            match ANNOUNCEMENTS.get(usize::from(told) + 1) {
                Some(wait) => drop(self.announcing.insert(to, (told + 1, now.plus(*wait)))),
                None => drop(self.announcing.remove(&to)),
            }
            self.is_announcing_dirty = true;
        }
    }

    /// The time came that [`Self::poll_timeout`] gave.
    pub fn handle_timeout(&mut self, now: UnixMillis) {
        self.announce(now);
        self.send_receipts(now);
        let due: Vec<ConversationId> =
            self.threads.keys().copied().filter(|id| self.thread_timeout(id).is_some_and(|at| at <= now)).collect();
        for id in due {
            self.in_thread(now, id, |thread, scene| thread.handle_timeout(scene));
        }
        let with_news: Vec<Name> = self
            .people
            .iter()
            .filter(|(_, person)| person.poll_timeout().is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in with_news {
            self.tell_news(now, &name);
        }
        let mut events = Vec::new();
        if self.presence.handle_timeout(now, &mut events) {
            let status = self.presence.status;
            for (device, name) in self.presence.online() {
                self.out.whisper(device, &name, Item::Presence { status, answer: false }, None);
            }
        }
        events.into_iter().for_each(|event| self.out.tell(event));
        self.settle(now);
    }

    fn send_receipts(&mut self, now: UnixMillis) {
        if self.receipts_at.is_none_or(|at| now < at) {
            return;
        }
        self.receipts_at = None;
        let owing: Vec<ConversationId> = self.threads.iter().filter(|(_, thread)| thread.owes_receipts()).map(|(id, _)| *id).collect();
        for id in owing {
            self.in_thread(now, id, |thread, scene| thread.send_receipts(scene));
        }
    }

    fn thread_timeout(&self, id: &ConversationId) -> Option<UnixMillis> {
        let thread = self.threads.get(id)?;
        let (mine, is_open) = (self.devices(&self.me.name), self.is_open(&thread.with));
        thread.poll_timeout(|device| is_open || mine.contains(device))
    }

    /// When [`Self::handle_timeout`] is to be called, in the past or not.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixMillis> {
        let threads = self.threads.keys().filter_map(|id| self.thread_timeout(id));
        let people = self.people.values().filter_map(Person::poll_timeout);
        let announcing = self.announcing.values().map(|(_, at)| *at);
        let single = [self.receipts_at, self.shelf.poll_timeout(), self.presence.poll_timeout()].into_iter().flatten();
        threads.chain(people).chain(announcing).chain(single).min()
    }

    /// The next of the effects of what went in. They are one transaction.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.effects.pop_front()
    }

    /// Turns what an input left into effects.
    fn settle(&mut self, now: UnixMillis) {
        if std::mem::take(&mut self.out.owes_receipts) && self.receipts_at.is_none() {
            self.receipts_at = Some(now.plus(RECEIPT_WAIT));
        }
        for ((to, user, keep), posts) in self.out.take_posts() {
            let is_own = user == self.me.name;
            let permit = if is_own { Some(Permit::Own) } else { self.shelf.contact(&user).and_then(Contact::held).map(Permit::Pass) };
            let Some(permit) = permit else { continue };
            for (parcel, carries) in pack(posts, is_own) {
                self.out.push(Effect::Send(Box::new(Outgoing { to, user: user.clone(), permit, parcel, keep, carries })));
            }
        }
        while let Some((subject, version, record)) = self.shelf.poll_due(now) {
            self.out.push(Effect::Vault { subject, version, record: Box::new(record) });
        }
        self.save();
    }

    fn save(&mut self) {
        while let Some((subject, slot)) = self.shelf.poll_changed() {
            let key = match subject {
                Subject::Contact(name) => format!("{REGISTERS}vault/contact/{name}"),
                Subject::Read(name) => format!("{REGISTERS}vault/read/{name}"),
                Subject::Setting(name) => format!("{REGISTERS}vault/setting/{name}"),
            };
            self.out.push(Effect::Save { key, bytes: register(slot) });
        }
        for id in std::mem::take(&mut self.dirty_threads) {
            if let Some(thread) = self.threads.get(&id) {
                self.out.push(Effect::Save { key: format!("{REGISTERS}thread/{id}"), bytes: register(thread) });
            }
        }
        for name in std::mem::take(&mut self.dirty_people) {
            if let Some(person) = self.people.get(&name) {
                self.out.push(Effect::Save { key: format!("{REGISTERS}person/{name}"), bytes: register(person) });
            }
        }
        if std::mem::take(&mut self.is_announcing_dirty) {
            self.out.push(Effect::Save { key: format!("{REGISTERS}announcing"), bytes: register(&self.announcing) });
        }
    }
}

fn register<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![REGISTER_VERSION]).expect("registers have no parts that cannot be encoded")
}
