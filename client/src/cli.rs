//! The command line: what can be said, and who carries it out.

mod calling;
mod entering;
mod settings;
mod sound;

use crate::demo::{self, DemoOptions};
use crate::doctor;
use crate::engine::{self, Config, Handle};
use crate::events::{Event, Output};
use crate::home::{Home, HomeError};
use crate::reach::ReachSettings;
use crate::settings::Key;
use ahoy_protocol::{Name, NetworkLink};
use ahoy_store::StoreError;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Peer-to-peer voice: sign in with a name and a password, call people, and let them call you.
#[derive(Debug, Parser)]
#[command(name = "ahoy", version, arg_required_else_help = true, after_help = FIRST_STEPS)]
struct Cli {
    /// Folder of this device's account [default: $XDG_DATA_HOME/ahoy or ~/.local/share/ahoy]
    #[arg(long, global = true, value_name = "DIR", env = "AHOY_HOME")]
    home: Option<PathBuf>,
    /// One JSON object a line on standard output instead of sentences.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an account, and sign this device in to it.
    Register(EnterArgs),
    /// Sign this device in to an account that exists.
    SignIn(EnterArgs),
    /// Stay reachable until Ctrl-C; takes commands as JSON lines on standard input.
    Online(OnlineArgs),
    /// Call somebody; Ctrl-C hangs up.
    Call(CallArgs),
    /// Turn something of the call that runs: mute, hold, volume, devices, push-to-talk.
    Turn {
        #[command(subcommand)]
        what: TurnCommand,
    },
    /// Show the calls of the past, the newest last.
    Calls,
    /// Trust the key that NAME has now. Ask NAME on another way first whether it is really theirs.
    Trust {
        /// Whose.
        name: String,
    },
    /// Look at this computer's network: whether calls will connect, and what to do where they do not.
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// Look at this network instead of the one that this device is signed in to.
        #[arg(long, value_name = "LINK")]
        network: Option<String>,
    },
    /// List microphones and speakers.
    Devices,
    /// Record a few seconds, show how loud they are, and play them back.
    TestSound(TestSoundArgs),
    /// Show and change how this device reaches the network and how it sounds.
    #[command(after_help = SETTINGS_HELP)]
    Settings {
        #[command(subcommand)]
        action: Option<SettingsCommand>,
    },
    /// Answer every call as a user whom people call to hear themselves; for whoever runs a network.
    EchoService(EchoServiceArgs),
    /// A whole network on this machine, and a call over it.
    Demo {
        /// Length of the call; without it, as long as the sample speech lasts.
        #[arg(long, value_name = "N")]
        seconds: Option<u32>,
    },
}

const FIRST_STEPS: &str = "\
First steps, with the network link that whoever runs your network gave you:
  ahoy register bob --network LINK    make an account
  ahoy test-sound                     hear yourself
  ahoy online                         be there for calls
  ahoy call alice                     call somebody
  ahoy doctor                         when calls do not connect";

#[derive(Debug, Subcommand)]
enum SettingsCommand {
    /// Show all settings; this is also what `ahoy settings` alone does.
    List,
    /// Change a setting; `ahoy settings KEY VALUE` does the same.
    Set {
        /// Which one.
        key: Key,
        /// What it shall be.
        value: String,
    },
    /// Let a setting be what it is by default.
    Unset {
        /// Which one.
        key: Key,
    },
    #[command(external_subcommand)]
    Short(Vec<String>),
}

const DOCTOR_HELP: &str = "It needs about ten seconds at most, changes nothing, and works while another ahoy runs. Exit status 0 says that calls \
    can be made, 1 that they cannot.";

