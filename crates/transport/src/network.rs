//! Notices that this machine is on another network: its addresses changed, or it slept and is somewhere else since.
//!
//! Systems have ways of telling, another on each, and each with gaps. Looking at the interfaces a few times a second costs less than a packet
//! of voice, works everywhere, and misses nothing that lasts.

use crate::interfaces;
use if_addrs::Interface;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks while something is connected: a call is to be heard again within a second of a change, and what it takes after the look
/// is a round trip or two.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// And while nothing is.
pub(crate) const LOOK_EVERY_IDLE: Duration = Duration::from_secs(1);
/// A look that comes so much too late was held up by sleep, or by something like it. By then NATs may have forgotten, whatever the
/// addresses say.
const SLEPT_AFTER: Duration = Duration::from_secs(5);

/// The state of this machine's network, as far as an endpoint knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkState {
    /// Rises with every change.
    pub generation: u64,
    /// Whether there is any address to send from.
    pub has_addresses: bool,
}

/// An address, and the network that it is in.
type Address = (String, IpAddr, u8);

/// Remembers what the last look showed.
#[derive(Debug)]
pub(crate) struct Watcher {
    addresses: BTreeSet<Address>,
    looked: Instant,
    looked_on_wall: SystemTime,
}

impl Watcher {
    pub(crate) fn new(now: Instant, wall: SystemTime, interfaces: &[Interface]) -> Self {
        Self { addresses: addresses(interfaces), looked: now, looked_on_wall: wall }
    }

    /// Looks, when `every` has passed since the last time; says whether the network changed.
    ///
    /// Some clocks stop while a machine sleeps and some do not; whichever is further tells. A wall clock that is set
    /// forward looks the same, which costs a few probes.
    pub(crate) fn look(&mut self, now: Instant, wall: SystemTime, every: Duration, interfaces: &[Interface]) -> bool {
        let passed = now.saturating_duration_since(self.looked);
        let passed_on_wall = wall.duration_since(self.looked_on_wall).unwrap_or_default();
        let slept = passed.max(passed_on_wall) > every + SLEPT_AFTER;
        let addresses = addresses(interfaces);
        let changed = addresses != self.addresses;
        (self.addresses, self.looked, self.looked_on_wall) = (addresses, now, wall);
        slept || changed
    }
}

/// What counts. Interfaces without an address that anybody could send to come and go with every container.
fn addresses(interfaces: &[Interface]) -> BTreeSet<Address> {
    let address = |interface: &Interface| (interface.name.clone(), interface.ip(), interfaces::prefix_bits(interface));
    interfaces.iter().filter(|interface| interfaces::is_of_use(interface)).map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr};

    fn interface(ip: [u8; 4]) -> Interface {
        let addr = IfAddr::V4(Ifv4Addr { ip: ip.into(), netmask: [255, 255, 255, 0].into(), prefixlen: 24, broadcast: None });
        Interface { name: "test".into(), addr, index: None, oper_status: IfOperStatus::Up, is_p2p: false }
    }

    /// Whether each of some looks, at these times by both clocks, showed a change.
    fn looks(steps: &[(u64, u64, &[[u8; 4]])]) -> Vec<bool> {
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let interfaces = |ips: &[[u8; 4]]| ips.iter().map(|ip| interface(*ip)).collect::<Vec<_>>();
        let mut watcher = Watcher::new(start, wall, &interfaces(&[[192, 0, 2, 7]]));
        let step = |(mono, on_wall, ips): &(u64, u64, &[[u8; 4]])| {
            let (now, wall) = (start + Duration::from_millis(*mono), wall + Duration::from_millis(*on_wall));
            watcher.look(now, wall, LOOK_EVERY, &interfaces(ips))
        };
        steps.iter().map(step).collect()
    }

    const HOME: &[[u8; 4]] = &[[192, 0, 2, 7]];

    #[test]
    fn a_network_that_stays_is_no_news() {
        assert_eq!(looks(&[(250, 250, HOME), (500, 500, HOME), (4000, 4000, HOME)]), [false, false, false]);
    }

    #[test]
    fn an_address_that_comes_or_goes_is_told_once() {
        let both: &[[u8; 4]] = &[[192, 0, 2, 7], [198, 51, 100, 7]];
        assert_eq!(looks(&[(250, 250, both), (500, 500, both), (750, 750, &[])]), [true, false, true]);
    }

    #[test]
    fn sleep_shows_by_whichever_clock_went_on() {
        assert_eq!(looks(&[(250, 60_000, HOME), (500, 60_250, HOME), (60_000, 60_500, HOME)]), [true, false, true]);
    }

    #[test]
    fn a_clock_that_is_set_back_is_no_sleep() {
        assert_eq!(looks(&[(250, 60_000, HOME), (500, 10, HOME), (750, 260, HOME)]), [true, false, false]);
    }

    #[test]
    fn addresses_that_reach_nobody_do_not_count() {
        assert_eq!(looks(&[(250, 250, &[[192, 0, 2, 7], [169, 254, 9, 9], [127, 0, 0, 1]])]), [false]);
    }
}
