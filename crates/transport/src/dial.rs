//! Connects to a node: over UDP where it gets through, through a tunnel over TCP where it does not, whichever answers first.
//!
//! The order is that of "happy eyeballs" (RFC 8305), with TCP behind UDP: voice over TCP waits for what was lost, and is only for networks
//! that carry nothing else.

use crate::connection::Keep;
use crate::shared::Shared;
use crate::tunnel::Tunnel;
use crate::{Connection, NodePlace, Reach, TransportError, UdpUse, config, tls};
use ahoy_identity::{SigningKey, random};
use ahoy_path::SocketId;
use ahoy_protocol::NodeKey;
use quinn::{ClientConfig, Endpoint};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A handshake with a node that takes longer is given up: it needs one round trip, and four repeats fit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Before the next of a node's addresses is tried beside the last one (RFC 8305 recommends this).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Before tunnels are tried beside UDP: the round trip to the far side of the world and one lost packet, so that a tunnel is not
/// taken where UDP would have answered.
const TUNNELS_AFTER: Duration = Duration::from_millis(700);
/// How long UDP has for an answer, once a tunnel stands: as many of the tunnel's round trips, and bounds, which leave time for QUIC's first
/// repeat. The node may have begun only now, or packets were lost and the next repeat is far off; whoever took the tunnel then would keep it
/// though UDP works. Where UDP is known not to get out, nothing is waited for.
const LAST_WORD_ROUND_TRIPS: f64 = 2.0;
const LAST_WORD_MIN: Duration = Duration::from_millis(350);
const LAST_WORD_MAX: Duration = Duration::from_millis(600);
/// Addresses of one node that are tried, of each kind.
const NODE_ADDRESSES_MAX: usize = 8;

/// Whether UDP gets out of this network, as far as attempts have shown.
#[derive(Debug, Default)]
pub(crate) struct UdpNews {
    gets_out: Mutex<Option<bool>>,
}

impl UdpNews {
    pub(crate) fn gets_out(&self) -> Option<bool> {
        *self.known()
    }

    /// An answer came over UDP.
    pub(crate) fn got_out(&self) {
        *self.known() = Some(true);
    }

    /// A node answered through a tunnel and not over UDP. Where UDP did get out before, it is the node that UDP does not get to.
    pub(crate) fn stayed_silent(&self) {
        self.known().get_or_insert(false);
    }

    /// This is another network.
    pub(crate) fn forget(&self) {
        *self.known() = None;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<bool>> {
        self.gets_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the ways to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Udp(SocketAddr),
    Tunnel(SocketAddr),
}

/// Which doors are tried, and when.
fn plan(place: &NodePlace, udp_use: UdpUse, gets_out: Option<bool>, reaches: impl Fn(SocketAddr) -> bool) -> Vec<(Duration, Door)> {
    let after = |index: usize| NEXT_ADDRESS_AFTER * u32::try_from(index).unwrap_or(u32::MAX);
    let udp: Vec<_> = match udp_use {
        UdpUse::Never => Vec::new(),
        UdpUse::Prefer => place.udp.iter().copied().filter(|address| reaches(*address)).take(NODE_ADDRESSES_MAX).collect(),
    };
    let tunnels_after = if udp.is_empty() || gets_out == Some(false) { Duration::ZERO } else { TUNNELS_AFTER };
    let udp = udp.into_iter().enumerate().map(|(index, address)| (after(index), Door::Udp(address)));
    let tcp = place.tcp.iter().take(NODE_ADDRESSES_MAX).enumerate();
    udp.chain(tcp.map(|(index, address)| (tunnels_after + after(index), Door::Tunnel(*address)))).collect()
}

/// Connects to one node.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    shared: Arc<Shared>,
    quic: Endpoint,
    client: ClientConfig,
    node: NodeKey,
    reach: Reach,
}

impl Dialer {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        quic: &Endpoint,
        device: &SigningKey,
        node: &NodeKey,
        alpn: &[u8],
        reach: Reach,
    ) -> Result<Self, TransportError> {
        let mut client = ClientConfig::new(tls::client(device, node.as_bytes(), alpn)?);
        client.transport_config(config::control_client(u64::from_le_bytes(random())));
        Ok(Self { shared: Arc::clone(shared), quic: quic.clone(), client, node: *node, reach })
    }

