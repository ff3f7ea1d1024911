//! Registering, signing in, and the echo service, which does both by itself.

use super::{EchoServiceArgs, EnterArgs, interrupt, owned_by_another, parse_link, parse_name, reach, words};
use crate::account::{Entrance, enter};
use crate::echo_service;
use crate::events::{Event, Output};
use crate::home::Home;
use std::io::{IsTerminal, Read};
use std::path::Path;

pub(super) async fn register(home: &Home, args: EnterArgs, output: Output) -> Result<(), String> {
    enter_command(home, Entrance::Register, args, output).await
}

pub(super) async fn sign_in(home: &Home, args: EnterArgs, output: Output) -> Result<(), String> {
    enter_command(home, Entrance::SignIn, args, output).await
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

/// Opens the lines of the echo service and answers until SIGINT.
pub(super) async fn echo_service(dir: &Path, args: EchoServiceArgs, output: Output) -> Result<(), String> {
    let (name, link) = (parse_name(&args.name)?, args.network.as_deref().map(parse_link).transpose()?);
    let password = || std::env::var("AHOY_PASSWORD").or_else(|_| password(Entrance::SignIn));
    let service = echo_service::open(dir, &name, link.as_ref(), args.lines, password, output).await?;
    service.serve(output, interrupt()).await;
    Ok(())
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
