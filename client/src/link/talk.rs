//! Talking: what goes on between two that have met, until the engine lets go or the connection is lost.

use super::legs::{Legs, Said};
use super::{Figures, LAST_WORDS_TIME, LINK_QUEUE, Line, LinkEventKind, Order, Privacy};
use crate::candidates::{Gathered, gather};
use ahoy_path::nat::Assessment;
use ahoy_protocol::List;
use ahoy_protocol::datagram::Side;
use ahoy_protocol::invitation::{RelayOffer, SignalKind};
use ahoy_protocol::peer::{EndReason, LegNews, PeerMessage};
use ahoy_resilience::Backoff;
use ahoy_transport::{Connection, PathKind, PathStatus, RecvStream, SendStream, receive, send};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

/// A call that has gone through a relay for so long gets a second leg: most have found a direct path by then.
const SECOND_AFTER: Duration = Duration::from_secs(2);
/// How often this device's addresses are looked at anew, though nothing says that they have changed: NATs do not say it.
const GATHER_EVERY: Duration = Duration::from_secs(180);

/// When nobody has said where this device's packets come from: first and longest wait before asking again.
const GATHER_AGAIN_FIRST: Duration = Duration::from_secs(1);
const GATHER_AGAIN_MOST: Duration = Duration::from_secs(16);

/// A link on which both have greeted.
pub(super) struct Talk<'a> {
    line: &'a Line,
    legs: Legs,
    connection: Connection,
    words: mpsc::Sender<PeerMessage>,
    writer: JoinHandle<()>,
    path: watch::Receiver<PathStatus>,
    figures: watch::Sender<Figures>,
    /// The relays that the caller reaches, and how far they are from him, as last told.
    offered: Vec<RelayOffer>,
    addresses: Addresses,
    /// Set by the answer.
    privacy: Option<Privacy>,
    /// Since when the call has gone through a relay.
    relayed_since: Option<Instant>,
    has_second: bool,
    was_silent: bool,
    /// Why the call is over, if it was said.
    last_word: Option<EndReason>,
}

/// Where this device may be reached, as far as it is known and told.
struct Addresses {
    gathering: Option<JoinHandle<Gathered>>,
    known: Option<Assessment>,
    told: Option<Assessment>,
    /// When they are looked at anew.
    due: Instant,
    backoff: Backoff,
}

impl Default for Addresses {
    fn default() -> Self {
        let backoff = Backoff::new(GATHER_AGAIN_FIRST, GATHER_AGAIN_MOST);
        Self { gathering: None, known: None, told: None, due: Instant::now() + GATHER_EVERY, backoff }
    }
}

impl Addresses {
    /// Takes what was gathered. While nobody answers, what was known before is more likely to hold than nothing.
    fn take(&mut self, now: Instant, gathered: Option<Gathered>) {
        let is_observed = gathered.as_ref().is_some_and(|gathered| gathered.is_observed);
        if is_observed {
            self.backoff.after_success();
            self.due = now + GATHER_EVERY;
        } else {
            self.due = now + self.backoff.after_failure(u64::from_le_bytes(ahoy_identity::random()));
        }
        if let Some(gathered) = gathered.filter(|_| is_observed || self.known.is_none()) {
            self.known = Some(gathered.assessment);
        }
    }

