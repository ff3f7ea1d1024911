//! Comparing: each mailbox tells the others of the same device what they may not know.
//!
//! That is so every [`COMPARE_INTERVAL`], at once when a mailbox was opened or has other terms, and when a roster has other supernodes. Where this
//! supernode is no longer one of a user's mailboxes, those that are take over, and what is here is forgotten once two of them have it.

use crate::mail::desk::DeskError;
use crate::plane::{Plane, now};
use ahoy_mailbox::{Mailbox, Offer};
use ahoy_protocol::List;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, NodeKey};
use ahoy_protocol::mail::{MailForward, MailResponse};
use ahoy_protocol::roster::Roster;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often all mailboxes are gone through.
const COMPARE_INTERVAL: Duration = Duration::from_secs(600);
/// After another roster, that is done within this time, by chance: not all supernodes at once.
const ROSTER_DELAY_MAX_MS: u64 = 5_000;
/// Mailboxes that are compared at a time.
const AT_A_TIME: usize = 8;
/// Mailboxes that are read from the store at a time.
const PAGE: usize = 64;
/// A mailbox that is no longer to be here is forgotten when so many of those that are have it.
const TAKEN_OVER_BY: usize = 2;

/// Supernodes that did not answer in this round, and are not asked again before the next.
type Silent = Mutex<BTreeSet<NodeKey>>;

/// How it went with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It has what is here.
    Everything,
    /// It does not take it.
    Refused,
    /// It does not answer.
    Silent,
}

