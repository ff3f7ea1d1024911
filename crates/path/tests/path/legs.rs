//! Calls on legs: which one carries them, and what happens when one dies, when a router forgets, or when everything falls silent.

use crate::call::{ALICE, BOB, Call};
use crate::network::Link;
use crate::router::{Filtering, Kind, Mapping};
use ahoy_path::{Event, LegId, Route, Way};
use std::time::Duration;

const HOME: Kind = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
const LEG_0: LegId = LegId(0);
const LEG_1: LegId = LegId(1);
/// What a listener hears of the death of a relay of 60 ms.
const GAP_MAX: Duration = Duration::from_millis(300);

/// A relayed call with two legs that are known.
fn relayed_call(seed: u64) -> Call {
    let mut call = Call::behind(seed, HOME, HOME).with_relay();
    call.network.legs[1] = [Link::of_ms(80); 2];
    call.set_leg(LEG_1, true);
    call.run_ms(6000);
    assert!(call.are_relayed());
    call
}

fn kill_leg(call: &mut Call, leg: LegId, is_up: bool) {
    call.network.legs[usize::from(leg.0)].iter_mut().for_each(|link| link.is_up = is_up);
}

fn is_on(call: &Call, leg: LegId) -> bool {
    [ALICE, BOB].into_iter().all(|host| call.route(host) == Route::new([Way::Leg(leg)]))
}

#[test]
fn legs_are_measured_end_to_end_and_the_nearer_one_carries_the_call() {
    let call = relayed_call(1);
    for device in &call.devices {
        assert_eq!(device.agent.leg_rtt(LEG_0).map(|rtt| rtt.as_millis()), Some(120));
        assert_eq!(device.agent.leg_rtt(LEG_1).map(|rtt| rtt.as_millis()), Some(160));
    }
    assert!(is_on(&call, LEG_0));
    assert!(call.devices.iter().all(|device| device.probes.is_empty()), "no address is shown before probing is allowed");
}

#[test]
fn a_call_moves_to_a_leg_that_becomes_clearly_nearer_without_losing_a_packet() {
    let mut call = relayed_call(2);
    call.network.legs[0] = [Link::of_ms(150); 2];
    call.run_ms(20_000);
    assert!(is_on(&call, LEG_1));
    assert_eq!(call.missing_since(call.start + Duration::from_millis(100)), 0);
    assert!(call.devices[ALICE].agent.stats().leg_changes <= 2);
}

#[test]
fn a_leg_that_dies_during_a_relayed_call_is_replaced_by_the_other_at_once() {
    for seed in 0..20 {
        let mut call = relayed_call(seed);
        call.run_ms(seed * 7);
        let death = call.now;
        kill_leg(&mut call, LEG_0, false);
        call.run_ms(6000);
        assert!(is_on(&call, LEG_1), "seed {seed}");
        let gap = call.longest_gap_since(death);
        assert!(gap <= GAP_MAX, "seed {seed}: {gap:?}");
        assert_eq!(call.missing_since(death), 0, "the replay brings what was lost");
        for device in &call.devices {
            let told = device.told_dead(LEG_0);
            assert_eq!(told.len(), 1, "{:?}", device.told);
            assert!(told[0] - death < Duration::from_secs(2), "{:?}", told[0] - death);
            assert_eq!(device.told_dead(LEG_1), []);
        }
    }
}

#[test]
fn a_leg_that_dies_one_way_is_left_by_both() {
    for dead in [ALICE, BOB] {
        let mut call = relayed_call(3);
        let death = call.now;
        call.network.legs[0][dead].is_up = false;
        call.run_ms(6000);
        assert!(is_on(&call, LEG_1), "packets of {dead} lost");
        assert!(call.longest_gap_since(death) <= GAP_MAX, "{:?}", call.longest_gap_since(death));
    }
}

#[test]
fn a_leg_that_stands_by_and_dies_is_noticed_during_a_direct_call() {
    let mut call = relayed_call(4);
    call.probe_both();
    call.run_ms(5000);
    assert!(call.are_direct());
    let death = call.now;
    kill_leg(&mut call, LEG_1, false);
    call.run_ms(9000);
    assert!(call.are_direct());
    let told = call.devices[ALICE].told_dead(LEG_1);
    assert!(told.len() == 1 && told[0] - death < Duration::from_secs(8), "{told:?}");
    assert_eq!(call.devices[ALICE].told_dead(LEG_0), []);
    assert_eq!(call.missing_since(death), 0);
}

