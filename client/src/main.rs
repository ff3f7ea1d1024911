//! The `ahoy` program.

fn main() -> std::process::ExitCode {
    ahoy::cli::run()
}
