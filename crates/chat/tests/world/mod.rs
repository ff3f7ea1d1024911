//! Devices, mailboxes and links in virtual time. What a device keeps over a crash is what its effects said, committed one input at a time.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use ahoy_chat::vault::{Cipher, Subject};
use ahoy_chat::{Appended, Author, Chat, ChatEvent, Effect, Me, Outgoing};
use ahoy_protocol::ids::{ConversationId, PassId, PassTag};
use ahoy_protocol::mail::Pass;
use ahoy_protocol::message::{Body, Entry, EntryRef, Item, Parcel};
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{DeviceKey, Name, NetworkId, Prose, UnixMillis, UserKey};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const START: UnixMillis = UnixMillis(1_800_000_000_000);
const MAILBOXES: usize = 3;
const PUSH_MS: u64 = 25;
const POST_AGAIN_MS: u64 = 5_000;

/// A random number generator for tests.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How bad the world is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// How often a put to a mailbox is lost, in percent.
    pub put_lost: u64,
    /// How often a device crashes at an input, in ten thousandths: half of them before the commit, half after it.
    pub crash: u64,
    /// Spread of delays, in milliseconds.
    pub delay_ms: u64,
}

#[derive(Debug, Clone)]
pub struct Stored {
    pub appended: Appended,
    pub is_shown: bool,
}

#[derive(Debug, Clone)]
struct Envelope {
    id: u64,
    from: usize,
    outgoing: Outgoing,
}

/// What survives.
#[derive(Debug, Default)]
pub struct Disk {
    pub registers: BTreeMap<String, Vec<u8>>,
    pub entries: BTreeMap<(ConversationId, DeviceKey, u64), Stored>,
    outbox: BTreeMap<u64, Envelope>,
    received: BTreeSet<u64>,
}

pub struct Device {
    pub me: Me,
    pub disk: Disk,
    pub chat: Option<Chat>,
    pub is_linked: bool,
    /// What it was told, since it began; a crash may have kept some from it.
    pub told: Vec<ChatEvent>,
    has_gaps: bool,
    pub asks: Vec<(Name, Pass)>,
    pub revoked: Vec<PassId>,
    pub sent: Vec<Outgoing>,
    mailboxes: [BTreeMap<u64, Envelope>; MAILBOXES],
    wake_at: Option<UnixMillis>,
    restarts: u64,
}

#[derive(Debug)]
enum Event {
    Post { device: usize, id: u64 },
    Kept { device: usize, id: u64 },
    Push { device: usize, id: u64 },
    Wake { device: usize },
    Restart { device: usize },
    Link { device: usize },
}

pub struct World {
    pub now: UnixMillis,
    pub devices: Vec<Device>,
    pub faults: Faults,
    /// Whether no device contradicts itself.
    pub is_honest: bool,
    pub dice: Dice,
    pub inputs: u64,
    pub crashes: u64,
    pub envelopes: u64,
    /// Items sent, by kind.
    pub tally: BTreeMap<&'static str, u64>,
    records: BTreeMap<Name, BTreeSet<DeviceKey>>,
    vaults: BTreeMap<Name, BTreeMap<Subject, VaultItem>>,
    events: BTreeMap<(UnixMillis, u64), Event>,
    number: u64,
    /// Entries that were accepted: written, and committed.
    pub accepted: BTreeSet<(ConversationId, DeviceKey, u64)>,
}

pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

pub fn text(text: &str) -> Body {
    Body::Text { text: Prose::new(text.to_owned()).expect("short"), reply_to: None }
}

pub fn user_key(name: &Name) -> UserKey {
    let mut key = [7; 32];
    key[..name.as_str().len().min(32)].copy_from_slice(&name.as_str().as_bytes()[..name.as_str().len().min(32)]);
    UserKey(key)
}

pub fn pass(number: u8) -> Pass {
    Pass { id: PassId([number; 16]), tag: PassTag([number; 16]) }
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Entry { .. } => "entry",
        Item::HandedOn { .. } => "handed on",
        Item::Receipts(_) => "receipts",
        Item::Want(_) => "want",
        Item::Typing { .. } => "typing",
        Item::Presence { .. } => "presence",
        Item::Conversation(_) => "conversation",
        Item::Contact(_) => "contact",
        Item::Farewell => "farewell",
    }
}

