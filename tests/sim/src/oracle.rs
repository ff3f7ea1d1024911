//! What a call must achieve, by the topology alone: whether two hosts can reach each other directly, and whether they must find that out.
//!
//! This is a rule about networks and knows nothing of agents. Two hosts reach each other directly if they are in one network; if both have
//! IPv6, since no firewall on the way translates; if either has a port that anybody may send to; if both their NATs map independently of the
//! endpoint; or if one does and lets any port of a host in that was sent something. A filter that asks for the very port, against a mapping
//! that nobody can know, is left to luck.

use crate::nat::{Filtering, Mapping};
use crate::topology::{CORE, PortId, RouterId, SegmentId, Topology};

/// What must come of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is a direct path, and it must be found.
    Direct,
    /// Guessing ports finds one nearly always.
    Luck,
    /// No rule asks for one.
    Relay,
}

/// The way from a host to the core: the segments on it, and the router after each but the last.
#[derive(Debug)]
struct Ascent {
    segments: Vec<SegmentId>,
    routers: Vec<RouterId>,
    has_v4: bool,
    has_v6: bool,
}

impl Ascent {
    fn new(topology: &Topology, interface: PortId) -> Self {
        let port = topology.port(interface);
        let mut ascent = Self { segments: vec![port.segment], routers: Vec::new(), has_v4: port.v4.is_some(), has_v6: port.v6.is_some() };
        let mut segment = port.segment;
        while let Some(router) = topology.gateway(segment) {
            ascent.routers.push(router);
            segment = topology.port(topology.router(router).outside).segment;
            ascent.segments.push(segment);
        }
        ascent
    }

    fn reaches_core(&self) -> bool {
        self.segments.last() == Some(&CORE)
    }
}

/// What must come of a call between hosts with these interfaces.
#[must_use]
pub fn verdict(topology: &Topology, one: &[PortId], other: &[PortId]) -> Verdict {
    let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (*one, *other)));
    let of_pair = |(one, other)| {
        let (one, other) = (Ascent::new(topology, one), Ascent::new(topology, other));
        let v4 = one.has_v4 && other.has_v4;
        let v6 = one.has_v6 && other.has_v6;
        let by_v4 = if v4 { verdict_v4(topology, &one, &other) } else { Verdict::Relay };
        if v6 && is_direct_v6(topology, &one, &other) { Verdict::Direct } else { by_v4 }
    };
    pairs.map(of_pair).min().unwrap_or(Verdict::Relay)
}

/// The network nearest to both.
fn common(one: &Ascent, other: &Ascent) -> Option<SegmentId> {
    one.segments.iter().copied().find(|segment| other.segments.contains(segment))
}

fn is_direct_v6(topology: &Topology, one: &Ascent, other: &Ascent) -> bool {
    let Some(common) = common(one, other) else { return false };
    let passes = |ascent: &Ascent| {
        let below = ascent.segments.iter().position(|segment| *segment == common).unwrap_or(0);
        ascent.routers[..below].iter().all(|router| {
            let plan = topology.router(*router).plan();
            plan.firewall.is_some() && !plan.blocks_udp
        })
    };
    !topology.is_isolating(common) && passes(one) && passes(other)
}

fn verdict_v4(topology: &Topology, one: &Ascent, other: &Ascent) -> Verdict {
    let Some(common) = common(one, other) else { return Verdict::Relay };
    if one.segments[0] == common && other.segments[0] == common && !topology.is_isolating(common) {
        return Verdict::Direct;
    }
    if is_mapped_for(topology, one, other) || is_mapped_for(topology, other, one) {
        return Verdict::Direct;
    }
    if !one.reaches_core() || !other.reaches_core() {
        return Verdict::Relay;
    }
    // Below a common router the two know only each other's outside addresses, and that router must bring packets to itself back.
    let turns_back = common == CORE || one.routers.last().is_some_and(|outermost| hairpins(topology, *outermost));
    if !turns_back {
        return Verdict::Relay;
    }
    match (Chain::new(topology, one), Chain::new(topology, other)) {
        (Some(one), Some(other)) => one.against(&other),
        _ => Verdict::Relay,
    }
}

fn hairpins(topology: &Topology, router: RouterId) -> bool {
    topology.router(router).plan().nat.is_some_and(|nat| nat.hairpin)
}

/// Whether `one`'s own router gives it a port that `other` gets packets to.
fn is_mapped_for(topology: &Topology, one: &Ascent, other: &Ascent) -> bool {
    let Some(router) = one.routers.first() else { return false };
    let plan = topology.router(*router).plan();
    let shown_on = one.segments[1];
    let Some(below) = other.segments.iter().position(|segment| *segment == shown_on) else { return false };
    let gets_out = other.routers[..below].iter().all(|router| {
        let plan = topology.router(*router).plan();
        plan.nat.is_some() && !plan.blocks_udp
    });
    let is_below_it = other.routers[..below].contains(router);
    plan.maps_ports && plan.nat.is_some() && !plan.blocks_udp && gets_out && !is_below_it && !topology.is_isolating(shown_on)
}

/// What all NATs on the way from a host to the core come to.
#[derive(Debug)]
struct Chain {
    is_independent: bool,
    filtering: Filtering,
}

