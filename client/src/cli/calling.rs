//! Staying reachable, calling, and turning something of a call that runs.

use super::{CallArgs, OnlineArgs, SoundArgs, TurnCommand, interrupt, owned_by_another, parse_name, reach, start, words};
use crate::control::{self, CallLine, DeviceLine, Line};
use crate::devices::{Direction, find};
use crate::engine::{Config, Handle};
use crate::events::{Event, Output, Stamped};
use crate::home::{Home, HomeError};
use crate::media::MediaOptions;
use ahoy_audio::wav::read_speech;
use ahoy_store::StoreError;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::BufReader;
use tokio::sync::{Semaphore, broadcast, oneshot};
use tracing::debug;

/// Commands from standard input carried out at one time; further ones wait.
const COMMANDS_MAX: usize = 16;

/// What the flags say of sound.
async fn media(args: SoundArgs) -> Result<MediaOptions, String> {
    let play = args.play.as_deref().map(read_speech).transpose().map_err(words)?.map(Arc::new);
    let microphone = find_if_named(Direction::Input, args.devices.microphone).await;
    let speaker = find_if_named(Direction::Output, args.devices.speaker).await;
    let options = MediaOptions { play, record: args.record, microphone, speaker, is_echo: false, is_virtual: args.virtual_devices };
    options.check().map_err(words)?;
    Ok(options)
}

async fn find_if_named(direction: Direction, name: Option<String>) -> Option<String> {
    match name {
        Some(name) => Some(find(direction, name).await),
        None => None,
    }
}

pub(super) async fn online(home: Home, args: OnlineArgs, output: Output) -> Result<(), String> {
    let _lock = home.lock().map_err(|error| owned_by_another(&home, error))?;
    let media = media(args.sound).await?;
    let dir = home.path().to_owned();
    let (reach, sound) = (reach(&home, output)?, home.settings().map_err(words)?.sound());
    let handle = start(home, Config { auto_answer: args.auto_answer, media, reach, sound, claims: None }).await?;
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

pub(super) async fn call(home: Home, args: CallArgs, output: Output) -> Result<(), String> {
    let line = CallLine {
        name: parse_name(&args.name)?.to_string(),
        play: args.sound.play.as_deref().map(absolute).transpose()?,
        record: args.sound.record.as_deref().map(absolute).transpose()?,
        seconds: args.seconds,
        relay_only: args.relay_only,
        microphone: args.sound.devices.microphone,
        speaker: args.sound.devices.speaker,
        virtual_devices: args.sound.virtual_devices,
    };
    let lock = match home.lock() {
        Ok(lock) => lock,
        Err(HomeError::Store(StoreError::InUse { .. })) => return delegate_call(&home, line, output).await,
        Err(error) => return Err(error.to_string()),
    };
    let dir = home.path().to_owned();
    let (reach, sound) = (reach(&home, output)?, home.settings().map_err(words)?.sound());
    let handle = start(home, Config { reach, sound, ..Config::default() }).await?;
    let outcome = tokio::select! {
        outcome = control::call(&handle, &line, interrupt(), |event| output.tell(event)) => outcome,
        () = serve_others(dir, handle.clone()) => Ok(()),
        () = stdin_commands(handle.clone(), output), if takes_commands() => Ok(()),
    };
    handle.stop().await;
    drop(lock);
    outcome
}

/// Has the running owner of the home make the call; an interrupt hangs up.
async fn delegate_call(home: &Home, line: CallLine, output: Output) -> Result<(), String> {
    let line = Line::Call(line);
    let calling = control::delegate(home.path(), &line, |line| tell_line(line, output));
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

/// A call at a terminal reads nothing from it: in the background, that would stop the program.
fn takes_commands() -> bool {
    !std::io::stdin().is_terminal()
}

/// Has the running owner of the home turn something.
pub(super) async fn turn(home: &Home, what: TurnCommand, output: Output) -> Result<(), String> {
    let line = match what {
        TurnCommand::Mute => Line::Mute,
        TurnCommand::Unmute => Line::Unmute,
        TurnCommand::Hold => Line::Hold,
        TurnCommand::Resume => Line::Resume,
        TurnCommand::Volume { percent } => Line::Volume { percent },
        TurnCommand::PushToTalk { on } => Line::PushToTalk { on },
        TurnCommand::Talk { on } => Line::Talk { on },
        TurnCommand::Microphone { device } => Line::Microphone(DeviceLine { device: Some(device) }),
        TurnCommand::Speaker { device } => Line::Speaker(DeviceLine { device: Some(device) }),
        TurnCommand::Ringer { device } => Line::Ringer(DeviceLine { device: Some(device) }),
    };
    if home.lock().is_ok() {
        return Err("no ahoy runs here, so there is no call; `ahoy settings` changes what the next one begins with".to_owned());
    }
    let turned = control::delegate(home.path(), &line, |line| tell_line(line, output)).await;
    turned.map_err(words)?
}

/// Tells an event that another process told.
fn tell_line(line: &str, output: Output) {
    match serde_json::from_str::<Stamped>(line) {
        Ok(stamped) => output.tell(&stamped.event),
        Err(error) => debug!(%error, "a line that is no event"),
    }
}
