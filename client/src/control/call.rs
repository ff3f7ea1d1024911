//! Calling somebody, and following the call to its end.

use super::CallLine;
use crate::devices::{Direction, find};
use crate::engine::Handle;
use crate::events::{Event, call_word};
use ahoy_protocol::Name;
use std::time::Duration;
use tokio::sync::broadcast;
use tracing::debug;

/// Calls somebody and follows the call to its end. When `interrupted` is ready, it hangs up.
///
/// # Errors
/// A sentence for the user if the call did not connect, or was lost.
pub async fn call(
    handle: &Handle,
    line: &CallLine,
    interrupted: impl Future<Output = ()>,
    mut tell: impl FnMut(&Event),
) -> Result<(), String> {
    let to: Name = line.name.parse().map_err(|error| format!("\"{}\" is not a name: {error}", line.name))?;
    // A file that cannot be read or written is told before anybody's telephone rings; a long one must not hold up what else goes on.
    let reading = line.clone();
    let media = tokio::task::spawn_blocking(move || reading.media()).await.map_err(|error| error.to_string())?;
    let mut media = media.map_err(|error| error.to_string())?;
    if let Some(media) = &mut media {
        if let Some(name) = media.microphone.take() {
            media.microphone = Some(find(Direction::Input, name).await);
        }
        if let Some(name) = media.speaker.take() {
            media.speaker = Some(find(Direction::Output, name).await);
        }
    }
    let mut events = handle.subscribe();
    let call = handle.place(to.clone(), media, line.relay_only).await?;
    let mut follower = Follower { word: call_word(call), to, is_connected: false };
    let over = tokio::time::sleep_until(far_away());
    tokio::pin!(interrupted, over);
    let mut may_be_interrupted = true;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    if follower.concerns(&event) {
                        tell(&event);
                    }
                    if let (Event::Connected { .. }, Some(seconds)) = (&event, line.seconds) && follower.concerns(&event) {
                        let at = tokio::time::Instant::now().checked_add(Duration::from_secs(seconds));
                        over.as_mut().reset(at.unwrap_or_else(far_away));
                    }
                    if let Some(result) = follower.follow(&event) {
                        return result;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => debug!(missed, "events were missed"),
                Err(broadcast::error::RecvError::Closed) => return Err("the program is stopping".to_owned()),
            },
            () = &mut over => {
                over.as_mut().reset(far_away());
                // It may have ended at this very moment; its end is in the queue then.
                let _ = handle.hang_up().await;
            }
            () = &mut interrupted, if may_be_interrupted => {
                may_be_interrupted = false;
                let _ = handle.hang_up().await;
            }
        }
    }
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(365 * 24 * 3600)
}

/// Follows one call among all events.
struct Follower {
    word: String,
    to: Name,
    is_connected: bool,
}

impl Follower {
    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Calling { call, .. }
            | Event::Ringing { call, .. }
            | Event::Connected { call, .. }
            | Event::Media { call, .. }
            | Event::FirstSound { call, .. }
            | Event::Path { call, .. }
            | Event::Reconnecting { call }
            | Event::Hold { call, .. }
            | Event::Device { call, .. }
            | Event::Ended { call, .. }
            | Event::Incoming { call, .. } => *call == self.word,
            Event::Stats(stats) => stats.call == self.word,
            Event::Warning { .. } | Event::Controls { .. } => true,
            Event::Registered { .. }
            | Event::SignedIn { .. }
            | Event::Online { .. }
            | Event::Settings(_)
            | Event::Doctor(_)
            | Event::Devices { .. }
            | Event::TestSound { .. }
            | Event::Level { .. }
            | Event::PastCall(_)
            | Event::Summary { .. } => false,
        }
    }

    /// How the call went, once it is over.
    fn follow(&mut self, event: &Event) -> Option<Result<(), String>> {
        match event {
            // Two people who call each other have one call, the other's.
            Event::Incoming { call, from } if !self.is_connected && from == self.to.as_str() => {
                debug!(ours = self.word, theirs = call, "both called");
                self.word.clone_from(call);
                None
            }
            Event::Connected { call, .. } if *call == self.word => {
                self.is_connected = true;
                None
            }
            Event::Ended { call, reason, with, .. } if *call == self.word => Some(match (self.is_connected, reason.as_str()) {
                (true, "hung-up") => Ok(()),
                (_, reason) => Err(ended_badly(with, reason)),
            }),
            _ => None,
        }
    }
}

fn ended_badly(with: &str, reason: &str) -> String {
    match reason {
        "declined" => format!("{with} declined the call"),
        "busy" => format!("{with} is in another call; try again later"),
        "missed" => format!("{with} did not answer"),
        "unreachable" => format!("{with} cannot be reached now; try again later"),
        "cancelled" => "the call was given up before anybody answered".to_owned(),
        "lost" => format!("the connection with {with} was lost"),
        reason => format!("the call with {with} ended: {reason}"),
    }
}
