//! The link with one device of a call: a leg on a relay, the connection over it, and the control stream on that.
//!
//! A link is a task. It is given [`Order`]s and reports [`LinkEvent`]s; when its handle is dropped it delivers what it was given to say,
//! closes, and ends.

use crate::candidates::gather;
use crate::relays::{Leg, Relays};
use crate::sessions::Sessions;
use crate::signals;
use ahoy_directory::Gate;
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::directory::Request;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::{Invitation, SignalKind};
use ahoy_protocol::peer::{Candidate, PeerMessage};
use ahoy_protocol::{CallId, DeviceKey, List, NodeKey, UnixMillis};
use ahoy_transport::{ClientEndpoint, Connection, PathStatus, Peer, PeerSetup, RecvStream, SendStream, TransportError, receive, send};
use std::convert::Infallible;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info};

/// How long both sides have to come to the relay and shake hands.
const MEET_TIME: Duration = Duration::from_secs(12);
/// How long the other side has to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(5);
/// How long the last words may take to be delivered.
pub const LAST_WORDS_TIME: Duration = Duration::from_millis(800);
/// Orders and events waiting: a call has a handful of each.
pub const LINK_QUEUE: usize = 32;
/// Relays tried one after the other.
const RELAYS_TRIED_MAX: usize = 3;

/// What the engine wants of a link.
#[derive(Debug)]
pub enum Order {
    /// Say this.
    Tell(PeerMessage),
    /// Tell the other side my addresses, and look for a direct path.
    ExchangeAddresses,
}

/// What a link reports.
#[derive(Debug)]
pub struct LinkEvent {
    /// Of this call.
    pub call: CallId,
    /// With this device.
    pub device: DeviceKey,
    /// What happened.
    pub kind: LinkEventKind,
}

/// What happened on a link.
#[derive(Debug)]
pub enum LinkEventKind {
    /// The connection stands, and it is who it should be.
    Connected {
        /// For media.
        connection: Connection,
        /// The way the packets go.
        path: watch::Receiver<PathStatus>,
    },
    /// The other side said something.
    Message(PeerMessage),
    /// The link could not be made, or is lost. It is the last event.
    Lost(String),
}

/// The engine's end of a link. Dropping it closes the link.
#[derive(Debug)]
pub struct Link {
    orders: mpsc::Sender<Order>,
}

impl Link {
    /// Gives an order. A link that takes none has ended, and has said so.
    pub fn order(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            debug!("an order came too late for its link");
        }
    }
}

/// What every link needs.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The UDP port.
    pub endpoint: ClientEndpoint,
    /// Supernodes.
    pub sessions: Sessions,
    /// Relays.
    pub relays: Relays,
    /// Where links report.
    pub events: mpsc::Sender<LinkEvent>,
    /// Held by whatever still has something to say, so that the end can wait for it.
    pub alive: Option<mpsc::Sender<Infallible>>,
}

