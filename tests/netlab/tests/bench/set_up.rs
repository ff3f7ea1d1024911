//! How long a call takes to ring, and after the answer to sound: from a process that has just begun, and from one that is online.

use crate::figures::{self, Figures, now_ms};
use crate::{LONG, speech_from_its_first_sound};
use ahoy_lab::{Event, Lab, Nat, Network, Person, Plan, Process, Spot, lab_or_skip, wav};
use std::time::Duration;

/// Calls a column; `AHOY_BENCH_CALLS` gives another number.
const CALLS: usize = 50;
/// How long the phone rings before it is answered.
const RINGING: Duration = Duration::from_secs(1);
/// Long enough for the first sounds.
const SECONDS: u32 = 1;
/// What each client's access link takes, one way. The servers are beside each other.
const ACCESS_MS: f64 = 25.0;
/// The rows, in their order.
const ROWS: [&str; 6] = [
    "`call` to ringing",
    "look-up",
    "placing to ringing",
    "answer to connected, at the caller",
    "answer to first sound, at the callee",
    "answer to first sound, at the caller",
];

#[test]
#[ignore = "measures; run it with `make bench`"]
fn set_up() {
    let mut columns = Vec::new();
    {
        let network = Network::start(3, 2);
        let (alice, bob) = (network.person("alice"), network.person("bob"));
        columns.extend(measure("loopback", &network, &alice, &bob));
    }
    if lab_or_skip().is_some() {
        let mut lab = Lab::with_delays().unwrap();
        let login = lab.host("login");
        let supernodes: Vec<Spot> = (1..=3).map(|i| lab.host(&format!("supernode-{i}"))).collect();
        let relays: Vec<Spot> = (1..=2).map(|i| lab.host(&format!("relay-{i}"))).collect();
        lab.set_link_delay(ACCESS_MS);
        let (alice, _) = lab.behind_nat("alice", Nat::PortPreserving);
        let (bob, _) = lab.behind_nat("bob", Nat::PortPreserving);
        lab.switch_on();
        let network = Network::start_at(Plan { login, supernodes, relays });
        let (alice, bob) = (network.person_at("alice", alice), network.person_at("bob", bob));
        columns.extend(measure(&format!("{ACCESS_MS} ms access"), &network, &alice, &bob));
    }
    figures::print(&ROWS, &columns);
}

/// Two columns: calls of a process that has just begun and knows nothing of the other, and calls of one that is online.
fn measure(place: &str, network: &Network, alice: &Person, bob: &Person) -> [(String, Option<Figures>); 2] {
    let speech = network.folder().join("speech.wav");
    wav::write_mono(&speech, &speech_from_its_first_sound());
    let speech = speech.to_str().unwrap();
    let seconds = SECONDS.to_string();
    let mut phone = bob.online(&["--play", speech, "--record", "/dev/null"]);
    let mut first = Figures::new();
    for _ in 0..calls() {
        // Neither has ever heard of the other.
        for person in [alice, bob] {
            let _ = std::fs::remove_file(person.home.join("pins.json"));
        }
        let mark = phone.mark();
        let started_ms = now_ms();
        let call = alice.call("bob", &["--seconds", &seconds, "--play", speech, "--record", "/dev/null"]);
        let answered_ms = answer(&mut phone, mark);
        let call = call.finish(LONG).succeeded();
        note(&mut first, started_ms, answered_ms, &call.events(), &ended(&phone, mark));
    }
    let mut caller = alice.online(&["--play", speech, "--record", "/dev/null"]);
    let mut cached = Figures::new();
    for _ in 0..calls() {
        let (mark, callers) = (phone.mark(), caller.mark());
        let started_ms = now_ms();
        caller.send(&format!(r#"{{"command":"call","name":"bob","seconds":{SECONDS}}}"#));
        let answered_ms = answer(&mut phone, mark);
        note(&mut cached, started_ms, answered_ms, &ended(&caller, callers), &ended(&phone, mark));
    }
    [(format!("{place}, first call"), Some(first)), (format!("{place}, online"), Some(cached))]
}

fn calls() -> usize {
    std::env::var("AHOY_BENCH_CALLS").ok().and_then(|number| number.parse().ok()).unwrap_or(CALLS)
}

/// Lets the phone ring, takes the call, and says when.
fn answer(phone: &mut Process, mark: usize) -> f64 {
    let _ = phone.wait_event(mark, "incoming", LONG, |_| true);
    std::thread::sleep(RINGING);
    let answered_ms = now_ms();
    phone.send(r#"{"command":"answer"}"#);
    answered_ms
}

/// The events since `mark`, once the call has ended.
fn ended(process: &Process, mark: usize) -> Vec<Event> {
    let _ = process.wait_event(mark, "ended", LONG, |_| true);
    // Only events are lines of an online process's output, so that lines and events are counted alike.
    process.events().split_off(mark)
}

fn note(figures: &mut Figures, started_ms: f64, answered_ms: f64, alices: &[Event], bobs: &[Event]) {
    let first = |events: &[Event], name: &str| events.iter().find(|event| event.is(name)).cloned();
    let field = |events: &[Event], name: &str, field: &str| first(events, name).map(|event| event.number(field));
    let after = |from: f64, events: &[Event], name: &str| Some(field(events, name, "t_ms")? - from);
    let mut add = |row, value: Option<f64>| figures.entry(row).or_default().extend(value);
    add(ROWS[0], after(started_ms, alices, "ringing"));
    add(ROWS[1], field(alices, "calling", "look_up_ms"));
    add(ROWS[2], field(alices, "ringing", "after_ms"));
    add(ROWS[3], after(answered_ms, alices, "connected"));
    add(ROWS[4], after(answered_ms, bobs, "first-sound"));
    add(ROWS[5], after(answered_ms, alices, "first-sound"));
}
