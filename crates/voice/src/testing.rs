//! Networks made of seeds, playing through them, and a rival's rule: what tests and benchmarks share.
//!
//! Everything is in virtual time and the same for the same seed.

mod neteq;
mod playout;
mod traces;

pub use neteq::{NetEqModel, play_neteq};
pub use playout::{Hum, Playout, Price, play};
pub use traces::{Trace, Weather};

/// Random numbers of a seed (xorshift64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Seeds that are near each other begin alike.
        (0..8).for_each(|_| _ = random.unit());
        random
    }

    /// Evenly from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly between two numbers.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// The wait for the next of events that come at random, `mean` apart.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Normal, of variance one: the sum of twelve even ones.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
