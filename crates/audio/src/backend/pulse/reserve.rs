//! How much sound the server keeps before its device: little, and more only where it runs dry.

use std::time::{Duration, Instant};

use pulseaudio::protocol::stream::BufferAttr;

use super::session::FRAME;
use crate::SAMPLE_RATE;

/// Frames that the server asks for at once: 2.5 ms. What it keeps it divides between its device's buffer and the stream's,
/// which must hold two of these more than the device takes; so with 5 ms its device would be left next to nothing, and
/// would have to be served a thousand times a second.
const PERIOD: u32 = SAMPLE_RATE / 400;

/// Periods that the server keeps, its device's own buffer included, at first and at most: 10 and 60 ms.
const SERVER_PERIODS: u32 = 4;
const SERVER_PERIODS_MAX: u32 = 24;

/// When the server ran dry this often within this time, it is given a step of so many periods more: our thread is that late.
const UNDERFLOWS: u32 = 2;
const UNDERFLOW_WINDOW: Duration = Duration::from_secs(10);
const SERVER_STEP: u32 = 2;

/// After so long without running dry it is given a step less.
const CALM: Duration = Duration::from_secs(30);

/// What the server keeps.
pub(super) struct Reserve {
    periods: u32,
    /// Frames of silence that it gets to keep more.
    skips: usize,
    underflows: Underflows,
}

impl Reserve {
    pub(super) fn new() -> Self {
        Self { periods: SERVER_PERIODS, skips: 0, underflows: Underflows::default() }
    }

    /// What to ask the server for.
    pub(super) fn buffer(&self) -> BufferAttr {
        let period = PERIOD * FRAME;
        let target_length = period * self.periods;
        // Without pre-buffering sound begins, and goes on after a gap, at once.
        BufferAttr {
            max_length: target_length * 2,
            target_length,
            pre_buffering: 0,
            minimum_request_length: period,
            ..BufferAttr::default()
        }
    }

    /// Of so many frames that the server asks for, those that are to be silence.
    pub(super) fn take_silent(&mut self, frames: usize) -> usize {
        // More than it keeps is the time for which it was dry: what is given for that will not be heard.
        let dry = frames.saturating_sub((self.periods * PERIOD) as usize);
        let silent = dry.max(self.skips.min(frames));
        self.skips -= silent.min(self.skips);
        silent
    }

    /// The server had nothing to play for a moment. Says whether it is to be asked for another buffer.
    pub(super) fn handle_underflow(&mut self, now: Instant) -> bool {
        let is_more = self.underflows.is_too_many(now) && self.periods < SERVER_PERIODS_MAX;
        if is_more {
            self.keep(self.periods + SERVER_STEP);
        }
        is_more
    }

    /// Says likewise, where the server has not run dry for a while.
    pub(super) fn handle_calm(&mut self, now: Instant) -> bool {
        let is_less = self.periods > SERVER_PERIODS && self.underflows.is_calm(now);
        if is_less {
            self.keep(self.periods - SERVER_STEP);
        }
        is_less
    }

    fn keep(&mut self, periods: u32) {
        self.skips += (periods.saturating_sub(self.periods) * PERIOD) as usize;
        self.periods = periods;
        tracing::debug!(periods, "the sound server keeps more or less");
    }
}

/// How often the server ran dry lately.
#[derive(Default)]
struct Underflows {
    count: u32,
    since: Option<Instant>,
    /// When it last ran dry, or was given less.
    latest: Option<Instant>,
}

impl Underflows {
    fn is_too_many(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > UNDERFLOW_WINDOW) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.latest = Some(now);
        self.count += 1;
        let is_too_many = self.count >= UNDERFLOWS;
        if is_too_many {
            self.since = None;
        }
        is_too_many
    }

    /// Says so once for each time.
    fn is_calm(&mut self, now: Instant) -> bool {
        let is_calm = self.latest.is_none_or(|latest| now.saturating_duration_since(latest) > CALM);
        if is_calm {
            self.latest = Some(now);
        }
        is_calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_runs_dry_keeps_more_and_gives_it_back_when_it_is_calm() {
        let (mut reserve, now) = (Reserve::new(), Instant::now());
        let kept = |reserve: &Reserve| reserve.buffer().target_length;
        let least = kept(&reserve);
        assert_eq!(reserve.take_silent(120), 0);
        assert!(!reserve.handle_underflow(now), "once is an accident");
        assert!(reserve.handle_underflow(now + Duration::from_secs(1)));
        assert_eq!(kept(&reserve), least + SERVER_STEP * PERIOD * FRAME);
        assert_eq!(
            (reserve.take_silent(480), reserve.take_silent(480)),
            ((SERVER_STEP * PERIOD) as usize, 0),
            "it is filled with silence, once"
        );
        assert!(!reserve.handle_calm(now + CALM));
        assert!(reserve.handle_calm(now + CALM + Duration::from_secs(2)));
        assert_eq!(kept(&reserve), least);
    }

    #[test]
    fn what_a_server_asks_for_because_it_was_dry_is_not_heard() {
        let mut reserve = Reserve::new();
        let kept = (SERVER_PERIODS * PERIOD) as usize;
        assert_eq!(reserve.take_silent(kept + 500), 500);
    }
}
