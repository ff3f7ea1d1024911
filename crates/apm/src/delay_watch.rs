//! Notices that the delay between loudspeaker and microphone has jumped, from the lengths of the queues.
//!
//! A canceller whose echo path has moved by tens of milliseconds needs up to three seconds to notice, and lets echo through until then;
//! a fresh one mostly converges sooner, behind the guard. Queues breathe by a few milliseconds all the time, so only a large change that stays counts.

/// A change that the canceller's filter, which is 52 ms long, cannot follow.
const JUMP_MS: u32 = 30;

/// Blocks for which the change must stay.
const STAYS_BLOCKS: u32 = 15;

/// The delay that the canceller works with.
#[derive(Default)]
pub(crate) struct DelayWatch {
    settled_ms: Option<u32>,
    blocks: u32,
}

impl DelayWatch {
    /// Takes the delay of a block; true, once, when it has jumped.
    pub(crate) fn has_jumped(&mut self, delay_ms: u32) -> bool {
        let settled_ms = *self.settled_ms.get_or_insert(delay_ms);
        if delay_ms.abs_diff(settled_ms) < JUMP_MS {
            self.blocks = 0;
            return false;
        }
        self.blocks += 1;
        if self.blocks < STAYS_BLOCKS {
            return false;
        }
        *self = Self { settled_ms: Some(delay_ms), blocks: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_breathes_or_hiccups_has_not_jumped() {
        let mut watch = DelayWatch::default();
        assert!((0..1_000).all(|i| !watch.has_jumped(60 + i % 20)));
        assert!((0..10).all(|_| !watch.has_jumped(160)));
        assert!(!watch.has_jumped(60));
    }

    #[test]
    fn a_change_that_stays_is_a_jump_once() {
        let mut watch = DelayWatch::default();
        assert!(!watch.has_jumped(60));
        assert_eq!((0..100).filter(|_| watch.has_jumped(140)).count(), 1);
    }
}
