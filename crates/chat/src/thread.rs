//! One conversation: this device's log, the logs of all others that take part, and who has what.

mod missing;
mod receipts;

use crate::chance::Chance;
use crate::chat::{Me, WriteError};
use crate::conversation::{NO_ENTRY, entry_hash};
use crate::delivery::Delivery;
use crate::effect::{Appended, Carried, Change, ChatEvent, DeliveryState, Effect, Need, Purpose, Side};
use crate::log::{Log, Proof, SEQ_MAX, Verdict};
use crate::outbox::{Outbox, Post};
use crate::ranges::Ranges;
use crate::{BACK_OFF_MAX, CHANGES_WAITING_MAX, GAP_SHOWN, LOGS_MAX};
use ahoy_protocol::ids::{ConversationId, EntryHash};
use ahoy_protocol::message::{Body, Entry, EntryRef, Item};
use ahoy_protocol::{DeviceKey, Name, UnixMillis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a conversation takes place: who is there, and where effects go.
pub(crate) struct Scene<'a> {
    pub(crate) now: UnixMillis,
    pub(crate) me: &'a Me,
    pub(crate) id: ConversationId,
    /// My other devices.
    pub(crate) mine: &'a [DeviceKey],
    /// The other person's; nobody's in a conversation with oneself.
    pub(crate) theirs: &'a [DeviceKey],
    /// Whether anything may be sent to the other person.
    pub(crate) is_open: bool,
    /// Whether the other person is told what was read.
    pub(crate) tells_read: bool,
    pub(crate) out: &'a mut Outbox,
    pub(crate) chance: &'a mut Chance,
}

impl Scene<'_> {
    fn may_send(&self, device: &DeviceKey) -> bool {
        self.mine.contains(device) || (self.is_open && self.theirs.contains(device))
    }
}

/// An entry that changes a message, and is not yet told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    message: EntryRef,
    by: EntryRef,
    change: Change,
}

/// What another device of the user said of a log that may not be here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Announced {
    have: u64,
    read: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thread {
    pub(crate) with: Name,
    /// The last entry of this device's log, its hash, and when it was written.
    last: u64,
    hash: EntryHash,
    written: UnixMillis,
    /// How far this device's log has got with the other person.
    network: Ranges,
    delivered: u64,
    seen: u64,
    is_rolled_back: bool,
    logs: BTreeMap<DeviceKey, Log>,
    deliveries: BTreeMap<DeviceKey, Delivery>,
    announced: BTreeMap<DeviceKey, Announced>,
    #[serde(skip)]
    waiting: Vec<Waiting>,
}

