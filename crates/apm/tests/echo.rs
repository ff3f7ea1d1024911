//! The echo canceller in simulated rooms. These are a few rooms and seconds; the voice bench measures many, and scores them with AECMOS.

mod support;

use ahoy_apm::testing::{DelayJump, Hint, Scene};
use ahoy_apm::{Apm, ApmSettings, NoiseLevel};
use support::{ALICE, BOB, level_dbfs, seconds, speech};

const ECHO_ONLY: ApmSettings = ApmSettings { echo: true, noise: NoiseLevel::Off, gain: false };

fn erle_db(scene: &Scene, hint: Hint) -> f64 {
    let recording = scene.record(&speech(ALICE, 8.0), &[]);
    let out = recording.process(&mut Apm::new(ECHO_ONLY), hint);
    recording.erle_db(&out, 3.0, 8.0)
}

#[test]
fn the_echo_is_30_db_less_from_the_third_second_in_a_dry_room() {
    for (seed, delay_ms) in [(1, 60.0), (2, 200.0)] {
        let scene = Scene { delay_ms, ..Scene::desk(0.2, seed) };
        let erle_db = erle_db(&scene, Hint::Fixed(60));
        assert!(erle_db >= 30.0, "{erle_db:.1} dB at {delay_ms} ms");
    }
}

#[test]
fn the_echo_is_26_db_less_from_the_third_second_in_a_live_room() {
    let scene = Scene { delay_ms: 120.0, ..Scene::desk(0.4, 3) };
    let erle_db = erle_db(&scene, Hint::Queues);
    assert!(erle_db >= 26.0, "{erle_db:.1} dB");
}

#[test]
fn a_loudspeaker_that_distorts_is_cancelled_too() {
    let erle_db = erle_db(&Scene { is_distorting: true, ..Scene::desk(0.2, 4) }, Hint::Queues);
    assert!(erle_db >= 26.0, "{erle_db:.1} dB");
}

#[test]
fn after_a_jump_of_the_delay_the_canceller_starts_again_behind_the_guard() {
    let scene = Scene { jump: Some(DelayJump { at_s: 4.0, delay_ms: 140.0 }), ..Scene::desk(0.2, 1) };
    let recording = scene.record(&speech(ALICE, 8.0), &[]);
    let mut apm = Apm::new(ECHO_ONLY);
    let mut is_guarded = false;
    let out = recording.process_with(&mut apm, Hint::Queues, |apm, _| is_guarded |= apm.facts().is_guarded);
    assert!(is_guarded && !apm.facts().is_guarded);
    let erle_db = recording.erle_db(&out, 6.0, 8.0);
    assert!(erle_db >= 15.0, "{erle_db:.1} dB");
}

#[test]
fn speech_of_the_near_end_survives_double_talk() {
    let recording = Scene::desk(0.2, 1).record(&speech(ALICE, 8.0), &speech(BOB, 8.0));
    let out = recording.process(&mut Apm::new(ECHO_ONLY), Hint::Queues);
    let alone = speech(BOB, 8.0);
    let lost_db = level_dbfs(&alone[seconds(3.0)..]) - level_dbfs(&out[seconds(3.0)..]);
    assert!(lost_db.abs() < 4.0, "{lost_db:.1} dB");
}

#[test]
fn a_headset_is_left_alone() {
    let scene = Scene { echo_db: None, ..Scene::desk(0.2, 1) };
    let recording = scene.record(&speech(ALICE, 8.0), &speech(BOB, 8.0));
    let mut apm = Apm::new(ECHO_ONLY);
    let out = recording.process(&mut apm, Hint::Queues);
    let changed_db = level_dbfs(&recording.microphone[seconds(5.0)..]) - level_dbfs(&out[seconds(5.0)..]);
    assert!(changed_db.abs() < 0.5, "{changed_db:.1} dB");
    assert!(!apm.facts().is_guarded);
}

#[test]
fn after_a_change_of_devices_the_guard_is_up_until_the_canceller_has_converged_again() {
    let recording = Scene::desk(0.2, 1).record(&speech(ALICE, 6.0), &[]);
    let mut apm = Apm::new(ECHO_ONLY);
    let mut guarded = Vec::new();
    let out = recording.process_with(&mut apm, Hint::Queues, |apm, block| {
        if block == 300 {
            apm.reset();
        }
        guarded.push(apm.facts().is_guarded);
    });
    assert!(!guarded[299] && guarded[300] && !guarded[599]);
    let erle_db = recording.erle_db(&out, 4.0, 6.0);
    assert!(erle_db >= 25.0, "{erle_db:.1} dB");
    assert!(apm.facts().erle_db.unwrap() > 15.0);
}
