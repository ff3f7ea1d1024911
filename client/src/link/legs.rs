//! The legs of a link: what the [keeper](super::keeper) decides, carried out.

use super::keeper::{LegKeeper, Step};
use super::pace::{Pace, ReturnPace};
use super::talk::is_relayed;
use crate::relays::{Leg, LegError, Relays};
use ahoy_protocol::invitation::RelayOffer;
use ahoy_protocol::peer::{LEGS_MAX, LegNews};
use ahoy_protocol::relay::LegEvent;
use ahoy_protocol::{CallId, DeviceKey, NodeKey};
use ahoy_transport::{LegTrouble, NetworkState, PathStatus, Peer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{debug, info};

/// Attempts to join that have ended and wait to be looked at: one for each leg, and one that it took the place of.
const JOINED_MAX: usize = 2 * LEGS_MAX;

/// Looks that have ended and wait for the same.
const LOOKED_MAX: usize = 2 * LEGS_MAX;

/// What the link has to do for its legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Say this to the other side.
    Tell(LegNews),
    /// The other side has come to one of the relays.
    Met,
    /// Other relays are in use than before.
    Changed,
    /// This device may have other addresses than before: nothing comes through a leg.
    Moved,
}

/// The legs of a call with one device.
#[derive(Debug)]
pub(super) struct Legs {
    relays: Relays,
    call: CallId,
    device: DeviceKey,
    peer: Arc<Peer>,
    keeper: LegKeeper,
    held: [Option<Leg>; LEGS_MAX],
    joining: [Option<Joining>; LEGS_MAX],
    attempts: mpsc::Sender<Attempt>,
    attempted: mpsc::Receiver<Attempt>,
    /// Looks at the way to a relay that is held, beside which the leg goes on.
    looking: [Option<Joining>; LEGS_MAX],
    paces: [Pace; LEGS_MAX],
    returns: [ReturnPace; LEGS_MAX],
    looks: mpsc::Sender<Look>,
    looked: mpsc::Receiver<Look>,
    network: watch::Receiver<NetworkState>,
    troubles: mpsc::Receiver<LegTrouble>,
    path: watch::Receiver<PathStatus>,
    has_met: bool,
}

/// How an attempt to join ended.
#[derive(Debug)]
struct Attempt {
    leg: u8,
    relay: NodeKey,
    joined: Result<Leg, LegError>,
}

/// What a look at the way to a leg's relay has shown: a leg through a tunnel, or over UDP where it went through one; or that none is needed.
#[derive(Debug)]
struct Look {
    leg: u8,
    relay: NodeKey,
    found: Result<Option<Leg>, LegError>,
}

/// An attempt to join, or a look, which is given up when this is dropped.
#[derive(Debug)]
struct Joining(JoinHandle<()>);

impl Drop for Joining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Legs {
    /// The callee's: goes to the best relay of those that the caller offers.
    pub(super) fn callee(relays: Relays, call: CallId, device: DeviceKey, peer: Arc<Peer>, offered: &[RelayOffer]) -> Self {
        let keeper = LegKeeper::callee(Instant::now(), seed(), relays.choose(call, offered));
        Self::new(relays, call, device, peer, keeper)
    }

    /// The caller's: goes to the relay that the callee named.
    pub(super) fn caller(relays: Relays, call: CallId, device: DeviceKey, peer: Arc<Peer>, relay: NodeKey) -> Self {
        let keeper = LegKeeper::caller(Instant::now(), seed(), relay);
        Self::new(relays, call, device, peer, keeper)
    }

    fn new(relays: Relays, call: CallId, device: DeviceKey, peer: Arc<Peer>, keeper: LegKeeper) -> Self {
        let (attempts, attempted) = mpsc::channel(JOINED_MAX);
        let (troubles, path) = (peer.leg_events(), peer.path());
        let (looks, looked) = mpsc::channel(LOOKED_MAX);
        let network = relays.network();
        Self {
            relays,
            call,
            device,
            peer,
            keeper,
            held: [const { None }; LEGS_MAX],
            joining: [const { None }; LEGS_MAX],
            attempts,
            attempted,
            looking: [const { None }; LEGS_MAX],
            paces: Default::default(),
            returns: Default::default(),
            looks,
            looked,
            network,
            troubles,
            path,
            has_met: false,
        }
    }

    /// True if a leg stands at which both are.
    pub(super) fn is_met(&self) -> bool {
        self.keeper.is_met()
    }

