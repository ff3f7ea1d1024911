//! Real devices, as far as a machine without any can have them: the null sinks of a sound server that the test starts.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_os = "linux")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ahoy_audio::{BLOCK_SAMPLES, Capture, DeviceState, Playback, default_device_names};

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Blocks of the tone that are to come through.
const TONES: usize = 50;

/// A sound server of the test's own, which ends with it.
struct SoundServer {
    process: Child,
    _folder: tempfile::TempDir,
}

impl SoundServer {
    /// None where the machine has no PulseAudio. What it needs in the environment is set for the whole process, which is
    /// why this file has a single test.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("pulse.sock");
        let (run, home) = (folder.path().join("run"), folder.path().join("home"));
        for made in [&run, &home] {
            std::fs::create_dir(made).unwrap();
            std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let sink = "module-null-sink sink_name=A rate=48000 channels=1 format=float32le";
        let process = Command::new("pulseaudio")
            .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no"])
            .args(["--high-priority=no", "--realtime=no"])
            .args(["-L", &format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display())])
            .args(["-L", sink])
            .env("XDG_RUNTIME_DIR", &run)
            .env("HOME", &home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { process, _folder: folder };
        // SAFETY: no other thread of this process runs yet: the file has one test, and this is its first step.
        unsafe { std::env::set_var("PULSE_SERVER", format!("unix:{}", socket.display())) };
        wait_for(|| answers(&socket)).then_some(server)
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok() && default_device_names().input.is_some()
}

fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        // As often as a media thread would look at its devices.
        std::thread::sleep(Duration::from_micros(2_500));
    }
    false
}

fn is_running(state: &DeviceState) -> bool {
    matches!(state, DeviceState::Running { .. })
}

/// Whether a block holds nothing but a tone of 1 kHz. On a machine under load the sound server leaves gaps in others.
fn is_tone(block: &[f32]) -> bool {
    let rises: Vec<usize> = (1..block.len()).filter(|at| block[at - 1] < 0.0 && block[*at] >= 0.0).collect();
    let (Some(first), Some(last)) = (rises.first(), rises.last()) else { return false };
    let hertz = (rises.len() - 1) as f32 * 48_000.0 / (last - first).max(1) as f32;
    rises.len() >= 9 && (hertz - 1_000.0).abs() < 15.0
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
