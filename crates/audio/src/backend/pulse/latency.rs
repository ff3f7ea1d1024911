//! How far away a device of the sound server is.

use std::time::{Duration, Instant};

use crate::callback::End;
use crate::device::Direction;

/// How often the server is asked how far away its device is.
const LATENCY_INTERVAL: Duration = Duration::from_millis(100);

/// The part by which one answer to that moves the estimate.
const LATENCY_SMOOTHING: u32 = 4;

/// How far away the device is from the callback. The server tells it for the moment it is asked; between two calls of the
/// callback what waits grows or shrinks with the time.
pub(super) struct Latency {
    asked: Option<u32>,
    due: Instant,
    /// When sound went through the callback last.
    sounded: Option<Instant>,
    /// What the server told, and when.
    told: Option<(Instant, Duration)>,
    smooth: Option<Duration>,
}

impl Latency {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: None, due: now, sounded: None, told: None, smooth: None }
    }

    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.sounded.is_some() && self.due <= now;
        if is_due {
            self.due = now + LATENCY_INTERVAL;
        }
        is_due
    }

    /// The question has this number.
    pub(super) fn handle_asked(&mut self, number: u32) {
        self.asked = Some(number);
    }

    /// Whether the answer with this number is to its question.
    pub(super) fn is_asked(&self, number: u32) -> bool {
        self.asked == Some(number)
    }

    pub(super) fn handle_answer<E: End>(&mut self, now: Instant, latency: Duration) {
        self.asked = None;
        match E::DIRECTION {
            // What came last has become older since.
            Direction::Input => {
                self.smoothen(latency.saturating_sub(self.sounded.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))))
            }
            // What is played next will find less before it.
            Direction::Output => self.told = Some((now, latency)),
        }
    }

    pub(super) fn handle_sound(&mut self, now: Instant) {
        self.sounded = Some(now);
    }

    /// The latency of the sound that goes through the callback at `now`.
    pub(super) fn at(&mut self, now: Instant) -> Duration {
        if let Some((at, latency)) = self.told.take() {
            self.smoothen(latency.saturating_sub(now.saturating_duration_since(at)));
        }
        self.smooth.unwrap_or_default()
    }

    fn smoothen(&mut self, latency: Duration) {
        self.smooth = Some(match self.smooth {
            Some(smooth) => (smooth * (LATENCY_SMOOTHING - 1) + latency) / LATENCY_SMOOTHING,
            None => latency,
        });
    }
}
