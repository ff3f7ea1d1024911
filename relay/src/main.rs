//! The `ahoy-relay` program.

use ahoy_node::{ServeArgs, init_logging, run, until_stopped};
use ahoy_relay::{Relay, RelayError};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;

/// Joins two legs of a call that cannot reach each other.
#[derive(Parser)]
#[command(name = "ahoy-relay", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the network until SIGINT or SIGTERM
    Serve(ServeArgs),
}

fn main() -> ExitCode {
    let Command::Serve(args) = Arguments::parse().command;
    init_logging();
    run("ahoy-relay", serve(args))
}

async fn serve(args: ServeArgs) -> Result<(), RelayError> {
    let mut stopped = pin!(until_stopped());
    let relay = tokio::select! {
        relay = Relay::start(&args) => relay?,
        () = &mut stopped => return Ok(()),
    };
    let mut out = std::io::stdout();
    for address in relay.local_addresses() {
        // Who closed our standard output does not want to know.
        let _ = writeln!(out, "serving {address}");
    }
    let _ = out.flush();
    stopped.await;
    relay.stop().await;
    Ok(())
}
