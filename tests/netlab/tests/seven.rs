//! Seven processes in seven namespaces: login server, three supernodes, relay, and two clients, each behind a router that translates addresses.

use ahoy_lab::{Capture, Event, Lab, Nat, Network, Person, Plan, Process, Router, Spot, lab_or_skip, wav};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const GOOD_PESQ: f32 = 4.0;
/// The longest piece of a call that may be missing while the path changes to the relay, in milliseconds of made-up sound: the watchdog's quarter of a
/// second, what the packets that are sent again bring back late, and the same again for a busy machine.
const GAP_MS_MAX: f64 = 1_000.0;

struct Seven {
    // In this order: processes end before the namespaces that they are in.
    network: Network,
    alice: Person,
    bob: Person,
    alice_router: Router,
    bob_router: Router,
    supernodes: Vec<Spot>,
    relay: Spot,
    lab: Lab,
}

impl Seven {
    fn start(mut lab: Lab, nat: Nat) -> Self {
        let login = lab.host("login");
        let supernodes: Vec<_> = (1..=3).map(|i| lab.host(&format!("supernode-{i}"))).collect();
        let relay = lab.host("relay");
        let (alice_spot, alice_router) = lab.behind_nat("alice", nat);
        let (bob_spot, bob_router) = lab.behind_nat("bob", nat);
        let network = Network::start_at(Plan { login, supernodes: supernodes.clone(), relays: vec![relay.clone()] });
        let (alice, bob) = (network.person_at("alice", alice_spot), network.person_at("bob", bob_spot));
        Self { network, alice, bob, alice_router, bob_router, supernodes, relay, lab }
    }

    /// Bob waits for calls, and records.
    fn bob_online(&self) -> (Process, PathBuf) {
        let recording = self.network.folder().join("at-bob.wav");
        let bob = self.bob.online(&["--auto-answer", "--play", speech().to_str().unwrap(), "--record", recording.to_str().unwrap()]);
        (bob, recording)
    }

    /// Alice calls.
    fn call(&self, args: &[&str]) -> (Process, PathBuf) {
        let recording = self.network.folder().join("at-alice.wav");
        let sound = ["--play", speech().to_str().unwrap(), "--record", recording.to_str().unwrap()].map(str::to_owned);
        let sound: Vec<_> = sound.iter().map(String::as_str).collect();
        (self.alice.call("bob", &[&sound, args].concat()), recording)
    }

    fn block_direct(&self) {
        self.lab.block_direct(&self.alice_router, &self.bob_router);
    }

    fn unblock_direct(&self) {
        self.lab.unblock_direct(&self.alice_router, &self.bob_router);
    }
}

fn speech() -> PathBuf {
    wav::sample_speech()
}

fn pesq(recording: &Path) -> f32 {
    let sent = wav::read_mono(&speech());
    let quality = ahoy::quality::compare(&sent, &wav::read_mono(recording));
    quality.unwrap_or_else(|error| panic!("{}: {error}", recording.display())).pesq_wb
}

fn has_path(kind: &str) -> impl Fn(&Event) -> bool {
    move |event| event.text("path") == kind || event.text("kind") == kind
}

#[test]
fn a_call_between_two_routers_finds_the_direct_path_and_sounds_good() {
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab, Nat::PortPreserving);
    let (bob, at_bob) = seven.bob_online();
    let (call, at_alice) = seven.call(&["--seconds", "10"]);
    for side in [&call, &bob] {
        let _ = side.wait_event(0, "path", LONG, has_path("direct"));
    }
    let finished = call.finish(LONG).succeeded();
    assert_eq!(finished.event("ended").text("reason"), "hung-up");
    let _ = bob.wait_for("ended", LONG);
    for recording in [at_alice, at_bob] {
        let pesq = pesq(&recording);
        println!("{}: {pesq}", recording.display());
        assert!(pesq >= GOOD_PESQ, "{}: {pesq}", recording.display());
    }
}

#[test]
fn behind_routers_with_random_ports_the_relay_carries_the_call() {
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab, Nat::RandomPorts);
    let (bob, at_bob) = seven.bob_online();
    let (call, _) = seven.call(&["--seconds", "7"]);
    let finished = call.finish(LONG).succeeded();
    assert!(finished.events().iter().filter(|event| event.is("stats")).all(has_path("relay")), "{finished:#?}");
    let _ = bob.wait_for("ended", LONG);
    assert!(pesq(&at_bob) >= GOOD_PESQ);
}

