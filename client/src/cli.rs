//! The command line.

use crate::account::{Entrance, enter};
use crate::control::{self, CallLine, Line};
use crate::demo::{self, DemoOptions};
use crate::doctor;
use crate::engine::{self, Config, Handle};
use crate::events::{Event, Output, Stamped};
use crate::home::{Home, HomeError};
use crate::media::MediaOptions;
use crate::reach::ReachSettings;
use crate::settings::Key;
use ahoy_audio::wav::read_speech;
use ahoy_protocol::{Name, NetworkLink};
use ahoy_store::StoreError;
use clap::{Args, Parser, Subcommand};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tracing::debug;
use tracing_subscriber::EnvFilter;

/// Commands from standard input carried out at one time; further ones wait.
const COMMANDS_MAX: usize = 16;

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
    /// Show and change how this device reaches the network.
    #[command(after_help = SETTINGS_HELP)]
    Settings {
        #[command(subcommand)]
        action: Option<SettingsCommand>,
    },
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
  ahoy online                         be there for calls
  ahoy call alice                     call somebody
  ahoy doctor                         when calls do not connect";

#[derive(Debug, Subcommand)]
enum SettingsCommand {
    /// Show all settings; this is also what `ahoy settings` alone does.
    List,
    /// Change a setting.
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

An ahoy that runs follows a change at once; connections and calls that stand stay as they are.";

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
            Self::Call(CallArgs { name, .. }) | Self::Trust { name } => parse_name(name).map(drop),
            Self::Doctor { network: Some(link) } => parse_link(link).map(drop),
            Self::Online(_) | Self::Doctor { network: None } | Self::Settings { .. } | Self::Demo { .. } => Ok(()),
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
        if let Command::Demo { seconds } = self.command {
            return demo::run(DemoOptions { seconds, json: self.json }).await.map_err(words);
        }
        self.command.check()?;
        let home = Home::open(&home_folder(self.home)?).map_err(words)?;
        match self.command {
            Command::Register(args) => enter_command(&home, Entrance::Register, args, output).await,
            Command::SignIn(args) => enter_command(&home, Entrance::SignIn, args, output).await,
            Command::Online(args) => online_command(home, args, output).await,
            Command::Call(args) => call_command(home, args, output).await,
            Command::Trust { name } => home.forget_pin(&parse_name(&name)?).map_err(words),
            Command::Doctor { network } => doctor_command(&home, network.as_deref(), output).await,
            Command::Settings { action } => settings_command(&home, action.unwrap_or(SettingsCommand::List), output).await,
            Command::Demo { .. } => Ok(()),
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

async fn enter_command(home: &Home, entrance: Entrance, args: EnterArgs, output: Output) -> Result<(), String> {
    let (name, link) = (parse_name(&args.name)?, parse_link(&args.network)?);
    let _lock = home.lock().map_err(|error| owned_by_another(home, error))?;
    home.check_owner(&name, &link).map_err(words)?;
    let password = password(entrance)?;
    let label = args.device.unwrap_or_else(computer_name);
    let reach = reach(home, output)?;
    let entered = enter(home, entrance, &link, &name, &password, &label, &reach).await.map_err(words)?;
    let name = name.to_string();
    if entrance == Entrance::Register {
        output.tell(&Event::Registered { name: name.clone() });
    }
    if !entered.is_published {
        let text = "no supernode can be reached yet; others can find this device once it has been online".to_owned();
        output.tell(&Event::Warning { text });
    }
    output.tell(&Event::SignedIn { name, device: entered.account.keys.signing.device_key().to_string() });
    Ok(())
}

fn owned_by_another(home: &Home, error: HomeError) -> String {
    match error {
        HomeError::Store(StoreError::InUse { .. }) => {
            format!("an ahoy is running on {}; end it first, or name another folder with --home", home.path().display())
        }
        error => error.to_string(),
    }
}

/// From the environment, from a terminal, or else the first line of standard input.
fn password(entrance: Entrance) -> Result<String, String> {
    if let Ok(password) = std::env::var("AHOY_PASSWORD") {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        return read_password_line();
    }
    let ask = |prompt: &str| rpassword::prompt_password(prompt).map_err(|error| format!("cannot read the password: {error}"));
    let password = ask("Password: ")?;
    if entrance == Entrance::Register && ask("The same again: ")? != password {
        return Err("the two passwords differ; try again".to_owned());
    }
    Ok(password)
}

fn read_password_line() -> Result<String, String> {
    /// Far more than any password has.
    const BYTES_MAX: u64 = 4096;
    let mut text = String::new();
    std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).map_err(|error| format!("cannot read the password: {error}"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err("no password: type it at the prompt, or set AHOY_PASSWORD".to_owned()),
    }
}

fn computer_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "a computer".to_owned() } else { name.to_owned() }
}

