//! Sound files: all the usual ones play, the rest are refused with a reason.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{LONG, full_size};
use ahoy_lab::{Network, wav};
use std::fs;

const TONE_HZ: f32 = 440.0;

#[test]
fn a_tone_from_every_usual_format_arrives_at_its_pitch() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let recordings = network.folder().join("tone.wav");
    let bob = bob.online(&["--auto-answer", "--record", recordings.to_str().unwrap()]);
    // Each rate, each number of channels and each kind of sample occurs in a part of the list; the whole of it is forty calls.
    let formats = wav::Format::all().into_iter().enumerate().filter(|(i, _)| full_size() || i % 9 == (i / 8) % 9 || i % 11 == 3);
    for (_, format) in formats {
        let played = network.folder().join("played.wav");
        wav::write_tone(&played, format, TONE_HZ, 2.5);
        let mark = bob.mark();
        let _ = alice.call("bob", &["--seconds", "2", "--play", played.to_str().unwrap()]).finish(LONG).succeeded();
        let ended = bob.wait_event(mark, "ended", LONG, |_| true);
        let recording = ended.text("recording").to_owned();
        let tone = wav::tone_hz(&wav::read_mono(recording.as_ref()), wav::rate_hz(recording.as_ref()));
        let tone = tone.unwrap_or_else(|| panic!("{format:?}: nothing was heard"));
        assert!((tone - TONE_HZ).abs() < 4.0, "{format:?}: {tone} Hz");
    }
}

#[test]
fn a_file_that_cannot_be_played_is_refused_before_anybody_is_called() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let bob = bob.online(&["--auto-answer"]);
    let file = |name: &str| network.folder().join(name);
    fs::write(file("text.wav"), "This is no sound at all, however long one listens to it.").unwrap();
    fs::write(file("nothing.wav"), "").unwrap();
    wav::write_empty(&file("empty.wav"));
    let speech = fs::read(wav::sample_speech()).unwrap();
    fs::write(file("torn.wav"), &speech[..30]).unwrap();
    fs::create_dir(file("folder.wav")).unwrap();
    let with_byte = |name: &str, offset: usize, bytes: &[u8]| {
        let mut broken = speech.clone();
        broken[offset..offset + bytes.len()].copy_from_slice(bytes);
        fs::write(file(name), broken).unwrap();
    };
    // Offsets in the canonical header: 20 is the encoding, 22 the number of channels, 24 the rate, 34 the bits of a sample.
    with_byte("compressed.wav", 20, &[0x55, 0]);
    with_byte("channels.wav", 22, &[0, 0]);
    with_byte("rate.wav", 24, &[0, 0, 0, 0]);
    with_byte("bits.wav", 34, &[7, 0]);
    let names = [
        "missing.wav",
        "text.wav",
        "nothing.wav",
        "empty.wav",
        "torn.wav",
        "folder.wav",
        "compressed.wav",
        "channels.wav",
        "rate.wav",
        "bits.wav",
    ];
    for name in names {
        let finished = alice.call("bob", &["--seconds", "1", "--play", file(name).to_str().unwrap()]).finish(LONG);
        println!("{name}: {}", finished.stderr.join(" "));
        finished.failed_with(&[name]);
        assert!(!finished.events().iter().any(|event| event.is("calling")), "{name}: nobody is called: {finished:#?}");
    }
    assert!(!bob.events().iter().any(|event| event.is("incoming")));
}

#[test]
fn a_recording_that_cannot_be_written_is_refused_before_anybody_is_called() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let _bob = bob.online(&["--auto-answer"]);
    let path = network.folder().join("no-such-folder/received.wav");
    let finished = alice.call("bob", &["--seconds", "1", "--record", path.to_str().unwrap()]).finish(LONG);
    assert!(!finished.events().iter().any(|event| event.is("calling")), "{finished:#?}");
    finished.failed_with(&["received.wav"]);
}
