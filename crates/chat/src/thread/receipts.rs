//! Who has what of which log, and who has read it.

use super::{Scene, Thread};
use crate::LOGS_MAX;
use crate::effect::{Carried, ChatEvent, DeliveryState, Effect, Side};
use crate::log::{Log, SEQ_MAX};
use crate::outbox::Post;
use ahoy_protocol::ids::ConversationId;
use ahoy_protocol::message::{EntryRef, Item, Receipt};
use ahoy_protocol::{DeviceKey, List, UnixMillis};
use std::collections::{BTreeMap, BTreeSet};

impl Thread {
    /// Sends the receipts that are owed.
    pub(crate) fn send_receipts(&mut self, scene: &mut Scene<'_>) -> bool {
        let mut receipts: BTreeMap<DeviceKey, Vec<Receipt>> = BTreeMap::new();
        for (author, log) in &mut self.logs {
            let (owes_receipt, owes_read) = (std::mem::take(&mut log.owes_receipt), std::mem::take(&mut log.owes_read));
            let mut to: BTreeSet<DeviceKey> = BTreeSet::new();
            if owes_receipt && log.has_owed() {
                match log.side {
                    Side::Theirs => to.extend(scene.theirs),
                    Side::Mine => drop(to.insert(*author)),
                }
            }
            if owes_read {
                to.extend(scene.mine);
            }
            for device in to.into_iter().filter(|device| scene.may_send(device)) {
                let tells_read = scene.tells_read || scene.mine.contains(&device);
                receipts.entry(device).or_default().push(receipt(scene.id, *author, log, tells_read));
            }
        }
        let has_any = !receipts.is_empty();
        for (to, receipts) in receipts {
            self.post_receipts(scene, to, receipts);
        }
        has_any
    }

    /// Tells another device of mine which logs there are.
    pub(crate) fn announce(&self, scene: &mut Scene<'_>, to: DeviceKey) {
        let mut receipts: Vec<Receipt> = self.logs.iter().map(|(author, log)| receipt(scene.id, *author, log, true)).collect();
        if self.last > 0 {
            let (conversation, author) = (scene.id, scene.me.device);
            receipts.push(Receipt { conversation, author, have: self.last, beyond: List::default(), read: 0 });
        }
        self.post_receipts(scene, to, receipts);
    }

    fn post_receipts(&self, scene: &mut Scene<'_>, to: DeviceKey, receipts: Vec<Receipt>) {
        let user = if scene.mine.contains(&to) { &scene.me.name } else { &self.with };
        for chunk in receipts.chunks(ahoy_protocol::message::RECEIPTS_MAX) {
            let item = Item::Receipts(List::first_of(chunk.iter().cloned()));
            scene.out.post(to, user, Post { item, about: Some(self.with.clone()), carries: None });
        }
    }

    /// A device says what it has. `side` is the side of that device.
    pub(crate) fn handle_receipt(&mut self, scene: &mut Scene<'_>, from: DeviceKey, side: Side, receipt: &Receipt) {
        if receipt.author == scene.me.device {
            self.handle_own_receipt(scene, from, side, receipt);
        } else if side == Side::Mine {
            self.handle_announced(scene, receipt);
        } else if let Some(log) = self.logs.get_mut(&receipt.author).filter(|log| log.side == Side::Mine) {
            // The receipt may be here before the entry is, or be a lie: it is kept, and told of what is here.
            let (delivered, seen, last) = (log.delivered, log.seen, log.last_shown());
            log.delivered = delivered.max(receipt.have.min(SEQ_MAX));
            log.seen = seen.max(receipt.read.min(receipt.have).min(SEQ_MAX));
            let (now_delivered, now_seen) = (log.delivered.min(last), log.seen.min(last));
            self.tell_state(scene, receipt.author, delivered + 1, now_delivered, DeliveryState::Delivered);
            self.tell_state(scene, receipt.author, seen + 1, now_seen, DeliveryState::Read);
        }
    }

    fn handle_own_receipt(&mut self, scene: &mut Scene<'_>, from: DeviceKey, side: Side, receipt: &Receipt) {
        if receipt.have > self.last && !self.is_rolled_back {
            self.is_rolled_back = true;
            let entry = EntryRef { author: scene.me.device, seq: receipt.have };
            scene.out.tell(ChatEvent::Fork { with: self.with.clone(), entry });
        }
        let Some(delivery) = self.deliveries.get_mut(&from) else { return };
        delivery.handle_receipt(scene.now, receipt, self.last, scene.chance);
        let (first, have) = (delivery.first, delivery.have);
        if side == Side::Mine && !self.is_note(scene) {
            return;
        }
        let (delivered, seen) = (self.delivered, self.seen);
        if first <= delivered + 1 {
            self.delivered = delivered.max(have);
            self.network.remove_to(self.delivered);
        }
        self.seen = seen.max(receipt.read.min(self.delivered));
        self.tell_state(scene, scene.me.device, delivered + 1, self.delivered, DeliveryState::Delivered);
        self.tell_state(scene, scene.me.device, seen + 1, self.seen, DeliveryState::Read);
    }

