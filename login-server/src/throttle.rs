//! Slows down the guessing of passwords without locking anybody out.
//!
//! Each try costs one unit of three budgets: that of the name from this network, that of the network over all names, and
//! that of the name over all networks. A try that proves the password gets its unit back, so only failures, and sign-ins
//! that were never finished, add up. An attacker elsewhere uses up the budget of *his* network; once he comes from so
//! many networks that the name's own budget is gone, those networks from which the password was lately proved still
//! go on.
//!
//! No I/O and no clock: `now` comes in, a verdict goes out.

use ahoy_protocol::{Name, UnixMillis};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// What of an IPv6 address names the network: whoever asks for a /48 gets one, and with it 65,536 networks of /64.
const IPV6_PREFIX_BITS: u32 = 48;

/// Where requests come from: what one subscriber usually has, an IPv4 /24 or an IPv6 /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NetworkPrefix(Ipv6Addr);

impl NetworkPrefix {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Self(std::net::Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped())
            }
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> IPV6_PREFIX_BITS))),
        }
    }

    /// This machine itself: a proxy in front, a test, the family computer. Its tries are not counted over all names, since behind it
    /// may be everybody.
    pub(crate) fn is_loopback(self) -> bool {
        self.0.to_ipv4_mapped().map_or(self == Self::of(IpAddr::V6(Ipv6Addr::LOCALHOST)), |v4| v4.is_loopback())
    }
}

/// A budget: so many at once, then one in each interval.
#[derive(Debug, Clone, Copy)]
struct Budget {
    burst: u32,
    interval: Duration,
}

/// A name from one network: five slips of the finger, then two tries a minute.
const NAME_FROM_NETWORK: Budget = Budget { burst: 5, interval: Duration::from_secs(30) };
/// One network, all names: an office after a power cut; no more than 86,400 guesses a day.
const NETWORK: Budget = Budget { burst: 100, interval: Duration::from_secs(1) };
/// One name, all networks: a botnet gets 1440 guesses a day, which a password that registration lets through withstands for ages.
const NAME: Budget = Budget { burst: 60, interval: Duration::from_secs(60) };
/// Registrations from one network, of which each has two requests: two school classes at once, then one a minute.
const REGISTRATIONS: Budget = Budget { burst: 120, interval: Duration::from_secs(30) };
/// Nodes that join or renew from one network: a data centre with as many as a network may have, all at once after a power cut.
const NODES: Budget = Budget { burst: 600, interval: Duration::from_secs(1) };
/// Budgets that are remembered, at some 150 bytes each. Full ones are forgotten first, since a fresh one is the same.
const BUDGETS_MAX: usize = 100_000;
/// What everybody shares whose budget found no place in the table: an attack from 100,000 networks is under way.
const OVERFLOW: Budget = Budget { burst: 100, interval: Duration::from_millis(100) };
/// How often a full table is searched for what can be forgotten, which takes milliseconds.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// A clock that goes back further than corrections do was set by somebody.
const CLOCK_SET_BACK: Duration = Duration::from_secs(60);
/// Names with networks that are known to be the owner's.
const PROVED_MAX: usize = 100_000;
/// How long a network counts as the owner's after the password was proved from it.
const PROVED_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    NameFromNetwork(Name, NetworkPrefix),
    Network(NetworkPrefix),
    Name(Name),
    Registrations(NetworkPrefix),
    Nodes(NetworkPrefix),
    Overflow,
}

impl Key {
    fn budget(&self) -> Budget {
        match self {
            Self::NameFromNetwork(..) => NAME_FROM_NETWORK,
            Self::Network(_) => NETWORK,
            Self::Name(_) => NAME,
            Self::Registrations(_) => REGISTRATIONS,
            Self::Nodes(_) => NODES,
            Self::Overflow => OVERFLOW,
        }
    }
}

/// What replaces a budget that finds no place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// What all strangers share.
    Shared,
    /// Nothing: the network is the owner's, and an attack from many others must not shut it out.
    Free,
}

/// All budgets that are not full.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// For each budget the time at which it will be full again.
    full_at: BTreeMap<Key, UnixMillis>,
    /// Until when a network counts as the owner's.
    proved: BTreeMap<(Name, NetworkPrefix), UnixMillis>,
    /// The latest time seen.
    latest: UnixMillis,
    /// When `full_at` was last swept.
    budgets_swept: UnixMillis,
    /// When `proved` was last swept.
    proved_swept: UnixMillis,
}

impl Default for Throttle {
    fn default() -> Self {
        let never = UnixMillis(0);
        Self { full_at: BTreeMap::new(), proved: BTreeMap::new(), latest: never, budgets_swept: never, proved_swept: never }
    }
}

