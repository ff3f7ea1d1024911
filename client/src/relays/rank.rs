//! The order in which relays are good for a call. Decides only.

use ahoy_protocol::invitation::RelayOffer;
use ahoy_protocol::{CallId, NodeKey};
use std::time::Duration;

/// What an unmeasured distance counts as: worse than any relay on the same continent, so that a measured one is preferred, and better than
/// the far side of the world.
const UNMEASURED_MS: u32 = 250;
/// What a relay that does not answer counts as: it may come back, and is tried when there is nothing else.
const SILENT_MS: u32 = 100_000;
/// What an offer says of a relay that was not measured.
const NOT_MEASURED: u16 = u16::MAX;

/// How far a relay is from this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// Nobody has asked yet, or the answer is on its way.
    Unmeasured,
    /// It does not answer.
    Silent,
    /// Round-trip time.
    Measured(Duration),
}

impl Distance {
    /// As an offer says it; `None`: not to be offered.
    pub(super) fn in_offer(self) -> Option<u16> {
        match self {
            Self::Unmeasured => Some(NOT_MEASURED),
            Self::Silent => None,
            // Rounded up, so that a relay on this machine is not taken for one that was never measured by somebody who divides.
            Self::Measured(rtt) => Some(u16::try_from(rtt.as_micros().div_ceil(1000)).unwrap_or(NOT_MEASURED - 1).min(NOT_MEASURED - 1)),
        }
    }
}

/// The relays that the other side offers, the least sum of both distances first, and last those that do not answer this side. `distance` is
/// `None` of relays that this network does not have. Equals are ordered by the call, so that not every call goes to the same one.
pub fn rank(call: CallId, offered: &[RelayOffer], distance: impl Fn(&NodeKey) -> Option<Distance>) -> Vec<NodeKey> {
    let in_millis = |rtt_ms: Option<u16>| match rtt_ms {
        None => SILENT_MS,
        Some(NOT_MEASURED) => UNMEASURED_MS,
        Some(rtt_ms) => u32::from(rtt_ms),
    };
    let mut sums: Vec<(u32, [u8; 16], NodeKey)> = offered
        .iter()
        .filter_map(|offer| {
            let sum = in_millis(distance(&offer.node)?.in_offer()) + in_millis(Some(offer.rtt_ms));
            Some((sum, lot(call, &offer.node), offer.node))
        })
        .collect();
    sums.sort_unstable();
    sums.dedup_by_key(|(_, _, node)| *node);
    sums.into_iter().map(|(_, _, node)| node).collect()
}

fn lot(call: CallId, node: &NodeKey) -> [u8; 16] {
    std::array::from_fn(|i| call.0[i] ^ node.0[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(number: u8) -> NodeKey {
        NodeKey([number; 32])
    }

    fn offer(number: u8, rtt_ms: u16) -> RelayOffer {
        RelayOffer { node: relay(number), rtt_ms }
    }

    #[test]
    fn the_least_sum_of_both_distances_comes_first() {
        let own = |node: &NodeKey| Some(Distance::Measured(Duration::from_millis(if *node == relay(1) { 90 } else { 20 })));
        assert_eq!(rank(CallId([0; 16]), &[offer(1, 5), offer(2, 60), offer(3, 90)], own), [relay(2), relay(1), relay(3)]);
    }

    #[test]
    fn what_was_not_measured_comes_after_what_is_near_and_before_what_is_far() {
        let own =
            |node: &NodeKey| Some(if *node == relay(1) { Distance::Unmeasured } else { Distance::Measured(Duration::from_millis(30)) });
        assert_eq!(rank(CallId([0; 16]), &[offer(1, 5), offer(2, 30), offer(3, 900)], own), [relay(2), relay(1), relay(3)]);
        let nothing_known = |_: &NodeKey| Some(Distance::Unmeasured);
        assert_eq!(rank(CallId([0; 16]), &[offer(1, NOT_MEASURED)], nothing_known), [relay(1)]);
    }

    #[test]
    fn relays_that_do_not_answer_come_last_and_unknown_ones_not_at_all() {
        let own = |node: &NodeKey| match node.0[0] {
            1 => Some(Distance::Silent),
            2 => None,
            _ => Some(Distance::Unmeasured),
        };
        assert_eq!(rank(CallId([0; 16]), &[offer(1, 5), offer(2, 5), offer(3, 900), offer(3, 900)], own), [relay(3), relay(1)]);
    }

    #[test]
    fn equals_are_ordered_by_the_call() {
        let own = |_: &NodeKey| Some(Distance::Measured(Duration::from_millis(1)));
        let offers = [offer(1, 1), offer(2, 1)];
        assert_eq!(rank(CallId([1; 16]), &offers, own)[0], relay(1));
        assert_eq!(rank(CallId([2; 16]), &offers, own)[0], relay(2));
    }
}
