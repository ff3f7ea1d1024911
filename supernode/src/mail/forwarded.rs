//! What other supernodes hand on about mail, and what they are answered.

use crate::mail::desk::DeskError;
use crate::plane::{Plane, now, refused};
use crate::visitor::Visitor;
use ahoy_mailbox::VerifiedTerms;
use ahoy_protocol::certificate::DeviceCertificate;
use ahoy_protocol::directory::Response;
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, NodeKey, UserKey};
use ahoy_protocol::mail::{Given, MailForward, MailResponse, MailboxTerms};
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{List, Signed};

impl Plane {
    pub(crate) async fn answer_forwarded_mail(&self, visitor: &Visitor, forward: MailForward) -> Response {
        let answer = match forward {
            MailForward::Post { keep, from, postings } => {
                let given = postings.into_iter().map(|posting| Given { permit: posting.permit, from, envelope: posting.envelope });
                Ok(MailResponse::Posted(List::first_of(self.accept(keep, given.collect()).await)))
            }
            MailForward::TakeKey { device, from, permit } => {
                self.mail.desk.ask(move |store| store.take_key(now(), &from, &permit, &device)).await.map(MailResponse::Key)
            }
            MailForward::Have { device, terms, certificate, kept } => match self.checked_of_peer(device, terms, certificate).await {
                Ok(Some(terms)) => self.wanted(device, terms, kept.into_vec()).await,
                Ok(None) => Ok(MailResponse::NotOpen),
                Err(response) => return response,
            },
            MailForward::Give(given) => Ok(MailResponse::Posted(List::first_of(self.accept(true, given.into_vec()).await))),
            MailForward::Vault { user, items } => self.keep_vault(NodeKey(visitor.key), user, items.into_vec()).await,
        };
        self.answered(visitor, answer)
    }

    /// What another mailbox of a device says of its terms: known here, or checked; `None` if the device is to have no mailbox here.
    async fn checked_of_peer(
        &self,
        device: DeviceKey,
        terms: Signed<MailboxTerms>,
        certificate: Signed<DeviceCertificate>,
    ) -> Result<Option<PeersTerms>, Response> {
        let shown = terms.clone();
        let known = self.mail.desk.ask(move |store| Ok((store.has_terms(&device, &shown)?, store.mailbox(&device)?.is_some()))).await;
        let (has_terms, is_open) = known.map_err(|error| refused(&error.to_string()))?;
        if has_terms {
            return Ok(Some(PeersTerms::Known));
        }
        let terms = VerifiedTerms::check(&self.node.network(), now(), terms, certificate).map_err(|error| refused(&error.to_string()))?;
        if terms.device() != device {
            return Err(refused("the mailbox terms are another device's"));
        }
        let is_here = is_open || self.mailboxes_by(terms.terms()).contains(&self.own_key());
        Ok(is_here.then(|| PeersTerms::New(Box::new(terms))))
    }

    async fn wanted(&self, device: DeviceKey, terms: PeersTerms, kept: Vec<EnvelopeId>) -> Result<MailResponse, DeskError> {
        let wanting = self.mail.desk.ask(move |store| {
            let opened = match terms {
                PeersTerms::Known => None,
                PeersTerms::New(terms) => Some(store.open_for_peer(now(), &terms)?),
            };
            Ok((store.wanted(&device, &kept)?, opened))
        });
        let (wanted, opened) = wanting.await?;
        // Others may not have heard of it, and may be ones of whom the giver does not know.
        if opened.as_ref().is_some_and(|opened| opened.has_changed) {
            self.mail.hasten(device);
        }
        Ok(MailResponse::Wanted { envelopes: List::first_of(wanted), opened: opened.is_some_and(|opened| opened.is_new) })
    }

    /// Items of a vault that another mailbox of the user hands on. What they say cannot be checked here, so that others only add what is
    /// missing.
    async fn keep_vault(&self, from: NodeKey, user: UserKey, items: Vec<VaultItem>) -> Result<MailResponse, DeskError> {
        let Some(terms) = self.mail.desk.ask(move |store| store.terms_of(&user)).await? else { return Ok(MailResponse::NotOpen) };
        let is_keeper = self.mailboxes_by(&terms).contains(&from);
        let putting = self
            .mail
            .desk
            .ask(move |store| if is_keeper { store.put_vault(now(), &user, &items) } else { store.fill_vault(now(), &user, &items) });
        let Some(put) = putting.await? else { return Ok(MailResponse::NotOpen) };
        if put.changed > 0 {
            self.tell_of_vault(&user, None).await;
        }
        Ok(MailResponse::Done)
    }
}

/// Terms that another supernode shows.
enum PeersTerms {
    /// They are known here.
    Known,
    /// They are not, and hold.
    New(Box<VerifiedTerms>),
}