const SETTINGS_HELP: &str = "\
Settings:
  proxy         What connections go through where they cannot go straight: http://HOST:PORT or
                socks5://HOST:PORT, with USER:PASSWORD@ before HOST where it wants one, or none.
                By default HTTPS_PROXY or ALL_PROXY of the environment, if there is one.
  udp           auto: wherever it gets through. never: everything goes over TCP.
  relay         Whose calls stay on relays, so that they do not learn this computer's address:
                auto (nobody's), strangers, or always.
  port-mapping  on: the router is asked to let calls through. off: it is not.
  birthday      Crossing a difficult router by trying many ports: auto (while this computer is
                plugged in), on, or off.
  microphone, speaker, ringer
                A device as `ahoy devices` lists it, or default: whichever the system prefers.
  echo-canceller, gain-control
                on or off.
  noise-suppression
                off, moderate or high.
  volume, ring-volume
                0 to 200 percent.
  push-to-talk  on: the microphone is open only while a key is pressed. off: all the time.
  data-saver    on: calls spend as little as they can, at some loss of quality. off: what is good.

An ahoy that runs follows a change at once; connections that stand stay as they are.";

#[derive(Debug, Args)]
struct EnterArgs {
    /// The account's name.
    name: String,
    /// The network, as whoever runs it gave it to you: ahoy://HOST:PORT#KEY
    #[arg(long, value_name = "LINK")]
    network: String,
    /// What this device is called; without it, the computer's name.
    #[arg(long, value_name = "LABEL")]
    device: Option<String>,
}

#[derive(Debug, Args)]
struct OnlineArgs {
    /// Take every call at once.
    #[arg(long)]
    auto_answer: bool,
    #[command(flatten)]
    sound: SoundArgs,
}

#[derive(Debug, Args)]
struct SoundArgs {
    /// Send this WAV file, then silence, instead of the microphone's sound.
    #[arg(long, value_name = "IN.wav")]
    play: Option<PathBuf>,
    /// Record the other side here instead of playing it; later calls get -2, -3, …
    #[arg(long, value_name = "OUT.wav")]
    record: Option<PathBuf>,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Put both files behind virtual devices, with processing and all buffers: for measurements.
    #[arg(long, hide = true, requires_all = ["play", "record"])]
    virtual_devices: bool,
}

#[derive(Debug, Args)]
struct DeviceArgs {
    /// Use this microphone, as `ahoy devices` lists it.
    #[arg(long, value_name = "NAME")]
    microphone: Option<String>,
    /// Use this speaker, as `ahoy devices` lists it.
    #[arg(long, value_name = "NAME")]
    speaker: Option<String>,
}

#[derive(Debug, Args)]
struct CallArgs {
    /// Whom to call.
    name: String,
    #[command(flatten)]
    sound: SoundArgs,
    /// Hang up N seconds after both speak.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Never use a direct path: the other side does not learn this computer's address.
    #[arg(long)]
    relay_only: bool,
}

#[derive(Debug, Subcommand)]
enum TurnCommand {
    /// Close the microphone.
    Mute,
    /// Open it again.
    Unmute,
    /// Put the call on hold; the other side is told.
    Hold,
    /// Go on with it.
    Resume,
    /// Play the other side so loud, in percent.
    Volume {
        /// 0 to 200.
        percent: u8,
    },
    /// Open the microphone only while a key is pressed (on), or all the time (off).
    PushToTalk {
        #[arg(action = ArgAction::Set, value_parser = parse_switch, value_name = "on|off")]
        on: bool,
    },
    /// That key is pressed (on), or let go (off).
    Talk {
        #[arg(action = ArgAction::Set, value_parser = parse_switch, value_name = "on|off")]
        on: bool,
    },
    /// Use another microphone.
    Microphone {
        /// As `ahoy devices` lists it, or default.
        device: String,
    },
    /// Use another speaker.
    Speaker {
        /// As `ahoy devices` lists it, or default.
        device: String,
    },
    /// Use another device to ring.
    Ringer {
        /// As `ahoy devices` lists it, or default.
        device: String,
    },
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}

#[derive(Debug, Args)]
struct TestSoundArgs {
    #[command(flatten)]
    devices: DeviceArgs,
    /// How long to record.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
}

#[derive(Debug, Args)]
struct EchoServiceArgs {
    /// The account's name.
    #[arg(default_value = "echo123")]
    name: String,
    /// The network; needed at the first start only. Then the account is made, or signed in to, with the password in AHOY_PASSWORD.
    #[arg(long, value_name = "LINK")]
    network: Option<String>,
    /// How many calls are answered at a time; further callers hear that it is busy.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=crate::echo_service::LINES_MAX))]
    lines: u8,
}

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    init_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let result = runtime.block_on(cli.carry_out());
    // A prompt or a read of standard input may be waiting on a thread that nothing can interrupt.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(&reason),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("ahoy: {reason}");
    ExitCode::FAILURE
}

fn init_logging() {
    let filter = EnvFilter::try_from_env("AHOY_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second subscriber, as in a test, is no reason to stop.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

impl Command {
    /// Refuses names and links that are none before anything is touched.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Register(args) | Self::SignIn(args) => {
                parse_name(&args.name)?;
                parse_link(&args.network).map(drop)
            }
            Self::EchoService(args) => {
                parse_name(&args.name)?;
                args.network.as_deref().map(parse_link).transpose().map(drop)
            }
            Self::Call(CallArgs { name, .. }) | Self::Trust { name } => parse_name(name).map(drop),
            Self::Doctor { network: Some(link) } => parse_link(link).map(drop),
            Self::Online(_)
            | Self::Turn { .. }
            | Self::Calls
            | Self::Doctor { network: None }
            | Self::Devices
            | Self::TestSound(_)
            | Self::Settings { .. }
            | Self::Demo { .. } => Ok(()),
        }
    }
}

fn parse_name(text: &str) -> Result<Name, String> {
    text.parse().map_err(|error| format!("\"{text}\" is not a name: {error}"))
}

