//! What devices ask about mail, and what they are answered.

use crate::mail::desk::DeskError;
use crate::plane::{BUSY_TIME, Plane, REGISTER_FIRST, now, refused};
use crate::sessions::{PUSH_TIME_MAX, Session};
use crate::visitor::Visitor;
use ahoy_mailbox::{MailError, TermsError, VerifiedTerms};
use ahoy_protocol::directory::{Push, Request, Response};
use ahoy_protocol::ids::{DeviceKey, NodeKey, UserKey};
use ahoy_protocol::mail::{MailForward, MailRequest, MailResponse, MailboxTerms, Permit, Prekey, PrekeyKind};
use ahoy_protocol::vault::{VAULT_ITEMS_SENT_MAX, VaultItem};
use ahoy_protocol::{List, Signed};

impl Plane {
    pub(crate) async fn answer_mail(&self, visitor: &Visitor, device: DeviceKey, request: MailRequest) -> Response {
        let Some(session) = self.sessions.get(&device) else { return refused(REGISTER_FIRST) };
        if let Err(wait) = take(visitor, &request) {
            return self.busy(visitor, wait);
        }
        let answer = match request {
            MailRequest::Open(terms) => match self.checked(device, &session, terms) {
                Ok(terms) => self.open(terms).await,
                Err(error) => return refused(&error.to_string()),
            },
            MailRequest::Post { keep, postings } => Ok(MailResponse::Posted(self.post(session.user, keep, postings.into_vec()).await)),
            MailRequest::Fetch { after } => {
                let page = self.mail.desk.ask(move |store| store.fetch(&device, after)).await;
                page.map(|page| page.map_or(MailResponse::NotOpen, MailResponse::Mail))
            }
            MailRequest::Delete(ids) => self.mail.desk.ask(move |store| store.delete(now(), &device, &ids)).await.map(done_if_open),
            MailRequest::OfferKeys { renew, keys } => self.offer_keys(device, renew, keys.into_vec()).await.map(done_if_open),
            MailRequest::TakeKey { device, permit, mailboxes } => {
                Ok(MailResponse::Key(self.take_key(session.user, permit, device, &mailboxes).await))
            }
            MailRequest::PutVault(items) => match self.put_vault(session.user, device, items).await {
                Ok(Some(0)) => Ok(MailResponse::Done),
                Ok(Some(items)) => {
                    return refused(&format!("there is no room for {items} of the vault's items, or they are of the future"));
                }
                Ok(None) => Ok(MailResponse::NotOpen),
                Err(error) => Err(error),
            },
            MailRequest::GetVault { after } => {
                let page = self.mail.desk.ask(move |store| store.vault(&session.user, after)).await;
                page.map(|page| page.map_or(MailResponse::NotOpen, MailResponse::Vault))
            }
        };
        self.answered(visitor, answer)
    }

    /// The answer, or that there is one later.
    pub(crate) fn answered(&self, visitor: &Visitor, answer: Result<MailResponse, DeskError>) -> Response {
        match answer {
            Ok(response) => Response::Mail(Box::new(response)),
            Err(DeskError::Busy | DeskError::Store(MailError::NoRoom)) => self.busy(visitor, BUSY_TIME),
            Err(error @ (DeskError::Store(_) | DeskError::Unwritten)) => {
                tracing::warn!(%error, "a request about mail failed");
                self.busy(visitor, BUSY_TIME)
            }
        }
    }

    fn checked(&self, device: DeviceKey, session: &Session, terms: Signed<MailboxTerms>) -> Result<VerifiedTerms, TermsError> {
        let terms = VerifiedTerms::check(&self.node.network(), now(), terms, (*session.certificate).clone())?;
        if terms.device() == device { Ok(terms) } else { Err(TermsError::Contradiction) }
    }

    /// Opens a mailbox that is to be here, or is here still.
    async fn open(&self, terms: VerifiedTerms) -> Result<MailResponse, DeskError> {
        let device = terms.device();
        let is_here = self.mailboxes_by(terms.terms()).contains(&self.own_key());
        if !is_here && self.mail.desk.ask(move |store| store.mailbox(&device)).await?.is_none() {
            return Ok(MailResponse::NotOpen);
        }
        let opened = self.mail.desk.ask(move |store| store.open_mailbox(now(), &terms)).await?;
        if opened.has_changed {
            self.mail.hasten(device);
        }
        Ok(MailResponse::Open { one_time_keys: opened.one_time_keys, newer: opened.newer })
    }