impl Throttle {
    /// A sign-in begins. `Err`: not before so much time has passed.
    pub(crate) fn sign_in(&mut self, now: UnixMillis, name: &Name, from: NetworkPrefix) -> Result<(), Duration> {
        let mut keys = vec![Key::NameFromNetwork(name.clone(), from)];
        if !from.is_loopback() {
            keys.push(Key::Network(from));
        }
        if self.proved.get(&(name.clone(), from)).is_some_and(|until| now <= *until) {
            return self.take(now, keys, Beyond::Free);
        }
        keys.push(Key::Name(name.clone()));
        self.take(now, keys, Beyond::Shared)
    }

    /// A sign-in proved the password: it was no guess.
    pub(crate) fn proved(&mut self, now: UnixMillis, name: &Name, from: NetworkPrefix) {
        // The network's budget stays as it is: one who knows one password could else guess others for nothing.
        for key in [Key::NameFromNetwork(name.clone(), from), Key::Name(name.clone())] {
            let interval = key.budget().interval;
            if let Some(full_at) = self.full_at.get_mut(&key) {
                *full_at = full_at.minus(interval);
            }
        }
        if self.proved.len() >= PROVED_MAX && is_sweep_due(&mut self.proved_swept, now) {
            self.proved.retain(|_, until| now <= *until);
        }
        if self.proved.len() < PROVED_MAX {
            self.proved.insert((name.clone(), from), now.plus(PROVED_LIFE));
        }
    }

    /// A request of a registration. `Err`: not before so much time has passed.
    ///
    /// It counts against the name like a sign-in: the answer to it, too, is computed from the key with which a password is tested.
    pub(crate) fn register(&mut self, now: UnixMillis, name: &Name, from: NetworkPrefix) -> Result<(), Duration> {
        let mut keys = vec![Key::Name(name.clone())];
        if !from.is_loopback() {
            keys.push(Key::Registrations(from));
        }
        self.take(now, keys, Beyond::Shared)
    }

    /// A node joins or renews. `Err`: not before so much time has passed.
    pub(crate) fn node(&mut self, now: UnixMillis, from: NetworkPrefix) -> Result<(), Duration> {
        if from.is_loopback() { Ok(()) } else { self.take(now, vec![Key::Nodes(from)], Beyond::Shared) }
    }

    /// Takes one unit of each budget, or of none.
    fn take(&mut self, now: UnixMillis, mut keys: Vec<Key>, beyond: Beyond) -> Result<(), Duration> {
        if now.plus(CLOCK_SET_BACK) < self.latest {
            // Times from before the clock was set back would refuse everybody until it has caught up.
            self.full_at.clear();
        }
        self.latest = now;
        self.make_room(now, keys.len());
        let room = self.full_at.len() + keys.len() <= BUDGETS_MAX;
        if !room {
            let wanted = keys.len();
            keys.retain(|key| self.full_at.contains_key(key));
            if keys.len() < wanted && beyond == Beyond::Shared {
                keys.push(Key::Overflow);
            }
        }
        let wait = keys.iter().map(|key| self.wait(now, key)).max().unwrap_or_default();
        if wait > Duration::ZERO {
            return Err(wait);
        }
        for key in keys {
            let interval = key.budget().interval;
            let full_at = self.full_at.entry(key).or_insert(now);
            *full_at = (*full_at).max(now).plus(interval);
        }
        Ok(())
    }

    /// How long until the budget has a unit.
    fn wait(&self, now: UnixMillis, key: &Key) -> Duration {
        let Budget { burst, interval } = key.budget();
        let Some(full_at) = self.full_at.get(key) else { return Duration::ZERO };
        (full_at.since(now) + interval).saturating_sub(interval * burst)
    }

    fn make_room(&mut self, now: UnixMillis, needed: usize) {
        if self.full_at.len() + needed > BUDGETS_MAX && is_sweep_due(&mut self.budgets_swept, now) {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
    }
}

/// Whether a table that was last swept at `last` may be swept now; notes it if so.
fn is_sweep_due(last: &mut UnixMillis, now: UnixMillis) -> bool {
    // A clock that was set back must not keep a table full until it has caught up.
    let due = now < *last || now.since(*last) >= SWEEP_INTERVAL;
    if due {
        *last = now;
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn bob() -> Name {
        Name::parse("bob").expect("is a name")
    }

    fn network(n: u32) -> NetworkPrefix {
        NetworkPrefix::of(IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0b00_0001 + (n << 8))))
    }

    /// Takes all places of the table.
    fn fill(throttle: &mut Throttle) {
        for n in 0..u32::try_from(BUDGETS_MAX).expect("fits") {
            throttle.node(NOW, network(n)).expect("is let in");
        }
        assert_eq!(throttle.full_at.len(), BUDGETS_MAX);
    }

    fn tries_until_refused(throttle: &mut Throttle, from: NetworkPrefix) -> u32 {
        (0..1000).find(|_| throttle.sign_in(NOW, &bob(), from).is_err()).expect("is refused some time")
    }

