//! What one device has of this device's own log in one conversation, and when it is sent again what it lacks.

use crate::chance::Chance;
use crate::{ENTRIES_NEEDED_MAX, IN_FLIGHT_MAX, ON_THE_WAY, RESEND_FIRST, RESEND_KEPT};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::message::Receipt;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// The first entry that it is owed.
    pub(crate) first: u64,
    /// Since when the device is known. Of logs of others, it is handed on what is not older.
    pub(crate) since: UnixMillis,
    /// It has all up to this number.
    pub(crate) have: u64,
    /// And these.
    beyond: Vec<(u64, u64)>,
    /// Up to this number they were sent once.
    sent: u64,
    /// What was on its way when nothing had come back for long: up to this number it is sent again, piece by piece.
    recover_to: u64,
    attempt: u32,
    /// When anything was sent last.
    tried: UnixMillis,
    next_try: Option<UnixMillis>,
    /// The archive is asked.
    #[serde(skip)]
    is_waiting: bool,
}

impl Delivery {
    /// For a device that is owed the log from `first` on.
    pub(crate) fn new(first: u64, since: UnixMillis) -> Self {
        let before = first.saturating_sub(1);
        Self {
            first,
            since,
            have: before,
            beyond: Vec::new(),
            sent: before,
            recover_to: 0,
            attempt: 0,
            tried: UnixMillis(0),
            next_try: None,
            is_waiting: false,
        }
    }

    fn has(&self, seq: u64) -> bool {
        seq <= self.have || self.beyond.iter().any(|&(first, last)| (first..=last).contains(&seq))
    }

    /// Whether an entry that was just written, the `last` of its log, can go at once.
    pub(crate) fn is_next(&self, last: u64) -> bool {
        self.sent + 1 == last && last - self.have <= IN_FLIGHT_MAX
    }

    /// Whether an entry is to be sent to it.
    pub(crate) fn wants(&self, seq: u64) -> bool {
        seq >= self.first && !self.has(seq)
    }

    /// An entry was sent.
    pub(crate) fn handle_sent(&mut self, now: UnixMillis, seq: u64, chance: &mut Chance) {
        self.sent = self.sent.max(seq);
        self.tried = now;
        if self.next_try.is_none() {
            self.next_try = Some(now.plus(chance.back_off(RESEND_FIRST, self.attempt)));
        }
    }

    /// Mailboxes keep entries for it: there is no hurry.
    pub(crate) fn handle_kept(&mut self, now: UnixMillis, last: u64, chance: &mut Chance) {
        if last > self.have {
            self.next_try = self.next_try.map(|next| next.max(now.plus(chance.back_off(RESEND_KEPT, self.attempt))));
        }
    }

    /// The device came online: what is not on its way any more is sent again.
    pub(crate) fn handle_online(&mut self, now: UnixMillis) -> bool {
        let Some(next) = self.next_try else { return false };
        self.attempt = 0;
        self.next_try = Some(next.min(now.max(self.tried.plus(ON_THE_WAY))));
        true
    }

    /// A receipt came. True: the device has more than before.
    pub(crate) fn handle_receipt(&mut self, now: UnixMillis, receipt: &Receipt, last: u64, chance: &mut Chance) -> bool {
        let have = receipt.have.min(last);
        if have < self.have {
            return false;
        }
        let has_progress = have > self.have || *receipt.beyond != *self.beyond;
        self.have = have;
        self.sent = self.sent.max(have);
        // Between two ranges something is missing, or they were one.
        let is_sane = |range: &(u64, u64)| range.0 > have + 1 && range.0 <= range.1 && range.1 <= last;
        self.beyond = receipt.beyond.iter().copied().filter(is_sane).collect();
        self.beyond.sort_unstable();
        self.is_waiting &= !has_progress;
        if have >= self.sent {
            self.next_try = None;
            self.attempt = 0;
        } else if has_progress {
            self.attempt = 0;
            let is_recovering = have < self.recover_to && self.tried < now;
            self.next_try = Some(if is_recovering { now } else { now.plus(chance.back_off(RESEND_FIRST, 0)) });
        }
        has_progress
    }

    /// The entries that the archive is to give now, `last` being the end of the log.
    pub(crate) fn poll_need(&mut self, now: UnixMillis, last: u64, chance: &mut Chance) -> Option<(u64, u64)> {
        if self.is_waiting {
            return None;
        }
        let need = if self.next_try.is_some_and(|next| next <= now) { Some(self.resend(now, chance)) } else { self.unsent(last) };
        self.is_waiting = need.is_some();
        need
    }

    /// The first entries that it lacks of those that were sent.
    fn resend(&mut self, now: UnixMillis, chance: &mut Chance) -> (u64, u64) {
        self.recover_to = self.sent;
        self.attempt = self.attempt.saturating_add(1);
        self.tried = now;
        self.next_try = Some(now.plus(chance.back_off(RESEND_FIRST, self.attempt)));
        let first = self.have + 1;
        let last = self.beyond.first().map_or(self.sent, |range| range.0 - 1);
        (first, last.min(first + ENTRIES_NEEDED_MAX - 1))
    }

