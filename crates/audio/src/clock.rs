//! The pace of blocks where no device gives it.

use std::time::{Duration, Instant};

/// How long a block is.
const BLOCK: Duration = Duration::from_millis(10);

/// Blocks that a late caller may make up for. Whoever was away for longer (a computer that slept) goes on from where it
/// is, since nobody wants to hear all at once what was to be said meanwhile.
const CATCH_UP_MAX: u32 = 20;

/// Tells when the next block of 10 ms is due. Deadlines stand on a grid, so that lateness does not add up.
#[derive(Debug, Clone)]
pub struct BlockClock {
    deadline: Instant,
}

impl BlockClock {
    /// A clock whose first block is due at `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { deadline: start }
    }

    /// Whether a block is due at `now`. Says so once for each block.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if now < self.deadline {
            return false;
        }
        if now - self.deadline > BLOCK * CATCH_UP_MAX {
            self.deadline = now;
        }
        self.deadline += BLOCK;
        true
    }

    /// When the next block is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(clock: &mut BlockClock, now: Instant) -> usize {
        std::iter::from_fn(|| clock.is_due(now).then_some(())).count()
    }

    #[test]
    fn each_block_is_due_once_and_lateness_does_not_add_up() {
        let start = Instant::now();
        let mut clock = BlockClock::new(start);
        assert_eq!(due(&mut clock, start), 1);
        assert_eq!(due(&mut clock, start + Duration::from_millis(9)), 0);
        assert_eq!(due(&mut clock, start + Duration::from_millis(14)), 1);
        assert_eq!(clock.deadline(), start + Duration::from_millis(20));
        assert_eq!(due(&mut clock, start + Duration::from_millis(57)), 4);
        assert_eq!(clock.deadline(), start + Duration::from_millis(60));
    }

    #[test]
    fn after_a_standstill_it_goes_on_from_there() {
        let start = Instant::now();
        let mut clock = BlockClock::new(start);
        assert_eq!(due(&mut clock, start + Duration::from_secs(5)), 1);
        assert_eq!(clock.deadline(), start + Duration::from_millis(5_010));
    }
}
