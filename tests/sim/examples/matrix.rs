//! Prints the matrix as tables in Markdown: what becomes of a call between every two kinds of networks, and how soon.
//!
//! A cell says by what a call goes in the end and, where that is direct, after how many milliseconds it does, from the answer on: the median
//! of all seeds, and until the later of the two sides has moved. Where not all calls became direct, it says how many did.

use ahoy_sim::matrix::typical_nats;
use ahoy_sim::nat::{Filtering, Mapping};
use ahoy_sim::oracle::Verdict;
use ahoy_sim::pair::{Access, Links, NatKind, Outcome, Pair, Side, Together};
use ahoy_sim::seeds::median;
use std::time::Duration;

/// Calls for one cell.
const CALLS: u64 = 20;
/// How long is waited for a direct path.
const TIME: Duration = Duration::from_secs(30);

fn main() {
    apart();
    together();
}

fn sides() -> Vec<Side> {
    let nat = |mapping, filtering| Side::nat(NatKind::new(mapping, filtering));
    let [_, cone, hard] = typical_nats();
    let strict = Filtering::AddressAndPortDependent;
    vec![
        Side::of(Access::Open),
        nat(Mapping::EndpointIndependent, Filtering::EndpointIndependent),
        nat(Mapping::EndpointIndependent, Filtering::AddressDependent),
        nat(Mapping::EndpointIndependent, strict),
        nat(Mapping::AddressDependent, strict),
        nat(Mapping::AddressAndPortDependent, Filtering::EndpointIndependent),
        nat(Mapping::AddressAndPortDependent, strict),
        Side { maps_ports: true, ..Side::nat(hard) },
        Side::of(Access::Double { outer: cone, inner: cone }),
        Side::of(Access::Double { outer: hard, inner: cone }),
        Side::of(Access::V6(strict)),
        Side::of(Access::Dual(hard, strict)),
        Side::of(Access::Blocked),
    ]
}

fn apart() {
    let sides = sides();
    println!("| | {} |", sides.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(sides.len()));
    for (row, one) in sides.iter().enumerate() {
        let cells =
            sides.iter().enumerate().map(|(column, other)| if column < row { String::new() } else { cell(&Pair::apart([*one, *other])) });
        println!("| {one} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    println!();
}

fn together() {
    let [kind, cone, hard] = typical_nats();
    let turning = |nat| NatKind { hairpin: true, ..nat };
    println!("| two homes | what they share | call |\n|---|---|---|");
    for (nat, isolates) in [(cone, false), (turning(cone), true), (cone, true)] {
        let place = if isolates { "one home that keeps its devices apart" } else { "one home" };
        let hairpin = if nat.hairpin { ", with hairpin" } else { "" };
        println!("| {nat} | {place}{hairpin} | {} |", cell(&Pair { sides: [Side::nat(nat); 2], together: Together::Home { isolates } }));
    }
    for carrier in [kind, cone, hard].into_iter().flat_map(|nat| [nat, turning(nat)]) {
        for maps_ports in [false, true] {
            let pair = Pair { sides: [Side { maps_ports, ..Side::nat(cone) }, Side::nat(cone)], together: Together::Carrier(carrier) };
            let hairpin = if carrier.hairpin { ", with hairpin" } else { "" };
            println!("| {} and {} | one carrier's {carrier}{hairpin} | {} |", pair.sides[0], pair.sides[1], cell(&pair));
        }
    }
    println!("| {} | a VPN | {} |", hard, cell(&Pair { sides: [Side::nat(hard); 2], together: Together::Vpn }));
}

fn cell(pair: &Pair) -> String {
    let time = |verdict| if verdict == Verdict::Luck { TIME } else { Duration::from_secs(5) };
    let first = pair.call(0, &Links::good(), Duration::from_secs(1));
    let outcomes: Vec<Outcome> = (0..CALLS).map(|seed| pair.call(seed, &Links::good(), time(first.verdict))).collect();
    assert!(outcomes.iter().all(Outcome::is_connected), "{pair} does not connect");
    let direct: Vec<Duration> = outcomes.iter().filter(|outcome| outcome.is_direct).filter_map(|outcome| outcome.direct_after).collect();
    match median(&direct) {
        None => "relay".to_owned(),
        Some(after) if direct.len() == outcomes.len() => format!("direct, {}", after.as_millis()),
        Some(after) => format!("direct in {} of {CALLS}, {}", direct.len(), after.as_millis()),
    }
}
