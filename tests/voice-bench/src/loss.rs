//! Which packets are lost: a character for each packet, `1` is lost.
//!
//! Random losses are made from a seed. Bursty ones are cut out of the files in `data`, 10,000 packets each from lossgen, the model that Opus brings, which
//! was trained on what calls met.

/// How packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Each by itself.
    Random,
    /// In bursts.
    Bursty,
}

/// Packets of a pattern: more than any call here sends.
const PACKETS: usize = 10_000;
/// Where the bursty patterns begin, by seed.
const OFFSETS: [usize; 6] = [0, 2_503, 5_003, 1_259, 3_761, 6_257];

impl Kind {
    /// The word in the tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Bursty => "bursty",
        }
    }

    /// A pattern with so much loss.
    ///
    /// # Panics
    /// Where there is no file for it.
    pub(crate) fn pattern(self, percent: u32, seed: usize) -> String {
        match self {
            Self::Random => random(percent, seed),
            Self::Bursty => {
                let text = match percent {
                    5 => include_str!("../data/lossgen_5.txt"),
                    10 => include_str!("../data/lossgen_10.txt"),
                    20 => include_str!("../data/lossgen_20.txt"),
                    30 => include_str!("../data/lossgen_30.txt"),
                    50 => include_str!("../data/lossgen_50.txt"),
                    _ => panic!("no pattern with {percent} % of loss"),
                };
                let (before, after) = text.trim().split_at(OFFSETS[seed % OFFSETS.len()]);
                [after, before].concat()
            }
        }
    }
}

/// The share is met in every thousand packets: a call of half a minute is judged, and chance shall not make it another row's.
fn random(percent: u32, seed: usize) -> String {
    const BLOCK: usize = 1_000;
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed as u64 + 1).wrapping_add(u64::from(percent));
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut pattern = String::with_capacity(PACKETS);
    for _ in 0..PACKETS / BLOCK {
        let mut block = vec!['0'; BLOCK];
        block[..BLOCK * percent as usize / 100].fill('1');
        for at in (1..BLOCK).rev() {
            block.swap(at, (next() % (at as u64 + 1)) as usize);
        }
        pattern.extend(block);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_lose_what_they_say_and_differ_by_seed() {
        for kind in [Kind::Random, Kind::Bursty] {
            for percent in [10, 20, 30, 50] {
                let pattern = kind.pattern(percent, 1);
                assert_eq!(pattern.len(), PACKETS);
                let lost = pattern.bytes().filter(|character| *character == b'1').count() as i64;
                assert!((lost - 100 * i64::from(percent)).abs() < 300, "{kind:?} {percent}: {lost}");
                assert_ne!(pattern, kind.pattern(percent, 2));
                assert_eq!(pattern, kind.pattern(percent, 1));
            }
        }
    }
}
