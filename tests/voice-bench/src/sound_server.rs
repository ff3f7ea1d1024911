//! A sound server with devices that exist in software only, laid out so that one recording holds both the mouth and the ear.
//!
//! ```text
//!  pacat ─▶ mouth ─▶ ┌─────────────┐ ─▶ microphone ─▶ who calls
//!                    │ air, 3 ways │
//!  parec ◀───────────│             │ ◀─ ear, ear2  ◀─ who is called
//!                    └─────────────┘
//! ```
//! `air` is a null sink; the others are its channels. What is recorded of it has everything on one clock, to the sample.

use crate::call::text;
use crate::signal::RATE_HZ;
use ahoy_audio::{BLOCK_SAMPLES, Capture, DeviceId, Playback, Wanted};
use ahoy_lab::Process;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The channels of `air`.
pub(crate) const MOUTH: usize = 0;
pub(crate) const EAR: usize = 1;
pub(crate) const SECOND_EAR: usize = 2;
const CHANNELS: usize = 3;
/// The server answers within this time.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How much the recorder lets gather.
const RECORD_LATENCY_MS: &str = "10";

/// What the microphone is made of, so that it can be unplugged.
const MICROPHONE: [&str; 6] = [
    "module-remap-source",
    "source_name=microphone",
    "master=air.monitor",
    "channels=1",
    "channel_map=mono",
    "master_channel_map=front-left",
];

/// A running server.
#[derive(Debug)]
pub(crate) struct SoundServer {
    _process: Process,
    socket: String,
    folder: PathBuf,
    microphone: String,
}

/// A recording of the air that goes on.
#[derive(Debug)]
pub(crate) struct AirRecording {
    process: Process,
    file: PathBuf,
}

impl SoundServer {
    /// Starts it with its files in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
        for made in ["run", "home"] {
            let made = folder.join(made);
            std::fs::create_dir_all(&made).map_err(wrong)?;
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o700)).map_err(wrong)?;
        }
        let socket = folder.join("pulse.sock");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("pulseaudio");
        command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no", "--log-level=error"]);
        command.args(["-L", &format!("module-native-protocol-unix auth-anonymous=1 socket={}", text(&socket))]);
        command
            .args(["-L", "module-null-sink sink_name=air rate=48000 channels=3 channel_map=front-left,front-right,rear-left format=s16le"]);
        command.args(["-L", "module-null-sink sink_name=quiet rate=48000 channels=1 channel_map=mono format=s16le"]);
        for (name, channel) in [("mouth", "front-left"), ("ear", "front-right"), ("ear2", "rear-left")] {
            let sink =
                format!("module-remap-sink sink_name={name} master=air channels=1 channel_map=mono master_channel_map={channel} remix=no");
            command.args(["-L", &sink]);
        }
        command.env("XDG_RUNTIME_DIR", folder.join("run")).env("HOME", folder.join("home"));
        let process = Process::start("pulseaudio", command);
        let mut server =
            Self { _process: process, socket: format!("unix:{}", text(&socket)), folder: folder.to_owned(), microphone: String::new() };
        let deadline = Instant::now() + START_TIMEOUT;
        while server.control(&["info"]).is_err() {
            if Instant::now() > deadline {
                return Err("the sound server does not answer".to_owned());
            }
            sleep(Duration::from_millis(50));
        }
        // Whoever loses his device comes to silence, not to the air.
        server.control(&["set-default-source", "quiet.monitor"])?;
        server.control(&["set-default-sink", "quiet"])?;
        server.plug_in()?;
        Ok(server)
    }

    /// What a program finds the server by.
    pub(crate) fn environment(&self) -> (String, String) {
        ("PULSE_SERVER".to_owned(), self.socket.clone())
    }

    /// The microphone is there.
    pub(crate) fn plug_in(&mut self) -> Result<(), String> {
        self.microphone = self.control(&[&["load-module"], &MICROPHONE[..], &["remix=no"]].concat())?;
        Ok(())
    }

    /// The microphone is gone.
    pub(crate) fn unplug(&mut self) -> Result<(), String> {
        self.control(&["unload-module", self.microphone.trim()]).map(drop)
    }

    fn control(&self, args: &[&str]) -> Result<String, String> {
        let output =
            Command::new("pactl").args(args).env("PULSE_SERVER", &self.socket).output().map_err(|error| format!("pactl: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("pactl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// Says something.
    pub(crate) fn speak(&self, file: &Path) -> Process {
        let mut command = Command::new("paplay");
        command.args(["--device=mouth", &text(file)]).env("PULSE_SERVER", &self.socket);
        Process::start("paplay", command)
    }

    /// Records the air.
    pub(crate) fn record(&self, name: &str) -> AirRecording {
        let file = self.folder.join(format!("{name}.raw"));
        let _ = std::fs::remove_file(&file);
        let mut command = Command::new("parec");
        command.args(["--device=air.monitor", "--rate=48000", "--format=s16le", "--raw"]);
        command.args([&format!("--channels={CHANNELS}"), "--channel-map=front-left,front-right,rear-left"]);
        command.arg(format!("--latency-msec={RECORD_LATENCY_MS}")).arg(&file).env("PULSE_SERVER", &self.socket);
        AirRecording { process: Process::start("parec", command), file }
    }
}

impl AirRecording {
    /// How much is recorded by now, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        let bytes = std::fs::metadata(&self.file).map_or(0, |file| file.len());
        bytes as f64 / (2 * CHANNELS * RATE_HZ) as f64
    }

    /// Ends it; each channel.
    pub(crate) fn finish(self) -> Result<[Vec<f32>; CHANNELS], String> {
        drop(self.process);
        let bytes = std::fs::read(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))?;
        let samples: Vec<f32> = bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect();
        Ok([0, 1, 2].map(|channel| samples.iter().skip(channel).step_by(CHANNELS).copied().collect()))
    }
}

/// The name by which a client knows a device of the server.
pub(crate) fn device(name: &str) -> String {
    format!("pulseaudio:{name}")
}

/// Passes sound from one device to another, as plainly as our own devices allow, until it is killed: what the devices take by themselves.
pub(crate) fn pass_through(from: &str, to: &str) -> ! {
    /// As often as a media thread looks at its devices.
    const TICK: Duration = Duration::from_micros(1_000);
    let named = |name: &str| Wanted::Named(DeviceId::new(&device(name)));
    let mut capture = Capture::chosen_device(Instant::now(), named(from));
    let mut playback = Playback::chosen_device(Instant::now(), named(to));
    let mut block = [0.0; BLOCK_SAMPLES];
    let mut waiting = std::collections::VecDeque::new();
    loop {
        let now = Instant::now();
        while capture.read(now, &mut block) {
            waiting.push_back(block);
            // What gathered before the playback began is old.
            if waiting.len() > 2 {
                waiting.pop_front();
            }
        }
        while playback.wants(now) {
            playback.write(&waiting.pop_front().unwrap_or([0.0; BLOCK_SAMPLES]));
        }
        sleep(TICK);
    }
}
