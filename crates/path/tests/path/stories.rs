//! Calls in which something happens to a path.

use crate::call::{ALICE, BOB, Call};
use crate::network::Link;
use crate::router::{Filtering, Kind, Mapping};
use ahoy_path::{LegId, Route, Way};
use std::time::Duration;

const HOME: Kind = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
/// What a listener hears of the death of a path, with a relay of 60 ms.
const GAP_MAX: Duration = Duration::from_millis(300);

/// A call that has been direct for five seconds.
fn direct_call(seed: u64) -> Call {
    let mut call = Call::behind(seed, HOME, HOME).with_relay();
    call.probe_both();
    call.run_ms(6000);
    assert!(call.are_direct());
    call
}

/// From the leg, by both ways, to the direct path.
fn is_move_to_direct(routes: &[Route]) -> bool {
    let leg = Way::Leg(LegId(0));
    match routes {
        [first, both, last] => {
            *first == Route::new([leg]) && last.is_direct() && both.contains(leg) && last.ways().all(|way| both.contains(way))
        }
        _ => false,
    }
}

#[test]
fn a_call_moves_from_the_relay_to_a_direct_path_without_losing_a_packet() {
    for seed in 0..20 {
        let call = direct_call(seed);
        assert_eq!(call.missing_since(call.start), 0, "seed {seed}");
        for device in &call.devices {
            let kinds: Vec<Route> = device.routes.iter().map(|(_, route)| *route).collect();
            assert!(is_move_to_direct(&kinds), "{kinds:?}");
        }
    }
}

#[test]
fn the_direct_path_dies_both_ways_and_speech_goes_on() {
    for seed in 0..20 {
        let mut call = direct_call(seed);
        call.run_ms(seed * 7);
        let death = call.now;
        call.set_direct_both(false);
        call.run_ms(5000);
        assert!(call.are_relayed());
        let gap = call.longest_gap_since(death);
        assert!(gap <= GAP_MAX, "seed {seed}: {gap:?}");
        assert_eq!(call.missing_since(death), 0, "the replay brings what was lost");
    }
}

#[test]
fn the_direct_path_dies_one_way_and_speech_goes_on() {
    for seed in 0..20 {
        for dead in [ALICE, BOB] {
            let mut call = direct_call(seed);
            call.run_ms(seed * 7);
            let death = call.now;
            call.set_direct(dead, false);
            call.run_ms(5000);
            assert!(call.are_relayed());
            let gap = call.longest_gap_since(death);
            assert!(gap <= GAP_MAX, "seed {seed}, packets of {dead} lost: {gap:?}");
        }
    }
}

#[test]
fn a_path_that_works_again_is_moved_back_to_without_losing_a_packet() {
    for seed in 0..20 {
        let mut call = direct_call(seed);
        call.set_direct_both(false);
        call.run_ms(4000 + seed * 333);
        assert!(call.are_relayed());
        let opened = call.now;
        call.set_direct_both(true);
        call.run_ms(8000);
        assert!(call.are_direct(), "seed {seed}");
        assert_eq!(call.missing_since(opened), 0, "seed {seed}");
    }
}

#[test]
fn a_path_that_works_one_way_again_is_not_moved_back_to() {
    let mut call = direct_call(3);
    call.set_direct_both(false);
    call.run_ms(4000);
    call.set_direct(ALICE, true);
    let opened = call.now;
    call.run_ms(30_000);
    assert!(call.are_relayed());
    assert_eq!(call.missing_since(opened), 0);
}

#[test]
fn nobody_notices_the_relay_dying_during_a_direct_call() {
    let mut call = direct_call(3);
    let death = call.now;
    call.network.legs.iter_mut().flatten().for_each(|link| link.is_up = false);
    call.run_ms(3000);
    call.set_relay(false);
    call.run_ms(20_000);
    assert!(call.are_direct());
    assert_eq!(call.missing_since(death), 0);
    assert_eq!(call.devices[ALICE].route_changes(death, call.now), 0);
}