#[test]
fn a_blocked_path_leaves_the_relay_and_nobody_on_the_way_learns_a_word() {
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab, Nat::PortPreserving);
    seven.block_direct();
    let folder = seven.network.folder().to_owned();
    let relay = Capture::start(&seven.relay, &folder.join("relay.pcap"));
    let supernodes: Vec<_> =
        seven.supernodes.iter().enumerate().map(|(i, spot)| Capture::start(spot, &folder.join(format!("supernode-{i}.pcap")))).collect();
    let (bob, at_bob) = seven.bob_online();
    let (call, _) = seven.call(&["--seconds", "7"]);
    let finished = call.finish(LONG).succeeded();
    assert!(finished.events().iter().filter(|event| event.is("stats")).all(has_path("relay")), "{finished:#?}");
    let ended = bob.wait_for("ended", LONG);
    assert!(pesq(&at_bob) >= GOOD_PESQ);

    let at_relay = relay.stop();
    let voice = ended.number("received");
    assert!(at_relay.len() as f64 > 2.0 * voice, "the call passed here: {} packets, {voice} of them voice", at_relay.len());
    check_secrecy("relay", &at_relay);
    for (i, capture) in supernodes.into_iter().enumerate() {
        let packets = capture.stop();
        assert!(!packets.is_empty());
        check_secrecy(&format!("supernode {i}"), &packets);
    }
}

#[test]
fn a_path_that_is_cut_in_the_middle_of_a_call_is_left_and_found_again() {
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab, Nat::PortPreserving);
    let (bob, _) = seven.bob_online();
    let (call, _) = seven.call(&[]);
    let sides = [&call, &bob];
    let direct = sides.map(|side| {
        let _ = side.wait_event(0, "path", LONG, has_path("direct"));
        side.wait_event(0, "stats", LONG, |stats| has_path("direct")(stats) && stats.number("received") > 100.0)
    });

    let marks = sides.map(Process::mark);
    seven.block_direct();
    for (side, mark) in sides.into_iter().zip(marks) {
        let _ = side.wait_event(mark, "path", LONG, has_path("relay"));
    }
    // Two seconds of speech after the change, so that the buffers have settled.
    let relayed = settled(sides, marks, "relay", &direct);
    for (direct, relayed) in direct.iter().zip(&relayed) {
        let gap_ms = relayed.number("concealed_ms") - direct.number("concealed_ms");
        println!("cut: {gap_ms} ms made up, {} packets lost", relayed.number("lost") - direct.number("lost"));
        assert!(gap_ms < GAP_MS_MAX, "{direct:?} {relayed:?}");
    }

    let marks = sides.map(Process::mark);
    seven.unblock_direct();
    for (side, mark) in sides.into_iter().zip(marks) {
        let _ = side.wait_event(mark, "path", LONG, has_path("direct"));
    }
    let moved = settled(sides, marks, "direct", &relayed);
    for (relayed, moved) in relayed.iter().zip(&moved) {
        assert_eq!(moved.number("lost"), relayed.number("lost"), "no packet is lost by the move back: {relayed:?} {moved:?}");
    }
    let finished = call.stop().succeeded();
    assert_eq!(finished.event("ended").text("reason"), "hung-up");
}

/// The statistics of both sides after they have heard a hundred packets more by the path `kind`.
fn settled(sides: [&Process; 2], marks: [usize; 2], kind: &str, before: &[Event; 2]) -> [Event; 2] {
    let mut i = 0;
    sides.map(|side| {
        let heard = before[i].number("received");
        let first = side.wait_event(marks[i], "stats", LONG, |stats| has_path(kind)(stats) && stats.number("received") > heard);
        let heard = first.number("received");
        i += 1;
        side.wait_event(marks[i - 1], "stats", LONG, |stats| has_path(kind)(stats) && stats.number("received") > heard + 100.0)
    })
}

/// Looks for the sent speech, names and the password in packets.
fn check_secrecy(place: &str, packets: &[Vec<u8>]) {
    let mut secrets: Vec<(String, Vec<u8>)> =
        ["alice", "bob", ahoy_lab::PASSWORD].into_iter().map(|text| (text.to_owned(), text.as_bytes().to_vec())).collect();
    secrets.extend(pieces_of_speech());
    // The search itself is sound: a piece that is hidden in a packet is found.
    let (_, piece) = &secrets[secrets.len() - 1];
    assert!(contains(&[&[0; 50], &piece[..], &[0; 50]].concat(), piece));
    for packet in packets {
        for (what, secret) in &secrets {
            assert!(!contains(packet, secret), "{what} passed {place} in the clear");
        }
    }
}

/// Pieces of the sent samples as they would stand in a packet that holds them, from all over the file.
fn pieces_of_speech() -> Vec<(String, Vec<u8>)> {
    const PIECE_BYTES: usize = 16;
    const PIECES: usize = 200;
    let samples = std::fs::read(speech()).unwrap();
    let loud = |piece: &&[u8]| piece.chunks_exact(2).all(|sample| i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs() > 500);
    let pieces: Vec<_> = samples[44..].chunks_exact(PIECE_BYTES).filter(loud).collect();
    let step = (pieces.len() / PIECES).max(1);
    pieces.iter().step_by(step).enumerate().map(|(i, piece)| (format!("piece {i} of the speech"), piece.to_vec())).collect()
}

fn contains(packet: &[u8], secret: &[u8]) -> bool {
    packet.windows(secret.len()).any(|window| window == secret)
}
