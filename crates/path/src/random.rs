//! Transactions of probes. They only have to differ from one another and from those of another run: what keeps a stranger from answering is
//! the authentication code, so a small generator from the owner's seed is enough.

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_do_not_come_twice() {
        let mut random = Random::new(7);
        let numbers: BTreeSet<u64> = (0..10_000).map(|_| random.next()).collect();
        assert_eq!(numbers.len(), 10_000);
    }
}
