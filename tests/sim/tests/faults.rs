//! What a listener notices when something breaks: how long nothing is heard, and whether anything is lost.

use ahoy_sim::host::{CALLEE, CALLER};
use ahoy_sim::link::Quality;
use ahoy_sim::matrix::typical_nats;
use ahoy_sim::nat::Ports;
use ahoy_sim::pair::{Access, Links, NatKind, Pair, Side};
use ahoy_sim::place::Families;
use ahoy_sim::seeds::{chosen, command, median};
use ahoy_sim::topology::{CORE, RouterId};
use ahoy_sim::world::{ANSWER_AT, Fault, World};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Homes at 20 ms, relays at 20 ms more: 60 ms one way through a relay, 40 ms straight.
fn links() -> Links {
    Links { relays: [Quality::of_ms(20); 3], ..Links::good() }
}

fn usual() -> NatKind {
    typical_nats()[1]
}

/// The same, with other ports after each restart.
fn fickle() -> NatKind {
    NatKind { ports: Ports::Random, ..usual() }
}

fn hard() -> NatKind {
    typical_nats()[2]
}

fn between(one: NatKind, other: NatKind) -> Pair {
    Pair::apart([Side::nat(one), Side::nat(other)])
}

/// A call that has been answered, ten seconds and something on, so that faults meet different moments.
fn settled(pair: &Pair, seed: u64) -> World {
    let mut world = pair.world(seed, &links());
    world.answer();
    world.run_until(ANSWER_AT + 10 * SECOND + ms(seed * 7 % 1000));
    world
}

fn router_of(world: &World, host: usize) -> RouterId {
    let segment = world.network.topology.port(world.hosts[host].interfaces()[0]).segment;
    world.network.topology.gateway(segment).expect("a home has a router")
}

/// The longest time that either side heard nothing since then.
fn longest_gap(world: &World, from: Duration) -> Duration {
    world.hosts.iter().map(|host| host.ear.longest_gap(from, world.now())).max().expect("two hosts")
}

/// Packets that either side sent until a second ago and the other never got.
fn missing(world: &World, from: Duration) -> usize {
    let [one, other] = &world.hosts;
    let until = world.now() - SECOND;
    one.ear.missing(&other.voice, from, until).0 + other.ear.missing(&one.voice, from, until).0
}

fn assert_well(world: &World, test: &str, seed: u64) {
    assert!(world.violations().is_empty(), "{:?}\n{}", world.violations(), command("faults", test, seed));
}

#[test]
fn a_direct_path_that_dies_takes_a_quarter_of_a_second_with_it() {
    let mut gaps = Vec::new();
    for seed in chosen(0..20, 0..200) {
        let mut world = settled(&between(usual(), usual()), seed);
        assert!(world.is_direct(), "{}", command("faults", "a_direct_path_that_dies", seed));
        let cut_at = world.now();
        world.befall(Fault::Cut(true));
        world.run(8 * SECOND);
        gaps.push(longest_gap(&world, cut_at));
        assert!(longest_gap(&world, cut_at) <= ms(400), "{gaps:?}\n{}", command("faults", "a_direct_path_that_dies", seed));
        assert_eq!(missing(&world, ANSWER_AT), 0, "{}", command("faults", "a_direct_path_that_dies", seed));
        assert_well(&world, "a_direct_path_that_dies", seed);
    }
    println!("longest gap after the cut: {:?} (median), {:?} (most)", median(&gaps), gaps.iter().max());
    assert!(median(&gaps) <= Some(ms(260)));
}

#[test]
fn moving_to_a_direct_path_and_back_loses_nothing() {
    for seed in chosen(0..20, 0..200) {
        let mut world = settled(&between(usual(), usual()), seed);
        for _ in 0..3 {
            world.befall(Fault::Cut(true));
            world.run(5 * SECOND);
            assert!(!world.is_direct());
            world.befall(Fault::Cut(false));
            world.run(20 * SECOND);
        }
        assert!(world.is_direct(), "{}", command("faults", "moving_to_a_direct", seed));
        assert_eq!(missing(&world, ANSWER_AT), 0, "{}", command("faults", "moving_to_a_direct", seed));
        assert_well(&world, "moving_to_a_direct", seed);
    }
}

#[test]
fn who_goes_to_another_network_is_heard_again_within_a_second() {
    let (mut heard_after, mut hears_after) = (Vec::new(), Vec::new());
    for seed in chosen(0..40, 0..400) {
        let nats = [[usual(), usual()], [hard(), hard()], [usual(), hard()]][seed as usize % 3];
        let host = if seed % 2 == 0 { CALLER } else { CALLEE };
        let mut world = settled(&between(nats[0], nats[1]), seed);
        let side = Side::of(if seed % 5 == 0 { Access::Open } else { Access::Nat(nats[1]) });
        let line = Quality::of_ms(30);
        let segment = side.build(&mut world.network.topology, &mut world.addresses, CORE, line, 30, false);
        let quality = if segment == CORE { line } else { Quality::of_ms(1) };
        let roamed_at = world.now();
        world.befall(Fault::Roam { host, segment, families: Families::V4, quality });
        world.run(10 * SECOND);
        heard_after.push(world.hosts[1 - host].ear.longest_gap(roamed_at, roamed_at + 5 * SECOND));
        hears_after.push(world.hosts[host].ear.longest_gap(roamed_at, roamed_at + 5 * SECOND));
        assert!(longest_gap(&world, roamed_at) <= SECOND, "{heard_after:?} {hears_after:?}\n{}", command("faults", "who_goes_to", seed));
        assert_well(&world, "who_goes_to", seed);
    }
    println!(
        "silence after roaming: {:?} (median), {:?} (most); the other way {:?}",
        median(&heard_after),
        heard_after.iter().max(),
        hears_after.iter().max()
    );
}

