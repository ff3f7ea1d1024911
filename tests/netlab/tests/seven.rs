//! Seven processes in seven namespaces: login server, three supernodes, relay, and two clients, each behind a router that translates addresses.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Capture, Event, Finished, Lab, Nat, Network, Person, Plan, Process, Router, Spot, alone, best_of_tries, lab_or_skip, wav};
use std::collections::BTreeSet;
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

/// The two people's names: so long that encrypted packets do not hold them by chance.
const CALLER: &str = "alice-liddell";
const CALLEE: &str = "bob-cratchit";

impl Seven {
    fn start(mut lab: Lab) -> Self {
        let login = lab.host("login");
        let supernodes: Vec<_> = (1..=3).map(|i| lab.host(&format!("supernode-{i}"))).collect();
        let relay = lab.host("relay");
        let (alice_spot, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
        let (bob_spot, bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
        let network = Network::start_at(Plan { login, supernodes: supernodes.clone(), relays: vec![relay.clone()] });
        let (alice, bob) = (network.person_at(CALLER, alice_spot), network.person_at(CALLEE, bob_spot));
        Self { network, alice, bob, alice_router, bob_router, supernodes, relay, lab }
    }

    /// Bob waits for calls, and records.
    fn bob_online(&self) -> Process {
        let recording = self.network.folder().join("at-bob.wav");
        self.bob.online(&["--auto-answer", "--play", speech().to_str().unwrap(), "--record", recording.to_str().unwrap()])
    }

    /// Alice calls, and records.
    fn call(&self, args: &[&str]) -> Process {
        let recording = self.network.folder().join("at-alice.wav");
        let (speech, recording) = (speech(), recording.to_str().unwrap().to_owned());
        self.alice.call(CALLEE, &[&["--play", speech.to_str().unwrap(), "--record", &recording], args].concat())
    }

    /// A call of some seconds. Returns how it went for alice, and the worse of the two recordings' scores.
    fn call_and_judge(&self, bob: &Process, seconds: &str) -> (Finished, f32) {
        let mark = bob.mark();
        let finished = self.call(&["--seconds", seconds]).finish(LONG).succeeded();
        let (at_alice, at_bob) = (finished.event("ended"), bob.wait_event(mark, "ended", LONG, |_| true));
        assert_eq!((at_alice.text("reason"), at_bob.text("reason")), ("hung-up", "hung-up"));
        let pesq = pesq(at_alice.text("recording").as_ref()).min(pesq(at_bob.text("recording").as_ref()));
        let _ = std::fs::remove_file(at_alice.text("recording"));
        (finished, pesq)
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
    let _alone = alone();
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab);
    let bob = seven.bob_online();
    let pesq = best_of_tries(GOOD_PESQ, || {
        let mark = bob.mark();
        let (finished, pesq) = seven.call_and_judge(&bob, "8");
        assert_eq!(finished.event("connected").text("path"), "relay", "a call begins there");
        assert_eq!(finished.event("path").text("kind"), "direct", "{finished:#?}");
        let _ = bob.wait_event(mark, "path", LONG, has_path("direct"));
        pesq
    });
    assert!(pesq >= GOOD_PESQ, "{pesq}");
}

#[test]
fn a_blocked_path_leaves_the_relay_and_nobody_on_the_way_learns_a_word() {
    let _alone = alone();
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab);
    seven.block_direct();
    let folder = seven.network.folder().to_owned();
    let relay = Capture::start(&seven.relay, &folder.join("relay.pcap"));
    let supernodes: Vec<_> =
        seven.supernodes.iter().enumerate().map(|(i, spot)| Capture::start(spot, &folder.join(format!("supernode-{i}.pcap")))).collect();
    let bob = seven.bob_online();
    let mut voice = 0.0;
    let pesq = best_of_tries(GOOD_PESQ, || {
        let (finished, pesq) = seven.call_and_judge(&bob, "7");
        assert!(finished.events().iter().filter(|event| event.is("stats")).all(has_path("relay")), "{finished:#?}");
        voice += finished.event("ended").number("received");
        pesq
    });
    assert!(pesq >= GOOD_PESQ, "{pesq}");

    let at_relay = relay.stop();
    assert!(at_relay.len() as f64 > 2.0 * voice, "the call passed here: {} packets, {voice} of them voice", at_relay.len());
    check_secrecy("the relay", &at_relay);
    for (i, capture) in supernodes.into_iter().enumerate() {
        let packets = capture.stop();
        assert!(!packets.is_empty());
        check_secrecy(&format!("supernode {i}"), &packets);
    }
}

#[test]
fn a_path_that_is_cut_in_the_middle_of_a_call_is_left_and_found_again() {
    let _alone = alone();
    let Some(lab) = lab_or_skip() else { return };
    let seven = Seven::start(lab);
    let bob = seven.bob_online();
    let call = seven.call(&[]);
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

/// Looks for the sent speech, as samples and as the codec makes it, for names and for the password in packets.
fn check_secrecy(place: &str, packets: &[Vec<u8>]) {
    let texts = [CALLER, CALLEE, ahoy_lab::PASSWORD].map(|text| (text.to_owned(), text.as_bytes().to_vec()));
    let secrets = [texts.to_vec(), pieces_of_speech(), pieces_of_voice()].concat();
    for (what, secret) in &secrets {
        // The search itself is sound: it finds what is hidden in a packet.
        assert!(contains(&[&[0; 50], &secret[..], &[0; 50]].concat(), secret));
        assert!(!packets.iter().any(|packet| contains(packet, secret)), "{what} passed {place} in the clear");
    }
}

/// How much of a secret is looked for: no packet holds so many given bytes by chance.
const PIECE_BYTES: usize = 16;
/// How many pieces of each kind, from all over the file.
const PIECES: usize = 100;

/// Pieces of the sent samples as they would stand in a packet that holds them.
fn pieces_of_speech() -> Vec<(String, Vec<u8>)> {
    const HEADER_BYTES: usize = 44;
    let samples = std::fs::read(speech()).unwrap();
    let loud = |piece: &&[u8]| piece.chunks_exact(2).all(|sample| i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs() > 500);
    let pieces = samples[HEADER_BYTES..].chunks_exact(PIECE_BYTES).filter(loud).map(<[u8]>::to_vec).collect();
    some_of("samples", pieces)
}

/// Pieces of the voice packets that a client makes of the speech as long as nothing makes it change its settings. The codec makes the same each time.
fn pieces_of_voice() -> Vec<(String, Vec<u8>)> {
    let samples = ahoy_audio::wav::read_speech(&speech()).unwrap();
    let encode = || {
        let mut sender = ahoy_voice::VoiceSender::new(ahoy_voice::SenderSettings::default()).unwrap();
        let blocks = samples.chunks_exact(ahoy_voice::BLOCK_SAMPLES).map(|block| block.try_into().unwrap());
        blocks.filter_map(|block: &ahoy_voice::Block| sender.push(block)).collect::<Vec<_>>()
    };
    let packets = encode();
    assert_eq!(packets, encode());
    let long = packets.iter().filter(|packet| packet.len() >= 3 * PIECE_BYTES);
    // The padding of packets of silence is in every other protocol's padding too.
    let is_telling = |piece: &Vec<u8>| piece.iter().collect::<BTreeSet<_>>().len() > PIECE_BYTES / 2;
    some_of("voice packet", long.map(|packet| packet[PIECE_BYTES..2 * PIECE_BYTES].to_vec()).filter(is_telling).collect())
}

fn some_of(what: &str, pieces: Vec<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    let step = (pieces.len() / PIECES).max(1);
    assert!(pieces.len() > PIECES / 2, "enough to look for");
    pieces.into_iter().step_by(step).enumerate().map(|(i, piece)| (format!("{what} {i}"), piece)).collect()
}

fn contains(packet: &[u8], secret: &[u8]) -> bool {
    packet.windows(secret.len()).any(|window| window == secret)
}
