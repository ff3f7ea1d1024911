//! What two supernodes that keep mail of the same device tell each other, so that each has what the other has.
//!
//! A store remembers, for each mailbox and each peer, up to which number the peer has been told; what is told is then as much as has
//! changed. Envelopes that a device deleted at a peer are not wanted there again. That something was deleted is never told: a supernode
//! that means harm would say that of everything.

use crate::error::MailError;
use crate::limits::AGREEMENT_LIFE;
use crate::mail::envelope;
use crate::mailbox::find;
use crate::store::{MailStore, count, integer, one, rows, run, signed};
use crate::writer::Writer;
use ahoy_identity::pass;
use ahoy_protocol::certificate::DeviceCertificate;
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, NodeKey, UserKey};
use ahoy_protocol::mail::{ENVELOPES_NAMED_MAX, ENVELOPES_SENT_BYTES_MAX, ENVELOPES_SENT_MAX, Given, MailboxTerms, Permit};
use ahoy_protocol::vault::VaultItem;
use ahoy_protocol::{Signed, UnixMillis};
use rusqlite::{Connection, params};

/// What a peer may not know of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The device's terms.
    pub terms: Signed<MailboxTerms>,
    /// The device's certificate.
    pub certificate: Signed<DeviceCertificate>,
    /// Envelopes that are kept here, at most [`ENVELOPES_NAMED_MAX`].
    pub kept: Vec<EnvelopeId>,
    /// Whether there is more to offer once this has been agreed on.
    pub has_more: bool,
    agreement: Agreement,
}

/// What a peer may not know of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultOffer {
    /// Items that changed.
    pub items: Vec<VaultItem>,
    /// Whether there is more to offer once this has been agreed on.
    pub has_more: bool,
    agreement: Agreement,
}

/// Up to where a peer has been told, in a round that began at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Agreement {
    upto: u64,
    since: UnixMillis,
}

impl MailStore {
    /// What `peer` may not know of a device's mailbox; `None` if it has been told everything.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn offer(&self, now: UnixMillis, device: &DeviceKey, peer: &NodeKey) -> Result<Option<Offer>, MailError> {
        let agreed = agreement(&self.connection, now, device.as_bytes(), peer)?;
        let query = "SELECT changed, terms, signature, certificate, certificate_signature FROM mailboxes WHERE device = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((count(row, 0)?, signed(row, 1)?, signed(row, 3)?));
        let Some((changed, terms, certificate)) = one(&self.connection, query, [device.as_bytes()], read)? else { return Ok(None) };
        if agreed.is_some_and(|agreed| agreed.upto >= changed) {
            return Ok(None);
        }
        let Agreement { upto: from, since } = agreed.unwrap_or(Agreement { upto: 0, since: now });
        let query = "SELECT number, id FROM envelopes WHERE device = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let found = statement.query_map(params![device.as_bytes(), integer(from), rows(ENVELOPES_NAMED_MAX + 1)], |row| {
            Ok((count(row, 0)?, EnvelopeId(row.get(1)?)))
        })?;
        let mut kept = found.collect::<Result<Vec<_>, _>>()?;
        let has_more = kept.len() > ENVELOPES_NAMED_MAX;
        kept.truncate(ENVELOPES_NAMED_MAX);
        let upto = if has_more { kept.last().map_or(from, |(number, _)| *number) } else { changed };
        let kept = kept.into_iter().map(|(_, id)| id).collect();
        Ok(Some(Offer { terms, certificate, kept, has_more, agreement: Agreement { upto, since } }))
    }

    /// A peer was offered this, and given what it wanted.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn agree(&mut self, device: &DeviceKey, peer: &NodeKey, offer: &Offer) -> Result<(), MailError> {
        set_agreement(&self.connection, device.as_bytes(), peer, offer.agreement)
    }

    /// Those of `offered` that are neither here nor were deleted by the device, if it has a mailbox here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn wanted(&self, device: &DeviceKey, offered: &[EnvelopeId]) -> Result<Vec<EnvelopeId>, MailError> {
        let query = "SELECT 1 WHERE EXISTS (SELECT 1 FROM envelopes WHERE device = ?1 AND id = ?2)
            OR EXISTS (SELECT 1 FROM taken WHERE device = ?1 AND id = ?2)";
        let mut wanted = Vec::new();
        for id in offered {
            if one(&self.connection, query, params![device.as_bytes(), id.as_bytes()], |_| Ok(()))?.is_none() {
                wanted.push(*id);
            }
        }
        Ok(wanted)
    }

    /// The first of these envelopes, as many as one message carries, with the permits by which they were taken; and how many of `ids` that
    /// answers, those included that are not here any more.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn give(&self, device: &DeviceKey, ids: &[EnvelopeId]) -> Result<(Vec<Given>, usize), MailError> {
        let Some(mailbox) = find(&self.connection, device)? else { return Ok((Vec::new(), ids.len())) };
        let query = "SELECT writer, id, not_after, sealed FROM envelopes WHERE device = ?1 AND id = ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let (mut given, mut len) = (Vec::new(), 0);
        for (answered, id) in ids.iter().enumerate() {
            let mut rows = statement.query(params![device.as_bytes(), id.as_bytes()])?;
            let Some(row) = rows.next()? else { continue };
            let writer = Writer::from_bytes(&row.get::<_, Vec<u8>>(0)?).ok_or(MailError::Damaged("writer"))?;
            let envelope = envelope(device, row, 1)?;
            len += envelope.sealed.len();
            if given.len() == ENVELOPES_SENT_MAX || len > ENVELOPES_SENT_BYTES_MAX {
                return Ok((given, answered));
            }
            let (permit, from) = permit_of(writer, &mailbox.terms);
            given.push(Given { permit, from, envelope });
        }
        Ok((given, ids.len()))
    }

    /// What `peer` may not know of a user's vault; `None` if it has been told everything.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn offer_vault(&self, now: UnixMillis, user: &UserKey, peer: &NodeKey) -> Result<Option<VaultOffer>, MailError> {
        let agreed = agreement(&self.connection, now, user.as_bytes(), peer)?.unwrap_or(Agreement { upto: 0, since: now });
        let Some(page) = self.vault(user, agreed.upto)?.filter(|page| !page.items.is_empty()) else { return Ok(None) };
        let agreement = Agreement { upto: page.next, since: agreed.since };
        Ok(Some(VaultOffer { items: page.items.into_vec(), has_more: page.has_more, agreement }))
    }

    /// A peer has been told this of a vault.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn agree_on_vault(&mut self, user: &UserKey, peer: &NodeKey, offer: &VaultOffer) -> Result<(), MailError> {
        set_agreement(&self.connection, user.as_bytes(), peer, offer.agreement)
    }

    /// A peer turned out to know nothing of a device and its user, whatever it was told before.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn begin_anew(&mut self, device: &DeviceKey, user: &UserKey, peer: &NodeKey) -> Result<(), MailError> {
        let delete = "DELETE FROM agreements WHERE subject IN (?1, ?2) AND peer = ?3";
        run(&self.connection, delete, params![device.as_bytes(), user.as_bytes(), peer.as_bytes()])?;
        Ok(())
    }
}