impl Thread {
    pub(crate) fn new(with: Name) -> Self {
        Self {
            with,
            last: 0,
            hash: NO_ENTRY,
            written: UnixMillis(0),
            network: Ranges::default(),
            delivered: 0,
            seen: 0,
            is_rolled_back: false,
            logs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            announced: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// The devices that take part have changed, or the conversation begins.
    pub(crate) fn sync_devices(&mut self, scene: &Scene<'_>) {
        self.deliveries.retain(|device, _| scene.mine.contains(device) || scene.theirs.contains(device));
        for device in scene.theirs {
            // What no device of the other person has, a new one is owed.
            let first = self.delivered + 1;
            self.deliveries.entry(*device).or_insert_with(|| Delivery::new(first, scene.now));
        }
        for device in scene.mine {
            let first = self.last + 1;
            self.deliveries.entry(*device).or_insert_with(|| Delivery::new(first, scene.now));
        }
    }

    pub(crate) fn write(&mut self, scene: &mut Scene<'_>, body: Body) -> Result<EntryRef, WriteError> {
        self.check(scene, &body)?;
        let written = scene.now.max(self.written);
        let entry = Entry { conversation: scene.id, seq: self.last + 1, prev: self.hash, written, body };
        let author = scene.me.device;
        let hash = entry_hash(&author, &entry).map_err(|_| WriteError::TooLong)?;
        (self.last, self.hash, self.written) = (entry.seq, hash, written);
        for (device, delivery) in &mut self.deliveries {
            if scene.may_send(device) && delivery.is_next(entry.seq) {
                delivery.handle_sent(scene.now, entry.seq, scene.chance);
                post_entry(scene, &self.with, *device, delivery.first, entry.clone());
            }
        }
        let by = EntryRef { author, seq: entry.seq };
        self.note_change(by, &entry.body);
        self.append(scene, author, Side::Mine, entry, hash, (true, false));
        self.tell_shown(scene, author, Side::Mine, (by.seq, by.seq), false);
        self.tell_state(scene, author, by.seq, by.seq, DeliveryState::Waiting);
        if self.is_note(scene) && scene.mine.is_empty() {
            // There is nobody to deliver it to.
            (self.delivered, self.seen) = (self.last, self.last);
            self.tell_state(scene, author, by.seq, by.seq, DeliveryState::Read);
        }
        Ok(by)
    }

    fn check(&self, scene: &Scene<'_>, body: &Body) -> Result<(), WriteError> {
        let (message, is_own_needed) = match body {
            Body::Text { reply_to: Some(message), .. } | Body::Reaction { to: message, .. } => (message, false),
            Body::Edit { of, .. } | Body::Delete { of } => (of, true),
            Body::Text { reply_to: None, .. } | Body::File(_) | Body::Voice { .. } => return Ok(()),
        };
        if !self.is_here(scene, *message) {
            return Err(WriteError::NoSuchMessage);
        }
        if is_own_needed && self.side(scene, message.author) != Some(Side::Mine) {
            return Err(WriteError::NotYours);
        }
        Ok(())
    }

    fn is_note(&self, scene: &Scene<'_>) -> bool {
        self.with == scene.me.name
    }

    fn side(&self, scene: &Scene<'_>, author: DeviceKey) -> Option<Side> {
        if author == scene.me.device { Some(Side::Mine) } else { Some(self.logs.get(&author)?.side) }
    }

    fn is_here(&self, scene: &Scene<'_>, entry: EntryRef) -> bool {
        if entry.author == scene.me.device {
            return (1..=self.last).contains(&entry.seq);
        }
        self.logs.get(&entry.author).is_some_and(|log| log.is_shown(entry.seq))
    }

    /// An entry came from its author, who owes this device those from `first` on.
    pub(crate) fn handle_entry(&mut self, scene: &mut Scene<'_>, author: DeviceKey, side: Side, first: u64, entry: Entry) {
        if first == 0 || first > entry.seq || entry.seq > SEQ_MAX {
            return;
        }
        let Some(log) = self.log(author, side) else { return };
        let from_floor = log.handle_floor(first);
        log.owes_receipt = true;
        scene.out.owes_receipts = true;
        if let Some((first, last)) = from_floor {
            self.show(scene, author, first, last);
            self.tell_shown(scene, author, side, (first, last), false);
        }
        if let Some(range) = self.take(scene, author, entry, Proof::Author) {
            self.tell_shown(scene, author, side, range, false);
        }
        self.apply_announced_read(scene, author);
        self.review(scene, author);
    }

    /// Entries of another's log came from a device that is not their author, or is, on request.
    pub(crate) fn handle_handed_on(&mut self, scene: &mut Scene<'_>, proof: Proof, author: DeviceKey, side: Side, entries: Vec<Entry>) {
        let is_known = self.logs.contains_key(&author);
        if author == scene.me.device || (!is_known && proof != Proof::OwnDevice) {
            return;
        }
        let Some(log) = self.log(author, side) else { return };
        let (side, mut shown) = (log.side, Vec::new());
        // Backwards, since the later one proves the earlier.
        for entry in entries.into_iter().rev() {
            shown.extend(self.take(scene, author, entry, proof));
        }
        for range in joined(shown) {
            let is_history = self.logs.get(&author).is_some_and(|log| log.is_history(range.1));
            self.tell_shown(scene, author, side, range, is_history);
        }
        if let Some(log) = self.logs.get_mut(&author)
            && log.has_owed()
        {
            log.owes_receipt = true;
            scene.out.owes_receipts = true;
        }
        self.apply_announced_read(scene, author);
        self.review(scene, author);
    }

    /// Takes one entry; gives what counts because of it.
    fn take(&mut self, scene: &mut Scene<'_>, author: DeviceKey, entry: Entry, proof: Proof) -> Option<(u64, u64)> {
        let seq = entry.seq;
        let hash = entry_hash(&author, &entry).ok()?;
        let log = self.logs.get_mut(&author)?;
        let verdict = log.accept(&entry, hash, proof);
        let (side, is_history) = (log.side, log.is_history(seq));
        match verdict {
            Verdict::Counts { upto } => {
                self.note_change(EntryRef { author, seq }, &entry.body);
                self.append(scene, author, side, entry, hash, (true, is_history));
                if upto > seq {
                    self.show(scene, author, seq + 1, upto);
                }
                Some((seq, upto))
            }
            Verdict::KeptBack => {
                self.note_change(EntryRef { author, seq }, &entry.body);
                self.append(scene, author, side, entry, hash, (false, false));
                None
            }
            Verdict::Forked if !log.is_forked => {
                log.is_forked = true;
                let with = self.with.clone();
                scene.out.tell(ChatEvent::Fork { with, entry: EntryRef { author, seq } });
                None
            }
            Verdict::Forked | Verdict::Known | Verdict::Refused => None,
        }
    }

    /// The log of a device, begun if need be. `None`: there are too many.
    fn log(&mut self, author: DeviceKey, side: Side) -> Option<&mut Log> {
        if !self.logs.contains_key(&author) {
            if self.logs.len() >= LOGS_MAX {
                return None;
            }
            self.logs.insert(author, Log::new(side));
        }
        let log = self.logs.get_mut(&author)?;
        if log.is_empty() {
            log.side = side;
        }
        Some(log)
    }

    fn append(
        &self,
        scene: &mut Scene<'_>,
        author: DeviceKey,
        side: Side,
        entry: Entry,
        hash: EntryHash,
        (is_shown, is_history): (bool, bool),
    ) {
        let received = scene.now;
        // A clock that is ahead must not keep a message at the end of the conversation.
        let position = entry.written.min(received);
        let with = self.with.clone();
        let user = if side == Side::Mine { scene.me.name.clone() } else { with.clone() };
        scene.out.push(Effect::Append(Box::new(Appended {
            with,
            author,
            user,
            side,
            entry,
            hash,
            received,
            position,
            is_shown,
            is_history,
        })));
    }

    fn show(&self, scene: &mut Scene<'_>, author: DeviceKey, first: u64, last: u64) {
        scene.out.push(Effect::Show { conversation: scene.id, author, first, last });
    }

    fn tell_shown(&mut self, scene: &mut Scene<'_>, author: DeviceKey, side: Side, (first, last): (u64, u64), is_history: bool) {
        let with = self.with.clone();
        scene.out.tell(ChatEvent::Shown { with, author, side, first, last, is_history });
        self.tell_changes(scene);
    }

    fn note_change(&mut self, by: EntryRef, body: &Body) {
        let (message, change) = match body {
            Body::Edit { of, .. } => (*of, Change::Edited),
            Body::Delete { of } => (*of, Change::Deleted),
            Body::Reaction { to, .. } => (*to, Change::Reacted),
            Body::Text { .. } | Body::File(_) | Body::Voice { .. } => return,
        };
        if self.waiting.len() < CHANGES_WAITING_MAX {
            self.waiting.push(Waiting { message, by, change });
        }
    }

    /// Tells of changes that count, to messages that are there.
    fn tell_changes(&mut self, scene: &mut Scene<'_>) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            if !self.is_here(scene, one.by) || !self.is_here(scene, one.message) {
                self.waiting.push(one);
            } else if one.change == Change::Reacted || self.side(scene, one.by.author) == self.side(scene, one.message.author) {
                let (with, message, by, change) = (self.with.clone(), one.message, one.by, one.change);
                scene.out.tell(ChatEvent::Changed { with, message, by, change });
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, scene: &mut Scene<'_>) {
        self.pass_gaps(scene);
        self.ask(scene);
        for (to, delivery) in &mut self.deliveries {
            if !scene.may_send(to) {
                continue;
            }
            if let Some((first, last)) = delivery.poll_need(scene.now, self.last, scene.chance) {
                let (conversation, author, purpose) = (scene.id, scene.me.device, Purpose::Deliver);
                scene.out.push(Effect::NeedEntries(Need { conversation, author, first, last, to: *to, purpose }));
            }
        }
    }

    /// When there is something to do. `may_send` tells to whom anything may be sent.
    pub(crate) fn poll_timeout(&self, may_send: impl Fn(&DeviceKey) -> bool) -> Option<UnixMillis> {
        let deliveries = self.deliveries.iter().filter(|(device, _)| may_send(device));
        let deliveries = deliveries.filter_map(|(_, delivery)| delivery.poll_timeout(self.last));
        let logs = self.logs.values().flat_map(|log| {
            let gap = log.gap.map(|asking| asking.next);
            [gap, log.history_at(), log.gap_passed_at(GAP_SHOWN)].into_iter().flatten()
        });
        deliveries.chain(logs).min()
    }

    /// The program starts: what was planned under a clock that was ahead is not put off until that time comes.
    pub(crate) fn handle_clock(&mut self, now: UnixMillis) {
        let latest = now.plus(2 * BACK_OFF_MAX);
        self.deliveries.values_mut().for_each(|delivery| delivery.handle_clock(latest));
        for asking in self.logs.values_mut().flat_map(|log| [&mut log.gap, &mut log.history]).flatten() {
            asking.handle_clock(now, latest);
        }
    }

    /// Whether receipts were owed when this was saved.
    pub(crate) fn owes_receipts(&self) -> bool {
        self.logs.values().any(|log| log.owes_receipt || log.owes_read)
    }
}

fn post_entry(scene: &mut Scene<'_>, with: &Name, to: DeviceKey, first: u64, entry: Entry) {
    let user = if scene.mine.contains(&to) { &scene.me.name } else { with };
    let carries = Some(Carried { conversation: entry.conversation, first: entry.seq, last: entry.seq });
    scene.out.post(to, user, Post { item: Item::Entry { first, entry }, about: Some(with.clone()), carries });
}

/// Ranges that touch or overlap become one.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}
