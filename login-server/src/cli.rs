//! The command line of `ahoy-login`.

use crate::admin::{Admin, CoolDown};
use crate::clock::Clock;
use crate::error::ServeError;
use crate::folder;
use crate::server::{Config, Server};
use ahoy_protocol::Name;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The login server of an Ahoy network: checks passwords without seeing them, certifies keys, hands out the roster.
#[derive(Debug, Parser)]
#[command(name = "ahoy-login", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, and print the network link.
    Serve(ServeArgs),
    /// Print a token with which one supernode or relay can join.
    NodeToken {
        #[command(flatten)]
        data: DataArgs,
    },
    /// Show and change accounts.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Show and remove supernodes and relays.
    #[command(subcommand)]
    Nodes(NodesCommand),
}

#[derive(Debug, Args)]
struct DataArgs {
    /// The data folder: keys, and, where no other database is named, accounts.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Where to listen, such as 0.0.0.0:7300. With port 0 the system chooses one.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    listen: SocketAddr,
    /// The host that the network link names, if another than the address listened on.
    #[arg(long, value_name = "NAME")]
    public_host: Option<String>,
    /// Where accounts are kept: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. Remembered in the data folder.
    #[arg(long, value_name = "ADDRESS")]
    database: Option<String>,
    /// Where to serve counters over plain HTTP, at /metrics.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    metrics: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// List all accounts.
    List {
        #[command(flatten)]
        data: DataArgs,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Refuse an account's sign-ins and revoke its certificates.
    Disable(UserArgs),
    /// Undo `disable`.
    Enable(UserArgs),
    /// Remove an account's password, backup and devices, so that the name can be registered again after a day.
    Reset {
        #[command(flatten)]
        user: UserArgs,
        /// Let the name be registered at once.
        #[arg(long)]
        now: bool,
    },
}

#[derive(Debug, Args)]
struct UserArgs {
    /// The account.
    name: String,
    #[command(flatten)]
    data: DataArgs,
}

impl UserArgs {
    /// A name that is none is refused like one that nobody has: both are typed by people, and read by scripts as "failed".
    async fn open(&self) -> Result<(Admin, Name), ServeError> {
        let name = Name::parse(&self.name).map_err(|reason| ServeError::Name { name: self.name.clone(), reason })?;
        Ok((open(&self.data).await?, name))
    }
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// List all supernodes and relays.
    List {
        #[command(flatten)]
        data: DataArgs,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Take a node out of the network.
    Remove {
        /// The node's key, as `nodes list` shows it.
        key: String,
        #[command(flatten)]
        data: DataArgs,
    },
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&ServeError::Setup(error.to_string())),
    };
    match runtime.block_on(Box::pin(execute(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Logs to standard error, as much as `AHOY_LOG`, or else `RUST_LOG`, says.
fn start_logging() {
    let filter = EnvFilter::try_from_env("AHOY_LOG").or_else(|_| EnvFilter::try_from_default_env());
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

fn fail(error: &ServeError) -> ExitCode {
    eprintln!("ahoy-login: {error}");
    ExitCode::FAILURE
}

async fn execute(command: Command) -> Result<(), ServeError> {
    match command {
        Command::Serve(args) => serve(args).await,
        Command::NodeToken { data } => {
            if !folder::holds_network(&data.data) {
                let dir = data.data.display();
                tracing::warn!("{dir} holds no network yet; the token is of use only if `ahoy-login serve` is given this folder");
            }
            print_line(&Admin::open(&data.data, Clock::default()).await?.node_token().await?);
            Ok(())
        }
        Command::Users(command) => users(command).await,
        Command::Nodes(NodesCommand::List { data, json }) => {
            print_all(&open(&data).await?.nodes().await?, json, |node| {
                format!("{}  {:9}  {:7}  {}", node.node, node.role, node.status, node.addresses.join(" "))
            });
            Ok(())
        }
        Command::Nodes(NodesCommand::Remove { key, data }) => open(&data).await?.remove_node(&key).await,
    }
}

async fn users(command: UsersCommand) -> Result<(), ServeError> {
    match command {
        UsersCommand::List { data, json } => {
            print_all(&open(&data).await?.users().await?, json, |user| {
                let devices = if user.devices == 1 { "device" } else { "devices" };
                format!("{:32}  {:8}  {} {devices}", user.name, user.status, user.devices)
            });
            Ok(())
        }
        UsersCommand::Disable(user) => {
            let (admin, name) = user.open().await?;
            admin.disable(&name).await
        }
        UsersCommand::Enable(user) => {
            let (admin, name) = user.open().await?;
            admin.enable(&name).await
        }
        UsersCommand::Reset { user, now } => {
            let cool_down = if now { CoolDown::Skipped } else { CoolDown::Kept };
            let (admin, name) = user.open().await?;
            admin.reset(&name, cool_down).await
        }
    }
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let setup = |error: std::io::Error| ServeError::Setup(error.to_string());
    // Listened for before the link is printed: who reads it may stop the server at once.
    let mut interrupted = signal(SignalKind::interrupt()).map_err(setup)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(setup)?;
    let server = Server::start(Config {
        data: args.data.data,
        listen: args.listen,
        public_host: args.public_host,
        database: args.database,
        metrics: args.metrics,
        clock: Clock::default(),
    })
    .await?;
    print_line(&format!("network {}", server.link()));
    tracing::info!(address = %server.local_addr(), "serving");
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// The accounts and nodes of a folder on which a server has run: another folder was mistyped, and must not be made.
async fn open(data: &DataArgs) -> Result<Admin, ServeError> {
    if !folder::holds_network(&data.data) {
        return Err(ServeError::NoNetwork(data.data.clone()));
    }
    Admin::open(&data.data, Clock::default()).await
}

fn print_all<T: Serialize>(all: &[T], json: bool, line: impl Fn(&T) -> String) {
    for one in all {
        print_line(&if json { serde_json::to_string(one).expect("plain data always serialises") } else { line(one) });
    }
}

/// Prints a line at once. A reader that has gone is no reason to stop.
fn print_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, such as 0.0.0.0:7300 or [::]:7300".to_owned())
}