/// What was agreed on with a peer, unless that has had its time.
fn agreement(connection: &Connection, now: UnixMillis, subject: &[u8; 32], peer: &NodeKey) -> Result<Option<Agreement>, MailError> {
    let query = "SELECT upto, since FROM agreements WHERE subject = ?1 AND peer = ?2";
    let read = |row: &rusqlite::Row<'_>| Ok(Agreement { upto: count(row, 0)?, since: UnixMillis(count(row, 1)?) });
    Ok(one(connection, query, params![subject, peer.as_bytes()], read)?.filter(|agreed| now < agreed.since.plus(AGREEMENT_LIFE)))
}

/// Remembers an agreement. There are as many as mailboxes and users, times the nodes that have been their peers.
fn set_agreement(connection: &Connection, subject: &[u8; 32], peer: &NodeKey, agreed: Agreement) -> Result<(), MailError> {
    let upsert =
        "INSERT INTO agreements (subject, peer, upto, since) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET upto = ?3, since = ?4";
    run(connection, upsert, params![subject, peer.as_bytes(), integer(agreed.upto), integer(agreed.since.0)])?;
    Ok(())
}

/// By which permit, and from whom, an envelope of `writer` is taken under these terms.
fn permit_of(writer: Writer, terms: &MailboxTerms) -> (Permit, UserKey) {
    match writer {
        Writer::Own => (Permit::Own, terms.user),
        Writer::Pass(id) => (Permit::Pass(pass(&terms.secret, id)), terms.user),
        Writer::Stranger(user) => (Permit::Stranger, user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;
    use crate::testing::{ALICE, NOW, Shop, User, envelope, id};
    use ahoy_protocol::Blob;
    use ahoy_protocol::ids::VaultKey;

    const PEER: NodeKey = NodeKey([2; 32]);

    fn post(shop: &mut Shop, bob: &User, n: u32) {
        let posted = shop.store.post(NOW, &ALICE, &bob.permit(1), &envelope(bob.device(0), n, 256)).expect("works");
        assert_eq!(posted, Verdict::Kept);
    }

    /// All that one store has and the other wants, given as supernodes do.
    fn reconcile(from: &mut Shop, to: &mut Shop, bob: &User) -> usize {
        let (device, mut messages) = (bob.device(0), 0);
        while let Some(offer) = from.store.offer(NOW, &device, &PEER).expect("works") {
            let terms = crate::VerifiedTerms::check(&bob.network, NOW, offer.terms.clone(), offer.certificate.clone()).expect("holds");
            to.store.open_for_peer(NOW, &terms).expect("opens");
            let mut wanted = to.store.wanted(&device, &offer.kept).expect("works");
            while !wanted.is_empty() {
                let (given, answered) = from.store.give(&device, &wanted).expect("works");
                for given in given {
                    to.store.post(NOW, &given.from, &given.permit, &given.envelope).expect("works");
                }
                wanted.drain(..answered);
            }
            from.store.agree(&device, &PEER, &offer).expect("works");
            messages += 1;
        }
        messages
    }

    #[test]
    fn a_mailbox_that_was_away_has_what_the_other_has_by_the_same_permits() {
        let (mut one, mut other, bob) = (Shop::new(), Shop::new(), User::new(1));
        bob.open(&mut one.store, 0);
        one.store
            .together(|store| {
                for n in 0..600 {
                    store.post(NOW, &ALICE, &bob.permit(1), &envelope(bob.device(0), n, 256)).expect("works");
                }
                store.post(NOW, &bob.user(), &Permit::Own, &envelope(bob.device(0), 600, 256)).expect("works");
                store.post(NOW, &ALICE, &Permit::Stranger, &envelope(bob.device(0), 601, 256)).expect("works");
            })
            .expect("is written");
        assert_eq!(reconcile(&mut one, &mut other, &bob), 2);
        assert_eq!(other.store.totals().expect("works"), one.store.totals().expect("works"));
        let stranger_again = other.store.post(NOW, &ALICE, &Permit::Stranger, &envelope(bob.device(0), 700, 256)).expect("works");
        assert_eq!(stranger_again, Verdict::Full, "shares are counted alike");
    }

    #[test]
    fn what_was_agreed_on_is_not_said_again_until_something_changes_or_a_day_has_passed() {
        let (mut one, mut other, bob) = (Shop::new(), Shop::new(), User::new(1));
        bob.open(&mut one.store, 0);
        post(&mut one, &bob, 1);
        assert_eq!(reconcile(&mut one, &mut other, &bob), 1);
        assert_eq!(one.store.offer(NOW, &bob.device(0), &PEER).expect("works"), None);
        assert!(one.store.offer(NOW, &bob.device(0), &NodeKey([3; 32])).expect("works").is_some(), "nobody else was told");
        post(&mut one, &bob, 2);
        assert_eq!(one.store.offer(NOW, &bob.device(0), &PEER).expect("works").expect("is news").kept, [id(2)]);
        assert_eq!(reconcile(&mut one, &mut other, &bob), 1);
        let tomorrow = NOW.plus(AGREEMENT_LIFE);
        assert_eq!(one.store.offer(tomorrow, &bob.device(0), &PEER).expect("works").expect("is due").kept, [id(1), id(2)]);
    }

    #[test]
    fn what_the_device_deleted_is_not_brought_back() {
        let (mut one, mut other, bob) = (Shop::new(), Shop::new(), User::new(1));
        bob.open(&mut one.store, 0);
        bob.open(&mut other.store, 0);
        post(&mut one, &bob, 1);
        post(&mut one, &bob, 2);
        other.store.delete(NOW, &bob.device(0), &[id(1)]).expect("works");
        reconcile(&mut one, &mut other, &bob);
        let page = other.store.fetch(&bob.device(0), 0).expect("works").expect("is open");
        assert_eq!(page.envelopes.iter().map(|envelope| envelope.id).collect::<Vec<_>>(), [id(2)]);
    }

    #[test]
    fn a_vault_is_told_from_where_it_was_told_last_and_anew_to_who_lost_it() {
        let (mut one, bob) = (Shop::new(), User::new(1));
        bob.open(&mut one.store, 0);
        let item = |key| VaultItem { key: VaultKey([key; 16]), version: 1, sealed: Blob::new(vec![key; 40]).expect("fits") };
        let offered = |shop: &Shop| shop.store.offer_vault(NOW, &bob.user(), &PEER).expect("works");
        assert_eq!(offered(&one), None);
        one.store.put_vault(NOW, &bob.user(), &[item(1)]).expect("works");
        let offer = offered(&one).expect("is news");
        assert_eq!((offer.items.clone(), offer.has_more), (vec![item(1)], false));
        one.store.agree_on_vault(&bob.user(), &PEER, &offer).expect("works");
        assert_eq!(offered(&one), None);
        one.store.put_vault(NOW, &bob.user(), &[item(2)]).expect("works");
        assert_eq!(offered(&one).expect("is news").items, [item(2)]);
        one.store.begin_anew(&bob.device(0), &bob.user(), &PEER).expect("works");
        assert_eq!(offered(&one).expect("is all").items, [item(1), item(2)]);
        one.store.agree_on_vault(&bob.user(), &PEER, &offered(&one).expect("is all")).expect("works");
        let tomorrow = one.store.offer_vault(NOW.plus(AGREEMENT_LIFE), &bob.user(), &PEER).expect("works");
        assert_eq!(tomorrow.expect("is all").items, [item(1), item(2)]);
    }
}
