//! At which supernodes a device is at home.
//!
//! Rendezvous hashing: every device orders all supernodes by a hash of its own key and theirs. When a supernode goes, only
//! its own devices move, and they spread over all the others.

use ahoy_identity::sha256;
use ahoy_protocol::ids::{DeviceKey, NodeKey};

/// All of `nodes` in the order in which `device` prefers them: its home first, then its standbys.
#[must_use]
pub fn homes_for(device: &DeviceKey, nodes: impl IntoIterator<Item = NodeKey>) -> Vec<NodeKey> {
    let mut ranked: Vec<_> = nodes.into_iter().map(|node| (sha256(&[b"ahoy/home/1", device.as_bytes(), node.as_bytes()]), node)).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> Vec<NodeKey> {
        (0..count).map(|n| NodeKey([n; 32])).collect()
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_roster() {
        let device = DeviceKey([7; 32]);
        let mut reversed = nodes(20);
        reversed.reverse();
        assert_eq!(homes_for(&device, nodes(20)), homes_for(&device, reversed));
    }

    #[test]
    fn a_supernode_that_goes_moves_no_device_of_another() {
        for seed in 0..100 {
            let device = DeviceKey([seed; 32]);
            let before = homes_for(&device, nodes(10));
            let after = homes_for(&device, nodes(10).into_iter().filter(|node| *node != before[3]));
            let expected: Vec<_> = before.iter().copied().filter(|node| *node != before[3]).collect();
            assert_eq!(after, expected);
        }
    }

    #[test]
    fn devices_spread_over_all_supernodes() {
        let mut homes = std::collections::BTreeMap::new();
        for n in 0..2000_u32 {
            let device = DeviceKey(sha256(&[&n.to_be_bytes()]));
            *homes.entry(homes_for(&device, nodes(10))[0]).or_insert(0) += 1;
        }
        assert_eq!(homes.len(), 10);
        assert!(homes.values().all(|count| (120..300).contains(count)), "{homes:?}");
    }
}
