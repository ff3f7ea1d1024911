//! PINGs that wait for their PONG. A PONG counts only if its transaction is in here and it comes from where the PING went.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a late PONG still counts as a sign of life.
const LIFETIME: Duration = Duration::from_secs(3);
/// PINGs remembered; more than can be sent in `LIFETIME` at the rate that the budget gives, so the bound is met only if that changes.
const OUTSTANDING_MAX: usize = 512;

/// One PING.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) to: SocketAddr,
    pub(crate) at: Instant,
    late_at: Instant,
    /// Whether it was counted as lost.
    pub(crate) is_late: bool,
}

/// All PINGs that wait.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    by_transaction: BTreeMap<u64, Sent>,
}

impl Outstanding {
    /// Remembers a PING; if there are too many, the oldest is forgotten.
    pub(crate) fn insert(&mut self, transaction: u64, to: SocketAddr, at: Instant, late_after: Duration) {
        if self.by_transaction.len() >= OUTSTANDING_MAX {
            let oldest = self.by_transaction.iter().min_by_key(|(_, sent)| sent.at).map(|(transaction, _)| *transaction);
            oldest.and_then(|oldest| self.by_transaction.remove(&oldest));
        }
        self.by_transaction.insert(transaction, Sent { to, at, late_at: at + late_after.min(LIFETIME), is_late: false });
    }

    /// Takes the PING out that a PONG from `from` answers.
    pub(crate) fn take(&mut self, transaction: u64, from: SocketAddr) -> Option<Sent> {
        if self.by_transaction.get(&transaction)?.to != from {
            return None;
        }
        self.by_transaction.remove(&transaction)
    }

    /// Where the PINGs went that have become late, oldest first; forgets those past their lifetime.
    pub(crate) fn become_late(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut late = Vec::new();
        for sent in self.by_transaction.values_mut() {
            if !sent.is_late && sent.late_at <= now {
                sent.is_late = true;
                late.push((sent.at, sent.to));
            }
        }
        self.by_transaction.retain(|_, sent| now.saturating_duration_since(sent.at) < LIFETIME);
        late.sort_unstable();
        late.into_iter().map(|(_, to)| to).collect()
    }

    /// When the next PING becomes late or is forgotten.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_transaction.values().map(|sent| if sent.is_late { sent.at + LIFETIME } else { sent.late_at }).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Duration = Duration::from_millis(100);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn only_the_address_that_was_asked_answers_and_only_once() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        outstanding.insert(7, address(1), now, LATE);
        assert!(outstanding.take(7, address(2)).is_none());
        assert!(outstanding.take(8, address(1)).is_none());
        assert!(outstanding.take(7, address(1)).is_some());
        assert!(outstanding.take(7, address(1)).is_none());
    }

    #[test]
    fn a_probe_is_late_once_and_then_forgotten() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        outstanding.insert(7, address(1), now, LATE);
        assert_eq!(outstanding.deadline(), Some(now + LATE));
        assert_eq!(outstanding.become_late(now + LATE), [address(1)]);
        assert!(outstanding.become_late(now + LATE).is_empty());
        assert_eq!(outstanding.deadline(), Some(now + LIFETIME));
        assert!(outstanding.become_late(now + LIFETIME).is_empty());
        assert_eq!(outstanding.deadline(), None);
    }

    #[test]
    fn the_table_is_bounded_and_loses_the_oldest() {
        let now = Instant::now();
        let mut outstanding = Outstanding::default();
        for nth in 0..=OUTSTANDING_MAX as u64 {
            outstanding.insert(u64::MAX - nth, address(1), now + Duration::from_millis(nth), LATE);
        }
        assert_eq!(outstanding.by_transaction.len(), OUTSTANDING_MAX);
        assert!(outstanding.take(u64::MAX, address(1)).is_none());
    }
}