    /// The network is another: what was seen in the one before does not hold.
    fn forget(&mut self) {
        self.known = None;
        self.backoff.after_success();
    }
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        line: &'a Line,
        legs: Legs,
        connection: Connection,
        outgoing: SendStream,
        figures: watch::Sender<Figures>,
        offered: Vec<RelayOffer>,
    ) -> Self {
        let (words, queue) = mpsc::channel(LINK_QUEUE);
        let writer = tokio::spawn(write(outgoing, queue));
        let path = line.peer.path();
        Self {
            line,
            legs,
            connection,
            words,
            writer,
            path,
            figures,
            offered,
            addresses: Addresses::default(),
            privacy: None,
            relayed_since: None,
            has_second: false,
            was_silent: false,
            last_word: None,
        }
    }

    /// Serves until the engine lets go (`None`) or the connection is lost (why).
    pub(super) async fn run(mut self, waiting: Vec<Order>, orders: mpsc::Receiver<Order>, incoming: RecvStream) -> Option<String> {
        // Gathered while it rings, told after the answer.
        self.gather();
        self.handle_distances();
        self.handle_path();
        for order in waiting {
            self.carry_out(order);
        }
        let lost = self.serve(orders, incoming).await;
        if lost.is_none() {
            self.finish().await;
        }
        lost
    }

    async fn serve(&mut self, mut orders: mpsc::Receiver<Order>, incoming: RecvStream) -> Option<String> {
        // Reading a message must not be given up half-way, so it has a task of its own. It ends with the stream.
        let (said, mut messages) = mpsc::channel(LINK_QUEUE);
        tokio::spawn(read(incoming, said));
        let mut network = self.line.shared.endpoint.network();
        let mut distances = self.line.shared.relays.changes();
        let mut port_mapped = self.line.shared.port_mapped.clone();
        let mut path = self.path.clone();
        loop {
            self.tell_figures();
            let (second_at, gather_at) = (self.second_due(), self.addresses.due);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => return None,
                },
                message = messages.recv() => match message {
                    Some(message) => self.hear(message).await,
                    // Without its control stream a connection is of no use; a last word has been heard by now.
                    None => {
                        self.connection.close(1, "control stream ended");
                        return Some("the other side ended the conversation, or is out of reach".to_owned());
                    }
                },
                said = self.legs.next() => match said {
                    Said::Tell(news) => self.tell_of_leg(news),
                    Said::Moved => if self.addresses.gathering.is_none() {
                        self.gather();
                    },
                    Said::Met | Said::Changed => {}
                },
                gathered = gathered(&mut self.addresses.gathering) => {
                    self.addresses.take(Instant::now(), gathered);
                    self.exchange();
                }
                Ok(()) = network.changed() => {
                    debug!("the network has changed during a call");
                    self.addresses.forget();
                    self.gather();
                }
                Ok(()) = distances.changed() => self.handle_distances(),
                Ok(()) = port_mapped.changed() => self.gather(),
                Ok(()) = path.changed() => self.handle_path(),
                () = at(second_at) => {
                    self.has_second = true;
                    self.legs.want_second();
                }
                () = sleep_until(gather_at.into()), if self.addresses.gathering.is_none() => self.gather(),
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Tell(message) => {
                if let PeerMessage::End(reason) = &message {
                    self.last_word = Some(*reason);
                }
                self.say(message);
            }
            Order::Answered(privacy) => {
                self.privacy = Some(privacy);
                self.handle_path();
                self.exchange();
            }
            Order::HearOfLeg(news) => self.legs.hear(news),
        }
    }

    async fn hear(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Network { candidates, mapping } => {
                self.line.peer.set_peer_network(&candidates, mapping);
                self.figures.send_modify(|figures| figures.peer_candidates = candidates.len());
            }
            PeerMessage::Leg(news) => self.legs.hear(news),
            PeerMessage::Relays(offers) => {
                if self.line.side == Side::Callee {
                    self.offered = offers.to_vec();
                    self.legs.consider(&self.offered);
                }
            }
            message => self.line.report(LinkEventKind::Message(message)).await,
        }
    }

    /// Queues something to be said. It is said as soon as there is a way.
    fn say(&self, message: PeerMessage) {
        if self.words.try_send(message).is_err() {
            // It has not read for so long that it is of no use; the reader sees the end.
            self.connection.close(1, "does not listen");
        }
    }

    /// On the link, and beside it where that has no way left.
    fn tell_of_leg(&self, news: LegNews) {
        self.say(PeerMessage::Leg(news));
        let path = *self.path.borrow();
        if path.is_silent || (is_relayed(&path) && !self.legs.is_met()) {
            self.line.post(SignalKind::Leg(news));
        }
    }

    /// Begins to find out where this device may be reached, unless that is going on.
    fn gather(&mut self) {
        let (endpoint, sessions) = (self.line.shared.endpoint.clone(), self.line.shared.sessions.clone());
        let port_mapped = self.line.shared.port_mapped.borrow().addresses.clone();
        if let Some(outdated) = self.addresses.gathering.take() {
            outdated.abort();
        }
        self.addresses.gathering = Some(tokio::spawn(async move { gather(&endpoint, &sessions, &port_mapped).await }));
    }

    /// Tells the other side where this device may be reached, if it may know, and looks for a direct path.
    fn exchange(&mut self) {
        let (Some(Privacy::Open), Some(known)) = (self.privacy, &self.addresses.known) else { return };
        if self.addresses.told.as_ref() == Some(known) {
            return;
        }
        let candidates = List::first_of(known.candidates.iter().copied());
        self.say(PeerMessage::Network { candidates, mapping: known.mapping });
        self.line.peer.set_own_mapping(known.mapping);
        if self.addresses.told.is_none() {
            self.line.peer.start_probing();
        }
        self.addresses.told = Some(known.clone());
    }

    /// The distances of relays have changed.
    fn handle_distances(&mut self) {
        match self.line.side {
            Side::Callee => self.legs.consider(&self.offered),
            Side::Caller => {
                let offers = self.line.shared.relays.offers();
                if offers != self.offered {
                    self.say(PeerMessage::Relays(List::first_of(offers.iter().copied())));
                    self.offered = offers;
                }
            }
        }
    }

    /// The way that the call takes may have changed.
    fn handle_path(&mut self) {
        let path = *self.path.borrow();
        if path.is_silent {
            self.legs.repeat();
        } else if self.was_silent && self.addresses.told.is_some() {
            // Whatever was in the way may have changed this device's address.
            self.gather();
        }
        self.was_silent = path.is_silent;
        match (is_relayed(&path), self.relayed_since) {
            (true, None) => {
                self.relayed_since = Some(Instant::now());
                // A direct path has died, perhaps because this device's own address has changed.
                if self.addresses.told.is_some() {
                    self.gather();
                }
            }
            (false, Some(_)) => self.relayed_since = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// When the callee wants a second leg.
    fn second_due(&self) -> Option<Instant> {
        if self.has_second || self.line.side == Side::Caller {
            return None;
        }
        match self.privacy? {
            Privacy::RelaysOnly => Some(Instant::now()),
            Privacy::Open => Some(self.relayed_since? + SECOND_AFTER),
        }
    }

    fn tell_figures(&self) {
        let known = self.addresses.known.as_ref();
        let (mapping, relays) = (known.map(|known| known.mapping).unwrap_or_default(), self.legs.in_use());
        let candidates = self.addresses.told.as_ref().map_or(0, |told| told.candidates.len());
        self.figures.send_if_modified(|figures| {
            let told = Figures { mapping, candidates, relays, peer_candidates: figures.peer_candidates };
            let is_changed = *figures != told;
            *figures = told;
            is_changed
        });
    }

    /// Closes once the last words have been delivered.
    async fn finish(self) {
        if let (true, Some(reason)) = (self.path.borrow().is_silent, self.last_word) {
            info!("the last word goes through the supernodes");
            self.line.post(match self.line.side {
                Side::Caller => SignalKind::Cancel(reason),
                Side::Callee => SignalKind::Reject(reason),
            });
        }
        drop(self.words);
        let _ = timeout(LAST_WORDS_TIME, self.writer).await;
        self.connection.close(0, "over");
    }
}

pub(super) fn is_relayed(path: &PathStatus) -> bool {
    match path.kind {
        PathKind::Relay | PathKind::RelayTcp => true,
        PathKind::Lan | PathKind::Direct => false,
    }
}

/// This device's addresses, once they are known; `None` if that failed.
async fn gathered(gathering: &mut Option<JoinHandle<Gathered>>) -> Option<Gathered> {
    let Some(task) = gathering else { return std::future::pending().await };
    let gathered = task.await.ok();
    *gathering = None;
    gathered
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Says one thing after the other, however long the way there is cut; then waits until the last was heard.
async fn write(mut outgoing: SendStream, mut words: mpsc::Receiver<PeerMessage>) {
    while let Some(message) = words.recv().await {
        if let Err(error) = send(&mut outgoing, &message).await {
            return debug!(%error, "nobody listens any more");
        }
    }
    let _ = outgoing.finish();
    let _ = outgoing.stopped().await;
}

/// Reads messages until the stream ends.
async fn read(mut incoming: RecvStream, messages: mpsc::Sender<PeerMessage>) {
    while let Ok(Some(message)) = receive(&mut incoming).await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_path::nat::assess;

    fn gathered(port_mapped: &str, is_observed: bool) -> Option<Gathered> {
        let assessment = assess(&[], &[], &[port_mapped.parse().expect("an address")]);
        Some(Gathered { assessment, is_observed })
    }

    #[test]
    fn while_nobody_answers_the_addresses_stay_and_are_asked_for_again_soon() {
        let (mut addresses, now) = (Addresses::default(), Instant::now());
        let (first, second) = (gathered("192.0.2.1:1", true), gathered("192.0.2.2:1", false));
        addresses.take(now, first.clone());
        addresses.take(now, second.clone());
        assert_eq!(addresses.known, first.map(|first| first.assessment));
        assert!(addresses.due <= now + GATHER_AGAIN_FIRST);
        addresses.forget();
        addresses.take(now, second.clone());
        assert_eq!(addresses.known, second.map(|second| second.assessment), "something is better than nothing in another network");
        addresses.take(now, gathered("192.0.2.3:1", true));
        assert_eq!(addresses.due, now + GATHER_EVERY);
    }
}
