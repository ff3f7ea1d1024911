//! `ahoy demo`: a whole network on this machine, and a call over it.
//!
//! It starts a login server, three supernodes and a relay, which it finds beside its own executable, and two people, alice and bob, who are this very
//! program. Everything listens on loopback, at ports that the system chooses, and keeps its files in a temporary folder. Alice calls bob, both play
//! their sample speech, and what bob's side recorded is compared with what alice said. Nothing needs a microphone or a loudspeaker, and nothing is
//! left behind but the recording.

mod stage;
mod story;

use crate::events::{Event, Output};
use crate::quality::{self, QualityError};
use stage::{Child, Stage};
use std::path::{Path, PathBuf};
use std::time::Duration;
use story::{Side, Story, Summary};
use thiserror::Error;
use tokio::time::timeout;

/// What alice says.
const ALICE_SPEECH: &[u8] = include_bytes!("../../assets/speech/alice.wav");
const ALICE_FILE: &str = "alice.wav";
/// What bob says.
const BOB_SPEECH: &[u8] = include_bytes!("../../assets/speech/bob.wav");
const BOB_FILE: &str = "bob.wav";
/// Length of a call without `--seconds`: alice's 16.3 seconds, and time for the last of them to arrive.
const SECONDS: u32 = 18;
/// Supernodes of the network: with three, each record has a majority that outlives one of them.
const SUPERNODES: usize = 3;
/// A program starts in well under a second; a busy machine may take its time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a call may take until both speak: it rings for nobody, since bob's side answers by itself.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long after its end a call may take to be over on both sides.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often a call says how it goes, in seconds.
const PROGRESS_EVERY_S: u32 = 3;

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// Length of the call in seconds; without it, as long as the sample speech lasts.
    pub seconds: Option<u32>,
    /// Events as JSON objects, one a line.
    pub json: bool,
}