impl SoundArgs {
    fn media(&self) -> Result<MediaOptions, String> {
        let play = self.play.as_deref().map(read_speech).transpose().map_err(words)?.map(Arc::new);
        let options = MediaOptions { play, record: self.record.clone() };
        options.check().map_err(words)?;
        Ok(options)
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

async fn settings_command(home: &Home, action: SettingsCommand, output: Output) -> Result<(), String> {
    let settings = match action {
        SettingsCommand::List => return home.settings().map(|settings| output.tell(&settings.event())).map_err(words),
        SettingsCommand::Set { key, value } => home.change_setting(key, Some(&value)),
        SettingsCommand::Unset { key } => home.change_setting(key, None),
    };
    output.tell(&settings.map_err(words)?.event());
    match home.lock() {
        Err(HomeError::Store(StoreError::InUse { .. })) => {
            let followed = control::delegate(home.path(), &Line::FollowSettings, |_| {}).await;
            followed.map_err(words)?.map_err(|reason| format!("it is set, but the ahoy that runs does not follow it: {reason}"))
        }
        // Nobody runs: the next one that does reads it.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn doctor_command(home: &Home, network: Option<&str>, output: Output) -> Result<(), String> {
    let link = network.map(parse_link).transpose()?;
    let report = doctor::examine(home, link).await;
    let reason = report.why_not();
    output.tell(&Event::Doctor(Box::new(report)));
    reason.map_or(Ok(()), Err)
}

async fn online_command(home: Home, args: OnlineArgs, output: Output) -> Result<(), String> {
    let _lock = home.lock().map_err(|error| owned_by_another(&home, error))?;
    let media = args.sound.media()?;
    let dir = home.path().to_owned();
    let reach = reach(&home, output)?;
    let handle = start(home, Config { auto_answer: args.auto_answer, media, reach }).await?;
    let serving = serve_others(dir, handle.clone());
    let commands = stdin_commands(handle.clone(), output);
    let online = async {
        handle.online().await;
        output.tell(&handle.online_event());
        std::future::pending::<()>().await;
    };
    let (over, is_over) = oneshot::channel();
    let telling = tokio::spawn(tell_all(handle.subscribe(), output, is_over));
    tokio::select! {
        () = interrupt() => {}
        () = serving => {}
        () = commands => {}
        () = online => {}
    }
    handle.stop().await;
    // What happened while everything ended is told too.
    let _ = over.send(());
    telling.await.map_err(words)
}

/// Tells every event, until it is over and no more are left.
async fn tell_all(mut events: broadcast::Receiver<Event>, output: Output, mut is_over: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => output.tell(&event),
                Err(broadcast::error::RecvError::Lagged(missed)) => debug!(missed, "events were missed"),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = &mut is_over => break,
        }
    }
    while let Ok(event) = events.try_recv() {
        output.tell(&event);
    }
}

/// Carries out commands that other processes send through the socket in the home.
async fn serve_others(dir: PathBuf, handle: Handle) {
    if let Err(error) = control::serve(&dir, &handle).await {
        tracing::warn!(%error, "commands of other processes cannot be taken");
    }
    std::future::pending().await
}

/// Carries out commands from standard input, each in a task of its own, since a call lasts.
async fn stdin_commands(handle: Handle, output: Output) {
    let mut input = BufReader::new(tokio::io::stdin());
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let text = match control::next_line(&mut input).await {
            Ok(Some(text)) if text.trim().is_empty() => continue,
            Ok(Some(text)) => text,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                output.tell(&Event::Warning { text: format!("not a command: {error}") });
                continue;
            }
            Ok(None) | Err(_) => break,
        };
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let handle = handle.clone();
        tokio::spawn(async move {
            let outcome = match control::parse(&text) {
                // The events of a call are told to everybody already.
                Ok(line) => {
                    control::carry_out(&handle, &line, std::future::pending(), |event| {
                        if let Event::Online { .. } = event {
                            output.tell(event);
                        }
                    })
                    .await
                }
                Err(error) => Err(error),
            };
            if let Err(text) = outcome {
                output.tell(&Event::Warning { text });
            }
            drop(place);
        });
    }
    // The end of the input ends nothing: a service has none.
    std::future::pending().await
}

async fn call_command(home: Home, args: CallArgs, output: Output) -> Result<(), String> {
    let line = CallLine {
        name: parse_name(&args.name)?.to_string(),
        play: args.sound.play.as_deref().map(absolute).transpose()?,
        record: args.sound.record.as_deref().map(absolute).transpose()?,
        seconds: args.seconds,
        relay_only: args.relay_only,
    };
    let lock = match home.lock() {
        Ok(lock) => lock,
        Err(HomeError::Store(StoreError::InUse { .. })) => return delegate_call(&home, line, output).await,
        Err(error) => return Err(error.to_string()),
    };
    let dir = home.path().to_owned();
    let reach = reach(&home, output)?;
    let handle = start(home, Config { reach, ..Config::default() }).await?;
    let outcome = tokio::select! {
        outcome = control::call(&handle, &line, interrupt(), |event| output.tell(event)) => outcome,
        () = serve_others(dir, handle.clone()) => Ok(()),
    };
    handle.stop().await;
    drop(lock);
    outcome
}

/// Has the running owner of the home make the call; an interrupt hangs up.
async fn delegate_call(home: &Home, line: CallLine, output: Output) -> Result<(), String> {
    let line = Line::Call(line);
    let calling = control::delegate(home.path(), &line, |line| match serde_json::from_str::<Stamped>(line) {
        Ok(stamped) => output.tell(&stamped.event),
        Err(error) => debug!(%error, "a line that is no event"),
    });
    tokio::pin!(calling);
    tokio::select! {
        outcome = &mut calling => return outcome.map_err(words)?,
        () = interrupt() => {}
    }
    let hung_up = control::delegate(home.path(), &Line::HangUp, |_| {}).await;
    debug!(?hung_up, "interrupted");
    calling.await.map_err(words)?
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
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
            "ahoy demo --seconds 3".to_owned(),
        ] {
            Cli::try_parse_from(line.split(' ')).expect(&line);
        }
    }

    #[test]
    fn what_is_no_command_is_wrong_usage() {
        assert_eq!(Cli::try_parse_from(["ahoy", "dance"]).expect_err("no command").exit_code(), 2);
    }

    #[test]
    fn names_and_links_that_are_none_are_refused_in_one_sentence() {
        for line in ["ahoy call b/b", "ahoy register bob --network http://x"] {
            let error = Cli::try_parse_from(line.split(' ')).expect(line).command.check().expect_err(line);
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
