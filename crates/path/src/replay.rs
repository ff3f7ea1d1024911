//! Memory of the PINGs that were answered, so that a recorded one sent again from elsewhere makes nobody's address a candidate.

use std::collections::{BTreeSet, VecDeque};

/// PINGs remembered: several minutes' worth, 40 KiB. One older than that could still only earn its sender an answer and a few probes, since
/// a path is used after a PONG alone, and those are for probes just sent.
pub(crate) const SEEN_MAX: usize = 2048;

/// Transactions of the last PINGs.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    known: BTreeSet<u64>,
    in_order: VecDeque<u64>,
}

impl Seen {
    pub(crate) fn contains(&self, transaction: u64) -> bool {
        self.known.contains(&transaction)
    }

    pub(crate) fn insert(&mut self, transaction: u64) {
        if !self.known.insert(transaction) {
            return;
        }
        self.in_order.push_back(transaction);
        if self.in_order.len() > SEEN_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_loses_the_oldest() {
        let mut seen = Seen::default();
        for transaction in 0..=SEEN_MAX as u64 {
            seen.insert(transaction);
            seen.insert(transaction);
        }
        assert!(!seen.contains(0));
        assert!(seen.contains(1) && seen.contains(SEEN_MAX as u64));
        assert_eq!(seen.known.len(), SEEN_MAX);
    }
}
