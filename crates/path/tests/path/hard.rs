//! Routers that make it hard: such as give each destination another port, such as drop mappings at an age, and paths that lose much.

use crate::call::{ALICE, BOB, Call};
use crate::router::{Filtering, Kind, Mapping};
use ahoy_path::{Event, SocketId, TRANSMITS_PER_SECOND_MAX, Way};
use ahoy_protocol::peer::Mapping as Told;
use std::time::Duration;

const EASY: Kind = Kind::Nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
const HARD: Kind = Kind::Nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);

/// A relayed call in which both know what the routers do.
fn call_between(seed: u64, alice: (Kind, Told), bob: (Kind, Told)) -> Call {
    let mut call = Call::behind(seed, alice.0, bob.0).with_relay();
    for (host, own, peer) in [(ALICE, alice.1, bob.1), (BOB, bob.1, alice.1)] {
        let router = &mut call.network.interfaces[host][0].router;
        router.is_random = true;
        let device = &mut call.devices[host];
        device.agent.set_own_mapping(call.now, own);
        device.agent.set_peer_mapping(call.now, peer);
    }
    call.run_ms(500);
    call.probe_both();
    call
}

fn hard_and_easy(seed: u64) -> Call {
    call_between(seed, (HARD, Told::EndpointDependent), (EASY, Told::EndpointIndependent))
}

/// Lets time pass until both are direct, or this many seconds.
fn run_until_direct(call: &mut Call, seconds_max: u64) -> Option<Duration> {
    let from = call.now;
    for _ in 0..seconds_max * 10 {
        call.run_ms(100);
        if call.are_direct() {
            return Some(call.now - from);
        }
    }
    None
}

#[test]
fn a_port_given_out_in_a_row_is_predicted() {
    for seed in 0..10 {
        let mut call = hard_and_easy(seed);
        call.network.interfaces[ALICE][0].router.is_random = false;
        let time = run_until_direct(&mut call, 8).unwrap_or_else(|| panic!("seed {seed}: {:?}", call.devices[ALICE].routes));
        assert!(time < Duration::from_secs(6), "seed {seed}: {time:?}");
        assert_eq!(call.missing_since(call.start), 0);
    }
}

#[test]
fn a_port_given_out_at_random_is_found_by_trying_many() {
    let mut times = Vec::new();
    for seed in 0..20 {
        let mut call = hard_and_easy(seed);
        let Some(time) = run_until_direct(&mut call, 30) else { continue };
        times.push(time);
        call.run_ms(5000);
        assert!(call.are_direct() && call.devices[BOB].sockets.is_empty());
        let Some(Way::Direct { socket, .. }) = call.direct_of(ALICE) else { panic!("not direct") };
        assert!(socket != SocketId::MAIN);
        assert_eq!(call.devices[ALICE].sockets.iter().collect::<Vec<_>>(), [&socket], "all others are closed");
        assert_eq!(call.missing_since(call.start), 0);
    }
    assert!(times.len() >= 19, "{} of 20 within half a minute", times.len());
}

#[test]
fn nothing_is_guessed_where_it_is_hopeless_or_needless() {
    for (alice, bob) in [
        ((HARD, Told::EndpointDependent), (HARD, Told::EndpointDependent)),
        ((EASY, Told::EndpointIndependent), (Kind::Blocked, Told::EndpointIndependent)),
        ((EASY, Told::EndpointIndependent), (EASY, Told::EndpointIndependent)),
    ] {
        let mut call = call_between(3, alice, bob);
        call.run_ms(60_000);
        for device in &call.devices {
            assert_eq!(device.agent.stats().guesses, 0, "{alice:?} and {bob:?}");
            assert!(!device.told.iter().any(|(_, event)| matches!(event, Event::OpenSockets { .. })));
        }
    }
}

#[test]
fn an_attempt_that_fails_ends_and_closes_what_it_opened() {
    let mut call = call_between(3, (HARD, Told::EndpointDependent), (Kind::Blocked, Told::Unknown));
    call.run_ms(60_000);
    assert!(call.devices[ALICE].sockets.is_empty());
    assert!(call.devices[ALICE].agent.stats().attempts >= 1);
    call.run_ms(600_000);
    for device in &call.devices {
        let stats = device.agent.stats();
        assert!(stats.guesses <= 4 * 3200, "{stats:?}");
        let first = device.probes.first().copied().unwrap_or(call.start);
        for second in 0..600 {
            let from = first + Duration::from_secs(second);
            let within = device.probes.iter().filter(|at| (from..from + Duration::from_secs(1)).contains(*at)).count();
            assert!(within <= TRANSMITS_PER_SECOND_MAX);
        }
    }
    assert!(call.are_relayed());
    assert_eq!(call.missing_since(call.start), 0);
}

#[test]
fn mappings_that_are_dropped_at_an_age_are_left_before_it() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
        let far = Kind::Nat(Mapping::EndpointIndependent, filtering);
        let mut call = Call::behind(3, EASY, far).with_relay();
        call.network.interfaces[ALICE][0].router.age_max = Some(Duration::from_secs(60));
        call.probe_both();
        call.run_ms(200_000);
        assert!(call.are_direct());
        let settled = call.now;
        call.run_ms(300_000);
        let gap = call.longest_gap_since(settled);
        assert!(gap < Duration::from_millis(100), "{filtering:?}: {gap:?}");
        assert_eq!(call.missing_since(settled), 0);
        assert!(call.devices[ALICE].agent.stats().renewals >= 4);
        assert!(call.devices[ALICE].sockets.len() <= 2, "{:?}", call.devices[ALICE].sockets);
        assert_eq!(call.devices[BOB].agent.stats().renewals, 0);
    }
}

#[test]
fn a_path_that_loses_half_is_left_until_it_is_well() {
    for seed in 0..10 {
        let mut call = Call::behind(seed, EASY, EASY).with_relay();
        call.probe_both();
        call.run_ms(8000);
        assert!(call.are_direct());
        call.network.direct.iter_mut().for_each(|link| link.loss = 0.5);
        call.run_ms(15_000);
        let lossy = call.now;
        call.run_ms(60_000);
        let changes = call.devices[ALICE].route_changes(lossy, call.now);
        assert!(changes <= 16, "seed {seed}: {changes} changes in a minute");
        let lost = call.missing_since(lossy);
        assert!(lost < 300, "seed {seed}: {lost} of 6000 packets lost");
        call.network.direct.iter_mut().for_each(|link| link.loss = 0.0);
        call.run_ms(60_000);
        assert!(call.are_direct(), "seed {seed}");
    }
}

#[test]
fn an_hour_with_a_router_that_restarts_every_ninety_seconds_goes_on() {
    let mut call = Call::behind(3, EASY, EASY).with_relay();
    call.probe_both();
    let from = call.start;
    for restart in 0..40 {
        call.run_ms(90_000);
        call.network.interfaces[ALICE][0].router.forget();
        call.run_ms(800);
        // The owner asks observers again after a leg fell silent, and tells the peer.
        call.tell_candidates(BOB);
        call.tell_candidates(ALICE);
        call.run_ms(3000);
        assert!(call.are_direct(), "after restart {restart}: {:?}", call.route(ALICE));
    }
    let gap = call.longest_gap_since(from + Duration::from_secs(1));
    assert!(gap <= Duration::from_millis(400), "{gap:?}");
    assert_eq!(call.devices[ALICE].told.iter().filter(|(_, event)| matches!(event, Event::Silence(true) | Event::LegDead(_))).count(), 0);
}