#[test]
fn without_a_relay_a_dead_path_is_kept_and_used_when_it_lives_again() {
    let mut call = direct_call(3);
    call.set_relay(false);
    call.set_direct_both(false);
    call.run_ms(10_000);
    assert!(call.are_direct());
    call.set_direct_both(true);
    call.run_ms(1);
    let opened = call.now;
    call.run_ms(5000);
    assert!(call.are_direct());
    assert_eq!(call.missing_since(opened), 0);
}

#[test]
fn a_relay_that_comes_while_the_direct_path_is_dead_takes_over() {
    let mut call = direct_call(3);
    call.set_relay(false);
    call.set_direct_both(false);
    call.run_ms(5000);
    let joined = call.now;
    call.set_relay(true);
    call.run_ms(2000);
    assert!(call.are_relayed());
    assert_eq!(call.missing_since(joined), 0);
}

#[test]
fn a_relay_that_dies_after_the_direct_path_leaves_the_last_hope() {
    let mut call = direct_call(3);
    call.set_direct_both(false);
    call.run_ms(4000);
    call.set_relay(false);
    call.run_ms(1000);
    assert!(call.are_direct());
    call.set_direct_both(true);
    call.run_ms(1);
    let opened = call.now;
    call.run_ms(4000);
    assert_eq!(call.missing_since(opened), 0);
}

#[test]
fn of_two_direct_paths_the_other_takes_over_from_a_dead_one() {
    let mut call = Call::in_one_place(3, Kind::Blocked).with_ipv6(Kind::Open).with_relay();
    call.probe_both();
    call.run_ms(6000);
    let is_on_link = |call: &Call| call.devices[ALICE].agent.selected().is_some_and(|selected| selected.on_link);
    assert!(is_on_link(&call) && call.are_direct());
    let death = call.now;
    call.network.lan.iter_mut().flatten().for_each(|link| link.is_up = false);
    call.run_ms(1000);
    assert!(!is_on_link(&call) && call.are_direct(), "{:?}", call.devices[ALICE].routes);
    call.run_ms(2000);
    assert!(call.longest_gap_since(death) <= GAP_MAX);
    assert_eq!(call.missing_since(death), 0);
}

#[test]
fn a_router_that_forgets_its_mappings_is_crossed_anew() {
    for bob in [Kind::Open, Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressDependent)] {
        let mut call = Call::behind(3, HOME, bob).with_relay();
        call.probe_both();
        call.run_ms(6000);
        assert!(call.are_direct());
        let before = call.direct_of(BOB);
        let forgotten = call.now;
        call.network.interfaces[ALICE][0].router.forget();
        call.run_ms(5000);
        assert!(call.are_direct(), "{bob:?}");
        assert_ne!(call.direct_of(BOB), before);
        assert!(call.longest_gap_since(forgotten) <= GAP_MAX);
        assert_eq!(call.missing_since(forgotten), 0);
    }
}

#[test]
fn a_slow_relay_loses_nothing_in_a_move_and_raises_no_doubt() {
    let mut call = Call::behind(3, HOME, HOME).with_relay();
    call.network.legs = [[Link::of_ms(350); 2]; 2];
    call.probe_both();
    call.run_ms(10_000);
    assert!(call.are_direct());
    assert_eq!(call.missing_since(call.start), 0);
    assert!(call.devices.iter().all(|device| device.replays == 0));
}

