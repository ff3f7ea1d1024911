//! The matrix: every kind of network against every other, and what two homes may share.

use crate::nat::{Filtering, Mapping, Ports};
use crate::pair::{Access, NatKind, Pair, Side, Together};

/// The kindest NAT, the usual one and the most careful one.
#[must_use]
pub fn typical_nats() -> [NatKind; 3] {
    [
        NatKind::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent),
        NatKind::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent),
        NatKind::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent),
    ]
}

/// All NATs: mappings, filterings, with hairpin and without.
#[must_use]
pub fn nats() -> Vec<NatKind> {
    NatKind::all().flat_map(|nat| [false, true].map(|hairpin| NatKind { hairpin, ..nat })).collect()
}

/// All kinds of sides, with port mapping and without where there is a router to ask.
#[must_use]
pub fn sides() -> Vec<Side> {
    let mut accesses: Vec<Access> = nats().into_iter().map(Access::Nat).collect();
    for outer in typical_nats() {
        accesses.extend(typical_nats().map(|inner| Access::Double { outer, inner }));
    }
    let filterings = [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
    accesses.extend(filterings.map(Access::V6));
    accesses.extend(typical_nats().map(|nat| Access::Dual(nat, Filtering::AddressAndPortDependent)));
    accesses.extend([Access::Open, Access::Blocked]);
    accesses.into_iter().flat_map(with_and_without_port_mapping).collect()
}

fn with_and_without_port_mapping(access: Access) -> Vec<Side> {
    let without = Side { access, maps_ports: false };
    match access {
        Access::Open | Access::Blocked => vec![without],
        Access::Nat(_) | Access::Double { .. } | Access::V6(_) | Access::Dual(..) => vec![without, Side { access, maps_ports: true }],
    }
}

/// All pairs of the matrix.
#[must_use]
pub fn pairs() -> Vec<Pair> {
    let sides = sides();
    let apart = sides.iter().flat_map(|one| sides.iter().map(|other| Pair::apart([*one, *other])));
    apart.chain(in_one_home()).chain(behind_one_carrier()).chain(in_one_vpn()).collect()
}

fn in_one_home() -> impl Iterator<Item = Pair> {
    nats().into_iter().flat_map(|nat| {
        let [without, with] = [false, true].map(|maps_ports| Side { access: Access::Nat(nat), maps_ports });
        [without, with]
            .into_iter()
            .flat_map(|side| [false, true].map(|isolates| Pair { sides: [side; 2], together: Together::Home { isolates } }))
    })
}

fn behind_one_carrier() -> impl Iterator<Item = Pair> {
    let homes = || typical_nats().into_iter().flat_map(|nat| with_and_without_port_mapping(Access::Nat(nat)));
    nats().into_iter().flat_map(move |carrier| {
        homes().flat_map(move |one| homes().map(move |other| Pair { sides: [one, other], together: Together::Carrier(carrier) }))
    })
}

fn in_one_vpn() -> impl Iterator<Item = Pair> {
    let accesses = [Access::Blocked].into_iter().chain(typical_nats().map(Access::Nat));
    accesses.map(|access| Pair { sides: [Side::of(access); 2], together: Together::Vpn })
}

/// Pairs that only guessing ports brings together: a mapping that depends on the endpoint against a filter that asks for the very port.
#[must_use]
pub fn pairs_of_luck() -> Vec<Pair> {
    let easy = Side::nat(NatKind::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent));
    let hard = NatKind::all().filter(|nat| nat.mapping != Mapping::EndpointIndependent);
    let hard = hard.flat_map(|nat| [Ports::Sequential, Ports::Random].map(|ports| Side::nat(NatKind { ports, ..nat })));
    hard.flat_map(|hard| [Pair::apart([easy, hard]), Pair::apart([hard, easy])]).collect()
}
