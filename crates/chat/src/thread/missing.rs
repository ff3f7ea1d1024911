//! What is missing of the logs of others, and what others lack.

use super::{Scene, Thread, post_entry};
use crate::effect::{ChatEvent, Effect, Need, Purpose, Side};
use crate::outbox::{ITEMS_BYTES_MAX, Post, encoded_len};
use crate::{ENTRIES_NEEDED_MAX, GAP_SHOWN, GAP_WAIT, HISTORY_WAIT};
use ahoy_protocol::message::{ENTRIES_HANDED_ON_MAX, Entry, Gap, Item};
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{DeviceKey, List};

impl Thread {
    pub(super) fn review(&mut self, scene: &Scene<'_>, author: DeviceKey) {
        // Without another device of mine, nobody has history.
        let announced = self.announced.get(&author).map_or(0, |announced| announced.have);
        let Some(log) = self.logs.get_mut(&author) else { return };
        log.review(scene.now, GAP_WAIT);
        if scene.mine.is_empty() { log.history = None } else { log.review_history(scene.now, announced) }
    }

    /// My devices have changed, or another one said what it has.
    pub(crate) fn review_all(&mut self, scene: &Scene<'_>) {
        for author in self.logs.keys().copied().collect::<Vec<_>>() {
            self.review(scene, author);
        }
    }

    /// Asks for what is missing, where it is time.
    pub(super) fn ask(&mut self, scene: &mut Scene<'_>) {
        for (author, log) in &mut self.logs {
            let mut wants = Vec::new();
            let (gap, history) = (log.missing(), log.missing_history(self.announced.get(author).map_or(0, |announced| announced.have)));
            if let (Some(asking), Some((first, last))) = (log.gap.as_mut().filter(|asking| asking.next <= scene.now), gap) {
                let sources = sources(scene, *author);
                let to = sources.get(asking.attempt as usize % sources.len().max(1)).copied();
                wants.push((to, first, last.min(first + ENTRIES_NEEDED_MAX - 1)));
                asking.next = scene.now.plus(scene.chance.back_off(GAP_WAIT, asking.attempt));
                asking.attempt = asking.attempt.saturating_add(1);
            }
            let is_due = log.history_at().is_some_and(|at| at <= scene.now);
            if let (Some(asking), Some((first, last)), true) = (log.history.as_mut(), history, is_due) {
                let to = scene.mine.get(asking.attempt as usize % scene.mine.len().max(1)).copied();
                wants.push((to, first.max((last + 1).saturating_sub(ENTRIES_NEEDED_MAX)), last));
                asking.next = scene.now.plus(scene.chance.back_off(HISTORY_WAIT, asking.attempt));
                asking.attempt += 1;
            }
            for (to, first, last) in wants {
                let Some(to) = to else { continue };
                let user = if scene.mine.contains(&to) { scene.me.name.clone() } else { self.with.clone() };
                let item = Item::Want(Gap { conversation: scene.id, author: *author, first, last });
                scene.out.post(to, &user, Post { item, about: Some(self.with.clone()), carries: None });
            }
        }
    }

    /// Lets count what has waited too long.
    pub(super) fn pass_gaps(&mut self, scene: &mut Scene<'_>) {
        let mut passed = Vec::new();
        for (author, log) in &mut self.logs {
            while let Some(ranges) = log.pass_gap(scene.now, GAP_SHOWN) {
                passed.push((*author, log.side, ranges));
            }
        }
        for (author, side, (missing, shown)) in passed {
            let with = self.with.clone();
            self.show(scene, author, shown.0, shown.1);
            scene.out.tell(ChatEvent::Gap { with, author, first: missing.0, last: missing.1 });
            self.tell_shown(scene, author, side, shown, false);
        }
    }

    /// A device lacks entries. `side` is the asker's.
    pub(crate) fn handle_want(&mut self, scene: &mut Scene<'_>, from: DeviceKey, side: Side, gap: Gap) {
        let Some(delivery) = self.deliveries.get(&from) else { return };
        if !scene.may_send(&from) || gap.first > gap.last {
            return;
        }
        let is_mine = gap.author == scene.me.device;
        let (mut first, mut last) = (gap.first.max(1), gap.last.min(gap.first.saturating_add(ENTRIES_NEEDED_MAX - 1)));
        let mut purpose = Purpose::HandOn;
        if is_mine {
            last = last.min(self.last);
            if side == Side::Theirs {
                first = first.max(delivery.first);
            }
            if first > delivery.have {
                purpose = Purpose::Deliver;
            }
        } else if !self.logs.contains_key(&gap.author) {
            return;
        }
        if first <= last {
            let need = Need { conversation: scene.id, author: gap.author, first, last, to: from, purpose };
            scene.out.push(Effect::NeedEntries(need));
        }
    }

    /// The archive gave entries.
    pub(crate) fn handle_entries(&mut self, scene: &mut Scene<'_>, need: &Need, entries: Vec<Entry>) {
        let entries = entries.into_iter().filter(|entry| (need.first..=need.last).contains(&entry.seq));
        let entries: Vec<Entry> = entries.take(ENTRIES_HANDED_ON_MAX).collect();
        match need.purpose {
            Purpose::Deliver => self.deliver(scene, need.to, entries),
            Purpose::HandOn => self.hand_on(scene, need, entries),
        }
    }

    fn deliver(&mut self, scene: &mut Scene<'_>, to: DeviceKey, entries: Vec<Entry>) {
        let Some(delivery) = self.deliveries.get_mut(&to) else { return };
        delivery.handle_answer(entries.is_empty());
        if !scene.may_send(&to) {
            return;
        }
        for entry in entries {
            if delivery.wants(entry.seq) {
                delivery.handle_sent(scene.now, entry.seq, scene.chance);
                post_entry(scene, &self.with, to, delivery.first, entry);
            } else {
                delivery.skip(entry.seq);
            }
        }
    }

    fn hand_on(&mut self, scene: &mut Scene<'_>, need: &Need, entries: Vec<Entry>) {
        let Some(delivery) = self.deliveries.get(&need.to).filter(|_| scene.may_send(&need.to)) else { return };
        let Some(side) = self.side(scene, need.author) else { return };
        let is_own = scene.mine.contains(&need.to);
        // To the other person's devices, nothing from before they were there: their own have that.
        let is_recent = |entry: &Entry| is_own || need.author == scene.me.device || entry.written.plus(CLOCK_AHEAD_MAX) >= delivery.since;
        let user = if side == Side::Mine { scene.me.name.clone() } else { self.with.clone() };
        let to_user = if is_own { scene.me.name.clone() } else { self.with.clone() };
        let mut batch = Vec::new();
        let mut len = 256;
        // The latest first: they prove the others.
        for entry in entries.into_iter().filter(is_recent).rev() {
            len += encoded_len(&Item::Entry { first: 1, entry: entry.clone() });
            if len > ITEMS_BYTES_MAX {
                break;
            }
            batch.push(entry);
        }
        if batch.is_empty() {
            return;
        }
        batch.reverse();
        let item = Item::HandedOn { author: need.author, user, entries: List::first_of(batch) };
        scene.out.post(need.to, &to_user, Post { item, about: Some(self.with.clone()), carries: None });
    }
}

/// Who may have what is missing of a log, the likeliest first.
fn sources(scene: &Scene<'_>, author: DeviceKey) -> Vec<DeviceKey> {
    let author_first = [author].into_iter().chain(scene.mine.iter().chain(scene.theirs).copied().filter(|device| *device != author));
    author_first.filter(|device| scene.may_send(device)).collect()
}
