//! Whether anything at all comes from the peer. Speech that pauses is no silence: somebody has to have asked.

use crate::types::SILENCE_TOLD;
use std::time::{Duration, Instant};

/// What an answer is given at least, from the first question on.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Watches all ways together.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    heard_at: Option<Instant>,
    /// The first PING after that.
    asked_at: Option<Instant>,
    is_silent: bool,
    /// Since it was last asked whether anything changed.
    was_heard: bool,
}

impl Silence {
    /// Something came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
        self.asked_at = None;
        self.was_heard = true;
    }

    /// A PING went out by a way that should bring an answer.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
    }

    /// When silence is to be told. `None` while nothing was ever heard: that is not a call that broke off but one that has not begun.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_silent {
            return None;
        }
        Some((self.heard_at? + SILENCE_TOLD).max(self.asked_at? + ANSWER_TIME))
    }

    /// Whether it became silent, or is no longer; `None`: it is as it was.
    pub(crate) fn change(&mut self, now: Instant) -> Option<bool> {
        // Hearing may itself have led to a question.
        let was_heard = std::mem::take(&mut self.was_heard);
        let is_silent = if self.is_silent { !was_heard } else { self.deadline().is_some_and(|deadline| deadline <= now) };
        let has_changed = is_silent != self.is_silent;
        self.is_silent = is_silent;
        has_changed.then_some(is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_after_a_question_and_two_seconds_and_ends_with_a_sound() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut silence = Silence::default();
        silence.asked(at(0));
        assert_eq!(silence.change(at(60_000)), None, "never heard");
        silence.heard(at(60_000));
        assert_eq!(silence.change(at(70_000)), None, "not asked");
        silence.asked(at(70_000));
        assert_eq!(silence.change(at(70_999)), None);
        assert_eq!(silence.change(at(71_000)), Some(true));
        silence.asked(at(71_500));
        assert_eq!(silence.change(at(80_000)), None);
        silence.heard(at(80_001));
        silence.asked(at(80_001));
        assert_eq!(silence.change(at(80_001)), Some(false));
    }
}
