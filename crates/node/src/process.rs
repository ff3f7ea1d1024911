//! How a node's program starts, reports and stops.

use std::fmt::Display;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged.
const LOG_VARIABLE: &str = "AHOY_LOG";
/// What is logged where it says nothing: warnings of the libraries, decisions of ours. Kademlia warns of every start that finds
/// nobody else yet, which is how a network begins.
const LOG_DEFAULT: &str = "warn,libp2p_kad=error,ahoy=info";

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

/// Completes when the program is told to stop: by Ctrl-C, or on Unix by SIGTERM.
///
/// It listens from this call on, so that nothing that comes before it is awaited is missed. It must be called in a runtime.
pub fn until_stopped() -> impl Future<Output = ()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::SignalKind;
        let (interrupted, terminated) = (caught(SignalKind::interrupt()), caught(SignalKind::terminate()));
        async {
            tokio::select! {
                () = interrupted => {}
                () = terminated => {}
            }
        }
    }
    #[cfg(not(unix))]
    async {
        if let Err(problem) = tokio::signal::ctrl_c().await {
            tracing::warn!(%problem, "Ctrl-C cannot be caught");
            std::future::pending().await
        }
    }
}

/// Completes when a signal of `kind` has come; never, if that kind cannot be caught.
#[cfg(unix)]
fn caught(kind: tokio::signal::unix::SignalKind) -> impl Future<Output = ()> {
    let signal = tokio::signal::unix::signal(kind);
    async {
        match signal {
            Ok(mut signal) => drop(signal.recv().await),
            Err(problem) => {
                tracing::warn!(%problem, "a signal cannot be caught");
                std::future::pending().await
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_signal_that_comes_before_it_is_waited_for_is_not_lost() {
        let stopped = until_stopped();
        let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(killed.expect("kill is there").success());
        timeout(Duration::from_secs(20), stopped).await.expect("it was told");
    }
}
