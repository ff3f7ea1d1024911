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
    wait_for_voice(&alice.call("bob", &["--seconds", "3"]), 0);
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

#[test]
fn a_relay_that_dies_during_a_relayed_call_costs_less_than_a_second_where_there_is_another() {
    // Which of the two carries the call is not told, so each has its turn.
    for victim in 0..2 {
        let mut network = Network::start(1, 2);
        let (alice, bob) = (network.person("alice"), network.person("bob"));
        let bob = bob.online(&["--auto-answer"]);
        let call = alice.call("bob", &["--relay-only"]);
        wait_for_voice(&call, 0);
        let sides = [&call, &bob];
        for side in sides {
            let _ = side.wait_event(0, "stats", LONG, |stats| relays(stats).len() == 2);
        }
        let marks = sides.map(Process::mark);
        network.relays[victim].process.kill();
        for (side, mark) in sides.into_iter().zip(marks) {
            let before = side.wait_event(mark, "stats", LONG, |_| true).number("received");
            let _ = side.wait_event(mark, "stats", LONG, |stats| stats.number("received") > before + 150.0);
            let gap = longest_gap(side, mark);
            assert!(gap < GAP_LIMIT_MS, "{gap} ms without a packet\n{}", side.transcript());
            assert!(!side.events().iter().any(|event| event.is("reconnecting")), "{}", side.transcript());
        }
        assert_eq!(call.stop().succeeded().event("ended").text("reason"), "hung-up");
    }
}

#[test]
fn a_relay_that_has_just_died_keeps_nobody_from_calling() {
    for victim in 0..2 {
        let mut network = Network::start(1, 2);
        let (alice, bob) = (network.person("alice"), network.person("bob"));
        let _bob = bob.online(&["--auto-answer"]);
        let mut alice = alice.online(&[]);
        network.relays[victim].process.kill();
        alice.send(r#"{"command":"call","name":"bob","seconds":1}"#);
        wait_for_voice(&alice, 0);
        assert_eq!(alice.wait_for("ended", LONG).text("reason"), "hung-up");
    }
}

#[test]
fn the_only_relay_of_a_relayed_call_carries_it_again_once_it_is_back() {
    let mut network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &["--relay-only"]);
    wait_for_voice(&call, 0);
    let sides = [&call, &bob];
    let marks = sides.map(Process::mark);
    network.relays[0].process.kill();
    for (side, mark) in sides.into_iter().zip(marks) {
        let _ = side.wait_event(mark, "reconnecting", LONG, |_| true);
    }
    let marks = sides.map(Process::mark);
    network.relays[0] = again(&network, 0);
    for (side, mark) in sides.into_iter().zip(marks) {
        // By TCP where that was there first, and then by UDP again.
        let _ = side.wait_event(mark, "path", LONG, |path| path.text("kind") == "relay");
        let before = side.wait_event(mark, "stats", LONG, |_| true).number("received");
        let _ = side.wait_event(mark, "stats", LONG, |stats| stats.number("received") > before + 100.0);
    }
    assert_eq!(call.stop().succeeded().event("ended").text("reason"), "hung-up");
}

#[test]
fn a_call_whose_only_way_is_gone_for_good_is_lost_for_both() {
    let mut network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &["--relay-only"]);
    wait_for_voice(&call, 0);
    network.relays[0].process.kill();
    for side in [&call, &bob] {
        let _ = side.wait_event(0, "reconnecting", LONG, |_| true);
        assert_eq!(side.wait_event(0, "ended", LONG, |_| true).text("reason"), "lost");
    }
}

#[test]
fn who_hangs_up_while_nothing_comes_through_is_heard_all_the_same() {
    for caller_hangs_up in [true, false] {
        let mut network = Network::start(1, 1);
        let (alice, bob) = (network.person("alice"), network.person("bob"));
        let mut bob = bob.online(&["--auto-answer"]);
        let call = alice.call("bob", &["--relay-only"]);
        wait_for_voice(&call, 0);
        network.relays[0].process.kill();
        for side in [&call, &bob] {
            let _ = side.wait_event(0, "reconnecting", LONG, |_| true);
        }
        if caller_hangs_up {
            call.interrupt();
        } else {
            bob.send(r#"{"command":"hang-up"}"#);
        }
        for side in [&call, &bob] {
            assert_eq!(side.wait_event(0, "ended", LONG, |_| true).text("reason"), "hung-up");
        }
    }
}

#[test]
fn a_call_kept_on_relays_stays_there_and_tells_no_address() {
    let network = Network::start(1, 2);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &["--relay-only"]);
    wait_for_voice(&call, 0);
    for side in [&call, &bob] {
        let stats = side.wait_event(0, "stats", LONG, |stats| stats.number("received") > 150.0);
        assert_eq!(stats.text("path"), "relay");
    }
    let stats = call.wait_event(0, "stats", LONG, |_| true);
    assert!(stats.number("candidates") < 0.5, "{stats:?}");
    let finished = call.stop().succeeded();
    assert!(finished.events().iter().filter(|event| event.is("path")).all(|event| event.text("kind") == "relay"), "{finished:#?}");
}

/// What a relay's death may cost at most.
const GAP_LIMIT_MS: f64 = 1000.0;

/// The relays in use.
fn relays(stats: &ahoy_lab::Event) -> Vec<String> {
    let relays = stats.0.get("relays").and_then(|relays| relays.as_array()).cloned().unwrap_or_default();
    relays.iter().filter_map(|relay| Some(relay.get("address")?.as_str()?.to_owned())).collect()
}

/// The longest time without a voice packet, of what was told after `mark`.
fn longest_gap(side: &Process, mark: usize) -> f64 {
    let all = side.events();
    all.iter().skip(mark).filter(|event| event.is("stats")).map(|stats| stats.number("gap_ms")).fold(0.0, f64::max)
}

/// The relay that was killed, started again at the same address.
fn again(network: &Network, index: usize) -> Node {
    let mut command = Spot::loopback().command(&ahoy_lab::program("ahoy-relay"));
    command.args(["serve", "--network", &network.link, "--listen", &network.relays[index].address.to_string()]);
    command.arg("--data").arg(network.node_data("relay", index));
    Node::serving(Process::start("relay again", command))
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