/// Compares all mailboxes now and then, for ever.
pub(crate) async fn compare(plane: Arc<Plane>) {
    let mut rosters = plane.node.roster();
    let mut tick = tokio::time::interval_at(Instant::now() + COMPARE_INTERVAL, COMPARE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What came while this supernode was away is told soon after its start.
    let mut round_at = Some(soon());
    let mut supernodes = supernodes_in(&plane.roster().roster);
    loop {
        let due = async {
            match round_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = rosters.changed() => match changed {
                Ok(()) => {
                    let newer = supernodes_in(&plane.roster().roster);
                    if newer != supernodes {
                        supernodes = newer;
                        round_at = Some(soon());
                    }
                }
                Err(_) => return,
            },
            () = due => {
                round_at = None;
                plane.compare_all().await;
            }
            _ = tick.tick() => plane.compare_all().await,
        }
    }
}

/// Compares mailboxes of which something was heard that others may not know, beside the rounds, which take long where there are many.
pub(crate) async fn compare_urgent(plane: Arc<Plane>) {
    let mut urgent = plane.mail.urgent_devices.lock().await;
    futures::stream::poll_fn(|cx| urgent.poll_recv(cx)).for_each_concurrent(AT_A_TIME, |device| plane.compare_device(device)).await;
}

/// What of a roster decides who keeps whose mail, and who may be back from somewhere else.
fn supernodes_in(roster: &Roster) -> BTreeMap<NodeKey, Vec<SocketAddr>> {
    roster.nodes_in(NodeRole::Supernode).map(|node| (node.node, node.udp.to_vec())).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(u64::from_le_bytes(ahoy_identity::random()) % ROSTER_DELAY_MAX_MS)
}

impl Plane {
    async fn compare_device(&self, device: DeviceKey) {
        if let Ok(Some(mailbox)) = self.mail.desk.ask(move |store| store.mailbox(&device)).await {
            self.compare_mailbox(mailbox, &Silent::default()).await;
        }
    }

    async fn compare_all(&self) {
        let silent = Silent::default();
        let mut last: Option<DeviceKey> = None;
        loop {
            let after = last;
            let page = match self.mail.desk.ask(move |store| store.mailboxes_after(after.as_ref(), PAGE)).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%error, "mailboxes are compared later");
                    return;
                }
            };
            let Some(end) = page.last() else { return };
            last = Some(end.device);
            futures::stream::iter(page).for_each_concurrent(AT_A_TIME, |mailbox| self.compare_mailbox(mailbox, &silent)).await;
        }
    }

    async fn compare_mailbox(&self, mailbox: Mailbox, silent: &Silent) {
        let own = self.own_key();
        let mailboxes = self.mailboxes_by(&mailbox.terms);
        let peers: Vec<_> = mailboxes.iter().copied().filter(|peer| *peer != own).collect();
        let mut told = 0;
        for peer in &peers {
            if silent.lock().unwrap_or_else(PoisonError::into_inner).contains(peer) {
                continue;
            }
            match self.tell_peer(&mailbox, *peer).await {
                Ok(Told::Everything) => told += 1,
                Ok(Told::Refused) => {}
                Ok(Told::Silent) => drop(silent.lock().unwrap_or_else(PoisonError::into_inner).insert(*peer)),
                Err(error) => tracing::debug!(%error, "a mailbox is compared later"),
            }
        }
        if !mailboxes.contains(&own) && !peers.is_empty() && told >= TAKEN_OVER_BY.min(peers.len()) {
            let device = mailbox.device;
            if let Err(error) = self.mail.desk.ask(move |store| store.close_mailbox(&device)).await {
                tracing::debug!(%error, "a mailbox that was taken over is closed later");
            }
        }
    }

    /// Tells a peer all that it may not know of a mailbox and its user's vault.
    async fn tell_peer(&self, mailbox: &Mailbox, peer: NodeKey) -> Result<Told, DeskError> {
        let (device, user) = (mailbox.device, mailbox.terms.user);
        let mut begins_anew = false;
        while let Some(offer) = self.mail.desk.ask(move |store| store.offer(now(), &device, &peer)).await? {
            let (wanted, opened) = match self.offer_to(device, peer, &offer).await {
                Ok(answer) => answer,
                Err(told) => return Ok(told),
            };
            // It may have lost what it had. Once, whatever it says, so that this ends.
            if opened && !begins_anew {
                begins_anew = true;
                self.mail.desk.ask(move |store| store.begin_anew(&device, &user, &peer)).await?;
                continue;
            }
            if !self.give(device, peer, wanted).await? {
                return Ok(Told::Silent);
            }
            self.mail.desk.ask(move |store| store.agree(&device, &peer, &offer)).await?;
        }
        while let Some(offer) = self.mail.desk.ask(move |store| store.offer_vault(now(), &user, &peer)).await? {
            let items = List::first_of(offer.items.iter().cloned());
            match self.ask_about_mail(peer, MailForward::Vault { user, items }).await {
                Ok(MailResponse::Done) => {}
                Ok(_) => return Ok(Told::Refused),
                Err(told) => return Ok(told),
            }
            self.mail.desk.ask(move |store| store.agree_on_vault(&user, &peer, &offer)).await?;
        }
        Ok(Told::Everything)
    }

    /// Offers what is kept; what the peer wants of it, and whether it knew nothing of the mailbox.
    async fn offer_to(&self, device: DeviceKey, peer: NodeKey, offer: &Offer) -> Result<(Vec<EnvelopeId>, bool), Told> {
        let kept = List::first_of(offer.kept.iter().copied());
        let have = MailForward::Have { device, terms: offer.terms.clone(), certificate: offer.certificate.clone(), kept };
        match self.ask_about_mail(peer, have).await? {
            MailResponse::Wanted { envelopes, opened } => Ok((envelopes.into_vec(), opened)),
            _ => Err(Told::Refused),
        }
    }

    /// Gives a peer the envelopes that it wants. False if it does not answer.
    async fn give(&self, device: DeviceKey, peer: NodeKey, mut wanted: Vec<EnvelopeId>) -> Result<bool, DeskError> {
        while !wanted.is_empty() {
            let ids = wanted.clone();
            let (given, answered) = self.mail.desk.ask(move |store| store.give(&device, &ids)).await?;
            let count = u64::try_from(given.len()).unwrap_or(u64::MAX);
            if !given.is_empty() && self.ask_about_mail(peer, MailForward::Give(List::first_of(given))).await.is_err() {
                return Ok(false);
            }
            self.mail.counters.given.fetch_add(count, Ordering::Relaxed);
            // At least one, whatever the store says, so that this ends.
            wanted.drain(..answered.clamp(1, wanted.len()));
        }
        Ok(true)
    }

    async fn ask_about_mail(&self, peer: NodeKey, forward: MailForward) -> Result<MailResponse, Told> {
        match self.neighbours.ask(&peer, &Request::ForwardMail(Box::new(forward))).await {
            Some(Response::Mail(response)) => Ok(*response),
            Some(Response::Refused(_)) => Err(Told::Refused),
            _ => Err(Told::Silent),
        }
    }
}
