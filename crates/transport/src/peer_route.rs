//! Where the packets of one call go and come from. Sends nothing itself.

use crate::{PathKind, PathStatus};
use ahoy_path::{Event, PathAgent, REPLAY_PACKETS_MAX, Route, Via};
use ahoy_protocol::datagram::{Side, relay_frame};
use ahoy_protocol::peer::Candidate;
use quinn::Incoming;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long a call's route outlives its owner, so that the connection's farewell still gets out.
const LINGER: Duration = Duration::from_secs(1);

/// Takes datagrams away; says whether there was room for this one.
pub(crate) type Out<'a> = &'a mut dyn FnMut(SocketAddr, &[u8]) -> bool;

/// One call's way.
#[derive(Debug)]
pub(crate) struct PeerRoute {
    agent: PathAgent,
    /// The relay and our channel there.
    relay: Option<(SocketAddr, u32)>,
    /// Before this, addresses of the peer count for nothing.
    probing: bool,
    /// The packets sent last.
    sent: VecDeque<Vec<u8>>,
    status: watch::Sender<PathStatus>,
    /// Where the peer's attempts to connect go; `None` on the side that connects itself.
    incoming: Option<mpsc::Sender<Incoming>>,
    ends: Option<Instant>,
}

impl PeerRoute {
    pub(crate) fn new(agent: PathAgent, side: Side, incoming: mpsc::Sender<Incoming>, status: watch::Sender<PathStatus>) -> Self {
        let incoming = match side {
            Side::Caller => None,
            Side::Callee => Some(incoming),
        };
        let sent = VecDeque::with_capacity(REPLAY_PACKETS_MAX);
        Self { agent, relay: None, probing: false, sent, status, incoming, ends: None }
    }

    /// Whether `frame` of a relay is for this call.
    pub(crate) fn has_relay(&self, relay: SocketAddr, channel: u32) -> bool {
        self.relay == Some((relay, channel))
    }

    /// Whether packets of the call may come from `address`.
    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        self.probing && self.agent.is_peer_address(address)
    }

    /// Whether a probe with this tag is for this call.
    pub(crate) fn has_tag(&self, tag: &[u8]) -> bool {
        self.probing && self.agent.tag() == tag
    }

    /// Hands on an attempt to connect; gives it back if this call takes none.
    pub(crate) fn offer(&self, incoming: Incoming) -> Option<Incoming> {
        match &self.incoming {
            Some(sender) => sender.try_send(incoming).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(incoming),
        }
    }

    pub(crate) fn set_relay(&mut self, now: Instant, relay: Option<(SocketAddr, u32)>, out: Out<'_>) {
        let first = relay.is_some() && self.agent.route() == Route::None;
        self.relay = relay;
        self.agent.set_relay(now, relay.is_some());
        self.drive(out);
        if first {
            // What was sent while there was no way at all need not wait for QUIC to miss it.
            self.replay(REPLAY_PACKETS_MAX, out);
        }
    }

    pub(crate) fn add_remote(&mut self, now: Instant, candidates: &[Candidate], out: Out<'_>) {
        self.agent.add_remote(now, candidates);
        self.drive(out);
    }

    pub(crate) fn start_probing(&mut self, now: Instant, out: Out<'_>) {
        self.probing = true;
        self.agent.start_probing(now);
        self.drive(out);
    }

    /// A packet of the call came.
    pub(crate) fn handle_traffic(&mut self, now: Instant, via: Via, out: Out<'_>) {
        self.agent.handle_traffic(now, via);
        self.drive(out);
    }

    /// A probe came; says whether it was one of the peer's.
    pub(crate) fn handle_probe(&mut self, now: Instant, from: SocketAddr, probe: &[u8], out: Out<'_>) -> bool {
        let taken = self.agent.handle_datagram(now, from, probe);
        if let Err(reason) = &taken {
            tracing::trace!(%reason, "probe dropped");
        }
        self.drive(out);
        taken.is_ok()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: Out<'_>) {
        self.agent.handle_timeout(now);
        self.drive(out);
    }

    /// Sends a packet of the call whichever way it goes; says whether there was room for it on any.
    pub(crate) fn send(&mut self, now: Instant, packet: &[u8], out: Out<'_>) -> bool {
        let room = match self.agent.route() {
            // QUIC takes it for a loss.
            Route::None => true,
            Route::Relay => self.send_to_relay(packet, out),
            Route::Direct(address) => out(address, packet),
            Route::Both(address) => self.send_to_relay(packet, out) | out(address, packet),
        };
        if room {
            if self.sent.len() >= REPLAY_PACKETS_MAX {
                self.sent.pop_front();
            }
            self.sent.push_back(packet.to_vec());
            self.agent.handle_sent(now);
            self.drive(out);
        }
        room
    }

    /// Sends the last `count` packets once more through the relay.
    pub(crate) fn replay(&self, count: usize, out: Out<'_>) {
        for packet in self.sent.iter().skip(self.sent.len().saturating_sub(count)) {
            self.send_to_relay(packet, out);
        }
    }

    fn send_to_relay(&self, packet: &[u8], out: Out<'_>) -> bool {
        match self.relay {
            Some((relay, channel)) => out(relay, &relay_frame(channel, packet)),
            None => true,
        }
    }

    /// Does what the agent wants done.
    fn drive(&mut self, out: Out<'_>) {
        while let Some(probe) = self.agent.poll_transmit() {
            out(probe.to, &probe.bytes);
        }
        while let Some(event) = self.agent.poll_event() {
            match event {
                Event::RouteChanged(route) => self.report(route),
                Event::Replay => self.replay(REPLAY_PACKETS_MAX, out),
            }
        }
    }

    fn report(&self, route: Route) {
        tracing::debug!(?route, "the call's route changed");
        let status = match (route, self.agent.selected()) {
            (Route::Relay, _) => PathStatus { kind: PathKind::Relay, rtt: None },
            (Route::Direct(_), Some(path)) => {
                let kind = if path.on_link { PathKind::Lan } else { PathKind::Direct };
                PathStatus { kind, rtt: Some(path.rtt) }
            }
            (Route::None | Route::Both(_) | Route::Direct(_), _) => return,
        };
        self.status.send_if_modified(|known| {
            let changed = known.kind != status.kind;
            *known = status;
            changed
        });
    }

    /// When [`handle_timeout`](Self::handle_timeout) or the end is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.agent.poll_timeout(), self.ends].into_iter().flatten().min()
    }

    /// Its owner has gone.
    pub(crate) fn linger(&mut self, now: Instant) {
        self.ends = Some(now + LINGER);
        self.incoming = None;
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}
