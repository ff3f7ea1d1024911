//! Envelopes: which are taken, and how a device gets them.

use crate::error::MailError;
use crate::limits::{Room, STRANGERS_MAX, TAKEN_MAX};
use crate::mailbox::{Found, find};
use crate::store::{MailStore, count, integer, next_number, one, run};
use crate::writer::{STRANGERS_BEFORE, STRANGERS_FROM, Writer};
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, UserKey};
use ahoy_protocol::mail::{ENVELOPE_LIFE, ENVELOPES_SENT_BYTES_MAX, ENVELOPES_SENT_MAX, Envelope, MailPage, Permit, STRANGER_BYTES_MAX};
use ahoy_protocol::{Blob, List, UnixMillis};
use rusqlite::{Connection, Row, params};

/// What is said to an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Kept,
    /// It may go to the device, if that is there, and is not kept.
    Passed,
    /// The device has deleted it, and so has it.
    Taken,
    /// The device has no mailbox here.
    NoMailbox,
    /// There is no room for it.
    Full,
    /// Its permit does not count.
    NotPermitted,
}

impl MailStore {
    /// Keeps an envelope that a device of `from` wrote. The same one again is the same one.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn post(&mut self, now: UnixMillis, from: &UserKey, permit: &Permit, envelope: &Envelope) -> Result<Verdict, MailError> {
        let Some(mailbox) = find(&self.connection, &envelope.to)? else { return Ok(Verdict::NoMailbox) };
        let Some(writer) = Writer::admitted(&mailbox.terms, from, permit) else { return Ok(Verdict::NotPermitted) };
        if matches!(writer, Writer::Stranger(_)) && envelope.sealed.len() > STRANGER_BYTES_MAX {
            return Ok(Verdict::NotPermitted);
        }
        if is_among(&self.connection, "taken", envelope)? {
            return Ok(Verdict::Taken);
        }
        if is_among(&self.connection, "envelopes", envelope)? {
            return Ok(Verdict::Kept);
        }
        if envelope.not_after <= now {
            return Ok(Verdict::Passed);
        }
        if !self.has_room(&mailbox, writer, envelope)? {
            return Ok(Verdict::Full);
        }
        self.keep(now, writer, envelope)?;
        Ok(Verdict::Kept)
    }

    /// Whether something by a device of `from` may be pushed to a device without being kept. Strangers' may not: what they write is counted by
    /// what is kept of it.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn admit(&self, from: &UserKey, permit: &Permit, to: &DeviceKey) -> Result<Verdict, MailError> {
        let Some(mailbox) = find(&self.connection, to)? else { return Ok(Verdict::NoMailbox) };
        Ok(match Writer::admitted(&mailbox.terms, from, permit) {
            Some(Writer::Own | Writer::Pass(_)) => Verdict::Passed,
            Some(Writer::Stranger(_)) | None => Verdict::NotPermitted,
        })
    }

    fn keep(&mut self, now: UnixMillis, writer: Writer, envelope: &Envelope) -> Result<(), MailError> {
        let keeping = self.connection.savepoint()?;
        let number = next_number(&keeping, now)?;
        let not_after = envelope.not_after.min(now.plus(ENVELOPE_LIFE));
        let insert = "INSERT INTO envelopes (number, device, id, writer, not_after, sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (device, id) = (envelope.to.as_bytes(), envelope.id.as_bytes());
        run(&keeping, insert, params![number, device, id, writer.to_bytes(), integer(not_after.0), &envelope.sealed[..]])?;
        Ok(keeping.commit()?)
    }

    fn has_room(&self, mailbox: &Found, writer: Writer, envelope: &Envelope) -> Result<bool, MailError> {
        let len = u64::try_from(envelope.sealed.len()).unwrap_or(u64::MAX);
        let bytes = one(&self.connection, "SELECT bytes FROM node", [], |row| count(row, 0))?.unwrap_or(0);
        let (devices, used_by_user) = user_uses(&self.connection, &mailbox.terms.user)?;
        let device = Room::of_device(devices);
        let used_by_writer = writer_uses(&self.connection, &envelope.to, writer)?;
        let has_share = match writer {
            Writer::Own => device.of_own().fits(used_by_writer, len),
            Writer::Pass(_) => device.of_pass().fits(used_by_writer, len),
            Writer::Stranger(_) => used_by_writer.envelopes == 0 && strangers(&self.connection, &envelope.to)? < STRANGERS_MAX,
        };
        let is_node_full = bytes.saturating_add(len) > self.limits.bytes_max;
        Ok(has_share && device.fits(mailbox.used, len) && Room::USER.fits(used_by_user, len) && !is_node_full)
    }

    /// Some of the envelopes that wait for a device, the oldest first, from the one after `after` on. `None` if it has no mailbox here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn fetch(&self, device: &DeviceKey, after: u64) -> Result<Option<MailPage>, MailError> {
        if !is_open(&self.connection, device)? {
            return Ok(None);
        }
        let query = "SELECT number, id, not_after, sealed FROM envelopes WHERE device = ?1 AND number > ?2 ORDER BY number";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut rows = statement.query(params![device.as_bytes(), integer(after)])?;
        let (mut envelopes, mut next, mut len, mut has_more) = (Vec::new(), after, 0, false);
        while let Some(row) = rows.next()? {
            let envelope = envelope(device, row, 1)?;
            len += envelope.sealed.len();
            if envelopes.len() == ENVELOPES_SENT_MAX || len > ENVELOPES_SENT_BYTES_MAX {
                has_more = true;
                break;
            }
            next = count(row, 0)?;
            envelopes.push(envelope);
        }
        Ok(Some(MailPage { envelopes: List::first_of(envelopes), next, has_more }))
    }

    /// A device has these envelopes. One that it names and that is not here is not taken when it comes. False if it has no mailbox here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn delete(&mut self, now: UnixMillis, device: &DeviceKey, ids: &[EnvelopeId]) -> Result<bool, MailError> {
        let deleting = self.connection.savepoint()?;
        if !is_open(&deleting, device)? {
            return Ok(false);
        }
        // As long as it could be brought back.
        let not_after = integer(now.plus(ENVELOPE_LIFE).0);
        for id in ids {
            run(&deleting, "DELETE FROM envelopes WHERE device = ?1 AND id = ?2", params![device.as_bytes(), id.as_bytes()])?;
            let number = next_number(&deleting, now)?;
            let insert = "INSERT OR IGNORE INTO taken (number, device, id, not_after) VALUES (?1, ?2, ?3, ?4)";
            run(&deleting, insert, params![number, device.as_bytes(), id.as_bytes(), not_after])?;
        }
        let forget =
            "DELETE FROM taken WHERE number IN (SELECT number FROM taken WHERE device = ?1 ORDER BY number DESC LIMIT -1 OFFSET ?2)";
        run(&deleting, forget, params![device.as_bytes(), integer(TAKEN_MAX)])?;
        deleting.commit()?;
        Ok(true)
    }
}

