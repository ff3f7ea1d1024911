//! The real programs of others, where they are installed: Mumble with its server, and baresip. They speak as our own calls with devices do, from one null
//! sink to another, over the same emulated link and through the same losses, each with what it is set to by default, but without processing.

use crate::call::{delay_only, lossy, text};
use crate::device_rows::{median_lag_ms, speak};
use crate::loss::Kind;
use crate::score::Recording;
use crate::signal::{self, RATE_HZ};
use crate::sound_server::{EAR, MOUTH, SoundServer};
use crate::speech::Voice;
use crate::stage::{Host, Stage};
use ahoy_lab::Process;
use ahoy_netlab::link::ShapeSettings;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// Shares of bursty loss under which they are heard; none tells what the devices and their processing take.
pub(crate) const PERCENT: [u32; 5] = [0, 10, 20, 30, 50];
/// Which voice speaks, and the seed of the losses: those of the first of our calls.
const VOICE: usize = 1;
const SEED: usize = 3;
/// A program is connected, and a link that was changed has calmed down, within this time.
const SETTLE: Duration = Duration::from_secs(8);
const CALM: Duration = Duration::from_secs(3);
/// How much of the speech tells how long it takes.
const LAG_SECONDS: f64 = 14.0;
const MUMBLE_PORT: u16 = 64_738;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Mumble,
    Baresip,
}

/// What came of one.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) program: Program,
    /// From mouth to ear on a link that takes no time, the sinks included.
    pub(crate) mouth_to_ear_ms: f64,
    /// What is to be judged.
    pub(crate) recordings: Vec<Recording>,
}

impl Program {
    const ALL: [Self; 2] = [Self::Mumble, Self::Baresip];

    /// The name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mumble => "Mumble",
            Self::Baresip => "baresip",
        }
    }

    /// The name of a recording at so much loss.
    pub(crate) fn recording(self, percent: u32) -> String {
        format!("{}-bursty-{percent}", self.name())
    }

    fn is_installed(self) -> bool {
        let needed: &[&str] = match self {
            Self::Mumble => &["/usr/bin/mumble", "/usr/sbin/murmurd", "/usr/bin/openssl"],
            Self::Baresip => &["/usr/bin/baresip"],
        };
        needed.iter().all(|path| Path::new(path).exists())
    }
}

/// Hears all that are installed. One that does not work is told and left out.
pub(crate) fn hear_all(stage: &Stage, root: &Path, voices: &[Voice; 2]) -> Vec<Heard> {
    let installed = Program::ALL.into_iter().filter(|program| program.is_installed());
    let heard = installed.filter_map(|program| {
        eprintln!("  {}", program.name());
        let outcome = catch_unwind(AssertUnwindSafe(|| hear(program, stage, root, &voices[VOICE])));
        match outcome.unwrap_or_else(|_| Err("it broke off".to_owned())) {
            Ok(heard) => {
                eprintln!("  {}: mouth to ear {:.0} ms, the sinks included", program.name(), heard.mouth_to_ear_ms);
                Some(heard)
            }
            Err(reason) => {
                eprintln!("  {} is left out: {reason}", program.name());
                None
            }
        }
    });
    heard.collect()
}

fn hear(program: Program, stage: &Stage, root: &Path, voice: &Voice) -> Result<Heard, String> {
    let folder = root.join("rivals").join(program.name());
    let _ = std::fs::remove_dir_all(&folder);
    let server = SoundServer::start(&folder)?;
    let [caller, callee] = &stage.rivals;
    let shape = |shapes: [ShapeSettings; 2]| {
        for (host, shape) in [caller, callee].into_iter().zip(shapes) {
            stage.shape_port(&host.port, &shape);
        }
    };
    shape([ShapeSettings::default(), ShapeSettings::default()]);
    let scene = Scene { root, folder: &folder, server: &server, caller, callee };
    let _programs = match program {
        Program::Mumble => scene.mumble()?,
        Program::Baresip => scene.baresip()?,
    };
    sleep(SETTLE);
    let speech = signal::read(&voice.file())?;
    let said = |seconds: f64| -> Result<PathBuf, String> {
        let file = folder.join("said.wav");
        signal::write(&file, &speech[..speech.len().min((seconds * RATE_HZ as f64) as usize)], RATE_HZ)?;
        Ok(file)
    };
    let [mouth, ear, _] = speak(&server, "no-delay", &said(LAG_SECONDS)?, LAG_SECONDS)?;
    let mouth_to_ear_ms = median_lag_ms(&mouth, &ear);
    if mouth_to_ear_ms.is_nan() {
        return Err("nothing is heard".to_owned());
    }
    let mut recordings = Vec::new();
    for percent in PERCENT {
        shape([delay_only(), delay_only()]);
        sleep(CALM);
        if percent > 0 {
            shape([SEED, 0].map(|seed| lossy(Kind::Bursty.pattern(percent, seed))));
        }
        let id = program.recording(percent);
        let tracks = speak(&server, &id, &said(voice.seconds)?, voice.seconds)?;
        let (mouth, ear) = (&tracks[MOUTH], &tracks[EAR]);
        let spoken_at = signal::lag(&speech, mouth, 0, mouth.len() as i64).map_or(0, |(lag, _)| lag);
        let file = folder.join(format!("{id}.wav"));
        signal::write(&file, ear, RATE_HZ)?;
        recordings.push(Recording { id, voice: VOICE, file, starts_after: -(spoken_at as f64) / RATE_HZ as f64 });
    }
    Ok(Heard { program, mouth_to_ear_ms, recordings })
}

