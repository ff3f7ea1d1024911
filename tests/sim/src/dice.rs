//! Chance: numbers that look random and are the same for the same seed.

use std::time::Duration;

/// A small generator (SplitMix64). Everything that chance decides in a simulation comes from one of these.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for a part, so that one part's throws do not change another's.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        // The upper half of a product instead of a remainder: no division, and no bias that a test could see.
        u64::try_from((u128::from(self.number()) * u128::from(end)) >> 64).expect("the upper half of a product of 64 bit numbers fits")
    }

    /// Between 0 and 1.
    pub fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True for this share of throws. Costs no throw where it is certain, so that links without loss stay comparable.
    pub fn is_hit(&mut self, share: f64) -> bool {
        share > 0.0 && self.share() < share
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("an index")]
    }

    /// A time between two.
    pub fn time(&mut self, from: Duration, until: Duration) -> Duration {
        from + until.saturating_sub(from).mul_f64(self.share())
    }

    /// A time between two, in milliseconds.
    pub fn ms(&mut self, from: u64, until: u64) -> Duration {
        self.time(Duration::from_millis(from), Duration::from_millis(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_falls_the_same_way() {
        let throws = |seed| {
            let mut dice = Dice::new(seed);
            (0..100).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
    }

    #[test]
    fn a_die_is_fair() {
        let mut dice = Dice::new(1);
        let mut faces = [0; 6];
        (0..60_000).for_each(|_| faces[dice.below(6) as usize] += 1);
        assert!(faces.iter().all(|face| (9_500..10_500).contains(face)), "{faces:?}");
        assert!((0..1000).all(|_| !dice.is_hit(0.0)));
    }
}