#[test]
fn a_lossy_path_that_dies_is_noticed_as_soon() {
    for seed in 0..20 {
        let mut call = Call::behind(seed, HOME, HOME).with_relay();
        for link in &mut call.network.direct {
            (link.loss, link.jitter) = (0.03, Duration::from_millis(20));
        }
        call.probe_both();
        call.run_ms(8000);
        let death = call.now;
        call.set_direct_both(false);
        call.run_ms(4000);
        assert!(call.are_relayed());
        let gap = call.longest_gap_since(death);
        assert!(gap <= Duration::from_millis(400), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_pause_in_speech_is_not_taken_for_a_dead_path() {
    let mut call = direct_call(3);
    for _ in 0..5 {
        call.devices[BOB].is_talking = false;
        call.run_ms(3000);
        assert!(call.are_direct());
        call.devices[BOB].is_talking = true;
        call.run_ms(3000);
    }
    assert!(call.are_direct());
    assert_eq!(call.missing_since(call.start), 0);
}

#[test]
fn a_lossy_path_is_not_left_and_taken_again_and_again() {
    let mut worst = 0;
    for seed in 0..20 {
        let mut call = Call::behind(seed, HOME, HOME).with_ipv6(Kind::Firewall(Filtering::AddressDependent)).with_relay();
        for link in &mut call.network.direct {
            (link.loss, link.jitter) = (0.05, Duration::from_millis(30));
        }
        call.probe_both();
        call.run_ms(5000);
        let from = call.now;
        call.run_ms(60_000);
        worst = call.devices.iter().map(|device| device.route_changes(from, call.now)).max().unwrap_or(0).max(worst);
        assert!(call.devices.iter().all(|device| device.agent.selected().is_some()), "seed {seed}");
    }
    assert!(worst <= 12, "{worst} changes of route in a minute");
}

/// A direct call that has lost some of its packets for a while.
fn lossy_call(seed: u64, loss: f64) -> Call {
    let mut call = direct_call(seed);
    for link in &mut call.network.direct {
        link.loss = loss;
    }
    call.run_ms(15_000);
    call
}

#[test]
fn an_outage_on_a_lossy_path_is_seldom_followed_by_everything_again_and_on_a_clean_one_always() {
    for (loss, replays) in [(0.2, false), (0.0, true)] {
        let (mut replayed, mut direct) = (0, 0);
        for seed in 0..10 {
            let mut call = lossy_call(seed, loss);
            let before: usize = call.devices.iter().map(|device| device.replays).sum();
            call.set_direct_both(false);
            call.run_ms(600);
            call.set_direct_both(true);
            call.run_ms(1000);
            direct += usize::from(call.are_direct());
            replayed += usize::from(call.devices.iter().map(|device| device.replays).sum::<usize>() > before);
        }
        // A call that was on its way to the relay when the path came back may say all again there.
        assert!(if replays { replayed == 10 } else { replayed <= 2 }, "{replayed} of 10 calls at a loss of {loss}");
        assert!(direct >= 8, "at a loss of {loss} {direct} calls go one way again within a second");
    }
}

#[test]
fn a_path_that_carries_half_of_the_call_is_not_doubled_for_long() {
    for seed in 0..10 {
        let mut call = direct_call(seed);
        for link in &mut call.network.direct {
            link.loss = 0.5;
        }
        call.run_ms(3000);
        let from = call.now;
        call.run_ms(20_000);
        let device = &call.devices[ALICE];
        let mut doubled = Duration::ZERO;
        for (nth, (at, route)) in device.routes.iter().enumerate() {
            let until = device.routes.get(nth + 1).map_or(call.now, |(next, _)| *next);
            if route.ways().count() > 1 && until > from {
                doubled += until - (*at).max(from);
            }
        }
        assert!(doubled <= Duration::from_secs(4), "seed {seed}: {doubled:?} of 20 s by two ways");
    }
}

#[test]
fn a_stuttering_path_settles_on_the_relay_for_longer_and_longer() {
    let mut call = direct_call(3);
    let from = call.now;
    for _ in 0..20 {
        call.set_direct_both(false);
        call.run_ms(2000);
        call.set_direct_both(true);
        call.run_ms(4000);
    }
    let changes = call.devices[ALICE].route_changes(from, call.now);
    assert!(changes <= 24, "{changes} changes of route in two minutes");
}

#[test]
fn an_idle_call_costs_little() {
    let mut call = direct_call(3);
    call.devices.iter_mut().for_each(|device| device.is_talking = false);
    call.run_ms(5000);
    let from = call.now;
    call.run_ms(60_000);
    let probes = call.devices[ALICE].probes.iter().filter(|at| **at >= from).count();
    assert!(probes <= 70, "{probes} PINGs and PONGs in a minute");
    assert!(call.are_direct());
}