/// Why a link is not there.
#[derive(Debug, Error)]
enum LinkError {
    #[error("no relay that both sides reach")]
    NoRelay,
    #[error("the relay has gone")]
    RelayLost,
    #[error("the other side did not come to the relay in time")]
    NobodyCame,
    #[error("the other side is not who it should be")]
    Stranger,
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Links to a device that rings, through the relay that it named. `secret` is the one in the invitation to that device.
#[must_use]
pub fn to_callee(shared: Shared, call: CallId, callee: VerifiedDevice, secret: CallSecret, relay: NodeKey) -> Link {
    let (orders, queue) = mpsc::channel(LINK_QUEUE);
    tokio::spawn(async move {
        let device = callee.device();
        let meeting = async {
            let mut leg = shared.relays.join(&relay, call, device).await.map_err(|error| {
                info!(%error, "cannot join the relay that the other side chose");
                LinkError::NoRelay
            })?;
            if !timeout(MEET_TIME, leg.peer_joined()).await.map_err(|_| LinkError::NobodyCame)? {
                return Err(LinkError::RelayLost);
            }
            let peer = open_peer(&shared, call, secret, device, Side::Caller, &leg)?;
            let connection = timeout(MEET_TIME, peer.connect()).await.map_err(|_| LinkError::NobodyCame)??;
            let stream = connection.open_bi().await?;
            Ok((leg, peer, connection, stream))
        };
        run(&shared, call, &callee, queue, meeting).await;
    });
    Link { orders }
}

/// Joins a caller at a relay, says that this device rings, and takes his connection.
#[must_use]
pub fn to_caller(shared: Shared, call: CallId, caller: VerifiedDevice, invitation: Invitation) -> Link {
    let (orders, queue) = mpsc::channel(LINK_QUEUE);
    tokio::spawn(async move {
        let device = caller.device();
        let meeting = async {
            let joined = join_first(&shared, call, device, &invitation).await;
            let relay = joined.as_ref().map(|(node, _)| *node);
            say_ringing(&shared, call, &caller, &invitation, relay).await;
            let (_, leg) = joined.ok_or(LinkError::NoRelay)?;
            let peer = open_peer(&shared, call, invitation.secret, device, Side::Callee, &leg)?;
            let connection = timeout(MEET_TIME, peer.accept()).await.map_err(|_| LinkError::NobodyCame)??;
            let stream = connection.accept_bi().await?;
            Ok((leg, peer, connection, stream))
        };
        run(&shared, call, &caller, queue, meeting).await;
    });
    Link { orders }
}

/// Joins the first relay that works, of those that both reach, the best first.
async fn join_first(shared: &Shared, call: CallId, device: DeviceKey, invitation: &Invitation) -> Option<(NodeKey, Leg)> {
    for node in shared.relays.choose(&invitation.relays).await.into_iter().take(RELAYS_TRIED_MAX) {
        match shared.relays.join(&node, call, device).await {
            Ok(leg) => return Some((node, leg)),
            Err(error) => info!(%error, "cannot join a relay"),
        }
    }
    None
}

async fn say_ringing(shared: &Shared, call: CallId, caller: &VerifiedDevice, invitation: &Invitation, relay: Option<NodeKey>) {
    let account = shared.sessions.account();
    let now = UnixMillis::from(SystemTime::now());
    let kind = SignalKind::Ringing { relay };
    if let Some(sealed) = signals::seal(&account, now, call, caller.device(), &caller.seal(), kind) {
        let request = Request::Signal { to: caller.device(), homes: invitation.homes.clone(), sealed };
        let response = shared.sessions.request(request).await;
        debug!(?response, "said that it rings");
    }
}

fn open_peer(shared: &Shared, call: CallId, secret: CallSecret, device: DeviceKey, side: Side, leg: &Leg) -> Result<Peer, TransportError> {
    let me = shared.sessions.account().keys.signing.device_key();
    // Somebody whose supernode is on this machine may have peers on it too; for anybody else loopback leads nowhere.
    shared.endpoint.allow_loopback(shared.sessions.live().iter().any(|session| session.address.ip().is_loopback()));
    let peer = shared.endpoint.peer(PeerSetup { call, secret, me, peer: device, side })?;
    peer.set_relay(leg.relay, leg.channel);
    Ok(peer)
}

type Met = (Leg, Peer, Connection, (SendStream, RecvStream));

/// Meets the other side and serves the link until it ends.
async fn run(
    shared: &Shared,
    call: CallId,
    expected: &VerifiedDevice,
    mut orders: mpsc::Receiver<Order>,
    meeting: impl Future<Output = Result<Met, LinkError>>,
) {
    let report = async |kind| {
        let _ = shared.events.send(LinkEvent { call, device: expected.device(), kind }).await;
    };
    let mut waiting = Vec::new();
    let met = {
        tokio::pin!(meeting);
        loop {
            tokio::select! {
                met = &mut meeting => break met,
                order = orders.recv() => match order {
                    // Said before there is anybody to hear it: kept until there is.
                    Some(order) if waiting.len() < LINK_QUEUE => waiting.push(order),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    };
    let (leg, peer, connection, (mut outgoing, mut incoming)) = match met {
        Ok(met) => met,
        Err(error) => return report(LinkEventKind::Lost(error.to_string())).await,
    };
    if let Err(error) = greet(shared, call, expected, &mut outgoing, &mut incoming).await {
        connection.close(1, "no greeting");
        return report(LinkEventKind::Lost(error.to_string())).await;
    }
    report(LinkEventKind::Connected { connection: connection.clone(), path: peer.path() }).await;
    let mut talk = Talk { shared, call, expected, leg: Some(leg), peer, outgoing, has_probed: false, gathering: None };
    let lost = match talk.catch_up(waiting).await {
        Ok(()) => talk.serve(&mut orders, incoming, &connection).await,
        Err(error) => Some(error.to_string()),
    };
    match lost {
        Some(reason) => report(LinkEventKind::Lost(reason)).await,
        None => talk.finish(&connection).await,
    }
}

/// Exchanges greetings, and checks the other side's.
async fn greet(
    shared: &Shared,
    call: CallId,
    expected: &VerifiedDevice,
    outgoing: &mut SendStream,
    incoming: &mut RecvStream,
) -> Result<(), LinkError> {
    let account = shared.sessions.account();
    let hello = PeerMessage::Hello { call, user: account.credentials.user.clone(), device: account.credentials.device.clone() };
    say(outgoing, &hello).await?;
    let greeting = timeout(HELLO_TIME, receive(incoming)).await.map_err(|_| LinkError::Stranger)??;
    let Some(PeerMessage::Hello { call: theirs, user, device }) = greeting else { return Err(LinkError::Stranger) };
    let roster = shared.sessions.roster();
    let gate = Gate { network: &account.network, roster: &roster };
    let (_, device) = signals::check_pair(&gate, UnixMillis::from(SystemTime::now()), &user, &device).map_err(|_| LinkError::Stranger)?;
    let is_expected = theirs == call && device.device() == expected.device() && device.user() == expected.user();
    if is_expected { Ok(()) } else { Err(LinkError::Stranger) }
}

/// A link on which both have greeted.
struct Talk<'a> {
    shared: &'a Shared,
    call: CallId,
    expected: &'a VerifiedDevice,
    leg: Option<Leg>,
    peer: Peer,
    outgoing: SendStream,
    has_probed: bool,
    gathering: Option<JoinHandle<Vec<Candidate>>>,
}

impl Talk<'_> {
    /// Carries out what was ordered while nobody was there.
    async fn catch_up(&mut self, orders: Vec<Order>) -> Result<(), TransportError> {
        for order in orders {
            self.carry_out(order).await?;
        }
        Ok(())
    }

    /// Serves until the engine lets go (`None`) or the connection is lost (why).
    async fn serve(&mut self, orders: &mut mpsc::Receiver<Order>, incoming: RecvStream, connection: &Connection) -> Option<String> {
        // Reading a message must not be given up half-way, so it has a task of its own.
        let (said, mut messages) = mpsc::channel(LINK_QUEUE);
        let reader = tokio::spawn(read(incoming, said));
        let lost = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => if let Err(error) = self.carry_out(order).await {
                        break Some(error.to_string());
                    },
                    None => break None,
                },
                message = messages.recv() => match message {
                    Some(message) => self.hear(message).await,
                    // Without its control stream a connection is of no use; a last word has been heard by now.
                    None => {
                        connection.close(1, "control stream ended");
                        break Some("the other side ended the conversation".to_owned());
                    }
                },
                candidates = gathered(&mut self.gathering) => {
                    if let Err(error) = self.exchange(candidates).await {
                        break Some(error.to_string());
                    }
                }
                gone = leg_gone(&mut self.leg), if self.leg.is_some() => if gone {
                    // The direct path, if there is one, goes on without.
                    info!("the relay has gone");
                    self.leg = None;
                    self.peer.clear_relay();
                },
            }
        };
        reader.abort();
        lost
    }

    async fn hear(&mut self, message: PeerMessage) {
        if let PeerMessage::Candidates(candidates) = &message {
            self.peer.add_remote_candidates(candidates);
            return;
        }
        let event = LinkEvent { call: self.call, device: self.expected.device(), kind: LinkEventKind::Message(message) };
        let _ = self.shared.events.send(event).await;
    }

    async fn carry_out(&mut self, order: Order) -> Result<(), TransportError> {
        match order {
            Order::Tell(message) => say(&mut self.outgoing, &message).await,
            Order::ExchangeAddresses => {
                if !self.has_probed {
                    self.has_probed = true;
                    let (endpoint, sessions) = (self.shared.endpoint.clone(), self.shared.sessions.clone());
                    // An observer that has just died takes its time, in which the other side must be heard.
                    self.gathering = Some(tokio::spawn(async move { gather(&endpoint, &sessions).await }));
                }
                Ok(())
            }
        }
    }

    async fn exchange(&mut self, candidates: Vec<Candidate>) -> Result<(), TransportError> {
        say(&mut self.outgoing, &PeerMessage::Candidates(List::first_of(candidates))).await?;
        self.peer.start_probing();
        Ok(())
    }

    /// Closes once the last words have been delivered.
    async fn finish(mut self, connection: &Connection) {
        let _ = self.outgoing.finish();
        let delivered = async {
            tokio::select! {
                _ = self.outgoing.stopped() => {}
                _ = connection.closed() => {}
            }
        };
        let _ = timeout(LAST_WORDS_TIME, delivered).await;
        connection.close(0, "over");
    }
}

/// Says something. A peer that does not read is given up.
async fn say(outgoing: &mut SendStream, message: &PeerMessage) -> Result<(), TransportError> {
    timeout(HELLO_TIME, send(outgoing, message)).await.map_err(|_| TransportError::TimedOut { what: "the other side to listen" })?
}

/// This device's addresses, once they are known.
async fn gathered(gathering: &mut Option<JoinHandle<Vec<Candidate>>>) -> Vec<Candidate> {
    match gathering {
        Some(task) => {
            let candidates = task.await.unwrap_or_default();
            *gathering = None;
            candidates
        }
        None => std::future::pending().await,
    }
}

/// Reads messages until the stream ends.
async fn read(mut incoming: RecvStream, messages: mpsc::Sender<PeerMessage>) {
    while let Ok(Some(message)) = receive(&mut incoming).await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

/// True once the relay has gone; false for anything else that happens on the leg.
async fn leg_gone(leg: &mut Option<Leg>) -> bool {
    match leg {
        Some(leg) => leg.next_event().await.is_none(),
        None => std::future::pending().await,
    }
}
