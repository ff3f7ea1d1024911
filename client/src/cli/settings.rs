//! Showing and changing settings.

use super::{Cli, SettingsCommand, words};
use crate::control::{self, Line};
use crate::devices::{Direction, find};
use crate::events::Output;
use crate::home::{Home, HomeError};
use crate::settings::{Key, Settings};
use ahoy_store::StoreError;
use clap::error::ErrorKind;
use clap::{CommandFactory, ValueEnum};

pub(super) async fn settings(home: &Home, action: SettingsCommand, output: Output) -> Result<(), String> {
    let settings = match action {
        SettingsCommand::List => return home.settings().map(|settings| output.tell(&settings.event())).map_err(words),
        SettingsCommand::Set { key, value } => set(home, key, value).await?,
        SettingsCommand::Unset { key } => home.change_setting(key, None),
        SettingsCommand::Short(words) => {
            let (key, value) = parse_short(&words);
            set(home, key, value).await?
        }
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

/// Sets one. A device that is there is remembered by its id, whatever the user called it.
async fn set(home: &Home, key: Key, value: String) -> Result<Result<Settings, HomeError>, String> {
    let value = match key {
        Key::Microphone => find(Direction::Input, value).await,
        Key::Speaker | Key::Ringer => find(Direction::Output, value).await,
        _ => value,
    };
    Ok(home.change_setting(key, Some(&value)))
}

/// `KEY VALUE`. Anything else is wrong usage, which ends the program as such.
fn parse_short(words: &[String]) -> (Key, String) {
    let refuse = |text: String| -> ! { Cli::command().error(ErrorKind::InvalidSubcommand, text).exit() };
    match words {
        [key, value] => match Key::from_str(key, false) {
            Ok(key) => (key, value.clone()),
            Err(_) => refuse(format!("{key} is no setting; `ahoy settings` lists them")),
        },
        _ => refuse("a setting is changed with `ahoy settings KEY VALUE`".to_owned()),
    }
}