    /// Another device of mine says what it has of somebody's log, and what I read there.
    fn handle_announced(&mut self, scene: &mut Scene<'_>, receipt: &Receipt) {
        let author = receipt.author;
        if !self.announced.contains_key(&author) && self.announced.len() >= LOGS_MAX {
            return;
        }
        let announced = self.announced.entry(author).or_default();
        announced.have = announced.have.max(receipt.have.min(SEQ_MAX));
        announced.read = announced.read.max(receipt.read.min(SEQ_MAX));
        let is_news = self.logs.get(&author).is_none_or(|log| log.have() < receipt.have);
        if !self.logs.contains_key(&author) && receipt.have > 0 && !scene.mine.is_empty() {
            // Whose it is comes with the entries; until then it is the side that the directory says.
            let side = if scene.mine.contains(&author) { Side::Mine } else { Side::Theirs };
            let _ = self.log(author, side);
        }
        self.apply_read(scene, author, receipt.read);
        self.review(scene, author);
        if is_news && let Some(log) = self.logs.get_mut(&author) {
            log.revive_history(scene.now);
        }
    }

    pub(super) fn tell_state(&self, scene: &mut Scene<'_>, author: DeviceKey, first: u64, last: u64, state: DeliveryState) {
        if first <= last {
            scene.out.tell(ChatEvent::State { with: self.with.clone(), author, first, last, state });
        }
    }

    /// Mailboxes keep entries of mine for a device.
    pub(crate) fn handle_posted(&mut self, scene: &mut Scene<'_>, to: DeviceKey, carried: Carried) {
        if let Some(delivery) = self.deliveries.get_mut(&to) {
            delivery.handle_kept(scene.now, carried.last, scene.chance);
        }
        let (first, last) = (carried.first.max(self.delivered + 1), carried.last.min(self.last));
        if (scene.theirs.contains(&to) || self.is_note(scene)) && first <= last {
            for (first, last) in self.network.insert(first, last) {
                self.tell_state(scene, scene.me.device, first, last, DeliveryState::InNetwork);
            }
        }
    }

    /// The first entry that is wanted of a device's log.
    pub(crate) fn first_wanted(&self, author: &DeviceKey) -> u64 {
        self.logs.get(author).map_or(1, |log| log.have() + 1)
    }

    /// A device came online.
    pub(crate) fn handle_online(&mut self, now: UnixMillis, device: DeviceKey) -> bool {
        self.deliveries.get_mut(&device).is_some_and(|delivery| delivery.handle_online(now))
    }

    /// How far an entry of mine has got.
    pub(crate) fn state(&self, me: DeviceKey, entry: EntryRef) -> DeliveryState {
        let (delivered, seen, in_network) = if entry.author == me {
            (self.delivered, self.seen, self.network.contains(entry.seq))
        } else {
            let log = self.logs.get(&entry.author);
            // It came from my other device by way of the network.
            (log.map_or(0, |log| log.delivered), log.map_or(0, |log| log.seen), true)
        };
        if entry.seq <= seen {
            DeliveryState::Read
        } else if entry.seq <= delivered {
            DeliveryState::Delivered
        } else if in_network {
            DeliveryState::InNetwork
        } else {
            DeliveryState::Waiting
        }
    }

    /// The user has read a log up to an entry. Gives whether that is news.
    pub(crate) fn mark_read(&mut self, scene: &mut Scene<'_>, upto: EntryRef) -> bool {
        let Some(log) = self.logs.get(&upto.author).filter(|log| log.side == Side::Theirs) else { return false };
        let is_news = self.apply_read(scene, upto.author, upto.seq.min(log.last_shown()));
        if is_news && let Some(log) = self.logs.get_mut(&upto.author) {
            log.owes_receipt |= scene.tells_read;
            log.owes_read = true;
            scene.out.owes_receipts = true;
        }
        is_news
    }

    /// What the user has read, here or elsewhere.
    pub(crate) fn apply_read(&mut self, scene: &mut Scene<'_>, author: DeviceKey, read: u64) -> bool {
        let Some(log) = self.logs.get_mut(&author) else { return false };
        let read = read.min(SEQ_MAX);
        // Of a log with no entry yet there is nothing to mark; that is done when the first comes.
        if read <= log.read || log.side == Side::Mine || log.is_empty() {
            return false;
        }
        log.read = read;
        scene.out.push(Effect::MarkRead { conversation: scene.id, author, last: read });
        scene.out.tell(ChatEvent::Read { with: self.with.clone(), upto: EntryRef { author, seq: read } });
        true
    }

    pub(super) fn apply_announced_read(&mut self, scene: &mut Scene<'_>, author: DeviceKey) {
        if let Some(announced) = self.announced.get(&author).copied() {
            self.apply_read(scene, author, announced.read);
        }
    }

    /// Remembers what was read of logs that are not here yet.
    pub(crate) fn note_read(&mut self, author: DeviceKey, read: u64) {
        if self.logs.get(&author).is_none_or(Log::is_empty) && (self.announced.len() < LOGS_MAX || self.announced.contains_key(&author)) {
            let announced = self.announced.entry(author).or_default();
            announced.read = announced.read.max(read);
        }
    }

    /// The last entry that counts of each log of the other person, and how far each was read.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (EntryRef, u64)> {
        let theirs = self.logs.iter().filter(|(_, log)| log.side == Side::Theirs);
        theirs.map(|(author, log)| (EntryRef { author: *author, seq: log.last_shown() }, log.read))
    }
}

fn receipt(conversation: ConversationId, author: DeviceKey, log: &Log, tells_read: bool) -> Receipt {
    let read = if tells_read { log.read } else { 0 };
    Receipt { conversation, author, have: log.have(), beyond: List::first_of(log.beyond()), read }
}
