//! How calls on loopback sound.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{GOOD_PESQ, LONG, quality};
use ahoy_lab::{Finished, Network, Process, alone, best_of_tries, wav};
use std::path::Path;

#[test]
fn speech_comes_through_in_both_directions() {
    let _alone = alone();
    let network = Network::start(1, 1);
    let (bob, mut finished) = (online(&network), None);
    let pesq = best_of_tries(GOOD_PESQ, || {
        let (call, pesq) = call_and_judge(&network, &bob, &["--seconds", "9"]);
        finished = Some(call);
        pesq
    });
    assert!(pesq >= GOOD_PESQ, "{pesq}");
    let finished = finished.unwrap();
    for name in ["calling", "ringing", "connected", "path", "media", "first-sound", "stats"] {
        assert!(finished.events().iter().any(|event| event.is(name)), "no event {name}: {finished:#?}");
    }
}

#[test]
fn a_call_by_the_relay_alone_stays_there_and_sounds_as_good() {
    let _alone = alone();
    let network = Network::start(1, 1);
    let bob = online(&network);
    let pesq = best_of_tries(GOOD_PESQ, || {
        let (finished, pesq) = call_and_judge(&network, &bob, &["--seconds", "6", "--relay-only"]);
        let paths: Vec<_> = finished.events().iter().filter(|event| event.is("path")).map(|event| event.text("kind").to_owned()).collect();
        assert!(paths.iter().all(|path| path == "relay"), "{paths:?}");
        assert_eq!(finished.event("connected").text("path"), "relay");
        pesq
    });
    assert!(pesq >= GOOD_PESQ, "{pesq}");
}

/// Bob plays the sample speech to whoever calls.
fn online(network: &Network) -> Process {
    let recording = network.folder().join("at-bob.wav");
    let speech = wav::sample_speech();
    let _alice = network.person("alice");
    network.person("bob").online(&["--auto-answer", "--play", speech.to_str().unwrap(), "--record", recording.to_str().unwrap()])
}

/// Alice plays it too. Returns how her call went and the worse of the two recordings' scores.
fn call_and_judge(network: &Network, bob: &Process, args: &[&str]) -> (Finished, f32) {
    let speech = wav::sample_speech();
    let recording = network.folder().join("at-alice.wav");
    let sound = ["--play", speech.to_str().unwrap(), "--record", recording.to_str().unwrap()];
    let alice = network.stranger("alice", "first", ahoy_lab::Spot::loopback());
    let mark = bob.mark();
    let finished = alice.call("bob", &[args, &sound].concat()).finish(LONG).succeeded();
    let (at_alice, at_bob) = (finished.event("ended"), bob.wait_event(mark, "ended", LONG, |_| true));
    assert_eq!((at_alice.text("reason"), at_bob.text("reason")), ("hung-up", "hung-up"));
    let score = |recording: &str| quality(Path::new(recording)).pesq_wb;
    let pesq = score(at_alice.text("recording")).min(score(at_bob.text("recording")));
    let _ = std::fs::remove_file(at_alice.text("recording"));
    (finished, pesq)
}
