//! Whether to make sound shorter or longer, and how soon.
//!
//! The distance from the goal says how much; time and price say whether it can wait for a pause. What is begun is done
//! until the goal is reached, so that a delay which hovers at a limit is not stretched to and fro.

/// How far above its goal the delay may be without anything being done: on a steady network next to nothing is stretched,
/// and 200 ppm of drift take 20 s to come this far. What is done then removes all of it.
const DEAD_BAND_MS: f64 = 4.0;

/// Less than this far above the goal, shortening waits for a pause however long that takes.
const SHORTEN_MIN_MS: f64 = 10.0;

/// This far above the goal, shortening no longer waits for a pause: a frame of 20 ms that was waited for, and more.
const SHORTEN_HURRY_MS: f64 = 20.0;

/// Nor does it after this long.
const SHORTEN_PATIENCE_MS: f64 = 2_000.0;

/// When waiting longer costs so much less, lengthening does not wait for a pause: two percent of all frames are late.
const LENGTHEN_HURRY_MS: f64 = 40.0;

/// Nor does it after this long.
const LENGTHEN_PATIENCE_MS: f64 = 1_000.0;

/// What to do about the delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction {
    /// Nothing.
    None,
    /// Make the sound shorter where it is quiet.
    ShortenPauses {
        /// By how much in all.
        by_ms: f64,
    },
    /// Make the sound shorter wherever it can be done.
    Shorten {
        /// By how much in all.
        by_ms: f64,
    },
    /// Make the sound longer where it is quiet.
    LengthenPauses {
        /// By how much in all.
        by_ms: f64,
    },
    /// Make the sound longer wherever it can be done.
    Lengthen {
        /// By how much in all.
        by_ms: f64,
    },
    /// Sound was skipped: what comes does not join on to what was played.
    Skipped {
        /// How much.
        by_ms: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Correcting {
    No,
    Shortening { since_ms: f64 },
    Lengthening { since_ms: f64 },
}

/// Remembers what is being done.
#[derive(Debug)]
pub(crate) struct Corrector {
    correcting: Correcting,
}

impl Corrector {
    pub(crate) fn new() -> Self {
        Self { correcting: Correcting::No }
    }

    /// Another delay begins, and nothing of the one before is to be corrected any more.
    pub(crate) fn stop(&mut self) {
        self.correcting = Correcting::No;
    }

    /// What to do at `now_ms` about a delay that is too long by `excess_ms`, or too short by as much less than none, where a
    /// longer one would cost less by `gain_ms`.
    pub(crate) fn correct(&mut self, now_ms: f64, excess_ms: f64, gain_ms: f64) -> Correction {
        self.correcting = match self.correcting {
            Correcting::Lengthening { .. } if excess_ms < 0.0 => self.correcting,
            Correcting::Shortening { .. } if excess_ms > DEAD_BAND_MS => self.correcting,
            _ if excess_ms < 0.0 => Correcting::Lengthening { since_ms: now_ms },
            _ if excess_ms > DEAD_BAND_MS => Correcting::Shortening { since_ms: now_ms },
            _ => Correcting::No,
        };
        match self.correcting {
            Correcting::No => Correction::None,
            Correcting::Lengthening { since_ms } if gain_ms > LENGTHEN_HURRY_MS || now_ms - since_ms > LENGTHEN_PATIENCE_MS => {
                Correction::Lengthen { by_ms: -excess_ms }
            }
            Correcting::Lengthening { .. } => Correction::LengthenPauses { by_ms: -excess_ms },
            Correcting::Shortening { since_ms }
                if excess_ms > SHORTEN_HURRY_MS || (excess_ms > SHORTEN_MIN_MS && now_ms - since_ms > SHORTEN_PATIENCE_MS) =>
            {
                Correction::Shorten { by_ms: excess_ms }
            }
            Correcting::Shortening { .. } => Correction::ShortenPauses { by_ms: excess_ms },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_too_much_waits_for_a_pause_more_does_not_wait_long_and_much_not_at_all() {
        let mut corrector = Corrector::new();
        assert_eq!(corrector.correct(0.0, 3.0, 0.0), Correction::None);
        for now_ms in [0.0, 60_000.0] {
            assert_eq!(corrector.correct(now_ms, 8.0, 0.0), Correction::ShortenPauses { by_ms: 8.0 });
        }
        corrector.stop();
        assert_eq!(corrector.correct(0.0, 15.0, 0.0), Correction::ShortenPauses { by_ms: 15.0 });
        assert_eq!(corrector.correct(2_100.0, 15.0, 0.0), Correction::Shorten { by_ms: 15.0 });
        corrector.stop();
        assert_eq!(corrector.correct(0.0, 45.0, 0.0), Correction::Shorten { by_ms: 45.0 });
    }

    #[test]
    fn what_is_missing_is_added_at_once_where_frames_are_late_and_in_pauses_where_that_is_rare() {
        let mut corrector = Corrector::new();
        assert_eq!(corrector.correct(0.0, -10.0, 50.0), Correction::Lengthen { by_ms: 10.0 });
        corrector.stop();
        assert_eq!(corrector.correct(0.0, -10.0, 5.0), Correction::LengthenPauses { by_ms: 10.0 });
        assert_eq!(corrector.correct(1_100.0, -10.0, 5.0), Correction::Lengthen { by_ms: 10.0 });
        assert_eq!(corrector.correct(1_200.0, 2.0, 0.0), Correction::None, "the goal is reached");
    }
}