/// What a program is started with.
struct Scene<'a> {
    root: &'a Path,
    folder: &'a Path,
    server: &'a SoundServer,
    caller: &'a Host,
    callee: &'a Host,
}

impl Scene<'_> {
    /// A server beside the callee, and two clients that send all the time.
    fn mumble(&self) -> Result<Vec<Process>, String> {
        let [key, certificate, identity] = ["key.pem", "certificate.pem", "identity.p12"].map(|name| text(&self.folder.join(name)));
        let subject = ["-days", "365", "-subj", "/CN=mumble"];
        let made = [&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &certificate], &subject[..]].concat();
        run("openssl", &made)?;
        run("openssl", &["pkcs12", "-export", "-passout", "pass:", "-inkey", &key, "-in", &certificate, "-out", &identity])?;
        let settings = format!(
            "database={0}/server.sqlite\nhost=0.0.0.0\nport={MUMBLE_PORT}\nsslCert={certificate}\nsslKey={key}\nlogfile=\npidfile=\nbonjour=false\nuname=root\n",
            text(self.folder)
        );
        let ini = self.write("server.ini", &settings)?;
        let mut command = self.callee.spot.command(Path::new("murmurd"));
        command.args(["-fg", "-ini", &ini]);
        let mut processes = vec![Process::start("murmurd", command)];
        sleep(CALM);
        let address = self.callee.spot.ip.to_string();
        for (name, host, source, sink) in self.ends() {
            let home = self.folder.join(name);
            // A client without a certificate of its own would ask for one, but takes this backup.
            self.write(&format!("{name}/Documents/note"), "")?;
            std::fs::copy(&identity, home.join("Documents/MumbleAutomaticCertificateBackup.p12")).map_err(|error| error.to_string())?;
            let database = text(&home.join("mumble.sqlite"));
            let settings = format!(
                "[General]\ndatabaselocation={database}\nlastupdate=2\n[audio]\ninput=PulseAudio\noutput=PulseAudio\ntransmit=0\nnoisesupress=0\n\
                 [pulseaudio]\ninput={source}\noutput={sink}\n[ui]\nupdatecheck=false\nplugincheck=false\nusage=false\n"
            );
            self.write(&format!("{name}/.config/Mumble/Mumble.conf"), &settings)?;
            let python = text(&self.root.join("venv/bin/python"));
            run(&python, &["scripts/voice-bench/mumble_trust.py", &database, &address, &MUMBLE_PORT.to_string(), &certificate])?;
            let mut command = self.command(host, "mumble", &home);
            command.env("QT_QPA_PLATFORM", "offscreen").args(["-m", &format!("mumble://{name}@{address}:{MUMBLE_PORT}/")]);
            processes.push(Process::start(name, command));
        }
        Ok(processes)
    }

    /// Two agents that call one another without any server.
    fn baresip(&self) -> Result<Vec<Process>, String> {
        let mut devices = String::new();
        for name in ["microphone", "quiet", "quiet.monitor", "ear"] {
            let _ = writeln!(devices, "pcm.{} {{ type pulse device {name} }}", name.replace('.', "_"));
        }
        let devices = self.write("asound.conf", &devices)?;
        let mut processes = Vec::new();
        // The callee is there before the caller calls.
        for (name, host, source, sink) in self.ends().into_iter().rev() {
            let home = self.folder.join(name);
            let address = host.spot.ip;
            let source = source.replace('.', "_");
            let settings = format!(
                "sip_listen {address}:5060\nmodule_path /usr/lib/baresip/modules\naudio_source alsa,{source}\naudio_player alsa,{sink}\naudio_alert alsa,quiet\n\
                 ausrc_srate 48000\nauplay_srate 48000\nausrc_channels 1\nauplay_channels 1\nmodule opus.so\nmodule alsa.so\nmodule_tmp account.so\nmodule_app menu.so\n"
            );
            self.write(&format!("{name}/config"), &settings)?;
            self.write(
                &format!("{name}/accounts"),
                &format!("<sip:{name}@{address}>;regint=0;answermode=auto;audio_codecs=opus/48000/2\n"),
            )?;
            let mut command = self.command(host, "baresip", &home);
            command.env("ALSA_CONFIG_PATH", &devices).args(["-f", &text(&home)]);
            if name == "caller" {
                command.args(["-e", &format!("/dial sip:callee@{}", self.callee.spot.ip)]);
            }
            processes.push(Process::start(name, command));
            sleep(CALM);
        }
        Ok(processes)
    }

    /// Who speaks and who listens: the name, the place, and the devices.
    fn ends(&self) -> [(&'static str, &Host, &'static str, &'static str); 2] {
        [("caller", self.caller, "microphone", "quiet"), ("callee", self.callee, "quiet.monitor", "ear")]
    }

    /// A program with a home of its own and our sound server.
    fn command(&self, host: &Host, program: &str, home: &Path) -> Command {
        let mut command = host.spot.command(Path::new(program));
        let (name, value) = self.server.environment();
        command.env(name, value).env("HOME", home).env("XDG_CONFIG_HOME", home.join(".config")).env("XDG_RUNTIME_DIR", home);
        command
    }

    fn write(&self, name: &str, contents: &str) -> Result<String, String> {
        let path = self.folder.join(name);
        let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
        std::fs::create_dir_all(path.parent().unwrap_or(self.folder)).map_err(wrong)?;
        std::fs::write(&path, contents).map_err(wrong)?;
        Ok(text(&path))
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}
