//! The `ahoy-login` program.

fn main() -> std::process::ExitCode {
    ahoy_login::cli::run()
}
