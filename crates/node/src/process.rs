//! How a node's program starts, reports and stops.

use std::fmt::Display;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged.
const LOG_VARIABLE: &str = "AHOY_LOG";
/// What is logged where it says nothing: warnings of the libraries, decisions of ours.
const LOG_DEFAULT: &str = "warn,ahoy=info";

/// Logs to standard error, as `AHOY_LOG` says (`debug`, or `warn,ahoy_relay=trace`, say). A second call does nothing.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A test that starts two nodes initialises twice; the first one counts.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).try_init();
}

/// Runs a program's `serve` to its end: status 0, or 1 with one sentence on standard error.
pub fn run<E: Display>(program: &str, serve: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            eprintln!("{program}: cannot start: {problem}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{program}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Returns when the program is told to stop: by Ctrl-C, or on Unix by SIGTERM.
pub async fn until_stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    () = interrupted() => {}
                }
            }
            Err(problem) => {
                tracing::warn!(%problem, "SIGTERM cannot be caught");
                interrupted().await;
            }
        }
    }
    #[cfg(not(unix))]
    interrupted().await;
}

async fn interrupted() {
    if let Err(problem) = tokio::signal::ctrl_c().await {
        tracing::warn!(%problem, "Ctrl-C cannot be caught");
        std::future::pending().await
    }
}
