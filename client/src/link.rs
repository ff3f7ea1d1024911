//! The link with one device of a call: legs on relays, the connection over them, and the control stream on that.
//!
//! A link is a task. It is given [`Order`]s and reports [`LinkEvent`]s; when its handle is dropped it delivers what it was given to say,
//! closes, and ends. First the two [meet], through a relay that the callee names; then they [talk], for as long as the connection
//! lives, which survives half a minute in which nothing comes through. The [legs] are kept all the time, as the [keeper] decides.

mod keeper;
mod legs;
mod meet;
mod pace;
mod talk;

use crate::courier::Courier;
use crate::relays::Relays;
use crate::sessions::Sessions;
use ahoy_identity::VerifiedDevice;
use ahoy_portmap::Mapped;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::RelayOffer;
use ahoy_protocol::peer::{LegNews, Mapping, PeerMessage};
use ahoy_protocol::{CallId, DeviceKey, NodeKey};
use ahoy_transport::{ClientEndpoint, Connection, PathStatus, Peer, PeerSetup, TransportError};
use legs::Legs;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use talk::Talk;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// How long the last words may take to be delivered.
pub const LAST_WORDS_TIME: Duration = Duration::from_millis(800);
/// Orders, events and words waiting: a call has a handful of each.
pub const LINK_QUEUE: usize = 32;

/// What the engine wants of a link.
#[derive(Debug)]
pub enum Order {
    /// Say this.
    Tell(PeerMessage),
    /// The call is answered.
    Answered(Privacy),
    /// The other side said this about a leg, through the supernodes.
    HearOfLeg(LegNews),
}

/// Whether the other side may know this device's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Yes: look for a direct path.
    Open,
    /// No: the call stays on relays.
    RelaysOnly,
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
    Connected(Connected),
    /// The other side said something.
    Message(PeerMessage),
    /// The link could not be made, or is lost. It is the last event.
    Lost(String),
}

/// A link that stands.
#[derive(Debug, Clone)]
pub struct Connected {
    /// For media.
    pub connection: Connection,
    /// The way the packets go.
    pub path: watch::Receiver<PathStatus>,
    /// What is known of the ways.
    pub figures: watch::Receiver<Figures>,
    /// For what else is known of them.
    pub peer: Weak<Peer>,
}

/// What is known of the ways that a call's packets may take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// What this device's NAT does.
    pub mapping: Mapping,
    /// Addresses told to the other side.
    pub candidates: usize,
    /// Addresses that the other side told.
    pub peer_candidates: usize,
    /// Where the relays in use are, by leg.
    pub relays: Vec<(u8, Option<SocketAddr>)>,
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
    /// What the router lets through.
    pub port_mapped: watch::Receiver<Mapped>,
    /// Where links report.
    pub events: mpsc::Sender<LinkEvent>,
    /// Held by whatever still has something to say, so that the end can wait for it.
    pub alive: Option<mpsc::Sender<Infallible>>,
}

/// With whom a link is to be.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The call.
    pub call: CallId,
    /// The device on the other side.
    pub device: VerifiedDevice,
    /// The supernodes at which it can be signalled.
    pub homes: Vec<NodeKey>,
    /// The secret in the invitation.
    pub secret: CallSecret,
    /// The relays that the invitation offered.
    pub offered: Vec<RelayOffer>,
    /// Whether this device may try many ports to cross a difficult router.
    pub birthday: bool,
}

/// Why a link is not there.
#[derive(Debug, Error)]
enum LinkError {
    #[error("no relay that both sides reach")]
    NoRelay,
    #[error("the other side did not come to the relay in time")]
    NobodyCame,
    #[error("the other side is not who it should be")]
    Stranger,
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Links to a device that rings, through the relay that it named.
#[must_use]
pub fn to_callee(shared: Shared, setup: Setup, relay: NodeKey) -> Link {
    start(shared, setup, Side::Caller, Some(relay))
}

/// Says to a caller that this device rings and at which relay, goes there, and takes his connection.
#[must_use]
pub fn to_caller(shared: Shared, setup: Setup) -> Link {
    start(shared, setup, Side::Callee, None)
}

fn start(shared: Shared, setup: Setup, side: Side, relay: Option<NodeKey>) -> Link {
    let (orders, queue) = mpsc::channel(LINK_QUEUE);
    tokio::spawn(async move {
        let (events, call, device) = (shared.events.clone(), setup.call, setup.device.device());
        if let Some(reason) = run(shared, setup, side, relay, queue).await {
            let _ = events.send(LinkEvent { call, device, kind: LinkEventKind::Lost(reason) }).await;
        }
    });
    Link { orders }
}

/// What all parts of a link need.
struct Line {
    shared: Shared,
    call: CallId,
    side: Side,
    expected: VerifiedDevice,
    courier: Courier,
    peer: Arc<Peer>,
}

impl Line {
    fn new(shared: Shared, setup: &Setup, side: Side) -> Result<Self, TransportError> {
        let Setup { call, device, homes, secret, birthday, .. } = setup;
        let me = shared.sessions.account().keys.signing.device_key();
        shared.endpoint.allow_loopback(is_on_this_machine(&shared.sessions));
        let peer = PeerSetup { call: *call, secret: *secret, me, peer: device.device(), side, birthday: *birthday };
        let peer = Arc::new(shared.endpoint.peer(peer)?);
        let courier = Courier::new(shared.sessions.clone(), *call, device.clone(), homes.clone());
        Ok(Self { shared, call: *call, side, expected: device.clone(), courier, peer })
    }

    async fn report(&self, kind: LinkEventKind) {
        let _ = self.shared.events.send(LinkEvent { call: self.call, device: self.expected.device(), kind }).await;
    }
}

/// A network whose supernodes are on this machine may have its peers on it too; in any other, loopback leads nowhere.
fn is_on_this_machine(sessions: &Sessions) -> bool {
    sessions.roster().nodes_in(NodeRole::Supernode).any(|node| node.udp.iter().any(|address| address.ip().is_loopback()))
}

/// Meets the other side and serves the link until it ends: why, if it was not the engine that let go.
async fn run(shared: Shared, setup: Setup, side: Side, relay: Option<NodeKey>, mut orders: mpsc::Receiver<Order>) -> Option<String> {
    let line = match Line::new(shared, &setup, side) {
        Ok(line) => line,
        Err(error) => return Some(error.to_string()),
    };
    let (relays, device, peer) = (line.shared.relays.clone(), line.expected.device(), line.peer.clone());
    let mut legs = match relay {
        Some(relay) => Legs::caller(relays, line.call, device, peer, relay),
        None => Legs::callee(relays, line.call, device, peer, &setup.offered),
    };
    let met = match meet::meet(&line, &mut legs, &mut orders).await {
        Ok(Some(met)) => met,
        Ok(None) => return None,
        Err(error) => return Some(error.to_string()),
    };
    let (figures, told) = watch::channel(Figures::default());
    let connection = met.connection.clone();
    let connected = Connected { connection, path: line.peer.path(), figures: told, peer: Arc::downgrade(&line.peer) };
    line.report(LinkEventKind::Connected(connected)).await;
    Talk::new(&line, legs, met.connection, met.outgoing, figures, setup.offered).run(met.waiting, orders, met.incoming).await
}
