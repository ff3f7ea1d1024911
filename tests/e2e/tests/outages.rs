//! Parts of the network go away, and people go on talking.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{LONG, wait_for_voice};
use ahoy_lab::{Network, Node, Person, Process, Spot, wav};
use std::time::{Duration, Instant};

/// How long devices may take to notice that their supernodes are gone and to be known at another.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn without_the_login_server_those_who_are_signed_in_call_each_other() {
    let mut network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    network.stop_login();
    let bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &[]);
    wait_for_voice(&call, 0);
    let _ = call.stop().succeeded();
    assert_eq!(bob.wait_for("ended", LONG).text("reason"), "hung-up");
}

#[test]
fn a_login_server_that_comes_back_is_the_same_as_before() {
    let mut network = Network::start(1, 1);
    let _alice = network.person("alice");
    network.stop_login();
    network.start_login();
    let bob = network.person("bob");
    let further = network.further_device("alice", "second", Spot::loopback());
    let _further = further.online(&["--auto-answer"]);
    let call = bob.call("alice", &[]);
    wait_for_voice(&call, 0);
    let _ = call.stop().succeeded();
}

#[test]
fn one_supernode_of_three_is_enough_to_sign_in_and_to_call() {
    let mut network = Network::start(3, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    for node in &mut network.supernodes[..2] {
        node.process.kill();
    }
    let carol = network.person("carol");
    let further = network.further_device("alice", "second", Spot::loopback());
    for caller in [&alice, &carol, &further] {
        let call = call_when_reachable(caller, "bob");
        wait_for_voice(&call, 0);
        let mark = bob.mark();
        let _ = call.stop().succeeded();
        let _ = bob.wait_event(mark, "ended", LONG, |_| true);
    }
}

#[test]
fn the_only_supernode_and_relay_come_back_empty_and_elsewhere_and_people_are_found_again() {
    let mut network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    wait_for_voice(&alice.call("bob", &["--seconds", "1"]), 0);
    network.supernodes[0].process.kill();
    network.relays[0].process.kill();
    for (role, label) in [("supernode", "supernode again"), ("relay", "relay again")] {
        let again = Node::serving(Process::start(label, network.node_command(role, 0, &Spot::loopback())));
        if role == "relay" { &mut network.relays } else { &mut network.supernodes }.push(again);
    }
    let call = call_when_reachable(&alice, "bob");
    wait_for_voice(&call, 0);
    let mark = bob.mark();
    let _ = call.stop().succeeded();
    let _ = bob.wait_event(mark, "ended", LONG, |_| true);
}

#[test]
fn nobody_notices_that_the_relay_dies_during_a_direct_call() {
    let mut network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let speech = wav::sample_speech();
    let speech = speech.to_str().unwrap();
    let bob = bob.online(&["--auto-answer", "--play", speech]);
    let call = alice.call("bob", &["--play", speech]);
    wait_for_voice(&call, 0);
    let direct = |stats: &ahoy_lab::Event| ["direct", "lan"].contains(&stats.text("path"));
    let before = [&call, &bob].map(|side| side.wait_event(0, "stats", LONG, direct));
    network.relays[0].process.kill();
    let marks = [call.mark(), bob.mark()];
    for ((side, before), mark) in [&call, &bob].into_iter().zip(before).zip(marks) {
        let heard = before.number("received");
        let after = side.wait_event(mark, "stats", LONG, |stats| stats.number("received") > heard + 250.0);
        assert!(after.number("lost") <= before.number("lost") + 1.0, "{before:?} {after:?}");
        assert!(direct(&after), "{after:?}");
    }
    let finished = call.stop().succeeded();
    assert_eq!(finished.event("ended").text("reason"), "hung-up");
    assert!(!finished.events().iter().any(|event| event.is("warning") && event.text("text").contains("relay")), "{finished:#?}");
}

/// Calls until the callee's device is known again at a supernode that lives.
fn call_when_reachable(caller: &Person, callee: &str) -> Process {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    loop {
        let call = caller.call(callee, &[]);
        if call.try_event(0, "connected", LONG, |_| true).is_some() {
            return call;
        }
        assert!(Instant::now() < deadline, "{callee} stays unreachable\n{}", call.transcript());
    }
}