fn cipher(name: &Name) -> Cipher {
    Cipher::new(user_key(name).as_bytes())
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: START,
            devices: Vec::new(),
            faults,
            is_honest: true,
            dice: Dice::new(seed + 1),
            inputs: 0,
            crashes: 0,
            envelopes: 0,
            tally: BTreeMap::new(),
            records: BTreeMap::new(),
            vaults: BTreeMap::new(),
            events: BTreeMap::new(),
            number: 0,
            accepted: BTreeSet::new(),
        }
    }

    /// Two people who are contacts, with two devices each: 0 and 1 are Alice's, 2 and 3 are Bob's.
    pub fn of_contacts(seed: u64, faults: Faults) -> Self {
        let mut world = Self::new(seed, Faults::default());
        for user in ["alice", "alice", "bob", "bob"] {
            world.add_device(user);
        }
        world.befriend(0, 2);
        world.run_for(Duration::from_secs(60));
        world.faults = faults;
        world
    }

    /// One asks, the other accepts.
    pub fn befriend(&mut self, one: usize, other: usize) {
        let (from, to) = (self.devices[one].me.name.clone(), self.devices[other].me.name.clone());
        let key = user_key(&to);
        self.input(one, |chat, now| chat.add(now, &to, key, pass(1), Prose::default()).expect("may ask"));
        self.run_for(Duration::from_secs(1));
        self.input(other, |chat, now| chat.accept(now, &from, pass(2)).expect("was asked"));
        self.run_for(Duration::from_secs(1));
    }

    pub fn add_device(&mut self, user: &str) -> usize {
        let index = self.devices.len();
        let name = name(user);
        let device = DeviceKey([u8::try_from(index + 1).expect("few"); 32]);
        let me = Me { network: NetworkId([5; 20]), name: name.clone(), user: user_key(&name), device };
        self.devices.push(Device {
            chat: Some(Chat::new(me.clone(), index as u64)),
            me,
            disk: Disk::default(),
            is_linked: true,
            told: Vec::new(),
            has_gaps: false,
            asks: Vec::new(),
            revoked: Vec::new(),
            sent: Vec::new(),
            mailboxes: Default::default(),
            wake_at: None,
            restarts: 0,
        });
        self.records.entry(name.clone()).or_default().insert(device);
        self.publish(&name);
        self.connect(index);
        index
    }

    pub fn remove_device(&mut self, index: usize) {
        let me = self.devices[index].me.clone();
        self.records.get_mut(&me.name).expect("a user").remove(&me.device);
        self.devices[index].chat = None;
        self.devices[index].is_linked = false;
        self.publish(&me.name);
    }

    /// All who know of somebody look him up.
    fn publish(&mut self, name: &Name) {
        for index in 0..self.devices.len() {
            let knows = self.devices[index].chat.as_ref().is_some_and(|chat| !chat.devices(name).is_empty());
            if knows || self.devices[index].me.name == *name {
                self.look_up(index, name);
            }
        }
    }

    fn look_up(&mut self, index: usize, name: &Name) {
        if !self.devices[index].is_linked {
            return;
        }
        let devices: Vec<DeviceKey> = self.records.get(name).into_iter().flatten().copied().collect();
        let (name, key) = (name.clone(), user_key(name));
        self.input(index, |chat, now| chat.set_devices(now, &name, key, &devices));
    }

    pub fn index_of(&self, device: DeviceKey) -> Option<usize> {
        self.devices.iter().position(|other| other.me.device == device)
    }

    fn author(&self, index: usize) -> Author {
        let me = &self.devices[index].me;
        Author { name: me.name.clone(), user: me.user, device: me.device }
    }

    // ---- Commands ----

    pub fn write(&mut self, index: usize, with: &str, body: Body) -> Option<EntryRef> {
        let with = name(with);
        let mut written = None;
        let is_committed = self.input(index, |chat, now| written = Some(chat.write(now, &with, body).expect("may write")));
        let entry = written.filter(|_| is_committed)?;
        let me = &self.devices[index].me;
        self.accepted.insert((ahoy_chat::conversation_id(&me.network, &me.name, &with), entry.author, entry.seq));
        Some(entry)
    }

    pub fn chat(&self, index: usize) -> &Chat {
        self.devices[index].chat.as_ref().expect("it runs")
    }

    /// One input: its effects are committed together, or not at all. True: committed.
    pub fn input(&mut self, index: usize, act: impl FnOnce(&mut Chat, UnixMillis)) -> bool {
        let now = self.now;
        let Some(chat) = self.devices[index].chat.as_mut() else { return false };
        act(chat, now);
        let effects: Vec<Effect> = std::iter::from_fn(|| chat.poll_effect()).collect();
        self.inputs += 1;
        let crashes = self.dice.below(10_000) < self.faults.crash;
        if crashes && self.dice.percent(50) {
            self.crash(index);
            return false;
        }
        let (sends, rest) = self.commit(index, effects);
        if crashes {
            self.crash(index);
            return true;
        }
        self.after_commit(index, sends, rest);
        self.arm(index);
        true
    }

    fn commit(&mut self, index: usize, effects: Vec<Effect>) -> (Vec<Envelope>, Vec<Effect>) {
        let (mut sends, mut rest, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Append(appended) => {
                    let key = (appended.entry.conversation, appended.author, appended.entry.seq);
                    if appended.is_shown && !appended.is_history {
                        counts.push(key);
                    }
                    let stored = Stored { is_shown: appended.is_shown, appended: *appended };
                    assert!(self.devices[index].disk.entries.insert(key, stored).is_none(), "device {index} keeps entry {} twice", key.2);
                }
                Effect::Show { conversation, author, first, last } => {
                    let range = (conversation, author, first)..=(conversation, author, last);
                    for (key, stored) in self.devices[index].disk.entries.range_mut(range) {
                        stored.is_shown = true;
                        counts.push(*key);
                    }
                }
                Effect::Save { key, bytes } => drop(self.devices[index].disk.registers.insert(key, bytes)),
                Effect::Send(outgoing) => {
                    self.number += 1;
                    let envelope = Envelope { id: self.number, from: index, outgoing: *outgoing };
                    if envelope.outgoing.keep {
                        self.devices[index].disk.outbox.insert(envelope.id, envelope.clone());
                    }
                    sends.push(envelope);
                }
                other => rest.push(other),
            }
        }
        self.check_order(index, &rest, counts);
        (sends, rest)
    }

    /// What counts on a device that was there from the beginning has all before it, unless the device said that something is missing.
    fn check_order(&mut self, index: usize, rest: &[Effect], counts: Vec<(ConversationId, DeviceKey, u64)>) {
        let device = &mut self.devices[index];
        device.has_gaps |= rest.iter().any(|effect| matches!(effect, Effect::Tell(ChatEvent::Gap { .. })));
        for (conversation, author, seq) in counts.into_iter().filter(|key| key.2 > 1) {
            let before = device.disk.entries.get(&(conversation, author, seq - 1));
            let is_in_order = before.is_some_and(|stored| stored.is_shown);
            assert!(is_in_order || device.has_gaps || !self.is_honest || index >= 4, "device {index} shows {seq} without the one before");
        }
    }

    fn after_commit(&mut self, index: usize, sends: Vec<Envelope>, rest: Vec<Effect>) {
        for envelope in sends {
            self.envelopes += 1;
            for item in &envelope.outgoing.parcel.0 {
                *self.tally.entry(kind(item)).or_default() += 1;
            }
            self.devices[index].sent.push(envelope.outgoing.clone());
            if envelope.outgoing.keep {
                self.schedule(0, Event::Post { device: index, id: envelope.id });
            } else {
                self.whisper(index, envelope);
            }
        }
        for effect in rest {
            match effect {
                Effect::NeedEntries(need) => {
                    let range = (need.conversation, need.author, need.first)..=(need.conversation, need.author, need.last);
                    let entries: Vec<Entry> =
                        self.devices[index].disk.entries.range(range).map(|(_, stored)| stored.appended.entry.clone()).collect();
                    self.input(index, |chat, now| chat.handle_entries(now, &need, entries));
                }
                Effect::NeedDevices(name) => self.look_up(index, &name),
                Effect::Ask { to, pass, text } => {
                    self.devices[index].asks.push((to.clone(), pass));
                    let author = self.author(index);
                    for other in self.devices_of(&to) {
                        let (author, text) = (author.clone(), text.clone());
                        self.input(other, |chat, now| chat.handle_contact_request(now, &author, text, pass));
                    }
                }
                Effect::Revoke(id) => self.devices[index].revoked.push(id),
                Effect::Vault { subject, version, record } => self.put_vault(index, subject, version, &record),
                Effect::Tell(event) => self.tell(index, event),
                Effect::MarkRead { .. } => {}
                Effect::Append(_) | Effect::Show { .. } | Effect::Save { .. } | Effect::Send(_) => unreachable!("committed"),
            }
        }
    }

    fn devices_of(&self, user: &Name) -> Vec<usize> {
        (0..self.devices.len()).filter(|index| self.devices[*index].me.name == *user).collect()
    }

    fn put_vault(&mut self, index: usize, subject: Subject, version: u64, record: &ahoy_chat::vault::Record) {
        if !self.devices[index].is_linked {
            return;
        }
        let user = self.devices[index].me.name.clone();
        let item = cipher(&user).seal(version, record).expect("fits");
        let vault = self.vaults.entry(user.clone()).or_default();
        if vault.get(&subject).is_none_or(|other| item.supersedes(other)) {
            vault.insert(subject.clone(), item);
            for other in self.devices_of(&user).into_iter().filter(|other| *other != index) {
                self.get_vault(other);
            }
        }
        self.input(index, |chat, now| chat.handle_vault_kept(now, &subject, version));
    }

    fn get_vault(&mut self, index: usize) {
        let user = self.devices[index].me.name.clone();
        if !self.devices[index].is_linked {
            return;
        }
        let items: Vec<VaultItem> = self.vaults.get(&user).into_iter().flat_map(|vault| vault.values().cloned()).collect();
        for item in items {
            let record = cipher(&user).open(&item).expect("genuine");
            self.input(index, |chat, now| chat.handle_vault(now, item.version, record));
        }
    }

    fn tell(&mut self, index: usize, event: ChatEvent) {
        if let ChatEvent::Fork { .. } = event {
            assert!(!self.is_honest, "{event:?} among honest devices");
        }
        self.devices[index].told.push(event);
    }

    // ---- Mail ----

    fn schedule(&mut self, delay_ms: u64, event: Event) {
        self.number += 1;
        let at = self.now.plus(Duration::from_millis(delay_ms));
        self.events.insert((at, self.number), event);
    }

    fn delay_ms(&mut self) -> u64 {
        PUSH_MS + if self.faults.delay_ms == 0 { 0 } else { self.dice.below(self.faults.delay_ms) }
    }

    fn whisper(&mut self, index: usize, envelope: Envelope) {
        let Some(to) = self.index_of(envelope.outgoing.to) else { return };
        if self.devices[index].is_linked && self.devices[to].is_linked && !self.dice.percent(self.faults.put_lost) {
            let id = envelope.id;
            self.devices[to].mailboxes[0].insert(id, envelope);
            let delay = 2 * PUSH_MS;
            self.schedule(delay, Event::Push { device: to, id });
        }
    }

    /// A device puts an envelope into the mailboxes of its target.
    fn post(&mut self, index: usize, id: u64) {
        let Some(envelope) = self.devices[index].disk.outbox.get(&id).cloned() else { return };
        if self.devices[index].chat.is_none() || !self.devices[index].is_linked {
            return;
        }
        let Some(to) = self.index_of(envelope.outgoing.to) else { return };
        let mut kept = 0;
        for mailbox in 0..MAILBOXES {
            if !self.dice.percent(self.faults.put_lost) {
                self.devices[to].mailboxes[mailbox].insert(id, envelope.clone());
                kept += 1;
                let delay = self.delay_ms();
                self.schedule(PUSH_MS + delay, Event::Push { device: to, id });
            }
        }
        let delay = self.delay_ms();
        if kept >= 2 {
            self.schedule(PUSH_MS + delay, Event::Kept { device: index, id })
        } else {
            self.schedule(POST_AGAIN_MS, Event::Post { device: index, id })
        }
    }

    fn receive(&mut self, index: usize, id: u64) {
        let device = &self.devices[index];
        if !device.is_linked || device.chat.is_none() {
            return;
        }
        let Some(envelope) = device.mailboxes.iter().find_map(|mailbox| mailbox.get(&id)).cloned() else { return };
        let from = self.author(envelope.from);
        let is_listed = self.records[&from.name].contains(&from.device);
        let is_new = !device.disk.received.contains(&id);
        let parcel = envelope.outgoing.parcel.clone();
        if !is_new || !is_listed || self.input(index, |chat, now| chat.handle_parcel(now, &from, parcel)) {
            self.devices[index].disk.received.insert(id);
            self.devices[index].mailboxes.iter_mut().for_each(|mailbox| drop(mailbox.remove(&id)));
        }
    }

    fn connect(&mut self, index: usize) {
        self.devices[index].is_linked = true;
        let ids: BTreeSet<u64> = self.devices[index].mailboxes.iter().flat_map(|mailbox| mailbox.keys().copied()).collect();
        for id in ids {
            let delay = self.delay_ms();
            self.schedule(delay, Event::Push { device: index, id });
        }
        let waiting: Vec<u64> = self.devices[index].disk.outbox.keys().copied().collect();
        for id in waiting {
            self.schedule(0, Event::Post { device: index, id });
        }
        self.get_vault(index);
        for known in self.records.keys().cloned().collect::<Vec<_>>() {
            let knows = self.devices[index].chat.as_ref().is_some_and(|chat| chat.contact(&known).is_some());
            if knows || self.devices[index].me.name == known {
                self.look_up(index, &known);
            }
        }
        self.input(index, |chat, now| chat.handle_connected(now));
    }

    // ---- Faults ----

    pub fn crash(&mut self, index: usize) {
        self.crashes += 1;
        self.devices[index].chat = None;
        let delay = 100 + self.dice.below(60_000);
        self.schedule(delay, Event::Restart { device: index });
    }

    pub fn restart(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.chat.is_some() {
            return;
        }
        device.restarts += 1;
        let registers = device.disk.registers.clone();
        let chat = Chat::restore(self.now, device.me.clone(), device.restarts, registers).expect("was saved");
        device.chat = Some(chat);
        device.wake_at = None;
        if device.is_linked {
            self.connect(index);
        }
        self.input(index, |_, _| {});
    }

    pub fn cut(&mut self, index: usize, duration_ms: u64) {
        self.devices[index].is_linked = false;
        self.input(index, |chat, now| chat.handle_disconnected(now));
        self.schedule(duration_ms, Event::Link { device: index });
    }

    pub fn lose_mailbox(&mut self, index: usize, mailbox: usize) {
        self.devices[index].mailboxes[mailbox % MAILBOXES].clear();
    }

    // ---- Time ----

    fn arm(&mut self, index: usize) {
        let Some(chat) = &self.devices[index].chat else { return };
        let Some(at) = chat.poll_timeout() else { return };
        let at = at.max(self.now);
        if self.devices[index].wake_at.is_none_or(|armed| at < armed) {
            self.devices[index].wake_at = Some(at);
            self.number += 1;
            self.events.insert((at, self.number), Event::Wake { device: index });
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Post { device, id } => self.post(device, id),
            Event::Kept { device, id } => {
                if self.devices[device].chat.is_some()
                    && let Some(envelope) = self.devices[device].disk.outbox.remove(&id)
                {
                    self.input(device, |chat, now| chat.handle_posted(now, envelope.outgoing.to, &envelope.outgoing.carries));
                }
            }
            Event::Push { device, id } => self.receive(device, id),
            Event::Wake { device } => {
                if self.devices[device].wake_at == Some(self.now) {
                    self.devices[device].wake_at = None;
                    self.input(device, |chat, now| {
                        if chat.poll_timeout().is_some_and(|at| at <= now) {
                            chat.handle_timeout(now);
                            assert!(chat.poll_timeout().is_none_or(|at| at > now), "nothing was done about what was due");
                        }
                    });
                }
            }
            Event::Restart { device } => self.restart(device),
            Event::Link { device } => self.connect(device),
        }
    }

    pub fn run_until(&mut self, end: UnixMillis) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now.plus(duration));
    }

    // ---- What must hold ----

    /// What a device lacks of what was accepted, or keeps back.
    pub fn lacking(&self, index: usize) -> Vec<(DeviceKey, u64)> {
        let entries = &self.devices[index].disk.entries;
        let lacks = |key: &&(ConversationId, DeviceKey, u64)| !entries.get(*key).is_some_and(|stored| stored.is_shown);
        self.accepted.iter().filter(lacks).map(|(_, author, seq)| (*author, *seq)).collect()
    }

    /// The texts of a conversation in the order in which they stand on a device.
    pub fn texts(&self, index: usize) -> Vec<String> {
        let mut shown: Vec<_> = self.devices[index].disk.entries.values().filter(|stored| stored.is_shown).collect();
        shown.sort_by_key(|stored| (stored.appended.position, stored.appended.author, stored.appended.entry.seq));
        let texts = shown.into_iter().filter_map(|stored| match &stored.appended.entry.body {
            Body::Text { text, .. } => Some(text.to_string()),
            _ => None,
        });
        texts.collect()
    }

    /// Gives a parcel to a device as if it came from another.
    pub fn forge(&mut self, to: usize, from: &Author, items: Vec<Item>) {
        let parcel = Parcel(ahoy_protocol::List::first_of(items));
        self.input(to, |chat, now| chat.handle_parcel(now, from, parcel));
    }
}
