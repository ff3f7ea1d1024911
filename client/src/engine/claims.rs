//! Which of several devices in one process takes a call: the first that is free, so that no call keeps more than one of them busy.

use ahoy_protocol::CallId;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Calls that are remembered: far more than come in while an invitation is on its way. The oldest is forgotten; at worst a late invitation to
/// it rings at a second device, as calls do.
const CLAIMS_MAX: usize = 256;

/// The calls that devices of this process have taken, and which device did.
#[derive(Debug, Default)]
pub struct Claims {
    taken: Mutex<VecDeque<(CallId, u8)>>,
}

impl Claims {
    /// Whether the call is this device's: nobody has taken it before, or this one has.
    pub fn claim(&self, call: CallId, device: u8) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, owner)) = taken.iter().find(|(known, _)| *known == call) {
            return *owner == device;
        }
        if taken.len() >= CLAIMS_MAX {
            taken.pop_front();
        }
        taken.push_back((call, device));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_first_devices_that_claims_it() {
        let claims = Claims::default();
        let (one, other) = (CallId([1; 16]), CallId([2; 16]));
        assert!(claims.claim(one, 1) && !claims.claim(one, 2));
        assert!(claims.claim(other, 2) && !claims.claim(other, 1));
        assert!(claims.claim(one, 1), "an invitation may come twice");
    }
}