    /// Where the relays in use are, by leg.
    pub(super) fn in_use(&self) -> Vec<(u8, Option<SocketAddr>)> {
        self.keeper.in_use().map(|(leg, relay)| (leg, self.relays.address(&relay))).collect()
    }

    /// The other side said something about a leg.
    pub(super) fn hear(&mut self, news: LegNews) {
        debug!(?news, "heard of a leg");
        self.keeper.handle_news(Instant::now(), news);
    }

    /// A leg that stands by is wanted from here on.
    pub(super) fn want_second(&mut self) {
        self.keeper.handle_second_wanted(Instant::now());
    }

    /// The caller offers these relays, or this side's distances to them have changed.
    pub(super) fn consider(&mut self, offered: &[RelayOffer]) {
        self.keeper.handle_relays(Instant::now(), self.relays.choose(self.call, offered));
    }

    /// Nothing comes from the other side.
    pub(super) fn repeat(&mut self) {
        self.keeper.handle_silence(Instant::now());
    }

    /// Keeps the legs until there is something for the link to do. May be given up and called again.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            if !self.has_met && self.keeper.is_met() {
                self.has_met = true;
                return Said::Met;
            }
            let is_direct = {
                let path = self.path.borrow_and_update();
                !path.is_silent && !is_relayed(&path)
            };
            self.keeper.handle_direct(Instant::now(), is_direct);
            while let Some(step) = self.keeper.poll_step() {
                match step {
                    Step::Join { leg, relay } => self.join(leg, relay),
                    Step::Leave { leg } => self.leave(leg),
                    Step::Tell(news) => return Said::Tell(news),
                }
            }
            let due = self.returns.iter().filter_map(ReturnPace::poll_timeout).chain(self.keeper.poll_timeout()).min();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let in_use = self.keeper.in_use().count();
            let [first, second] = &mut self.held;
            tokio::select! {
                Some(attempt) = self.attempted.recv() => self.handle_attempt(attempt),
                Some(look) = self.looked.recv() => self.handle_look(look),
                Ok(()) = self.network.changed() => self.look_anew(),
                Ok(()) = self.path.changed() => {}
                event = happening(first) => self.handle_event(0, event),
                event = happening(second) => self.handle_event(1, event),
                Some(trouble) = self.troubles.recv() => match trouble {
                    LegTrouble::Dead(leg) => {
                        info!(leg, "nothing comes through a leg");
                        self.keeper.handle_dead(Instant::now(), leg);
                    }
                    LegTrouble::Silent(leg) => {
                        if self.paces.get_mut(usize::from(leg)).is_some_and(|pace| pace.handle_silence(Instant::now())) {
                            self.look(leg);
                        }
                        return Said::Moved;
                    }
                },
                () = timer => self.handle_timeout(Instant::now()),
            }
            if self.keeper.in_use().count() != in_use {
                return Said::Changed;
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for leg in 0..LEGS_MAX as u8 {
            if self.returns[usize::from(leg)].handle_timeout(now) {
                self.try_udp(leg);
            }
        }
        self.keeper.handle_timeout(now);
    }

    fn join(&mut self, leg: u8, relay: NodeKey) {
        debug!(leg, "joins a relay");
        let (relays, call, device, attempts) = (self.relays.clone(), self.call, self.device, self.attempts.clone());
        let task = tokio::spawn(async move {
            let joined = relays.join(&relay, call, device).await;
            let _ = attempts.send(Attempt { leg, relay, joined }).await;
        });
        self.joining[usize::from(leg)] = Some(Joining(task));
    }

    /// Looks whether the leg's relay is still reached over UDP, and joins again through a tunnel if it is not. The leg goes on meanwhile.
    fn look(&mut self, leg: u8) {
        let at = usize::from(leg);
        let relay = self.keeper.in_use().find(|(in_use, _)| *in_use == leg).map(|(_, relay)| relay);
        let (Some(relay), Some(connection)) = (relay, self.held[at].as_ref().and_then(Leg::over_udp)) else {
            return self.give_look_up(leg);
        };
        debug!(leg, "looks whether a relay is still reached");
        let (relays, call, device, looks) = (self.relays.clone(), self.call, self.device, self.looks.clone());
        let task = tokio::spawn(async move {
            let found = relays.rejoin(&relay, call, device, &connection).await;
            let _ = looks.send(Look { leg, relay, found }).await;
        });
        self.looking[at] = Some(Joining(task));
    }

    /// Looks whether the relay of a leg through a tunnel is reached over UDP again. The leg goes on meanwhile.
    fn try_udp(&mut self, leg: u8) {
        let at = usize::from(leg);
        let Some((_, relay)) = self.keeper.in_use().find(|(in_use, _)| *in_use == leg) else { return };
        debug!(leg, "looks whether a relay answers over UDP");
        let (relays, call, device, looks) = (self.relays.clone(), self.call, self.device, self.looks.clone());
        let task = tokio::spawn(async move {
            let found = relays.rejoin_over_udp(&relay, call, device).await;
            let _ = looks.send(Look { leg, relay, found }).await;
        });
        self.looking[at] = Some(Joining(task));
    }

    /// Takes a leg that was joined beside the one before; false if the way to it has gone.
    fn hold(&mut self, now: Instant, leg: u8, joined: Leg) -> bool {
        let at = usize::from(leg);
        if !self.peer.set_leg(leg, joined.relay, joined.channel, joined.key) {
            return false;
        }
        match joined.over_udp() {
            Some(_) => self.returns[at].handle_over(),
            None => self.returns[at].handle_tunnelled(now),
        }
        self.held[at] = Some(joined);
        true
    }

    /// The network is another.
    fn look_anew(&mut self) {
        for leg in 0..LEGS_MAX as u8 {
            self.returns[usize::from(leg)].handle_network_change(Instant::now());
            self.paces[usize::from(leg)].handle_network_change();
            self.look(leg);
        }
    }

    fn give_look_up(&mut self, leg: u8) {
        self.looking[usize::from(leg)] = None;
        self.paces[usize::from(leg)].handle_given_up();
    }

    fn handle_look(&mut self, look: Look) {
        let (now, leg, at) = (Instant::now(), look.leg, usize::from(look.leg));
        // One that was given up may have ended just before.
        let is_wanted = self.keeper.in_use().any(|(in_use, relay)| (in_use, relay) == (leg, look.relay));
        if self.looking[at].is_none() || !is_wanted {
            return;
        }
        self.looking[at] = None;
        self.paces[at].handle_end(now, look.found.is_ok(), seed());
        match look.found {
            Ok(None) => debug!(leg, "a leg stays as it is"),
            Ok(Some(joined)) => {
                let carrier = if joined.over_udp().is_some() { "UDP" } else { "TCP alone" };
                info!(leg, carrier, "a leg was joined anew");
                let is_peer_present = joined.is_peer_present;
                if self.hold(now, leg, joined) {
                    self.keeper.handle_peer(now, leg, is_peer_present);
                } else {
                    self.keeper.handle_dead(now, leg);
                }
            }
            Err(error) => debug!(%error, leg, "a relay answers neither way"),
        }
    }

    fn leave(&mut self, leg: u8) {
        self.joining[usize::from(leg)] = None;
        self.give_look_up(leg);
        self.returns[usize::from(leg)].handle_over();
        if self.held[usize::from(leg)].take().is_some() {
            self.peer.clear_leg(leg);
        }
    }

    fn handle_attempt(&mut self, attempt: Attempt) {
        let (now, leg) = (Instant::now(), attempt.leg);
        match attempt.joined {
            Ok(joined) => {
                if !self.keeper.handle_joined(now, leg, attempt.relay, joined.is_peer_present) {
                    return;
                }
                if !self.hold(now, leg, joined) {
                    info!(leg, "the way to a relay has gone");
                    self.keeper.handle_dead(now, leg);
                }
            }
            Err(error) => {
                info!(%error, leg, "cannot join a relay");
                self.keeper.handle_failed(now, leg, attempt.relay);
            }
        }
    }

    fn handle_event(&mut self, leg: u8, event: Option<LegEvent>) {
        let now = Instant::now();
        match event {
            Some(LegEvent::PeerJoined) => self.keeper.handle_peer(now, leg, true),
            Some(LegEvent::PeerLeft) => self.keeper.handle_peer(now, leg, false),
            Some(LegEvent::Joined { .. } | LegEvent::Busy { .. } | LegEvent::Refused(_)) => {}
            None => {
                info!(leg, "a relay has gone");
                self.keeper.handle_dead(now, leg);
            }
        }
    }
}

fn seed() -> u64 {
    u64::from_le_bytes(ahoy_identity::random())
}

/// What happens on a leg next; `None` once its relay has gone.
async fn happening(leg: &mut Option<Leg>) -> Option<LegEvent> {
    match leg {
        Some(leg) => leg.next_event().await,
        None => std::future::pending().await,
    }
}