    async fn offer_keys(&self, device: DeviceKey, renew: bool, keys: Vec<Signed<Prekey>>) -> Result<bool, DeskError> {
        let offering = self
            .mail
            .desk
            .ask(move |store| if renew { store.replace_keys(now(), &device, &keys) } else { store.add_keys(now(), &device, &keys) });
        offering.await
    }

    /// A key of a device: from one mailbox after the other, so that no more than one is used up; one that is used once rather than the
    /// fallback.
    async fn take_key(&self, from: UserKey, permit: Permit, device: DeviceKey, mailboxes: &[NodeKey]) -> Option<Signed<Prekey>> {
        let mut fallback = None;
        let own = self.own_key();
        let (here, elsewhere): (Vec<NodeKey>, Vec<NodeKey>) = mailboxes.iter().copied().partition(|mailbox| *mailbox == own);
        for mailbox in here.into_iter().chain(elsewhere) {
            let key = if mailbox == own {
                self.mail.desk.ask(move |store| store.take_key(now(), &from, &permit, &device)).await.ok().flatten()
            } else {
                let request = Request::ForwardMail(Box::new(MailForward::TakeKey { device, from, permit }));
                key_in(self.neighbours.ask(&mailbox, &request).await)
            };
            match key.as_ref().map(|key| key.claims().map(|key| key.kind)) {
                Some(Ok(PrekeyKind::OneTime)) => return key,
                Some(Ok(PrekeyKind::Fallback)) => fallback = key,
                Some(Err(_)) | None => {}
            }
        }
        fallback
    }

    /// Keeps items of a vault here, and tells the user's other mailboxes and devices. How many were refused; `None` without a mailbox.
    async fn put_vault(
        &self,
        user: UserKey,
        writer: DeviceKey,
        items: List<VaultItem, VAULT_ITEMS_SENT_MAX>,
    ) -> Result<Option<usize>, DeskError> {
        let put = items.clone();
        let kept = self.mail.desk.ask(move |store| Ok((store.put_vault(now(), &user, &put)?, store.terms_of(&user)?)));
        let (Some(put), Some(terms)) = kept.await? else { return Ok(None) };
        if put.changed > 0 {
            let forward = Request::ForwardMail(Box::new(MailForward::Vault { user, items }));
            let own = self.own_key();
            for mailbox in self.mailboxes_by(&terms).into_iter().filter(|mailbox| *mailbox != own) {
                // Who cannot be told is when the mailboxes are compared.
                drop(self.forward(mailbox, forward.clone()));
            }
            self.tell_of_vault(&user, Some(writer)).await;
        }
        Ok(Some(put.refused))
    }

    /// Tells a user's devices that are here, but for the one that knows, that the vault changed.
    pub(crate) async fn tell_of_vault(&self, user: &UserKey, but: Option<DeviceKey>) {
        let user = *user;
        let Ok(devices) = self.mail.desk.ask(move |store| store.devices_of(&user)).await else { return };
        let others = devices.iter().filter(|device| Some(**device) != but);
        let telling = futures::future::join_all(others.map(|device| self.sessions.push(device, &Push::VaultChanged)));
        let _ = tokio::time::timeout(PUSH_TIME_MAX, telling).await;
    }
}

/// Counts what one request asks for.
fn take(visitor: &Visitor, request: &MailRequest) -> Result<(), std::time::Duration> {
    match request {
        MailRequest::Post { postings, .. } => visitor.take_postings(postings.len()),
        // Others have to work for it.
        MailRequest::TakeKey { .. } => visitor.take_walk(),
        MailRequest::Open(_)
        | MailRequest::Fetch { .. }
        | MailRequest::Delete(_)
        | MailRequest::OfferKeys { .. }
        | MailRequest::PutVault(_)
        | MailRequest::GetVault { .. } => Ok(()),
    }
}

fn done_if_open(is_open: bool) -> MailResponse {
    if is_open { MailResponse::Done } else { MailResponse::NotOpen }
}

fn key_in(response: Option<Response>) -> Option<Signed<Prekey>> {
    match response {
        Some(Response::Mail(response)) => match *response {
            MailResponse::Key(key) => key,
            _ => None,
        },
        _ => None,
    }
}
