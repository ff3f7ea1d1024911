//! Seeded mutations of byte strings: the same seed gives the same inputs in the same order, everywhere.

/// Longest input that mutations grow to: past every datagram and every request that comes before a handshake is done.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Values at which lengths, counts and signs change their meaning.
const INTERESTING: [u8; 8] = [0, 1, 2, 0x3f, 0x7f, 0x80, 0xfe, 0xff];

/// A small generator of pseudo-random numbers (SplitMix64): good enough to choose bytes, and the same in every version.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next_u64() % end as u64) as usize }
    }

    fn byte(&mut self) -> u8 {
        if self.below(2) == 0 { INTERESTING[self.below(INTERESTING.len())] } else { self.next_u64() as u8 }
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next_u64() as u8).collect()
    }
}

/// Makes inputs from seeds without end.
#[derive(Debug)]
pub struct Mutator {
    random: Random,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// A mutator of `seeds`.
    #[must_use]
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { random: Random::new(seed), seeds }
    }

    /// The next input: mostly a seed with a few changes, sometimes random bytes.
    pub fn next_input(&mut self) -> Vec<u8> {
        if self.seeds.is_empty() || self.random.below(10) == 0 {
            let len = self.random.below(200);
            return self.random.bytes(len);
        }
        let mut input = self.seeds[self.random.below(self.seeds.len())].clone();
        for _ in 0..=self.random.below(4) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len());
        match self.random.below(9) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.random.below(8),
            2 | 3 if !input.is_empty() => input[at] = self.random.byte(),
            4 => input.truncate(at),
            5 => {
                let tail = self.random.below(40);
                input.extend(self.random.bytes(tail));
            }
            6 => {
                let end = (at + 1 + self.random.below(16)).min(input.len());
                input.drain(at..end.max(at));
            }
            7 => {
                let end = (at + self.random.below(64)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ => self.splice(input, at),
        }
    }

    /// Continues with the end of another seed.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = &self.seeds[self.random.below(self.seeds.len())];
        let from = self.random.below(other.len());
        input.truncate(at);
        input.extend_from_slice(&other[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, vec![b"ahoy".to_vec(), b"hello, who is there".to_vec()]);
            (0..1000).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn empty_seeds_do_no_harm() {
        for seeds in [vec![], vec![vec![]]] {
            let mut mutator = Mutator::new(3, seeds);
            assert!((0..1000).all(|_| mutator.next_input().len() <= INPUT_BYTES_MAX));
        }
    }
}
