//! The programs in network namespaces behind real NATs: what the tests here share, and what the emulated link is made of.

pub mod link;

use ahoy_lab::{Event, Lab, Network, Person, Plan, Process, Router, Spot, packets_received, wav};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What works at all, works within this time, even on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// More than a second of speech, so that a path is judged while something passes it: packets of 20 ms.
const PACKETS: f64 = 60.0;

/// How long packets are counted to tell a relay that carries a call from one that stands ready.
const COUNTED: Duration = Duration::from_millis(500);

/// A network and two people in it. Alice calls bob.
#[derive(Debug)]
pub struct Case {
    // In this order: processes end before the namespaces that they are in.
    /// The network.
    pub network: Network,
    /// Who calls.
    pub alice: Person,
    /// Who is called.
    pub bob: Person,
    /// What is before alice and bob.
    pub routers: Vec<Router>,
    /// All namespaces.
    pub lab: Lab,
}

/// Where the servers are: each at an address of its own. Two supernodes, because it takes two observers to tell a NAT's kind.
#[must_use]
pub fn servers(lab: &mut Lab, relays: usize) -> Plan {
    let login = lab.host("login");
    let supernodes = (1..=2).map(|i| lab.host(&format!("supernode-{i}"))).collect();
    Plan { login, supernodes, relays: (1..=relays).map(|i| lab.host(&format!("relay-{i}"))).collect() }
}

/// The same where there is no IPv4.
#[must_use]
pub fn servers_v6(lab: &mut Lab) -> Plan {
    let login = lab.host_v6("login");
    let supernodes = (1..=2).map(|i| lab.host_v6(&format!("supernode-{i}"))).collect();
    Plan { login, supernodes, relays: vec![lab.host_v6("relay")] }
}

impl Case {
    /// Starts the servers, and makes accounts for alice and bob.
    ///
    /// # Panics
    /// If something does not come up.
    #[must_use]
    pub fn start(lab: Lab, plan: Plan, alice: Spot, bob: Spot, routers: Vec<Router>) -> Self {
        let network = Network::start_at(plan);
        let (alice, bob) = (network.person_at("alice", alice), network.person_at("bob", bob));
        Self { network, alice, bob, routers, lab }
    }

    /// Changes a setting of both.
    ///
    /// # Panics
    /// If it is refused.
    pub fn set(&self, key: &str, value: &str) {
        for person in [&self.alice, &self.bob] {
            set(person, key, value);
        }
    }

    /// Bob waits for calls and takes each.
    ///
    /// # Panics
    /// If he does not come online.
    #[must_use]
    pub fn bob_online(&self) -> Process {
        let recording = self.network.folder().join("at-bob.wav");
        self.bob.online(&[
            "--auto-answer",
            "--play",
            &speech(),
            "--record",
            recording.to_str().expect("temporary folders have plain names"),
        ])
    }

    /// Alice calls him.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Process {
        let recording = self.network.folder().join("at-alice.wav");
        let recording = recording.to_str().expect("temporary folders have plain names");
        self.alice.call("bob", &[&["--play", &speech(), "--record", recording], args].concat())
    }

    /// Makes a call and checks that alice comes to hear bob by the path `at_alice`, and he her by `at_bob`; then hangs up.
    ///
    /// # Panics
    /// If the call does not connect, or does not come to these paths.
    pub fn check_paths(&self, at_alice: &str, at_bob: &str) {
        let bob = self.bob_online();
        let call = self.call(&[]);
        for (side, kind) in [(&call, at_alice), (&bob, at_bob)] {
            let _ = side.wait_for("connected", LONG);
            hear(side, 0, kind);
        }
        let connected = call.wait_for("connected", LONG);
        println!("connected after {} ms by {}, then {at_alice} and {at_bob}", connected.number("setup_ms"), connected.text("path"));
        let finished = call.stop().succeeded();
        assert_eq!(finished.event("ended").text("reason"), "hung-up");
        let ended = bob.wait_for("ended", LONG);
        assert_eq!(ended.text("reason"), "hung-up");
    }
}

/// The relay that a call goes through, once two stand ready on `sides`: the busier of them.
///
/// # Panics
/// If two do not become ready.
#[must_use]
pub fn relay_in_use(case: &Case, sides: [&Process; 2]) -> usize {
    let deadline = Instant::now() + LONG;
    let has_two = |side: &&Process| {
        let stats = side.events().into_iter().rfind(|event| event.is("stats"));
        stats.is_some_and(|stats| stats.0["relays"].as_array().is_some_and(|relays| relays.len() == 2))
    };
    while !sides.iter().all(has_two) {
        assert!(Instant::now() < deadline, "two relays stand ready: {:?}", sides.map(Process::transcript));
        sleep(Duration::from_millis(100));
    }
    let count = || case.network.plan().relays.iter().map(packets_received).collect::<Vec<_>>();
    let before = count();
    sleep(COUNTED);
    let busier = count().into_iter().zip(before).map(|(after, before)| after - before).enumerate().max_by_key(|(_, packets)| *packets);
    busier.expect("there are relays").0
}

/// Changes a setting of somebody.
///
/// # Panics
/// If it is refused.
pub fn set(person: &Person, key: &str, value: &str) {
    let _ = person.run(&["settings", "set", key, value]).succeeded();
}

/// The sample speech, as an argument.
///
/// # Panics
/// If the project lies in a folder whose name is no text.
#[must_use]
pub fn speech() -> String {
    wav::sample_speech().to_str().expect("the project's folder has a name in UTF-8").to_owned()
}

/// True for a `path`, `stats` or `connected` event that names this path.
pub fn has_path(kind: &str) -> impl Fn(&Event) -> bool {
    move |event| event.text("path") == kind || event.text("kind") == kind
}

/// The longest time without a packet that a side has told of since a point in what it said.
#[must_use]
pub fn longest_gap_ms(side: &Process, mark: usize) -> f64 {
    let stats = side.events_since(mark).into_iter().filter(|event| event.is("stats"));
    stats.map(|stats| stats.number("gap_ms")).fold(0.0, f64::max)
}

/// Waits, from a point in what a side said, until it has the path `kind` and has heard more than a second of speech by it. Returns the statistics then.
///
/// # Panics
/// If that does not happen.
pub fn hear(side: &Process, mark: usize, kind: &str) -> Event {
    let first = side.wait_event(mark, "stats", LONG, has_path(kind));
    let heard = first.number("received") + PACKETS;
    side.wait_event(mark, "stats", LONG, |stats| has_path(kind)(stats) && stats.number("received") > heard)
}
