//! The outer end of a running engine: what it can be asked to do, and what it tells.

use super::sound::Turn;
use crate::events::Event;
use crate::home::Home;
use crate::media::MediaOptions;
use crate::reach::ReachSettings;
use crate::sessions::Sessions;
use crate::sound::SoundSettings;
use ahoy_call::PlaceError;
use ahoy_protocol::{CallId, Name};
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// What the engine can be asked to do.
#[derive(Debug)]
pub enum Command {
    /// Call somebody.
    Place {
        /// Whom.
        to: Name,
        /// With which sound; `None`: as configured.
        media: Option<MediaOptions>,
        /// Never use a direct path.
        relay_only: bool,
        /// The call, or why not.
        reply: oneshot::Sender<Result<CallId, PlaceError>>,
    },
    /// Take the call that rings. The reply is false if none does.
    Answer(oneshot::Sender<bool>),
    /// Do not take the call that rings. The reply is false if none does.
    Decline(oneshot::Sender<bool>),
    /// End the call. The reply is false if there is none.
    HangUp(oneshot::Sender<bool>),
    /// Reach, be reached and sound in this way from here on.
    Follow(Box<ReachSettings>, Box<SoundSettings>),
    /// Turn something of the call that runs, or of those to come. The reply says why not.
    Turn(Turn, oneshot::Sender<Result<(), String>>),
    /// End the call, sign off and stop. The reply comes when all is done.
    Stop(oneshot::Sender<()>),
}

/// The other end of a running engine.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) sessions: Sessions,
    pub(super) home: Arc<Home>,
}

impl Handle {
    /// What happens from here on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until this device can be called.
    pub async fn online(&self) {
        self.sessions.online().await;
    }

    /// The `online` event, as things are.
    #[must_use]
    pub fn online_event(&self) -> Event {
        let account = self.sessions.account();
        Event::Online {
            name: account.name.to_string(),
            device: account.keys.signing.device_key().to_string(),
            supernodes: self.sessions.live().iter().map(|session| session.shown.to_string()).collect(),
        }
    }

    /// Calls somebody.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn place(&self, to: Name, media: Option<MediaOptions>, relay_only: bool) -> Result<CallId, String> {
        let (reply, answer) = oneshot::channel();
        self.give(Command::Place { to, media, relay_only, reply }).await?;
        answer.await.map_err(|_| STOPPED.to_owned())?.map_err(|error| error.to_string())
    }

    /// Takes the call that rings.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn answer(&self) -> Result<(), String> {
        self.ask(Command::Answer, "no call rings").await
    }

    /// Does not take the call that rings.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn decline(&self) -> Result<(), String> {
        self.ask(Command::Decline, "no call rings").await
    }

    /// Ends the call.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn hang_up(&self) -> Result<(), String> {
        self.ask(Command::HangUp, "there is no call").await
    }

    /// Turns something of the call that runs, or of those to come.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn turn(&self, turn: Turn) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.give(Command::Turn(turn, reply)).await?;
        answer.await.map_err(|_| STOPPED.to_owned())?
    }

    /// Reads the home's settings and follows them from here on. Connections that stand stay as they are.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn follow_settings(&self) -> Result<(), String> {
        let settings = self.home.settings().map_err(|error| error.to_string())?;
        self.give(Command::Follow(Box::new(settings.reach_here().0), Box::new(settings.sound()))).await
    }

    /// Ends everything.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.give(Command::Stop(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn give(&self, command: Command) -> Result<(), String> {
        self.commands.send(command).await.map_err(|_| STOPPED.to_owned())
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<bool>) -> Command, otherwise: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.give(command(reply)).await?;
        if answer.await.map_err(|_| STOPPED.to_owned())? { Ok(()) } else { Err(otherwise.to_owned()) }
    }
}

const STOPPED: &str = "the program is stopping";
