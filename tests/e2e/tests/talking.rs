//! What one can do while a call runs, whom one can call to hear oneself, and what is kept of calls.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy::quality::compare;
use ahoy_e2e::{LONG, RATE_HZ, full_size, wait_for_voice};
use ahoy_lab::{Event, Network, Process, alone, best_of_tries, wav};
use std::path::Path;

/// Softer than any speech, and louder than what an encoder makes of silence.
const SILENCE_DBFS: f64 = -60.0;
/// Softer than a second of the sample speech that has a word in it.
const SPEECH_DBFS: f64 = -45.0;

/// Twice through the codec.
const GOOD_ECHO_PESQ: f32 = 3.0;
/// In samples.
const SECOND: usize = RATE_HZ as usize;

#[test]
fn mute_hold_and_push_to_talk_are_heard_and_told() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let mut bob = bob.online(&["--auto-answer"]);
    let speech = long_speech(network.folder());
    let mut call = alice.call("bob", &["--play", speech.to_str().unwrap()]);
    heard(&bob, 0, |level| level > SPEECH_DBFS);

    turn(&mut call, r#"{"command":"mute"}"#, "controls", |controls| controls.0["muted"] == true);
    heard(&bob, bob.mark(), |level| level < SILENCE_DBFS);
    turn(&mut call, r#"{"command":"unmute"}"#, "controls", |controls| controls.0["muted"] == false);
    heard(&bob, bob.mark(), |level| level > SPEECH_DBFS);

    let mark = call.mark();
    turn(&mut bob, r#"{"command":"hold"}"#, "hold", |hold| hold.text("by") == "here" && hold.0["on"] == true);
    let _ = call.wait_event(mark, "hold", LONG, |hold| hold.text("by") == "there" && hold.0["on"] == true);
    turn(&mut bob, r#"{"command":"resume"}"#, "hold", |hold| hold.text("by") == "here" && hold.0["on"] == false);
    let _ = call.wait_event(mark, "hold", LONG, |hold| hold.text("by") == "there" && hold.0["on"] == false);

    turn(&mut call, r#"{"command":"hold"}"#, "hold", |hold| hold.text("by") == "here");
    let _ = bob.wait_event(0, "hold", LONG, |hold| hold.text("by") == "there");
    heard(&bob, bob.mark(), |level| level < SILENCE_DBFS);
    turn(&mut call, r#"{"command":"resume"}"#, "hold", |hold| hold.0["on"] == false);

    turn(&mut call, r#"{"command":"push-to-talk","on":true}"#, "controls", |controls| controls.0["push_to_talk"] == true);
    heard(&bob, bob.mark(), |level| level < SILENCE_DBFS);
    // Another process on the same home turns it too.
    let told = alice.run(&["turn", "talk", "on"]).succeeded();
    assert!(told.stderr.is_empty(), "{told:?}");
    heard(&bob, bob.mark(), |level| level > SPEECH_DBFS);
    turn(&mut call, r#"{"command":"volume","percent":70}"#, "controls", |controls| controls.number("volume") == 70.0);
    turn(&mut call, r#"{"command":"volume","percent":250}"#, "warning", |warning| warning.text("text").contains("200"));
    let _ = call.stop().succeeded();
    let mark = bob.mark();
    bob.send(r#"{"command":"hold"}"#);
    let _ = bob.wait_event(mark, "warning", LONG, |warning| warning.text("text").contains("no call"));
    alice.run(&["turn", "mute"]).failed_with(&["no ahoy runs"]);
}

#[test]
fn figures_say_how_a_call_is_and_are_kept_at_both_ends() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let online = bob.online(&["--auto-answer"]);
    let speech = wav::sample_speech();
    let finished = alice.call("bob", &["--seconds", "4", "--play", speech.to_str().unwrap()]).finish(LONG).succeeded();
    let stats = finished.events().into_iter().rfind(|event| event.is("stats")).unwrap();
    for field in ["loss_percent", "residual_loss_percent", "jitter_ms", "queueing_ms", "concealed_percent", "mouth_to_ear_ms"] {
        assert!(stats.number(field) >= 0.0, "{field} in {stats:?}");
    }
    assert!(stats.number("mos") > 1.0 && stats.number("sent_kbps") > 5.0 && stats.number("received_kbps") > 5.0, "{stats:?}");
    assert!(["L", "N"].iter().any(|name| stats.text("rung").starts_with(name)), "{stats:?}");
    assert!(stats.number("level_in_dbfs") < 0.0 && !stats.text("limit_kind").is_empty(), "{stats:?}");
    let _ = online.wait_for("ended", LONG);
    let _ = online.stop();
    for (person, direction, with) in [(&alice, "outgoing", "bob"), (&bob, "incoming", "alice")] {
        let calls = person.run(&["calls", "--json"]).succeeded();
        let call = calls.event("past-call");
        assert_eq!((call.text("direction"), call.text("with"), call.text("reason")), (direction, with, "hung-up"));
        assert!(call.number("seconds") > 3.0 && call.number("mos") > 1.0 && call.number("received") > 50.0, "{call:?}");
        assert!(!call.0["paths"].as_array().unwrap().is_empty() && !call.0["rungs"].as_array().unwrap().is_empty(), "{call:?}");
    }
    assert!(alice.run(&["calls"]).succeeded().stdout[0].contains("to bob: hung-up"));
}

#[test]
fn the_echo_service_answers_several_callers_and_is_busy_for_more() {
    let network = Network::start(1, 1);
    let service = network.stranger("echo123", "service", ahoy_lab::Spot::loopback());
    let service = service.start(&["echo-service", "--network", &network.link, "--lines", "2", "--json"]);
    let _ = service.wait_for("online", LONG);
    let people: Vec<_> = ["alice", "bob", "carol"].map(|name| network.person(name)).into();
    let calls: Vec<_> = people.iter().take(2).map(|person| person.call("echo123", &[])).collect();
    for call in &calls {
        // The beep that says that it listens.
        let _ = call.wait_event(0, "first-sound", LONG, |_| true);
    }
    let third = people[2].call("echo123", &[]).finish(LONG);
    assert_eq!(third.event("ended").text("reason"), "busy");
    for call in calls {
        let _ = call.stop().succeeded();
    }
    let _ = service.stop().succeeded();
}

#[test]
fn the_echo_service_says_what_was_said() {
    if !full_size() {
        // It listens for ten seconds, and speaks for as long.
        println!("skipped: only at full size");
        return;
    }
    let _alone = alone();
    let network = Network::start(1, 1);
    let service = network.stranger("echo123", "service", ahoy_lab::Spot::loopback());
    let service = service.start(&["echo-service", "--network", &network.link, "--json"]);
    let _ = service.wait_for("online", LONG);
    let (speech, recording) = (wav::sample_speech(), network.folder().join("echo.wav"));
    let alice = network.person("alice");
    let sound = ["--play", speech.to_str().unwrap(), "--record", recording.to_str().unwrap()];
    let pesq = best_of_tries(GOOD_ECHO_PESQ, || {
        let _ = alice.call("echo123", &[&["--seconds", "22"], &sound[..]].concat()).finish(LONG).succeeded();
        let (said, heard) = (wav::read_mono(&speech), wav::read_mono(&recording));
        let delay = compare(&said, &heard).unwrap().delay_samples;
        assert!(delay > 9 * SECOND as i64, "it speaks once it has listened: {delay}");
        std::fs::remove_file(&recording).unwrap();
        // Seven of the ten seconds, far from both beeps.
        let from = 2 * SECOND + delay as usize;
        compare(&said[2 * SECOND..9 * SECOND], &heard[from..heard.len().min(from + 7 * SECOND)]).unwrap().pesq_wb
    });
    assert!(pesq >= GOOD_ECHO_PESQ, "{pesq}");
}

#[test]
fn without_sound_devices_there_is_an_empty_list_and_a_test_that_says_so() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let devices = alice.run(&["devices", "--json"]).succeeded().event("devices");
    assert!(devices.0["microphones"].is_array() && devices.0["speakers"].is_array(), "{devices:?}");
    alice.run(&["test-sound", "--seconds", "1"]).failed_with(&["sound device"]);
}

#[test]
fn sound_settings_are_kept_and_short_forms_work() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let _ = alice.run(&["settings", "echo-canceller", "off"]).succeeded();
    let _ = alice.run(&["settings", "set", "noise-suppression", "high"]).succeeded();
    let settings = alice.run(&["settings", "--json"]).succeeded().event("settings");
    assert_eq!((settings.text("echo_canceller"), settings.text("noise_suppression")), ("off", "high"));
    assert_eq!((settings.text("gain_control"), settings.text("microphone")), ("on", "default"));
    alice.run(&["settings", "volume", "999"]).failed_with(&["volume", "200"]);
    assert_eq!(alice.run(&["settings", "dance", "on"]).status.code(), Some(2));
}

/// Sends a command and waits for what it brings about.
fn turn(process: &mut Process, line: &str, event: &str, test: impl Fn(&Event) -> bool) {
    let mark = process.mark();
    process.send(line);
    let _ = process.wait_event(mark, event, LONG, test);
}

/// Waits for a second in which the other side is so loud.
fn heard(process: &Process, mark: usize, test: impl Fn(f64) -> bool) {
    wait_for_voice(process, 0);
    let _ = process.wait_event(mark, "stats", LONG, |stats| test(stats.number("level_out_dbfs")));
}

/// The sample speech, again and again for as long as the test lasts.
fn long_speech(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("long.wav");
    let speech = wav::read_mono(&wav::sample_speech());
    wav::write_mono(&path, &speech.repeat(8));
    path
}
