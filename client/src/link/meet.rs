//! Meeting: from the first relay to a connection on which both have said who they are.

use super::legs::{Legs, Said};
use super::{LINK_QUEUE, Line, LinkError, Order};
use crate::signals;
use ahoy_directory::Gate;
use ahoy_protocol::UnixMillis;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::{LegNews, PeerMessage};
use ahoy_transport::{Connection, Peer, RecvStream, SendStream, TransportError, receive, send};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::debug;

/// How long both sides have to come to a relay, perhaps to a second one, and shake hands.
const MEET_TIME: Duration = Duration::from_secs(15);
/// How long the other side has to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// How often a signal about relays is sent to a device that is not where it said.
const SIGNAL_TRIES: usize = 2;

/// Two that have met.
pub(super) struct Met {
    pub(super) connection: Connection,
    pub(super) outgoing: SendStream,
    pub(super) incoming: RecvStream,
    /// What was ordered before there was anybody to hear it.
    pub(super) waiting: Vec<Order>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<(Connection, SendStream, RecvStream), TransportError>> + Send>>;

/// Meets the other side. `None` if the engine lets go before that.
pub(super) async fn meet(line: &Line, legs: &mut Legs, orders: &mut mpsc::Receiver<Order>) -> Result<Option<Met>, LinkError> {
    let deadline = Instant::now() + MEET_TIME;
    let mut waiting = Vec::new();
    let mut is_first_word = line.side == Side::Callee;
    // The callee waits from the start; the caller's first packet is sent when there is somebody to hear it.
    let mut connecting: Option<Connecting> = (line.side == Side::Callee).then(|| accept(line.peer.clone()));
    let (connection, mut outgoing, mut incoming) = loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::HearOfLeg(news)) => legs.hear(news),
                Some(order) if waiting.len() < LINK_QUEUE => waiting.push(order),
                Some(_) => {}
                None => return Ok(None),
            },
            said = legs.next() => match said {
                Said::Met if connecting.is_none() => connecting = Some(connect(line.peer.clone())),
                Said::Met | Said::Changed | Said::Moved => {}
                Said::Tell(news) => {
                    line.post(in_signal(news, is_first_word));
                    is_first_word = false;
                }
            },
            connected = ready(&mut connecting) => break connected?,
            () = sleep_until(deadline.into()) => {
                return Err(if legs.is_met() { LinkError::NobodyCame } else { LinkError::NoRelay });
            }
        }
    };
    if let Err(error) = greet(line, &mut outgoing, &mut incoming).await {
        connection.close(1, "no greeting");
        return Err(error);
    }
    Ok(Some(Met { connection, outgoing, incoming, waiting }))
}

/// The first relay that a callee names says also that it rings.
fn in_signal(news: LegNews, is_first_word: bool) -> SignalKind {
    match news {
        LegNews::Join { leg: 0, relay } if is_first_word => SignalKind::Ringing { relay: Some(relay) },
        LegNews::Join { .. } | LegNews::Gone { .. } => SignalKind::Leg(news),
    }
}

impl Line {
    /// Sends a signal, which takes its time.
    pub(super) fn post(&self, kind: SignalKind) {
        let (courier, alive) = (self.courier.clone(), self.shared.alive.clone());
        tokio::spawn(async move {
            let is_delivered = courier.deliver(kind, SIGNAL_TRIES).await;
            debug!(is_delivered, "said something beside the link");
            drop(alive);
        });
    }
}

fn connect(peer: Arc<Peer>) -> Connecting {
    Box::pin(async move {
        let connection = peer.connect().await?;
        let (outgoing, incoming) = connection.open_bi().await?;
        Ok((connection, outgoing, incoming))
    })
}

fn accept(peer: Arc<Peer>) -> Connecting {
    Box::pin(async move {
        let connection = peer.accept().await?;
        let (outgoing, incoming) = connection.accept_bi().await?;
        Ok((connection, outgoing, incoming))
    })
}

async fn ready(connecting: &mut Option<Connecting>) -> Result<(Connection, SendStream, RecvStream), TransportError> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

/// Exchanges greetings, and checks the other side's.
async fn greet(line: &Line, outgoing: &mut SendStream, incoming: &mut RecvStream) -> Result<(), LinkError> {
    let account = line.shared.sessions.account();
    let hello = PeerMessage::Hello { call: line.call, user: account.credentials.user.clone(), device: account.credentials.device.clone() };
    let sending = timeout(HELLO_TIME, send(outgoing, &hello));
    sending.await.map_err(|_| TransportError::TimedOut { what: "the other side to listen" })??;
    let greeting = timeout(HELLO_TIME, receive(incoming)).await.map_err(|_| LinkError::Stranger)??;
    let Some(PeerMessage::Hello { call, user, device }) = greeting else { return Err(LinkError::Stranger) };
    let roster = line.shared.sessions.roster();
    let gate = Gate { network: &account.network, roster: &roster };
    let (_, device) = signals::check_pair(&gate, UnixMillis::from(SystemTime::now()), &user, &device).map_err(|_| LinkError::Stranger)?;
    let is_expected = call == line.call && device.device() == line.expected.device() && device.user() == line.expected.user();
    if is_expected { Ok(()) } else { Err(LinkError::Stranger) }
}
