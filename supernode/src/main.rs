//! The `ahoy-supernode` program.

use ahoy_supernode::{Args, StartError, Supernode};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;

/// Hosts the directory of an Ahoy network and carries invitations
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a network and serve until SIGINT or SIGTERM
    Serve(Box<Args>),
}

fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse().command;
    ahoy_node::init_logging();
    ahoy_node::run("ahoy-supernode", serve(*args))
}

async fn serve(args: Args) -> Result<(), StartError> {
    let mut stopped = pin!(ahoy_node::until_stopped());
    let supernode = tokio::select! {
        supernode = Supernode::start(&args) => supernode?,
        () = &mut stopped => return Ok(()),
    };
    let mut out = std::io::stdout();
    if let Some(address) = supernode.addresses().first() {
        // Whoever started it waits for the line; if he has gone, there is nobody to tell.
        let _ = writeln!(out, "serving {address}");
    }
    let _ = out.flush();
    stopped.await;
    supernode.stop().await;
    Ok(())
}
