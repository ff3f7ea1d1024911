//! Invitations that came already, so that a replayed one does not ring again.

use ahoy_protocol::CallId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a call is remembered: longer than an invitation is valid, on both sides of the clock.
const REMEMBERED: Duration = Duration::from_secs(8 * 60);
/// Most calls remembered. Supernodes limit invitations to far fewer; the oldest is forgotten first.
const SEEN_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<CallId, Instant>);

impl Seen {
    /// True the first time.
    pub(crate) fn is_first(&mut self, now: Instant, call: CallId) -> bool {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
        if self.0.len() >= SEEN_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, at)| **at).map(|(call, _)| *call)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(call, now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_first_once_and_memory_is_bounded() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        assert!(seen.is_first(now, CallId([1; 16])));
        assert!(!seen.is_first(now, CallId([1; 16])));
        for number in 0..2 * SEEN_MAX as u128 {
            seen.is_first(now, CallId((number << 8).to_be_bytes()));
        }
        assert!(seen.0.len() <= SEEN_MAX);
        assert!(seen.is_first(now + REMEMBERED, CallId([1; 16])));
        assert_eq!(seen.0.len(), 1);
    }
}
