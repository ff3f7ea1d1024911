//! One stream of a client's connection: a join, its answer, and then what happens to the leg until the stream ends.

use crate::control::{Client, Control, Leg, LegState};
use crate::limits::{JOIN_TIMEOUT, LEG_LIFE_MAX};
use ahoy_protocol::Text;
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_transport::{RecvStream, SendStream, receive, send};
use std::sync::Arc;
use tokio::time::{sleep, timeout};

/// How a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegEnd {
    /// There was a leg, and it is gone; or the client is.
    Left,
    /// There was none: it was refused, or not asked for.
    Refused,
    /// What came was no join, or came too late.
    Misbehaved,
}

/// Serves one stream to its end.
pub(crate) async fn serve(control: Arc<Control>, client: Client, (mut sending, mut receiving): (SendStream, RecvStream)) -> LegEnd {
    let join = match timeout(JOIN_TIMEOUT, receive::<Join>(&mut receiving)).await {
        Ok(Ok(Some(join))) => join,
        Ok(Ok(None)) => return LegEnd::Refused,
        Ok(Err(_)) if client.connection.is_closed() => return LegEnd::Left,
        Ok(Err(_)) | Err(_) => return LegEnd::Misbehaved,
    };
    match control.join(&client, &join) {
        Ok(leg) => {
            live(leg, &mut sending, &mut receiving).await;
            LegEnd::Left
        }
        Err(answer) => {
            tracing::debug!(?answer, "a leg was refused");
            // A client that is gone needs no answer.
            tell(&mut sending, &answer).await;
            LegEnd::Refused
        }
    }
}

/// Tells the client what happens to its leg, until it ends the stream or the leg is over.
async fn live(mut leg: Leg, sending: &mut SendStream, receiving: &mut RecvStream) {
    let mut told = *leg.state.borrow_and_update();
    let joined = LegEvent::Joined { channel: leg.channel, key: leg.key, peer_present: told == LegState::Together };
    if !tell(sending, &joined).await {
        return;
    }
    let over = sleep(LEG_LIFE_MAX);
    tokio::pin!(over);
    loop {
        let event = tokio::select! {
            changed = leg.state.changed() => {
                // The sender goes with the leg, after it was told that it is replaced.
                let state = if changed.is_ok() { *leg.state.borrow_and_update() } else { LegState::Replaced };
                if state == told {
                    continue;
                }
                told = state;
                match state {
                    LegState::Alone => LegEvent::PeerLeft,
                    LegState::Together => LegEvent::PeerJoined,
                    LegState::Replaced => LegEvent::Refused(Text::fitting("a later leg of the same device took its place")),
                }
            }
            // Nothing follows a join: whatever comes, the end included, ends the leg.
            () = anything(receiving) => return,
            () = &mut over => LegEvent::Refused(Text::fitting("the leg has lasted its time; join again")),
        };
        let last = matches!(event, LegEvent::Refused(_));
        let heard = tokio::select! {
            told = tell(sending, &event) => told,
            // A client that does not read must not hold its leg after it left.
            () = anything(receiving) => false,
        };
        if last || !heard {
            return;
        }
    }
}

/// True if the client has room for `event` before long. One that does not read must not hold what it has.
async fn tell(sending: &mut SendStream, event: &LegEvent) -> bool {
    matches!(timeout(JOIN_TIMEOUT, send(sending, event)).await, Ok(Ok(())))
}

/// Returns when the client says something, or ends the stream, or is gone.
async fn anything(receiving: &mut RecvStream) {
    let _ = receiving.read(&mut [0; 1]).await;
}
