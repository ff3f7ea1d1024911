//! Calls to a phone that takes them at once: how long each step takes, and how good the sound is.

use crate::figures::{self, Figures, now_ms};
use crate::{LONG, speech_from_its_first_sound};
use ahoy_lab::{Event, Lab, Nat, Network, Person, Plan, Process, Spot, lab_or_skip, wav};
use std::path::Path;

/// Calls that count; one more goes before them.
const CALLS: usize = 20;
/// Long enough for the direct path to be found and for some syllables to compare.
const SECONDS: &str = "4";
const ONE_WAY_MS: f64 = 25.0;
/// Samples a millisecond.
const SAMPLES_PER_MS: f64 = 48.0;
/// The rows, in their order.
const ROWS: [&str; 9] = [
    "`call` to ringing",
    "look-up",
    "placing to ringing",
    "answer to first sound, at the callee",
    "answer to first sound, at the caller",
    "placing to connected",
    "connected to direct path",
    "mouth to ear",
    "quality, PESQ-WB",
];

#[test]
#[ignore = "measures; run it with `make bench`"]
fn calls() {
    let loopback = {
        let network = Network::start(3, 1);
        let (alice, bob) = (network.person("alice"), network.person("bob"));
        measure(&network, &alice, &bob)
    };
    let delayed = lab_or_skip().map(|_| {
        let mut lab = Lab::with_delay(ONE_WAY_MS).unwrap();
        let login = lab.host("login");
        let supernodes: Vec<Spot> = (1..=3).map(|i| lab.host(&format!("supernode-{i}"))).collect();
        let relays = vec![lab.host("relay")];
        let (alice, _) = lab.behind_nat("alice", Nat::PortPreserving);
        let (bob, _) = lab.behind_nat("bob", Nat::PortPreserving);
        lab.switch_on();
        let network = Network::start_at(Plan { login, supernodes, relays });
        let (alice, bob) = (network.person_at("alice", alice), network.person_at("bob", bob));
        measure(&network, &alice, &bob)
    });
    figures::print(&ROWS, &[("loopback".to_owned(), Some(loopback)), (format!("{ONE_WAY_MS} ms each way"), delayed)]);
}

fn measure(network: &Network, alice: &Person, bob: &Person) -> Figures {
    let speech_path = network.folder().join("speech.wav");
    let sent = speech_from_its_first_sound();
    wav::write_mono(&speech_path, &sent);
    let speech = speech_path.to_str().unwrap();
    let at_bob = network.folder().join("at-bob.wav");
    let at_alice = network.folder().join("at-alice.wav");
    let bob = bob.online(&["--auto-answer", "--play", speech, "--record", at_bob.to_str().unwrap()]);
    let mut figures = Figures::new();
    for number in 0..=CALLS {
        let mark = bob.mark();
        let started_ms = now_ms();
        let args = ["--seconds", SECONDS, "--play", speech, "--record", at_alice.to_str().unwrap()];
        let call = alice.call("bob", &args).finish(LONG).succeeded();
        let ended = bob.wait_event(mark, "ended", LONG, |_| true);
        let bobs = bobs_events(&bob, mark);
        // The first call warms caches that later ones find warm.
        if number > 0 {
            note(&mut figures, started_ms, &call.events(), &bobs, &sent, ended.text("recording").as_ref());
        }
        let _ = std::fs::remove_file(ended.text("recording"));
        let _ = std::fs::remove_file(&at_alice);
    }
    figures
}

fn bobs_events(bob: &Process, mark: usize) -> Vec<Event> {
    // Only events are lines of bob's output, so that lines and events are counted alike.
    bob.events().split_off(mark.min(bob.events().len()))
}

fn note(figures: &mut Figures, started_ms: f64, alices: &[Event], bobs: &[Event], sent: &[f32], recording: &Path) {
    let mut add = |row, value: Option<f64>| figures.entry(row).or_default().extend(value);
    let first = |events: &[Event], name: &str| events.iter().find(|event| event.is(name)).cloned();
    let field = |events: &[Event], name: &str, field: &str| first(events, name).map(|event| event.number(field));
    let between = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
    let connected = field(alices, "connected", "t_ms");
    let direct = alices.iter().find(|event| event.is("path") && event.text("kind") != "relay").map(Event::t_ms);
    add("`call` to ringing", between(Some(started_ms), field(alices, "ringing", "t_ms")));
    add("look-up", field(alices, "calling", "look_up_ms"));
    add("placing to ringing", field(alices, "ringing", "after_ms"));
    add("answer to first sound, at the callee", field(bobs, "first-sound", "after_ms"));
    add("answer to first sound, at the caller", field(alices, "first-sound", "after_ms"));
    add("placing to connected", field(alices, "connected", "setup_ms"));
    add("connected to direct path", between(connected, direct));
    let quality = ahoy::quality::compare(sent, &wav::read_mono(recording)).expect("speech was recorded");
    let ahead_us = between(field(alices, "media", "play_started_us"), field(bobs, "media", "record_started_us"));
    add("mouth to ear", ahead_us.map(|us| us / 1_000.0 + quality.delay_samples as f64 / SAMPLES_PER_MS));
    add("quality, PESQ-WB", Some(quality.pesq_wb.into()));
}