#[test]
fn a_leg_waits_for_the_peer_to_join() {
    let mut call = Call::behind(5, HOME, HOME);
    let device = &mut call.devices[ALICE];
    device.agent.set_leg(call.now, LEG_0, true);
    device.flush(call.now, &mut call.network);
    call.run_ms(2500);
    assert_eq!(call.devices[ALICE].told, []);
    call.run_ms(3000);
    assert_eq!(call.devices[ALICE].told_dead(LEG_0), []);
    assert!(call.network.moves > 0, "the peer may have joined, and this side's router forgotten");
    call.run_ms(2000);
    assert_eq!(call.devices[ALICE].told_dead(LEG_0).len(), 1);
}

#[test]
fn a_leg_that_is_set_up_again_is_another_leg() {
    let mut call = relayed_call(6);
    kill_leg(&mut call, LEG_0, false);
    call.run_ms(4000);
    kill_leg(&mut call, LEG_0, true);
    call.set_leg(LEG_0, true);
    let again = call.now;
    call.run_ms(8000);
    assert!(is_on(&call, LEG_0), "{:?}", call.route(ALICE));
    assert_eq!(call.missing_since(again), 0);
}

#[test]
fn a_router_that_forgets_during_a_relayed_call_costs_a_moment() {
    for seed in 0..20 {
        let mut call = relayed_call(seed);
        call.run_ms(seed * 7);
        let forgotten = call.now;
        call.network.interfaces[ALICE][0].router.forget();
        call.run_ms(5000);
        assert!(is_on(&call, LEG_0), "seed {seed}");
        assert!(call.longest_gap_since(forgotten) <= GAP_MAX, "seed {seed}: {:?}", call.longest_gap_since(forgotten));
        assert_eq!(call.devices[ALICE].told_dead(LEG_0), []);
    }
}

#[test]
fn a_changed_address_is_heard_again_within_a_second() {
    for seed in 0..20 {
        let mut call = relayed_call(seed);
        call.probe_both();
        call.run_ms(5000 + seed * 7);
        assert!(call.are_direct());
        let changed = call.now;
        call.network.interfaces[ALICE][0].router.forget();
        let device = &mut call.devices[ALICE];
        device.agent.handle_network_change(call.now, Vec::new());
        device.flush(call.now, &mut call.network);
        call.run_ms(1);
        assert!(call.network.moves >= 2, "both relays are told at once");
        call.run_ms(3000);
        assert!(call.longest_gap_since(changed) <= GAP_MAX, "seed {seed}: {:?}", call.longest_gap_since(changed));
        call.tell_candidates(BOB);
        call.run_ms(3000);
        assert!(call.are_direct(), "seed {seed}: {:?}", call.devices[ALICE].routes);
    }
}

#[test]
fn without_legs_a_changed_address_is_learned_from_a_probe() {
    for seed in 0..20 {
        let mut call = Call::behind(seed, HOME, Kind::Open);
        call.probe_both();
        call.run_ms(5000 + seed * 7);
        assert!(call.are_direct());
        let changed = call.now;
        call.network.interfaces[ALICE][0].router.forget();
        let device = &mut call.devices[ALICE];
        device.agent.handle_network_change(call.now, Vec::new());
        device.flush(call.now, &mut call.network);
        call.run_ms(5000);
        assert!(call.are_direct());
        assert!(call.longest_gap_since(changed) <= GAP_MAX, "seed {seed}: {:?}", call.longest_gap_since(changed));
    }
}

#[test]
fn silence_is_told_and_so_is_its_end() {
    let mut call = relayed_call(7);
    let from = call.now;
    [LEG_0, LEG_1].into_iter().for_each(|leg| kill_leg(&mut call, leg, false));
    call.run_ms(20_000);
    let silences = |call: &Call| {
        let told = call.devices[ALICE].told.iter().filter(|(_, event)| matches!(event, Event::Silence(_)));
        told.map(|(at, event)| (*event, *at - from)).collect::<Vec<_>>()
    };
    let [(Event::Silence(true), after)] = silences(&call)[..] else { panic!("{:?}", silences(&call)) };
    assert!((2000..2200).contains(&after.as_millis()), "{after:?}");
    for leg in [LEG_0, LEG_1] {
        kill_leg(&mut call, leg, true);
    }
    call.run_ms(1500);
    assert!(matches!(silences(&call)[..], [_, (Event::Silence(false), _)]), "{:?}", silences(&call));
    call.run_ms(2000);
    let again = call.now;
    call.run_ms(3000);
    assert_eq!(call.missing_since(again), 0);
}

#[test]
fn speech_that_pauses_is_no_silence() {
    let mut call = relayed_call(8);
    call.devices.iter_mut().for_each(|device| device.is_talking = false);
    call.run_ms(30_000);
    assert_eq!(call.devices[ALICE].told.iter().filter(|(_, event)| matches!(event, Event::Silence(_))).count(), 0);
    assert!(is_on(&call, LEG_0));
}