    /// The first door that opens counts; the others are shut.
    pub(crate) async fn connect(self, place: &NodePlace, news: &UdpNews) -> Result<Connection, TransportError> {
        let doors = plan(place, self.reach.udp, news.gets_out(), |address| self.shared.reaches(address));
        let tried_udp = doors.iter().any(|(_, door)| matches!(door, Door::Udp(_)));
        let mut failure = match place.udp.first() {
            Some(address) if doors.is_empty() => TransportError::NoSocket { address: *address },
            Some(_) | None => TransportError::TimedOut { what: "any address of the node" },
        };
        let mut attempts = JoinSet::new();
        for (after, door) in doors {
            let dialer = self.clone();
            attempts.spawn(async move {
                tokio::time::sleep(after).await;
                dialer.open(door).await
            });
        }
        let began = Instant::now();
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) if connection.is_tunnelled() => {
                    if tried_udp && news.gets_out() != Some(false) {
                        if let Some(over_udp) = self.last_word(place, &connection).await {
                            news.got_out();
                            return Ok(over_udp);
                        }
                        if began.elapsed() >= TUNNELS_AFTER {
                            news.stayed_silent();
                        }
                    }
                    return Ok(connection);
                }
                Ok(Ok(connection)) => {
                    news.got_out();
                    return Ok(connection);
                }
                Ok(Err(error)) => failure = error,
                Err(error) => failure = TransportError::Setup(error.to_string()),
            }
        }
        Err(failure)
    }

    /// Tries UDP anew, now that a tunnel shows the node to be there.
    async fn last_word(&self, place: &NodePlace, tunnel: &Connection) -> Option<Connection> {
        let time = tunnel.rtt().mul_f64(LAST_WORD_ROUND_TRIPS).clamp(LAST_WORD_MIN, LAST_WORD_MAX);
        let mut attempts = JoinSet::new();
        for address in place.udp.iter().copied().filter(|address| self.shared.reaches(*address)).take(NODE_ADDRESSES_MAX) {
            attempts.spawn(self.clone().open(Door::Udp(address)));
        }
        let first = async {
            while let Some(attempt) = attempts.join_next().await {
                if let Ok(Ok(connection)) = attempt {
                    return Some(connection);
                }
            }
            None
        };
        tokio::time::timeout(time, first).await.ok().flatten()
    }

    async fn open(self, door: Door) -> Result<Connection, TransportError> {
        match door {
            Door::Udp(address) => self.shake_hands(address, None).await,
            Door::Tunnel(tcp) => {
                let tunnel = self.dig(tcp).await?;
                self.shake_hands(tunnel.at(), Some(tunnel)).await
            }
        }
    }

    /// Opens a tunnel; what comes out of it is taken as if it had come over UDP from the tunnel's address.
    async fn dig(&self, tcp: SocketAddr) -> Result<Tunnel, TransportError> {
        let at = self.shared.board().next_tunnel_address();
        let shared = Arc::downgrade(&self.shared);
        let receive = move |from: SocketAddr, datagram: &[u8]| {
            if let Some(shared) = shared.upgrade() {
                shared.receive(SocketId::MAIN, from, datagram);
            }
        };
        self.shared.tunnels.dial(at, tcp, &self.node, self.reach.proxy.as_ref(), receive).await
    }

    async fn shake_hands(self, address: SocketAddr, tunnel: Option<Tunnel>) -> Result<Connection, TransportError> {
        let Self { shared, quic, client, .. } = self;
        let at = shared.board().add_node(Instant::now(), address)?;
        let keep = NodeAddress { shared, at, tunnel };
        let connecting = quic.connect_with(client, at, tls::SERVER_NAME).map_err(|error| TransportError::Setup(error.to_string()))?;
        let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, connecting).await;
        let quic = handshake.map_err(|_| TransportError::TimedOut { what: "the node's handshake" })??;
        if let Some(tunnel) = &keep.tunnel {
            tunnel.carries(&quic);
        }
        Connection::new(quic, Some(address), Some(Box::new(keep)))
    }
}

/// Keeps a connection's virtual address, and the tunnel that it goes through.
#[derive(Debug)]
struct NodeAddress {
    shared: Arc<Shared>,
    at: SocketAddr,
    tunnel: Option<Tunnel>,
}

impl Keep for NodeAddress {
    fn is_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }
}

impl Drop for NodeAddress {
    fn drop(&mut self) {
        self.shared.with(|board, _, _| board.release_node(self.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> NodePlace {
        let addresses = |texts: [&str; 2]| texts.map(|text| text.parse().expect("an address")).to_vec();
        NodePlace { udp: addresses(["[2001:db8::1]:4433", "192.0.2.1:4433"]), tcp: addresses(["192.0.2.1:443", "192.0.2.1:80"]) }
    }

    /// The plan in milliseconds and words.
    fn planned(udp_use: UdpUse, gets_out: Option<bool>, has_ipv6: bool) -> Vec<(u128, String)> {
        let reaches = |address: SocketAddr| address.is_ipv4() || has_ipv6;
        let word = |door| match door {
            Door::Udp(address) => format!("udp {address}"),
            Door::Tunnel(address) => format!("tcp {address}"),
        };
        plan(&place(), udp_use, gets_out, reaches).into_iter().map(|(after, door)| (after.as_millis(), word(door))).collect()
    }

    fn steps(steps: &[(u128, &str)]) -> Vec<(u128, String)> {
        steps.iter().map(|(after, door)| (*after, (*door).into())).collect()
    }

    #[test]
    fn tunnels_come_after_a_silence_of_udp() {
        let expected = [(0, "udp [2001:db8::1]:4433"), (250, "udp 192.0.2.1:4433"), (700, "tcp 192.0.2.1:443"), (950, "tcp 192.0.2.1:80")];
        assert_eq!(planned(UdpUse::Prefer, None, true), steps(&expected));
        assert_eq!(planned(UdpUse::Prefer, Some(true), true), steps(&expected));
    }

    #[test]
    fn where_udp_does_not_get_out_tunnels_come_at_once_beside_it() {
        let expected = [(0, "udp 192.0.2.1:4433"), (0, "tcp 192.0.2.1:443"), (250, "tcp 192.0.2.1:80")];
        assert_eq!(planned(UdpUse::Prefer, Some(false), false), steps(&expected));
    }

    #[test]
    fn without_udp_there_are_tunnels_alone() {
        assert_eq!(planned(UdpUse::Never, Some(true), true), steps(&[(0, "tcp 192.0.2.1:443"), (250, "tcp 192.0.2.1:80")]));
    }

    #[test]
    fn one_silent_node_does_not_mean_that_udp_is_blocked() {
        let news = UdpNews::default();
        news.stayed_silent();
        assert_eq!(news.gets_out(), Some(false));
        news.got_out();
        news.stayed_silent();
        assert_eq!(news.gets_out(), Some(true));
        news.forget();
        assert_eq!(news.gets_out(), None);
    }
}