fn parse_link(text: &str) -> Result<NetworkLink, String> {
    text.parse().map_err(words)
}

impl Cli {
    async fn carry_out(self) -> Result<(), String> {
        let output = Output::new(self.json);
        self.command.check()?;
        let folder = || home_folder(self.home.clone());
        let home = || Home::open(&folder()?).map_err(words);
        match self.command {
            Command::Demo { seconds } => demo::run(DemoOptions { seconds, json: self.json }).await.map_err(words),
            Command::Register(args) => entering::register(&home()?, args, output).await,
            Command::SignIn(args) => entering::sign_in(&home()?, args, output).await,
            Command::Online(args) => calling::online(home()?, args, output).await,
            Command::Call(args) => calling::call(home()?, args, output).await,
            Command::Turn { what } => calling::turn(&home()?, what, output).await,
            Command::Calls => sound::calls(&home()?, output),
            Command::Trust { name } => home()?.forget_pin(&parse_name(&name)?).map_err(words),
            Command::Doctor { network } => doctor_command(&home()?, network.as_deref(), output).await,
            Command::Devices => sound::devices(output).await,
            Command::TestSound(args) => sound::test(&home()?, args, output).await,
            Command::Settings { action } => settings::settings(&home()?, action.unwrap_or(SettingsCommand::List), output).await,
            Command::EchoService(args) => entering::echo_service(&folder()?, args, output).await,
        }
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The folder named on the command line, else the one that the XDG Base Directory Specification gives.
fn home_folder(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let from = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named
        .or_else(|| Some(from("XDG_DATA_HOME")?.join("ahoy")))
        .or_else(|| Some(from("HOME")?.join(".local/share/ahoy")))
        .ok_or_else(|| "there is no home folder; name one with --home DIR".to_owned())
}

fn owned_by_another(home: &Home, error: HomeError) -> String {
    match error {
        HomeError::Store(StoreError::InUse { .. }) => {
            format!("an ahoy is running on {}; end it first, or name another folder with --home", home.path().display())
        }
        error => error.to_string(),
    }
}

async fn start(home: Home, config: Config) -> Result<Handle, String> {
    let account = home.account().map_err(words)?;
    engine::start(Arc::new(home), account, config).await.map_err(words)
}

/// What the settings of the home and the environment say.
fn reach(home: &Home, output: Output) -> Result<ReachSettings, String> {
    let (reach, problem) = home.settings().map_err(words)?.reach_here();
    if let Some(error) = problem {
        let text = format!("the proxy that the environment names is not used: {error}; `ahoy settings set proxy` sets another");
        output.tell(&Event::Warning { text });
    }
    Ok(reach)
}

async fn doctor_command(home: &Home, network: Option<&str>, output: Output) -> Result<(), String> {
    let link = network.map(parse_link).transpose()?;
    let report = doctor::examine(home, link).await;
    let reason = report.why_not();
    output.tell(&Event::Doctor(Box::new(report)));
    reason.map_or(Ok(()), Err)
}

/// Ready at SIGINT or SIGTERM.
async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_contract_parse() {
        let link = format!("ahoy://localhost:7300#{}", "a".repeat(32));
        for line in [
            format!("ahoy --home D register bob --network {link}"),
            format!("ahoy --home D sign-in bob --network {link}"),
            "ahoy --home D online --auto-answer --play in.wav --record out.wav".to_owned(),
            "ahoy --home D call bob --play in.wav --record out.wav --seconds 5 --relay-only --json".to_owned(),
            "ahoy --home D call bob --microphone desk --speaker headset".to_owned(),
            "ahoy turn push-to-talk on".to_owned(),
            "ahoy turn volume 80".to_owned(),
            "ahoy settings echo-canceller off".to_owned(),
            "ahoy settings set noise-suppression high".to_owned(),
            "ahoy test-sound --seconds 3 --microphone desk".to_owned(),
            format!("ahoy --home D echo-service echo123 --network {link} --lines 2"),
            "ahoy demo --seconds 3".to_owned(),
        ] {
            Cli::try_parse_from(line.split(' ')).expect(&line);
        }
    }

    #[test]
    fn what_is_no_command_is_wrong_usage() {
        for line in ["ahoy dance", "ahoy turn dance", "ahoy turn talk maybe", "ahoy echo-service --lines 0", "ahoy test-sound --seconds 0"]
        {
            assert_eq!(Cli::try_parse_from(line.split(' ')).expect_err("no command").exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn names_and_links_that_are_none_are_refused_in_one_sentence() {
        for line in ["ahoy call b/b", "ahoy register bob --network http://x", "ahoy echo-service --network http://x"] {
            let error = Cli::try_parse_from(line.split(' ')).expect(line).command.check().expect_err(line);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