    #[test]
    fn failures_are_slowed_down_and_the_answer_says_for_how_long() {
        let mut throttle = Throttle::default();
        assert_eq!(tries_until_refused(&mut throttle, network(1)), NAME_FROM_NETWORK.burst);
        let wait = throttle.sign_in(NOW, &bob(), network(1)).expect_err("is refused");
        assert_eq!(wait, NAME_FROM_NETWORK.interval);
        assert!(throttle.sign_in(NOW.plus(wait), &bob(), network(1)).is_ok());
        assert!(throttle.sign_in(NOW.plus(wait), &bob(), network(1)).is_err());
    }

    #[test]
    fn an_attackers_network_does_not_slow_down_the_owners() {
        let mut throttle = Throttle::default();
        tries_until_refused(&mut throttle, network(1));
        assert!(throttle.sign_in(NOW, &bob(), network(2)).is_ok());
    }

    #[test]
    fn an_attack_from_everywhere_leaves_the_owners_networks_open() {
        let mut throttle = Throttle::default();
        throttle.sign_in(NOW, &bob(), network(0)).expect("is let in");
        throttle.proved(NOW, &bob(), network(0));
        for attacker in 1..200 {
            let _ = throttle.sign_in(NOW, &bob(), network(attacker));
        }
        assert!(throttle.sign_in(NOW, &bob(), network(1000)).is_err(), "the attack is not slowed down");
        assert!(throttle.sign_in(NOW, &bob(), network(0)).is_ok(), "the owner is locked out");
    }

    #[test]
    fn who_proves_the_password_is_never_slowed_down() {
        let mut throttle = Throttle::default();
        for _ in 0..50 {
            throttle.sign_in(NOW, &bob(), network(1)).expect("is let in");
            throttle.proved(NOW, &bob(), network(1));
        }
    }

    #[test]
    fn one_network_cannot_try_many_names() {
        let mut throttle = Throttle::default();
        let name = |n: u32| Name::parse(&format!("user{n}")).expect("is a name");
        let refused = (0..1000).find(|n| throttle.sign_in(NOW, &name(*n), network(1)).is_err());
        assert_eq!(refused, Some(NETWORK.burst));
    }

    #[test]
    fn neighbours_in_a_prefix_share_a_budget_and_mapped_addresses_are_ipv4() {
        let prefix = |text: &str| NetworkPrefix::of(text.parse().expect("is an address"));
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.200"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.7"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8:0:ffff::1"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:1::1"));
        assert!(prefix("127.0.0.9").is_loopback() && prefix("::1").is_loopback());
        assert!(!prefix("2001:db8::1").is_loopback() && !prefix("192.0.2.1").is_loopback());
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let mut throttle = Throttle::default();
        let ahead = NOW.plus(Duration::from_secs(1_000_000));
        throttle.sign_in(ahead, &bob(), network(1)).expect("is let in");
        assert_eq!(tries_until_refused(&mut throttle, network(1)), NAME_FROM_NETWORK.burst);
    }

    #[test]
    fn the_table_is_bounded_and_strangers_beyond_it_share_what_is_left() {
        let mut throttle = Throttle::default();
        fill(&mut throttle);
        assert!(throttle.node(NOW, network(200_000)).is_ok());
        assert_eq!(throttle.full_at.len(), BUDGETS_MAX + 1);
        let later = NOW.plus(NODES.interval * 2);
        assert!(throttle.node(later, network(200_001)).is_ok());
        assert!(throttle.full_at.len() < 10, "what was full again was kept");
    }

    #[test]
    fn a_full_table_is_swept_at_most_four_times_a_second() {
        let mut throttle = Throttle::default();
        fill(&mut throttle);
        let swept = NOW.plus(NODES.interval).minus(Duration::from_millis(1));
        throttle.node(swept, network(200_000)).expect("is let in");
        throttle.node(NOW.plus(NODES.interval), network(200_001)).expect("is let in");
        assert!(throttle.full_at.len() > BUDGETS_MAX, "it was swept again a millisecond later");
        throttle.node(swept.plus(SWEEP_INTERVAL), network(200_002)).expect("is let in");
        assert!(throttle.full_at.len() < 10, "it was not swept");
    }

    #[test]
    fn a_full_table_leaves_the_owners_networks_open() {
        let mut throttle = Throttle::default();
        throttle.proved(NOW, &bob(), network(200_000));
        fill(&mut throttle);
        let stranger = (300_000..301_000).find(|n| throttle.sign_in(NOW, &bob(), network(*n)).is_err());
        assert!(stranger.is_some(), "strangers are not slowed down");
        assert!(throttle.sign_in(NOW, &bob(), network(200_000)).is_ok(), "the owner is locked out");
    }

    #[test]
    fn a_name_is_registered_and_signed_in_to_from_everywhere_out_of_one_budget() {
        let mut throttle = Throttle::default();
        let refused = (0..1000).find(|n| throttle.register(NOW, &bob(), network(*n)).is_err());
        assert_eq!(refused, Some(NAME.burst));
        assert!(throttle.sign_in(NOW, &bob(), network(2000)).is_err(), "registering and signing in have a budget each");
    }
}
