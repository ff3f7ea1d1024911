//! A sound server for tests.

#![allow(dead_code, unreachable_pub, reason = "each test needs a part of it")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ahoy_audio::default_device_names;

/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sound server of the test's own, which ends with it.
pub struct SoundServer {
    process: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl SoundServer {
    /// None where the machine has no PulseAudio. What it needs in the environment is set for the whole process, which is
    /// why a file with this has a single test.
    pub fn start() -> Option<Self> {
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
        let server = Self { process, socket: socket.clone(), _folder: folder };
        // SAFETY: no other thread of this process runs yet: such a file has one test, and this is its first step.
        unsafe { std::env::set_var("PULSE_SERVER", format!("unix:{}", socket.display())) };
        wait_for(|| answers(&socket)).then_some(server)
    }
}

impl SoundServer {
    /// A sink with this name and description; what unloads it is returned. Without rewinding it has 50 ms of silence under
    /// way when the first stream comes; with it, two seconds, which no real device has.
    pub fn load_sink(&self, name: &str) -> String {
        let (name, description) = (format!("sink_name={name}"), format!("sink_properties=device.description={name}"));
        self.pactl(&["load-module", "module-null-sink", &name, &description, "norewinds=1", "rate=48000", "channels=1", "format=float32le"])
    }

    pub fn unload(&self, module: &str) {
        self.pactl(&["unload-module", module]);
    }

    pub fn pactl(&self, arguments: &[&str]) -> String {
        let server = format!("unix:{}", self.socket.display());
        let output = Command::new("pactl").args(arguments).env("PULSE_SERVER", server).output().unwrap();
        assert!(output.status.success(), "pactl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
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

pub fn wait_for(mut condition: impl FnMut() -> bool) -> bool {
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

/// Whether a block holds nothing but an even tone of 1 kHz. On a machine under load the sound server leaves gaps in others.
pub fn is_tone(block: &[f32]) -> bool {
    let levels = block.chunks_exact(block.len() / 4).map(|part| part.iter().map(|sample| sample * sample).sum::<f32>());
    let (softest, loudest) = levels.fold((f32::INFINITY, 0.0_f32), |(softest, loudest), level| (softest.min(level), loudest.max(level)));
    if softest < 0.8 * loudest {
        return false;
    }
    let rises: Vec<usize> = (1..block.len()).filter(|at| block[at - 1] < 0.0 && block[*at] >= 0.0).collect();
    let (Some(first), Some(last)) = (rises.first(), rises.last()) else { return false };
    let hertz = (rises.len() - 1) as f32 * 48_000.0 / (last - first).max(1) as f32;
    rises.len() >= 9 && (hertz - 1_000.0).abs() < 15.0
}