pub(crate) fn is_open(connection: &Connection, device: &DeviceKey) -> Result<bool, MailError> {
    Ok(one(connection, "SELECT 1 FROM mailboxes WHERE device = ?1", [device.as_bytes()], |_| Ok(()))?.is_some())
}

/// The envelope for `device` whose id, end and content stand in the columns from `at` on.
pub(crate) fn envelope(device: &DeviceKey, row: &Row<'_>, at: usize) -> Result<Envelope, MailError> {
    let sealed = Blob::new(row.get(at + 2)?).ok_or(MailError::Damaged("sealed envelope"))?;
    Ok(Envelope { to: *device, id: EnvelopeId(row.get(at)?), not_after: UnixMillis(count(row, at + 1)?), sealed })
}

fn is_among(connection: &Connection, table: &str, envelope: &Envelope) -> Result<bool, MailError> {
    let query = format!("SELECT 1 FROM {table} WHERE device = ?1 AND id = ?2");
    Ok(one(connection, &query, params![envelope.to.as_bytes(), envelope.id.as_bytes()], |_| Ok(()))?.is_some())
}

/// How many devices a user has, and how much waits for all of them.
fn user_uses(connection: &Connection, user: &UserKey) -> Result<(u64, Room), MailError> {
    let query = "SELECT count(*), coalesce(sum(envelopes), 0), coalesce(sum(bytes), 0) FROM mailboxes WHERE user = ?1";
    let read = |row: &Row<'_>| Ok((count(row, 0)?, Room { envelopes: count(row, 1)?, bytes: count(row, 2)? }));
    Ok(one(connection, query, [user.as_bytes()], read)?.unwrap_or((0, Room { envelopes: 0, bytes: 0 })))
}

fn writer_uses(connection: &Connection, device: &DeviceKey, writer: Writer) -> Result<Room, MailError> {
    let query = "SELECT envelopes, bytes FROM shares WHERE device = ?1 AND writer = ?2";
    let read = |row: &Row<'_>| Ok(Room { envelopes: count(row, 0)?, bytes: count(row, 1)? });
    Ok(one(connection, query, params![device.as_bytes(), writer.to_bytes()], read)?.unwrap_or(Room { envelopes: 0, bytes: 0 }))
}

