//! Where the server gets the time from: the system, or a test's hand.

use ahoy_protocol::UnixMillis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A source of wall-clock time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Milliseconds that a test has added to the system's time.
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        UnixMillis::from(SystemTime::now()).plus(Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed)))
    }

    /// Lets time pass at once, for this clock and its clones.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