/// Why the demo failed.
#[derive(Debug, Error)]
pub enum DemoError {
    /// One of the other programs is not there.
    #[error(
        "the demo starts {program}, which should lie beside this program in {folder}, and does not; build all four programs with `cargo build --workspace`, or copy it there"
    )]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// Where it should be.
        folder: PathBuf,
    },
    /// The system does not tell where this program is.
    #[error("cannot find out where this program lies, beside which the others should be: {0}")]
    OwnProgram(std::io::Error),
    /// The temporary folder.
    #[error("cannot write to a temporary folder: {0}; is the disk full, or TMPDIR a folder that may not be written?")]
    Folder(std::io::Error),
    /// A program that does not start.
    #[error("cannot start {name}: {source}")]
    Start {
        /// Which.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program that ended too early.
    #[error("{name} ended before {awaited}{last_words}")]
    Ended {
        /// Which.
        name: String,
        /// What was waited for.
        awaited: &'static str,
        /// The end of what it wrote to standard error.
        last_words: String,
    },
    /// A program that did not do its part in time.
    #[error("{name} took too long: {awaited} did not come within {limit_s} s{last_words}")]
    TooSlow {
        /// Which.
        name: String,
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        limit_s: u64,
        /// The end of what it wrote to standard error.
        last_words: String,
    },
    /// The call came to nothing.
    #[error("the call failed: {0}")]
    Call(String),
    /// The recording cannot be read.
    #[error("the recording {path} cannot be read: {reason}")]
    Recording {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The recording cannot be judged.
    #[error("the recording cannot be compared with what was sent: {0}")]
    Quality(#[from] QualityError),
    /// Ctrl-C.
    #[error("stopped before the end; everything that the demo had started is ended")]
    Interrupted,
}

/// Runs the demo. Whatever happens, all that it started has ended when it returns.
///
/// # Errors
/// [`DemoError`] says which step failed.
pub async fn run(options: DemoOptions) -> Result<(), DemoError> {
    let mut stage = Stage::set()?;
    let result = tokio::select! {
        result = perform(&mut stage, &options) => result,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    stage.clear().await;
    result
}

async fn perform(stage: &mut Stage, options: &DemoOptions) -> Result<(), DemoError> {
    let progress = Progress { silent: options.json };
    progress.say("Ahoy! A whole network on this machine, and a call over it.");
    let mut network = start_network(stage, progress).await?;
    let story = call(stage, &mut network, options, progress).await?;
    let summary = judge(stage, &story)?;
    let kept = stage::keep(summary.recording(), "ahoy-demo-received-").map_err(DemoError::Folder)?;
    if options.json {
        Output::new(true).tell(&summary.event());
    } else {
        print!("\n{}", summary.table(&network.names()));
        println!("\nWhat bob heard: {}", kept.display());
    }
    Ok(())
}

/// The servers: where they are, and their handles, so that one that ends is noticed.
struct Network {
    link: String,
    supernodes: Vec<String>,
    servers: Vec<Child>,
}

impl Network {
    /// Addresses of the supernodes, each with the name that it has in the demo.
    fn names(&self) -> Vec<(String, String)> {
        self.supernodes.iter().enumerate().map(|(i, address)| (address.clone(), format!("supernode {}", i + 1))).collect()
    }
}

async fn start_network(stage: &mut Stage, progress: Progress) -> Result<Network, DemoError> {
    let login_data = stage.path("login");
    let mut login = stage.start("the login server", "ahoy-login", &["serve", "--data", &login_data, "--listen", "127.0.0.1:0"])?;
    let link = login.wait("its `network` line", START_LIMIT, |line| line.strip_prefix("network ").map(str::to_owned)).await?;
    progress.item("login server", &link);
    let mut nodes = Vec::new();
    for (program, name) in roles() {
        let mut token = stage.start("the node-token command", "ahoy-login", &["node-token", "--data", &login_data])?;
        let token = token.last_line(START_LIMIT).await?;
        let data = stage.path(&name.replace(' ', "-"));
        let args = ["serve", "--network", &link, "--token", &token, "--data", &data, "--listen", "127.0.0.1:0"];
        nodes.push((name.clone(), stage.start(&name, program, &args)?));
    }
    let mut network = Network { link, supernodes: Vec::new(), servers: vec![login] };
    for (name, mut node) in nodes {
        let address = node.wait("its `serving` line", START_LIMIT, |line| line.strip_prefix("serving ").map(str::to_owned)).await?;
        progress.item(&name, &address);
        if name.starts_with("supernode") {
            network.supernodes.push(address);
        }
        network.servers.push(node);
    }
    Ok(network)
}

/// Program and name of each node.
fn roles() -> impl Iterator<Item = (&'static str, String)> {
    let supernodes = (1..=SUPERNODES).map(|i| ("ahoy-supernode", format!("supernode {i}")));
    supernodes.chain([("ahoy-relay", "relay".to_owned())])
}

async fn call(stage: &mut Stage, network: &mut Network, options: &DemoOptions, progress: Progress) -> Result<Story, DemoError> {
    let alice_says = stage.write(ALICE_FILE, ALICE_SPEECH)?;
    let bob_says = stage.write(BOB_FILE, BOB_SPEECH)?;
    for name in ["alice", "bob"] {
        let home = stage.path(name);
        let args = ["--home", &home, "register", name, "--network", &network.link, "--json"];
        let mut registration = stage.start(&format!("{name}'s registration"), stage::OWN_PROGRAM, &args)?;
        let registered = |line: &str| story::parse(line).filter(|event| matches!(event, Event::Registered { .. }));
        registration.wait("the account was made", START_LIMIT, registered).await?;
        registration.end(START_LIMIT).await?;
        progress.item(name, "registered");
    }
    let (alice_home, bob_home) = (stage.path("alice"), stage.path("bob"));
    let (alice_hears, bob_hears) = (stage.path("alice-received.wav"), stage.path("bob-received.wav"));
    let args = ["--home", &bob_home, "online", "--auto-answer", "--play", &bob_says, "--record", &bob_hears, "--json"];
    let mut bob = stage.start("bob", stage::OWN_PROGRAM, &args)?;
    let mut story = Story::new();
    let online = |line: &str| story::parse(line).filter(|event| matches!(event, Event::Online { .. }));
    story.hear(Side::Bob, &bob.wait("bob was online", START_LIMIT, online).await?);
    progress.item("bob", "online, answers by himself");

    let seconds = options.seconds.unwrap_or(SECONDS);
    let args = ["--home", &alice_home, "call", "bob", "--play", &alice_says, "--record", &alice_hears, "--json", "--seconds"];
    let mut alice = stage.start("alice", stage::OWN_PROGRAM, &[&args[..], &[&seconds.to_string()]].concat())?;
    progress.say("\nAlice calls bob.");
    let mut audience = Audience { story: &mut story, progress, json: options.json, seconds: 0 };
    audience.until(&mut alice, &mut bob, "the call connected", CONNECT_LIMIT, Story::is_connected).await?;
    let limit = Duration::from_secs(seconds.into()) + END_LIMIT;
    audience.until(&mut alice, &mut bob, "the call ended", limit, Story::is_over).await?;
    Ok(story)
}

/// Follows the call and tells of it while it goes.
struct Audience<'a> {
    story: &'a mut Story,
    progress: Progress,
    json: bool,
    /// Statistics come once a second.
    seconds: u32,
}

impl Audience<'_> {
    /// Listens to both sides until `done`.
    async fn until(
        &mut self,
        alice: &mut Child,
        bob: &mut Child,
        awaited: &'static str,
        limit: Duration,
        done: fn(&Story) -> bool,
    ) -> Result<(), DemoError> {
        let listen = async {
            while !done(self.story) {
                let (alice_talks, bob_talks) = (!self.story.has_ended(Side::Alice), !self.story.has_ended(Side::Bob));
                let (side, line) = tokio::select! {
                    line = alice.line(), if alice_talks => (Side::Alice, line.ok_or_else(|| alice.ended(awaited))?),
                    line = bob.line(), if bob_talks => (Side::Bob, line.ok_or_else(|| bob.ended(awaited))?),
                };
                self.hear(side, &line);
                self.story.check()?;
            }
            Ok(())
        };
        match timeout(limit, listen).await {
            Ok(result) => result,
            Err(_) => Err(alice.too_slow(awaited, limit)),
        }
    }

    fn hear(&mut self, side: Side, line: &str) {
        let Some(event) = story::parse(line) else { return };
        self.story.hear(side, &event);
        if side == Side::Bob {
            return;
        }
        if self.json {
            Output::new(true).tell(&event);
        }
        if matches!(event, Event::Stats(_)) {
            self.seconds += 1;
            if !self.seconds.is_multiple_of(PROGRESS_EVERY_S) {
                return;
            }
        }
        if let Some(text) = story::progress(&event) {
            self.progress.say(&text);
        }
    }
}

/// Compares what bob heard with what alice said.
fn judge<'a>(stage: &Stage, story: &'a Story) -> Result<Summary<'a>, DemoError> {
    let recording = story.recording().ok_or_else(|| DemoError::Call("bob's side recorded nothing".to_owned()))?;
    let quality = quality::compare(&samples(Path::new(&stage.path(ALICE_FILE)))?, &samples(recording)?)?;
    story.summary(quality).ok_or_else(|| DemoError::Call("one side did not say how the call went".to_owned()))
}

fn samples(path: &Path) -> Result<Vec<f32>, DemoError> {
    let unreadable = |error: ahoy_audio::wav::WavError| DemoError::Recording { path: path.to_owned(), reason: error.to_string() };
    ahoy_audio::wav::read_speech(path).map_err(unreadable)
}

/// Waits for Ctrl-C, or for being asked to end.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => (),
                _ = terminated.recv() => (),
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Lines for a person who watches; none where events go to a program.
#[derive(Debug, Clone, Copy)]
struct Progress {
    silent: bool,
}

impl Progress {
    fn say(self, text: &str) {
        if !self.silent {
            println!("{text}");
        }
    }

    fn item(self, name: &str, text: &str) {
        self.say(&format!("  {name:<13} {text}"));
    }
}
