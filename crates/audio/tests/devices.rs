//! Real devices, as far as a machine without any can have them: the null sinks of a sound server that the test starts.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod server;

use std::time::{Duration, Instant};

use ahoy_audio::{BLOCK_SAMPLES, Capture, DeviceState, Playback};
use server::{SoundServer, is_tone, wait_for};

/// Blocks of the tone that are to come through.
const TONES: usize = 50;

fn is_running(state: &DeviceState) -> bool {
    matches!(state, DeviceState::Running { .. })
}

#[test]
fn what_is_played_on_a_sink_is_heard_from_its_monitor() {
    let Some(server) = SoundServer::start() else {
        println!("skipped: there is no PulseAudio that could be started");
        return;
    };
    let begun = Instant::now();
    let (mut playback, mut capture) = (Playback::device(begun), Capture::device(begun));
    assert!(begun.elapsed() < Duration::from_secs(1), "opening devices does not wait for them");

    let mut played = 0_u32;
    let mut tones = 0;
    let mut block = [0.0; BLOCK_SAMPLES];
    let complete = wait_for(|| {
        let now = Instant::now();
        while playback.wants(now) {
            for sample in &mut block {
                *sample = (played as f32 / 48.0 * std::f32::consts::TAU).sin() * 0.5;
                played = (played + 1) % 48_000;
            }
            playback.write(&block);
        }
        while capture.read(now, &mut block) {
            if is_running(&capture.state()) && is_running(&playback.state()) {
                tones += usize::from(is_tone(&block));
            }
        }
        tones >= TONES
    });
    assert!(complete, "only {tones} blocks of tone came through: {}; {}", capture.state(), playback.state());

    drop(server);
    assert!(wait_for(|| !is_running(&playback.state())), "a lost device is noticed: {}", playback.state());
    let mut silent = 0;
    assert!(wait_for(|| {
        let now = Instant::now();
        while playback.wants(now) {
            playback.write(&block);
        }
        silent += usize::from(capture.read(now, &mut block) && block == [0.0; BLOCK_SAMPLES]);
        silent > 20
    }));
}