impl Chain {
    /// `None`: no UDP gets through.
    fn new(topology: &Topology, ascent: &Ascent) -> Option<Self> {
        let mut chain = Self { is_independent: true, filtering: Filtering::EndpointIndependent };
        for router in &ascent.routers {
            let plan = topology.router(*router).plan();
            let nat = plan.nat.filter(|_| !plan.blocks_udp)?;
            chain.is_independent &= nat.mapping == Mapping::EndpointIndependent;
            chain.filtering = chain.filtering.max(nat.filtering);
        }
        Some(chain)
    }

    fn against(&self, other: &Self) -> Verdict {
        let lets_host_in = |chain: &Self| chain.is_independent && chain.filtering <= Filtering::AddressDependent;
        match (self.is_independent, other.is_independent) {
            (true, true) => Verdict::Direct,
            _ if lets_host_in(self) || lets_host_in(other) => Verdict::Direct,
            (true, false) | (false, true) => Verdict::Luck,
            (false, false) => Verdict::Relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::typical_nats;
    use crate::nat::Filtering as F;
    use crate::nat::Mapping as M;
    use crate::pair::{Access, Links, NatKind, Pair, Side, Together};

    fn verdict_of(pair: &Pair) -> Verdict {
        let world = pair.world(1, &Links::good());
        verdict(&world.network.topology, world.hosts[0].interfaces(), world.hosts[1].interfaces())
    }

    fn apart(one: Access, other: Access) -> Verdict {
        verdict_of(&Pair::apart([Side::of(one), Side::of(other)]))
    }

    fn nat(mapping: M, filtering: F) -> Access {
        Access::Nat(NatKind::new(mapping, filtering))
    }

    #[test]
    fn two_nats_meet_by_their_mappings_and_filters() {
        let strict = F::AddressAndPortDependent;
        let cone = nat(M::EndpointIndependent, strict);
        let hard = nat(M::AddressAndPortDependent, strict);
        assert_eq!(apart(cone, cone), Verdict::Direct);
        assert_eq!(apart(nat(M::EndpointIndependent, F::AddressDependent), hard), Verdict::Direct);
        assert_eq!(apart(hard, nat(M::EndpointIndependent, F::EndpointIndependent)), Verdict::Direct);
        assert_eq!(apart(cone, hard), Verdict::Luck);
        assert_eq!(apart(cone, nat(M::AddressDependent, F::EndpointIndependent)), Verdict::Luck);
        assert_eq!(apart(hard, hard), Verdict::Relay);
        assert_eq!(apart(Access::Open, hard), Verdict::Direct);
        assert_eq!(apart(Access::Open, Access::Blocked), Verdict::Relay);
    }

    #[test]
    fn the_hardest_of_several_nats_decides() {
        let [_, cone, hard] = typical_nats();
        assert_eq!(apart(Access::Double { outer: cone, inner: cone }, Access::Nat(cone)), Verdict::Direct);
        assert_eq!(apart(Access::Double { outer: hard, inner: cone }, Access::Nat(cone)), Verdict::Luck);
        assert_eq!(apart(Access::Double { outer: cone, inner: hard }, Access::Nat(hard)), Verdict::Relay);
    }

    #[test]
    fn a_port_mapping_helps_only_where_its_address_can_be_reached() {
        let [_, cone, hard] = typical_nats();
        let mapped = |access| Side { access, maps_ports: true };
        assert_eq!(verdict_of(&Pair::apart([mapped(Access::Nat(hard)), Side::nat(hard)])), Verdict::Direct);
        assert_eq!(verdict_of(&Pair::apart([mapped(Access::Double { outer: hard, inner: cone }), Side::nat(hard)])), Verdict::Relay);
        let together = Together::Carrier(hard);
        assert_eq!(verdict_of(&Pair { sides: [mapped(Access::Nat(hard)), Side::nat(hard)], together }), Verdict::Direct);
    }

    #[test]
    fn ipv6_needs_it_on_both_sides() {
        let [.., hard] = typical_nats();
        let strict = F::AddressAndPortDependent;
        assert_eq!(apart(Access::Dual(hard, strict), Access::Dual(hard, strict)), Verdict::Direct);
        assert_eq!(apart(Access::V6(strict), Access::Dual(hard, strict)), Verdict::Direct);
        assert_eq!(apart(Access::V6(strict), Access::Open), Verdict::Relay);
        assert_eq!(apart(Access::Dual(hard, strict), Access::Nat(hard)), Verdict::Relay);
    }

    #[test]
    fn neighbours_meet_at_home_or_by_a_hairpin() {
        let [_, cone, _] = typical_nats();
        let turning = NatKind { hairpin: true, ..cone };
        let home = |nat, isolates| verdict_of(&Pair { sides: [Side::nat(nat); 2], together: Together::Home { isolates } });
        assert_eq!(home(cone, false), Verdict::Direct);
        assert_eq!(home(cone, true), Verdict::Relay);
        assert_eq!(home(turning, true), Verdict::Direct);
        let carrier = |carrier| verdict_of(&Pair { sides: [Side::nat(cone); 2], together: Together::Carrier(carrier) });
        assert_eq!(carrier(cone), Verdict::Relay);
        assert_eq!(carrier(turning), Verdict::Direct);
    }

    #[test]
    fn a_private_network_is_one_network() {
        assert_eq!(verdict_of(&Pair { sides: [Side::of(Access::Blocked); 2], together: Together::Vpn }), Verdict::Direct);
    }
}
