//! Where this device may be reached, and what its NAT does: gathered for a call while it rings, and anew when the network changes.

use crate::sessions::Sessions;
use ahoy_path::nat::{Assessment, Observation, assess};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::roster::Roster;
use ahoy_transport::ClientEndpoint;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long an observer has for an answer. Later ones are of no use to a call that is waiting.
const OBSERVE_TIME: Duration = Duration::from_millis(700);
/// Observers asked for each family of addresses: two tell an endpoint-independent mapping from another kind (RFC 4787, section 4.1), and one may
/// be dead.
const OBSERVERS: usize = 3;
/// Observers whose answers are enough; the others' are waited for only a little longer.
const ENOUGH: usize = 2;
const AFTER_ENOUGH: Duration = Duration::from_millis(50);

/// What was gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// The conclusions.
    pub assessment: Assessment,
    /// Whether any observer answered. If none did, what they would have seen is missing.
    pub is_observed: bool,
}

/// Gathers the addresses of this device's interfaces, those that nodes see its packets come from, and those that its router granted.
pub async fn gather(endpoint: &ClientEndpoint, sessions: &Sessions, port_mapped: &[SocketAddr]) -> Gathered {
    let hosts = endpoint.host_candidates();
    // What a tunnel shows is where TCP comes from, perhaps a proxy: no peer reaches this device there.
    let live: Vec<SocketAddr> = sessions.live().iter().filter(|session| !session.is_tunnelled()).map(|session| session.address).collect();
    let mut observations = Vec::new();
    let mut asked = JoinSet::new();
    for observer in observers(&live, &sessions.roster()) {
        let endpoint = endpoint.clone();
        asked.spawn(async move {
            let seen = endpoint.observe(observer, OBSERVE_TIME).await?.address;
            Some(Observation { observer, seen })
        });
    }
    let mut deadline = Instant::now() + OBSERVE_TIME;
    while let Ok(Some(observed)) = timeout_at(deadline, asked.join_next()).await {
        if let Ok(Some(observation)) = observed {
            observations.push(observation);
        }
        if observations.len() == ENOUGH {
            deadline = deadline.min(Instant::now() + AFTER_ENOUGH);
        }
    }
    Gathered { assessment: assess(&hosts, &observations, port_mapped), is_observed: !observations.is_empty() }
}

/// Whom to ask, for each family: nodes at addresses as different as there are, those with which there is a session first, since they are alive.
fn observers(live: &[SocketAddr], roster: &Roster) -> Vec<SocketAddr> {
    let nodes = roster.nodes_in(NodeRole::Supernode).chain(roster.nodes_in(NodeRole::Relay));
    let known: Vec<SocketAddr> = live.iter().copied().chain(nodes.flat_map(|node| node.udp.to_vec())).collect();
    let of_family = |is_v4: bool| spread(known.iter().copied().filter(|address| address.is_ipv4() == is_v4));
    [of_family(true), of_family(false)].concat()
}

/// The first addresses of different machines, filled up with other ports of the same.
fn spread(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut seen, mut ips) = (BTreeSet::new(), BTreeSet::<IpAddr>::new());
    let (mut first, mut further) = (Vec::new(), Vec::new());
    for address in addresses.filter(|address| seen.insert(*address)) {
        if ips.insert(address.ip()) { &mut first } else { &mut further }.push(address);
    }
    first.extend(further);
    first.truncate(OBSERVERS);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observers_are_on_different_machines_where_there_are_such() {
        let addresses = ["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"];
        let addresses = addresses.map(|text| text.parse().expect("an address"));
        assert_eq!(spread(addresses.into_iter()), [addresses[0], addresses[3], addresses[4]]);
        assert_eq!(spread(addresses[..3].iter().copied()), addresses[..2]);
    }
}