/// Requests by strangers that wait for a device.
fn strangers(connection: &Connection, device: &DeviceKey) -> Result<u64, MailError> {
    let query = "SELECT count(*) FROM shares WHERE device = ?1 AND writer >= ?2 AND writer < ?3";
    let read = |row: &Row<'_>| count(row, 0);
    Ok(one(connection, query, params![device.as_bytes(), STRANGERS_FROM, STRANGERS_BEFORE], read)?.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, USER_BYTES_MAX, USER_ENVELOPES_MAX};
    use crate::testing::{ALICE, NOW, Shop, User, envelope, id};
    use ahoy_identity::pass;
    use ahoy_protocol::ids::{MailboxSecret, PassId};
    use ahoy_protocol::time::DAY;

    fn ids(store: &MailStore, device: DeviceKey) -> Vec<EnvelopeId> {
        let page = store.fetch(&device, 0).expect("works").expect("is open");
        page.envelopes.iter().map(|envelope| envelope.id).collect()
    }

    /// As many of `range` as are taken.
    fn fill(shop: &mut Shop, bob: &User, device: usize, permit: &Permit, range: std::ops::Range<u32>, len: usize) -> usize {
        let to = bob.device(device);
        let post = |store: &mut MailStore| {
            range.filter(|n| store.post(NOW, &ALICE, permit, &envelope(to, *n, len)).expect("works") == Verdict::Kept).count()
        };
        shop.store.together(post).expect("is written")
    }

    #[test]
    fn what_a_contact_wrote_waits_through_a_restart_until_it_is_deleted() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let wrote = envelope(bob.device(0), 1, 256);
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &wrote).expect("works"), Verdict::Kept);
        let mut shop = shop.reopened();
        let page = shop.store.fetch(&bob.device(0), 0).expect("works").expect("is open");
        assert_eq!((page.envelopes.into_vec(), page.has_more), (vec![wrote], false));
        assert!(shop.store.delete(NOW, &bob.device(0), &[id(1)]).expect("works"));
        assert!(ids(&shop.store, bob.device(0)).is_empty());
        assert_eq!(shop.store.totals().expect("works").bytes, 0);
    }

    #[test]
    fn the_same_envelope_again_is_the_same_and_after_its_deletion_it_is_taken() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let wrote = envelope(bob.device(0), 1, 256);
        for _ in 0..3 {
            assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &wrote).expect("works"), Verdict::Kept);
        }
        assert_eq!(ids(&shop.store, bob.device(0)), [id(1)]);
        shop.store.delete(NOW, &bob.device(0), &[id(1)]).expect("works");
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &wrote).expect("works"), Verdict::Taken);
        assert!(ids(&shop.store, bob.device(0)).is_empty());
    }

    #[test]
    fn only_genuine_passes_own_devices_and_strangers_where_they_are_welcome_write() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        let post = |shop: &mut Shop, from: &UserKey, permit: &Permit, n| {
            shop.store.post(NOW, from, permit, &envelope(bob.device(0), n, 256)).expect("works")
        };
        assert_eq!(post(&mut shop, &ALICE, &bob.permit(1), 0), Verdict::NoMailbox);
        bob.open(&mut shop.store, 0);
        let forged = Permit::Pass(pass(&MailboxSecret([9; 32]), PassId([1; 16])));
        assert_eq!(post(&mut shop, &ALICE, &forged, 1), Verdict::NotPermitted);
        assert_eq!(post(&mut shop, &ALICE, &Permit::Own, 2), Verdict::NotPermitted);
        assert_eq!(post(&mut shop, &bob.user(), &Permit::Own, 3), Verdict::Kept);
        assert_eq!(post(&mut shop, &ALICE, &Permit::Stranger, 4), Verdict::Kept);
        let mut terms = bob.terms(0, 2);
        terms.strangers = false;
        terms.revoked = List::first_of([PassId([1; 16])]);
        shop.store.open_mailbox(NOW, &bob.verified(0, &terms)).expect("opens");
        assert_eq!(post(&mut shop, &ALICE, &bob.permit(1), 5), Verdict::NotPermitted);
        assert_eq!(post(&mut shop, &ALICE, &bob.permit(2), 6), Verdict::Kept);
        assert_eq!(post(&mut shop, &UserKey([5; 32]), &Permit::Stranger, 7), Verdict::NotPermitted);
    }

    #[test]
    fn a_stranger_may_leave_one_short_request_and_strangers_are_bounded() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let mut post = |from: u8, n, len| {
            let envelope = envelope(bob.device(0), n, len);
            shop.store.post(NOW, &UserKey([from; 32]), &Permit::Stranger, &envelope).expect("works")
        };
        assert_eq!(post(1, 1, STRANGER_BYTES_MAX + 1), Verdict::NotPermitted);
        assert_eq!(post(1, 1, STRANGER_BYTES_MAX), Verdict::Kept);
        assert_eq!(post(1, 2, 256), Verdict::Full);
        let kept = (2..=200).filter(|from| post(*from, 100 + u32::from(*from), 256) == Verdict::Kept).count();
        assert_eq!(kept, 63);
        assert_eq!(shop.store.admit(&UserKey([1; 32]), &Permit::Stranger, &bob.device(0)).expect("works"), Verdict::NotPermitted);
    }

    #[test]
    fn an_evil_contact_fills_his_share_and_the_others_mail_is_untouched() {
        let full = std::env::var_os("AHOY_FULL").is_some();
        let (mut shop, bob, carol) = (Shop::new(), User::new(1), User::new(1));
        bob.open(&mut shop.store, 0);
        carol.open(&mut shop.store, 0);
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(1), 0..10, 300), 10);
        assert_eq!(fill(&mut shop, &carol, 0, &carol.permit(1), 0..10, 300), 10);
        let attempts = if full { 1_000_000 } else { 1500 };
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(2), 1000..1000 + attempts, 256), 1250, "a quarter of the envelopes");
        let totals = shop.store.totals().expect("works");
        assert_eq!((totals.envelopes, totals.bytes), (1270, 1250 * 256 + 20 * 300));
        assert_eq!(ids(&shop.store, bob.device(0))[..10], (0..10).map(id).collect::<Vec<_>>());
        assert_eq!(ids(&shop.store, carol.device(0)).len(), 10);
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(1), 10..20, 300), 10, "others write as before");
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(3), &envelope(bob.device(0), 20, 256)).expect("works"), Verdict::Kept);
    }

    #[test]
    fn large_envelopes_fill_a_share_by_their_bytes() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(1), 0..100, 64 * 1024), 80, "5 MiB");
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(2), 100..101, 64 * 1024), 1);
    }

    #[test]
    fn however_many_conspire_a_user_has_no_more_than_his_quota() {
        let (mut shop, bob) = (Shop::new(), User::new(2));
        bob.open(&mut shop.store, 0);
        bob.open(&mut shop.store, 1);
        let device_full: usize =
            (0..6).map(|n| fill(&mut shop, &bob, 0, &bob.permit(n), u32::from(n) * 1000..(u32::from(n) + 1) * 1000, 256)).sum();
        assert_eq!(device_full, 2500, "half of the envelopes are for the other device");
        assert_eq!(fill(&mut shop, &bob, 1, &bob.permit(9), 0..100, 64 * 1024), 40, "a quarter of its half");
        let totals = shop.store.totals().expect("works");
        assert!(totals.envelopes <= USER_ENVELOPES_MAX && totals.bytes <= USER_BYTES_MAX, "{totals:?}");
    }

    #[test]
    fn a_full_supernode_takes_nothing_more_and_no_further_user() {
        let mut shop = Shop::with(Limits { users_max: 1, bytes_max: 1000 });
        let (bob, carol) = (User::new(1), User::new(1));
        bob.open(&mut shop.store, 0);
        let refused = shop.store.open_mailbox(NOW, &carol.verified(0, &carol.terms(0, 1)));
        assert!(matches!(refused, Err(MailError::NoRoom)));
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(1), 0..10, 256), 3);
    }

    #[test]
    fn pages_are_bounded_and_together_they_are_everything_once_and_in_order() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        fill(&mut shop, &bob, 0, &bob.permit(1), 0..100, 256);
        fill(&mut shop, &bob, 0, &bob.permit(1), 100..110, 64 * 1024);
        let (mut after, mut seen) = (0, Vec::new());
        loop {
            let page = shop.store.fetch(&bob.device(0), after).expect("works").expect("is open");
            assert!(page.envelopes.iter().map(|envelope| envelope.sealed.len()).sum::<usize>() <= ENVELOPES_SENT_BYTES_MAX);
            seen.extend(page.envelopes.iter().map(|envelope| envelope.id));
            after = page.next;
            if !page.has_more {
                break;
            }
        }
        assert_eq!(seen, (0..110).map(id).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_kept_for_longer_than_an_envelope_lives() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let for_ever = Envelope { not_after: UnixMillis(u64::MAX), ..envelope(bob.device(0), 1, 256) };
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &for_ever).expect("works"), Verdict::Kept);
        let page = shop.store.fetch(&bob.device(0), 0).expect("works").expect("is open");
        assert_eq!(page.envelopes[0].not_after, NOW.plus(30 * DAY));
        let ended = Envelope { not_after: NOW, ..envelope(bob.device(0), 2, 256) };
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &ended).expect("works"), Verdict::Passed);
    }

    #[test]
    fn a_batch_that_cannot_be_written_leaves_nothing() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let undone = shop.store.together(|store| {
            store.post(NOW, &ALICE, &bob.permit(1), &envelope(bob.device(0), 1, 256)).expect("works");
            store.connection.execute_batch("ROLLBACK").expect("as SQLite does when the disk is full");
        });
        assert!(undone.is_err());
        assert!(ids(&shop.store, bob.device(0)).is_empty());
        assert_eq!(fill(&mut shop, &bob, 0, &bob.permit(1), 1..2, 256), 1, "the next batch is written");
    }
}
