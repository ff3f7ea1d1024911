//! A few ranges of numbers.

use serde::{Deserialize, Serialize};

/// Most ranges; what would need more loses the lowest.
const RANGES_MAX: usize = 8;

/// Numbers of entries as ranges: first and last of each, ascending, never touching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&number))
    }

    /// Adds a range, and gives what of it was not there.
    pub(crate) fn insert(&mut self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut added = Vec::new();
        let mut next = first;
        for &(a, b) in self.0.iter().filter(|&&(a, b)| b >= first && a <= last) {
            if next < a {
                added.push((next, a - 1));
            }
            next = next.max(b.saturating_add(1));
        }
        if next <= last {
            added.push((next, last));
        }
        let touches = |&(a, b): &(u64, u64)| a <= last.saturating_add(1) && b.saturating_add(1) >= first;
        let (joined, mut kept): (Vec<_>, Vec<_>) = self.0.iter().copied().partition(touches);
        let first = joined.iter().map(|range| range.0).fold(first, u64::min);
        let last = joined.iter().map(|range| range.1).fold(last, u64::max);
        kept.push((first, last));
        kept.sort_unstable();
        if kept.len() > RANGES_MAX {
            kept.remove(0);
        }
        self.0 = kept;
        added
    }

    /// Forgets what is at or below `number`.
    pub(crate) fn remove_to(&mut self, number: u64) {
        self.0.retain(|range| range.1 > number);
        for range in &mut self.0 {
            range.0 = range.0.max(number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one_and_only_what_is_new_is_told() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.insert(3, 5), [(3, 5)]);
        assert_eq!(ranges.insert(8, 9), [(8, 9)]);
        assert_eq!(ranges.insert(4, 10), [(6, 7), (10, 10)]);
        assert_eq!(ranges, Ranges(vec![(3, 10)]));
        assert_eq!(ranges.insert(1, 2), [(1, 2)]);
        assert_eq!(ranges, Ranges(vec![(1, 10)]));
        ranges.remove_to(4);
        assert!(!ranges.contains(4) && ranges.contains(5) && ranges.contains(10));
    }
}
