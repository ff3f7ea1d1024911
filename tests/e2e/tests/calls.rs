//! Calls on loopback: each of the ways in which they begin and end.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{LONG, full_size, wait_for_voice};
use ahoy_lab::{Network, Spot, wav};
use std::time::Duration;

const ANSWER: &str = r#"{"command":"answer"}"#;
const DECLINE: &str = r#"{"command":"decline"}"#;
const HANG_UP: &str = r#"{"command":"hangup"}"#;

#[test]
fn a_declined_call_ends_for_both_with_the_reason() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let mut bob = bob.online(&[]);
    let call = alice.call("bob", &["--seconds", "5"]);
    assert_eq!(bob.wait_for("incoming", LONG).text("from"), "alice");
    let _ = call.wait_for("ringing", LONG);
    bob.send(DECLINE);
    let finished = call.finish(LONG);
    assert_eq!(finished.event("ended").text("reason"), "declined");
    finished.failed_with(&["declined"]);
    assert_eq!(bob.wait_for("ended", LONG).text("reason"), "declined");
}

#[test]
fn a_call_that_the_caller_gives_up_stops_ringing() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&[]);
    let call = alice.call("bob", &[]);
    let _ = bob.wait_for("incoming", LONG);
    let _ = call.wait_for("ringing", LONG);
    assert_eq!(call.stop().event("ended").text("reason"), "cancelled");
    let reason = bob.wait_for("ended", LONG);
    assert!(["cancelled", "missed"].contains(&reason.text("reason")), "{reason:?}");
}

#[test]
fn who_is_in_a_call_is_busy_for_others() {
    let network = Network::start(1, 1);
    let (alice, bob, carol) = (network.person("alice"), network.person("bob"), network.person("carol"));
    let mut bob = bob.online(&["--auto-answer"]);
    let mut first = alice.call("bob", &[]);
    wait_for_voice(&first, 0);
    let second = carol.call("bob", &["--seconds", "5"]).finish(LONG);
    assert_eq!(second.event("ended").text("reason"), "busy");
    second.failed_with(&["another call"]);
    assert!(first.is_running(), "the first call goes on");
    let mark = first.mark();
    let _ = first.wait_event(mark, "stats", LONG, |_| true);
    bob.send(HANG_UP);
    let finished = first.finish(LONG).succeeded();
    assert_eq!(finished.event("ended").text("reason"), "hung-up");
}

#[test]
fn somebody_who_is_offline_or_unknown_is_unreachable() {
    let network = Network::start(1, 1);
    let (alice, _bob) = (network.person("alice"), network.person("bob"));
    let offline = alice.call("bob", &["--seconds", "5"]).finish(LONG);
    offline.failed_with(&["bob"]);
    let unknown = alice.call("nobody", &["--seconds", "5"]).finish(LONG);
    unknown.failed_with(&["nobody"]);
}

#[test]
fn a_call_that_nobody_answers_is_missed() {
    if !full_size() {
        // It rings for most of a minute.
        println!("skipped: only at full size");
        return;
    }
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&[]);
    let finished = alice.call("bob", &[]).finish(Duration::from_secs(120));
    assert_eq!(finished.event("ended").text("reason"), "missed");
    assert_eq!(finished.status.code(), Some(1));
    assert_eq!(bob.wait_for("ended", LONG).text("reason"), "missed");
}

#[test]
fn a_peer_that_vanishes_ends_the_call_as_lost() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let mut bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &[]);
    wait_for_voice(&call, 0);
    bob.kill();
    let finished = call.finish(Duration::from_secs(120));
    assert_eq!(finished.event("ended").text("reason"), "lost");
    finished.failed_with(&["lost"]);
}

#[test]
fn a_second_device_rings_too_and_stops_when_the_other_answers() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let further = network.further_device("bob", "second", Spot::loopback());
    let (first, mut second) = (bob.online(&[]), further.online(&[]));
    let call = alice.call("bob", &[]);
    let _ = (first.wait_for("incoming", LONG), second.wait_for("incoming", LONG));
    second.send(ANSWER);
    assert_eq!(first.wait_for("ended", LONG).text("reason"), "answered-elsewhere");
    wait_for_voice(&call, 0);
    let _ = second.wait_for("connected", LONG);
    assert!(!first.events().iter().any(|event| event.is("connected")));
    let finished = call.stop().succeeded();
    assert_eq!(finished.event("calling").number("devices"), 2.0);
    assert_eq!(second.wait_for("ended", LONG).text("reason"), "hung-up");
}

#[test]
fn two_who_call_each_other_are_in_one_call() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let (mut at_alice, mut at_bob) = (alice.online(&[]), bob.online(&[]));
    at_alice.send(r#"{"command":"call","name":"bob"}"#);
    at_bob.send(r#"{"command":"call","name":"alice"}"#);
    // Unless one of the two calls came too late to cross the other: then it is an ordinary one, which is answered.
    for side in [&mut at_alice, &mut at_bob] {
        if side.try_event(0, "connected", Duration::from_secs(10), |_| true).is_none() {
            side.send(ANSWER);
        }
    }
    let (a, b) = (at_alice.wait_for("connected", LONG), at_bob.wait_for("connected", LONG));
    assert_eq!(a.text("call"), b.text("call"));
    assert_eq!((a.text("with"), b.text("with")), ("bob", "alice"));
    at_alice.send(HANG_UP);
    let _ = at_bob.wait_event(0, "ended", LONG, |event| event.text("call") == a.text("call"));
}

#[test]
fn a_command_on_a_home_that_is_online_is_carried_out_there() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let _bob = bob.online(&["--auto-answer"]);
    let _alice = alice.online(&[]);
    let finished = alice.call("bob", &["--seconds", "2"]).finish(LONG).succeeded();
    assert_eq!(finished.event("ended").text("reason"), "hung-up");
}

#[test]
fn further_recordings_are_numbered() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let recording = network.folder().join("talk.wav");
    let bob = bob.online(&["--auto-answer", "--record", recording.to_str().unwrap()]);
    for name in ["talk.wav", "talk-2.wav", "talk-3.wav"] {
        let mark = bob.mark();
        let _ = alice.call("bob", &["--seconds", "1"]).finish(LONG).succeeded();
        let ended = bob.wait_event(mark, "ended", LONG, |_| true);
        assert_eq!(ended.text("recording"), network.folder().join(name).to_str().unwrap());
        assert!(wav::read_mono(&network.folder().join(name)).len() > 20_000, "{name} is whole");
    }
}