#[test]
fn who_changes_networks_every_few_seconds_is_heard_as_soon_each_time() {
    for seed in chosen(0..4, 0..40) {
        let host = if seed % 2 == 0 { CALLER } else { CALLEE };
        let mut world = settled(&between(usual(), usual()), seed);
        let mut gaps = Vec::new();
        for nth in 0..20 {
            let side = Side::of(Access::Nat(usual()));
            let segment = side.build(&mut world.network.topology, &mut world.addresses, CORE, Quality::of_ms(30), 30 + nth, false);
            let roamed_at = world.now();
            world.befall(Fault::Roam { host, segment, families: Families::V4, quality: Quality::of_ms(1) });
            world.run(ms(4000 + seed * 211 % 3000));
            gaps.push(longest_gap(&world, roamed_at));
        }
        assert!(gaps.iter().all(|gap| *gap <= gaps[0] + ms(40)), "{gaps:?}\n{}", command("faults", "who_changes_networks", seed));
        assert_well(&world, "who_changes_networks", seed);
    }
}

#[test]
fn a_relay_that_dies_during_a_relayed_call_costs_at_most_a_second() {
    let mut gaps = Vec::new();
    for seed in chosen(0..20, 0..200) {
        let mut world = settled(&between(hard(), hard()), seed);
        assert!(!world.is_direct());
        let died_at = world.now();
        for relay in [0, 1] {
            world.befall(Fault::Relay { relay, is_up: false });
            world.run(15 * SECOND);
            world.befall(Fault::Relay { relay, is_up: true });
            world.run(15 * SECOND);
        }
        gaps.push(longest_gap(&world, died_at));
        assert!(longest_gap(&world, died_at) <= SECOND, "{gaps:?}\n{}", command("faults", "a_relay_that_dies", seed));
        assert_well(&world, "a_relay_that_dies", seed);
    }
    println!("longest gap after the death of a relay: {:?} (median), {:?} (most)", median(&gaps), gaps.iter().max());
}

#[test]
fn a_relay_that_dies_during_a_direct_call_costs_nothing() {
    for seed in chosen(0..10, 0..100) {
        let mut world = settled(&between(usual(), usual()), seed);
        let died_at = world.now();
        for relay in 0..3 {
            world.befall(Fault::Relay { relay, is_up: false });
        }
        world.run(60 * SECOND);
        assert!(longest_gap(&world, died_at) <= ms(100), "{}", command("faults", "a_relay_that_dies_during_a_direct", seed));
        assert!(world.is_direct());
        assert_well(&world, "a_relay_that_dies_during_a_direct", seed);
    }
}

#[test]
fn an_hour_with_a_router_that_restarts_every_90_seconds_ends_no_call() {
    let pairs = [
        between(fickle(), usual()),
        between(fickle(), hard()),
        between(hard(), hard()),
        between(hard(), typical_nats()[0]),
        between(usual(), usual()),
    ];
    let mut worst = Duration::ZERO;
    for seed in chosen(0..5, 0..20) {
        let mut world = settled(&pairs[seed as usize % pairs.len()], seed);
        let begin = world.now();
        let router = router_of(&world, if seed % 10 < 5 { CALLER } else { CALLEE });
        for nth in 1..40 {
            world.schedule(begin + nth * 90 * SECOND, Fault::Reboot(router));
        }
        world.run(3600 * SECOND);
        worst = worst.max(longest_gap(&world, begin));
        // The last restart costs no more than the first: nothing is left over from those before.
        assert!(longest_gap(&world, begin) <= ms(500), "{worst:?}\n{}", command("faults", "an_hour_with_a_router", seed));
        let silent = world.hosts.iter().flat_map(|host| &host.silences).count();
        println!("{}: longest gap {:?}, told silent {silent} times", pairs[seed as usize % pairs.len()], longest_gap(&world, begin));
        assert_well(&world, "an_hour_with_a_router", seed);
    }
}

#[test]
fn a_quiet_hour_stays_where_it_is() {
    for seed in chosen(0..3, 0..9) {
        let mut world =
            settled(&[between(usual(), usual()), between(hard(), hard()), between(usual(), typical_nats()[0])][seed as usize % 3], seed);
        let (begin, before) = (world.now(), world.hosts.each_ref().map(|host| host.routes.len()));
        world.run(3600 * SECOND);
        assert_eq!(world.hosts.each_ref().map(|host| host.routes.len()), before, "{}", command("faults", "a_quiet_hour", seed));
        assert_eq!((longest_gap(&world, begin), missing(&world, ANSWER_AT)), (Duration::ZERO, 0));
        assert_well(&world, "a_quiet_hour", seed);
    }
}

#[test]
fn a_sleeper_is_heard_soon_after_he_wakes() {
    for seed in chosen(0..30, 0..300) {
        let nats = [[usual(), usual()], [hard(), hard()]][seed as usize % 2];
        let mut world = settled(&between(nats[0], nats[1]), seed);
        // A call whose peer sleeps for half a minute is lost.
        let wakes_at = world.now() + ms(500 + seed % 30 * 800);
        world.befall(Fault::Sleep { host: CALLER, time: wakes_at - world.now() });
        world.run_until(wakes_at + 10 * SECOND);
        assert!(
            longest_gap(&world, wakes_at) <= 2 * SECOND,
            "{:?}\n{}",
            longest_gap(&world, wakes_at),
            command("faults", "a_sleeper", seed)
        );
        assert_well(&world, "a_sleeper", seed);
    }
}