    fn unsent(&self, last: u64) -> Option<(u64, u64)> {
        let first = self.sent + 1;
        let last = last.min(self.have + IN_FLIGHT_MAX).min(self.sent + ENTRIES_NEEDED_MAX);
        (first <= last).then_some((first, last))
    }

    /// The archive answered. Where it gave nothing it lost something, and is not asked again before a receipt says that this device need not care.
    pub(crate) fn handle_answer(&mut self, is_empty: bool) {
        self.is_waiting = is_empty;
    }

    /// The device has an entry that would have been sent.
    pub(crate) fn skip(&mut self, seq: u64) {
        self.sent = self.sent.max(seq);
    }

    /// Nothing is put off beyond `latest`.
    pub(crate) fn handle_clock(&mut self, latest: UnixMillis) {
        self.tried = self.tried.min(latest);
        self.next_try = self.next_try.map(|next| next.min(latest));
    }

    /// When [`Self::poll_need`] has something.
    pub(crate) fn poll_timeout(&self, last: u64) -> Option<UnixMillis> {
        if self.is_waiting {
            return None;
        }
        if self.unsent(last).is_some() { Some(UnixMillis(0)) } else { self.next_try }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::ids::ConversationId;
    use ahoy_protocol::{DeviceKey, List};

    fn receipt(have: u64, beyond: &[(u64, u64)]) -> Receipt {
        let beyond = List::first_of(beyond.iter().copied());
        Receipt { conversation: ConversationId([0; 16]), author: DeviceKey([0; 32]), have, beyond, read: 0 }
    }

    #[test]
    fn what_has_no_receipt_is_sent_again_ever_more_rarely() {
        let (mut delivery, mut chance) = (Delivery::new(1, UnixMillis(0)), Chance::new(1));
        delivery.handle_sent(UnixMillis(0), 1, &mut chance);
        let mut waits = Vec::new();
        let mut now = UnixMillis(0);
        for _ in 0..14 {
            let next = delivery.poll_timeout(1).expect("no receipt came");
            waits.push(next.since(now));
            now = next;
            assert_eq!(delivery.poll_need(now, 1, &mut chance), Some((1, 1)));
            delivery.handle_answer(false);
        }
        assert!(waits[0] >= RESEND_FIRST && waits[3] > 4 * RESEND_FIRST);
        assert!(waits[13] <= crate::BACK_OFF_MAX + crate::BACK_OFF_MAX / 5);
        assert!(delivery.handle_receipt(now, &receipt(1, &[]), 1, &mut chance));
        assert_eq!(delivery.poll_timeout(1), None);
    }

    #[test]
    fn only_the_hole_is_sent_again() {
        let (mut delivery, mut chance) = (Delivery::new(1, UnixMillis(0)), Chance::new(1));
        for seq in 1..=9 {
            assert!(delivery.is_next(seq));
            delivery.handle_sent(UnixMillis(0), seq, &mut chance);
        }
        delivery.handle_receipt(UnixMillis(1), &receipt(2, &[(5, 6)]), 9, &mut chance);
        let later = delivery.poll_timeout(9).expect("three are missing");
        assert_eq!(delivery.poll_need(later, 9, &mut chance), Some((3, 4)));
        assert!(delivery.wants(3) && !delivery.wants(2) && !delivery.wants(6) && delivery.wants(7));
    }

    #[test]
    fn a_receipt_without_sense_does_no_harm() {
        let (mut delivery, mut chance) = (Delivery::new(1, UnixMillis(0)), Chance::new(1));
        (1..=9).for_each(|seq| delivery.handle_sent(UnixMillis(0), seq, &mut chance));
        delivery.handle_receipt(UnixMillis(1), &receipt(2, &[(9, 7), (u64::MAX, 0), (8, 8), (3, 3), (6, 6)]), 9, &mut chance);
        let later = delivery.poll_timeout(9).expect("some are missing");
        assert_eq!(delivery.poll_need(later, 9, &mut chance), Some((3, 5)));
        delivery.handle_receipt(later, &receipt(u64::MAX, &[]), 9, &mut chance);
        assert_eq!((delivery.have, delivery.poll_timeout(9)), (9, None));
    }

    #[test]
    fn no_more_is_on_the_way_than_a_mailbox_keeps() {
        let (mut delivery, mut chance) = (Delivery::new(1, UnixMillis(0)), Chance::new(1));
        for seq in 1..=IN_FLIGHT_MAX {
            assert!(delivery.is_next(seq));
            delivery.handle_sent(UnixMillis(0), seq, &mut chance);
        }
        let last = IN_FLIGHT_MAX + 100;
        assert!(!delivery.is_next(IN_FLIGHT_MAX + 1));
        assert_eq!(delivery.poll_need(UnixMillis(1), last, &mut chance), None);
        delivery.handle_receipt(UnixMillis(2), &receipt(10, &[]), last, &mut chance);
        assert_eq!(delivery.poll_need(UnixMillis(3), last, &mut chance), Some((IN_FLIGHT_MAX + 1, IN_FLIGHT_MAX + 10)));
    }
}
