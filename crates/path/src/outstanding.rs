//! PINGs that wait for their PONG. A PONG counts only if its transaction is in here and it comes by the way that the PING went.

use crate::route::Way;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a late PONG still counts as a sign of life.
const LIFETIME: Duration = Duration::from_secs(5);
/// PINGs remembered; more than can be sent in `LIFETIME` at the rate that the budget gives, so the bound is met only if that changes.
const OUTSTANDING_MAX: usize = 512;

/// One PING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) way: Way,
    pub(crate) at: Instant,
    late_at: Instant,
    /// Whether it was counted as lost.
    pub(crate) is_late: bool,
}

/// All PINGs that wait.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    by_transaction: BTreeMap<u64, Sent>,
    /// When the next one becomes late or is forgotten; never after that.
    next: Option<Instant>,
}

impl Outstanding {
    /// Remembers a PING; if there are too many, the oldest is forgotten.
    pub(crate) fn insert(&mut self, transaction: u64, way: Way, at: Instant, late_after: Duration) {
        if self.by_transaction.len() >= OUTSTANDING_MAX {
            let oldest = self.by_transaction.iter().min_by_key(|(_, sent)| sent.at).map(|(transaction, _)| *transaction);
            oldest.and_then(|oldest| self.by_transaction.remove(&oldest));
        }
        let late_at = at + late_after.min(LIFETIME);
        self.by_transaction.insert(transaction, Sent { way, at, late_at, is_late: false });
        self.next = Some(self.next.map_or(late_at, |next| next.min(late_at)));
    }

    /// Takes the PING out that a PONG by `way` answers.
    pub(crate) fn take(&mut self, transaction: u64, way: Way) -> Option<Sent> {
        if self.by_transaction.get(&transaction)?.way != way {
            return None;
        }
        self.by_transaction.remove(&transaction)
    }

    /// Answers stand in a queue: those that are still awaited may take so long as well.
    pub(crate) fn give_time(&mut self, now: Instant, time: Duration) {
        let time = time.min(LIFETIME);
        for sent in self.by_transaction.values_mut().filter(|sent| !sent.is_late && sent.late_at > now) {
            sent.late_at = sent.late_at.max(sent.at + time);
        }
    }

    /// The PINGs that have become late, oldest first; forgets those past their lifetime.
    pub(crate) fn become_late(&mut self, now: Instant) -> Vec<Sent> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut late = Vec::new();
        for sent in self.by_transaction.values_mut() {
            if !sent.is_late && sent.late_at <= now {
                sent.is_late = true;
                late.push(*sent);
            }
        }
        self.by_transaction.retain(|_, sent| now.saturating_duration_since(sent.at) < LIFETIME);
        self.next = self.by_transaction.values().map(|sent| if sent.is_late { sent.at + LIFETIME } else { sent.late_at }).min();
        late.sort_unstable_by_key(|sent| (sent.at, sent.way));
        late
    }

    /// When [`become_late`](Self::become_late) is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

/// Guesses that wait: nobody is expected to answer, so none is ever late.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    by_transaction: BTreeMap<u64, (Way, Instant)>,
    in_order: VecDeque<u64>,
}

impl Guesses {
    /// Remembers a guess; if there are too many, the oldest is forgotten. They are sent so slowly that it has had three seconds by then.
    pub(crate) fn insert(&mut self, transaction: u64, way: Way, at: Instant) {
        self.by_transaction.insert(transaction, (way, at));
        self.in_order.push_back(transaction);
        if self.in_order.len() > OUTSTANDING_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_transaction.remove(&oldest);
        }
    }

    /// When the guess was sent that a PONG by `way` answers.
    pub(crate) fn take(&mut self, transaction: u64, way: Way) -> Option<Instant> {
        if self.by_transaction.get(&transaction)?.0 != way {
            return None;
        }
        self.by_transaction.remove(&transaction).map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const LATE: Duration = Duration::from_millis(100);

    fn way(port: u16) -> Way {
        Way::direct(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn only_the_way_that_was_asked_answers_and_only_once() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        outstanding.insert(7, way(1), now, LATE);
        assert!(outstanding.take(7, way(2)).is_none());
        assert!(outstanding.take(8, way(1)).is_none());
        assert!(outstanding.take(7, way(1)).is_some());
        assert!(outstanding.take(7, way(1)).is_none());
    }

    #[test]
    fn a_probe_is_late_once_and_then_forgotten() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        outstanding.insert(7, way(1), now, LATE);
        assert_eq!(outstanding.deadline(), Some(now + LATE));
        assert_eq!(outstanding.become_late(now + LATE).iter().map(|sent| sent.way).collect::<Vec<_>>(), [way(1)]);
        assert!(outstanding.become_late(now + LATE).is_empty());
        assert_eq!(outstanding.deadline(), Some(now + LIFETIME));
        assert!(outstanding.become_late(now + LIFETIME).is_empty());
        assert_eq!(outstanding.deadline(), None);
    }

    #[test]
    fn an_answer_from_a_queue_gives_those_still_awaited_as_much_time() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        outstanding.insert(7, way(1), now, LATE);
        outstanding.insert(8, way(1), now + LATE, LATE);
        assert_eq!(outstanding.become_late(now + LATE).len(), 1);
        outstanding.give_time(now + LATE, LATE * 3);
        assert!(outstanding.become_late(now + LATE * 2).is_empty());
        assert_eq!(outstanding.become_late(now + LATE * 4).len(), 1);
    }

    #[test]
    fn the_table_is_bounded_and_loses_the_oldest() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        let mut guesses = Guesses::default();
        for nth in 0..=OUTSTANDING_MAX as u64 {
            outstanding.insert(u64::MAX - nth, way(1), now + Duration::from_millis(nth), LATE);
            guesses.insert(u64::MAX - nth, way(1), now);
        }
        assert_eq!(outstanding.by_transaction.len(), OUTSTANDING_MAX);
        assert!(outstanding.take(u64::MAX, way(1)).is_none());
        assert_eq!(guesses.by_transaction.len(), OUTSTANDING_MAX);
        assert!(guesses.take(u64::MAX, way(1)).is_none() && guesses.take(u64::MAX - 1, way(1)).is_some());
    }
}
