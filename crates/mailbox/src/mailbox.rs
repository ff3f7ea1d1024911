//! Mailboxes: how one comes to be, by whose terms it goes, and how it ends.

use crate::error::MailError;
use crate::keys::one_time_keys;
use crate::limits::Room;
use crate::store::{MailStore, count, integer, next_number, one, rows, run, signed};
use crate::terms::{VerifiedTerms, agree};
use ahoy_protocol::ids::{DeviceKey, UserKey};
use ahoy_protocol::mail::MailboxTerms;
use ahoy_protocol::record::DEVICES_MAX;
use ahoy_protocol::{Signed, UnixMillis, Wire};
use rusqlite::{Connection, params};

/// The mailbox of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// The device.
    pub device: DeviceKey,
    /// By what it goes: the newest terms of any of the user's devices.
    pub terms: MailboxTerms,
}

/// A mailbox was opened, or opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// One-time keys that are left.
    pub one_time_keys: u8,
    /// The newest terms, where they are not those that it was opened with.
    pub newer: Option<Signed<MailboxTerms>>,
    /// Whether it was not there before.
    pub is_new: bool,
    /// Whether the user's other mailboxes may know less than this one does by now.
    pub has_changed: bool,
}

/// Who opens a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
    /// Its device, which thereby is alive.
    Device,
    /// Another supernode that keeps mail of the device.
    Peer,
}

impl MailStore {
    /// A device opens its mailbox, or changes the terms of all of its user's.
    ///
    /// # Errors
    /// [`MailError::NoRoom`] for a user too many; others if the store cannot be used.
    pub fn open_mailbox(&mut self, now: UnixMillis, terms: &VerifiedTerms) -> Result<Opened, MailError> {
        self.open_by(now, terms, Opener::Device)
    }

    /// Another supernode that keeps the device's mail opens its mailbox.
    ///
    /// # Errors
    /// As [`MailStore::open_mailbox`].
    pub fn open_for_peer(&mut self, now: UnixMillis, terms: &VerifiedTerms) -> Result<Opened, MailError> {
        self.open_by(now, terms, Opener::Peer)
    }

    fn open_by(&mut self, now: UnixMillis, terms: &VerifiedTerms, opener: Opener) -> Result<Opened, MailError> {
        let users_max = self.limits.users_max;
        let opening = self.connection.savepoint()?;
        let device = terms.device();
        let known = known_version(&opening, &device)?;
        // Terms that are older than those known are a repetition, by whomever.
        let has_changed = if known.is_some_and(|known| known > terms.terms.version) {
            false
        } else {
            let is_news = enter_user(&opening, now, terms, users_max)?;
            if known.is_none() {
                make_room_for_device(&opening, &terms.user())?;
            }
            enter_device(&opening, now, terms)?;
            is_news || known.is_none_or(|known| known < terms.terms.version)
        };
        if has_changed {
            let number = next_number(&opening, now)?;
            run(&opening, "UPDATE mailboxes SET changed = ?2 WHERE device = ?1", params![device.as_bytes(), number])?;
        }
        if opener == Opener::Device {
            set_seen(&opening, now, &device)?;
        }
        let newest = newest_terms_for(&opening, &device)?.ok_or(MailError::Damaged("mailbox without a user"))?;
        let newer = newest.claims().is_ok_and(|newest| !agree(&newest, terms.terms())).then_some(newest);
        let one_time_keys = one_time_keys(&opening, &device)?;
        opening.commit()?;
        Ok(Opened { one_time_keys, newer, is_new: known.is_none(), has_changed })
    }

    /// The mailbox of a device, if it has one here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn mailbox(&self, device: &DeviceKey) -> Result<Option<Mailbox>, MailError> {
        Ok(find(&self.connection, device)?.map(|found| Mailbox { device: *device, terms: found.terms }))
    }

    /// Whether a mailbox goes by just these terms of its device: then nothing in them has to be checked again.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn has_terms(&self, device: &DeviceKey, terms: &Signed<MailboxTerms>) -> Result<bool, MailError> {
        let query = "SELECT terms, signature FROM mailboxes WHERE device = ?1";
        Ok(one(&self.connection, query, [device.as_bytes()], |row| signed(row, 0))?.is_some_and(|known| known == *terms))
    }

    /// What a user said of his mailboxes last.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn terms_of(&self, user: &UserKey) -> Result<Option<MailboxTerms>, MailError> {
        Ok(newest_terms(&self.connection, user)?.and_then(|terms| terms.claims().ok()))
    }

    /// The devices of a user that have a mailbox here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn devices_of(&self, user: &UserKey) -> Result<Vec<DeviceKey>, MailError> {
        let mut statement = self.connection.prepare_cached("SELECT device FROM mailboxes WHERE user = ?1")?;
        let devices = statement.query_map([user.as_bytes()], |row| row.get(0).map(DeviceKey))?;
        Ok(devices.collect::<Result<_, _>>()?)
    }

    /// Mailboxes in the order of their devices' keys, from the one after `after` on.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn mailboxes_after(&self, after: Option<&DeviceKey>, count: usize) -> Result<Vec<Mailbox>, MailError> {
        let query = "SELECT device, users.terms FROM mailboxes JOIN users USING (user) WHERE device > ?1 ORDER BY device LIMIT ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let after: &[u8] = after.map_or(&[], |device| device.as_bytes());
        let found = statement.query_map(params![after, rows(count)], |row| Ok((DeviceKey(row.get(0)?), row.get::<_, Vec<u8>>(1)?)))?;
        let mailbox = |row: rusqlite::Result<(DeviceKey, Vec<u8>)>| {
            let (device, terms) = row?;
            Ok(Mailbox { device, terms: decoded(&terms)? })
        };
        found.map(mailbox).collect()
    }

    /// Closes a mailbox that others have taken over, and forgets its user if it was the last of his.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn close_mailbox(&mut self, device: &DeviceKey) -> Result<(), MailError> {
        let closing = self.connection.savepoint()?;
        let query = "SELECT user FROM mailboxes WHERE device = ?1";
        let user: Option<[u8; 32]> = one(&closing, query, [device.as_bytes()], |row| row.get(0))?;
        close(&closing, device)?;
        if let Some(user) = user
            && one(&closing, "SELECT 1 FROM mailboxes WHERE user = ?1", [user], |_| Ok(()))?.is_none()
        {
            forget_user(&closing, &UserKey(user))?;
        }
        Ok(closing.commit()?)
    }
}

/// A mailbox, as whoever posts to it finds it.
pub(crate) struct Found {
    pub(crate) terms: MailboxTerms,
    pub(crate) used: Room,
}

pub(crate) fn find(connection: &Connection, device: &DeviceKey) -> Result<Option<Found>, MailError> {
    let query = "SELECT users.terms, envelopes, bytes FROM mailboxes JOIN users USING (user) WHERE device = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, Room { envelopes: count(row, 1)?, bytes: count(row, 2)? }));
    let Some((terms, used)) = one(connection, query, [device.as_bytes()], read)? else { return Ok(None) };
    Ok(Some(Found { terms: decoded(&terms)?, used }))
}

fn decoded(terms: &[u8]) -> Result<MailboxTerms, MailError> {
    MailboxTerms::decode(terms).map_err(|_| MailError::Damaged("mailbox's terms"))
}

fn newest_terms(connection: &Connection, user: &UserKey) -> Result<Option<Signed<MailboxTerms>>, MailError> {
    Ok(one(connection, "SELECT terms, signature FROM users WHERE user = ?1", [user.as_bytes()], |row| signed(row, 0))?)
}

/// The newest terms of the user of a device.
fn newest_terms_for(connection: &Connection, device: &DeviceKey) -> Result<Option<Signed<MailboxTerms>>, MailError> {
    let query = "SELECT users.terms, users.signature FROM mailboxes JOIN users USING (user) WHERE device = ?1";
    Ok(one(connection, query, [device.as_bytes()], |row| signed(row, 0))?)
}

/// Puts the newer of two terms in force for a user. True if these are, and were not before.
fn enter_user(connection: &Connection, now: UnixMillis, offered: &VerifiedTerms, users_max: u64) -> Result<bool, MailError> {
    let user = offered.user();
    let known = newest_terms(connection, &user)?;
    let wins = known.as_ref().is_none_or(|known| {
        // What cannot be read here was written by an earlier version of this program.
        known.claims().map_or(true, |claims| (offered.terms.version, offered.signed.body()) > (claims.version, known.body()))
    });
    let (body, signature) = (offered.signed.body(), offered.signed.signature().0);
    if known.is_none() {
        let users = one(connection, "SELECT users FROM node", [], |row| count(row, 0))?.unwrap_or(0);
        if users >= users_max {
            return Err(MailError::NoRoom);
        }
        let insert = "INSERT INTO users (user, terms, signature, seen) VALUES (?1, ?2, ?3, ?4)";
        run(connection, insert, params![user.as_bytes(), body, signature, integer(now.0)])?;
    } else if wins {
        run(connection, "UPDATE users SET terms = ?2, signature = ?3 WHERE user = ?1", params![user.as_bytes(), body, signature])?;
    }
    Ok(wins)
}

/// Enters a device with its terms and certificate, in the place of those before.
fn enter_device(connection: &Connection, now: UnixMillis, offered: &VerifiedTerms) -> Result<(), MailError> {
    let upsert = "INSERT INTO mailboxes (device, user, version, terms, signature, certificate, certificate_signature, seen)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE
        SET user = ?2, version = ?3, terms = ?4, signature = ?5, certificate = ?6, certificate_signature = ?7";
    let (device, user) = (offered.device(), offered.user());
    let (terms, certificate) = (&offered.signed, &offered.certificate);
    let values = params![
        device.as_bytes(),
        user.as_bytes(),
        integer(offered.terms.version),
        terms.body(),
        terms.signature().0,
        certificate.body(),
        certificate.signature().0,
        integer(now.0),
    ];
    run(connection, upsert, values)?;
    Ok(())
}

fn known_version(connection: &Connection, device: &DeviceKey) -> Result<Option<u64>, MailError> {
    Ok(one(connection, "SELECT version FROM mailboxes WHERE device = ?1", [device.as_bytes()], |row| count(row, 0))?)
}

/// A device is alive, and so is its user.
fn set_seen(connection: &Connection, now: UnixMillis, device: &DeviceKey) -> Result<(), MailError> {
    let values = params![device.as_bytes(), integer(now.0)];
    run(connection, "UPDATE mailboxes SET seen = ?2 WHERE device = ?1", values)?;
    run(connection, "UPDATE users SET seen = ?2 WHERE user = (SELECT user FROM mailboxes WHERE device = ?1)", values)?;
    Ok(())
}

/// Closes the mailbox of the device that was away the longest, if the user has as many as he may.
fn make_room_for_device(connection: &Connection, user: &UserKey) -> Result<(), MailError> {
    let query = "SELECT device FROM mailboxes WHERE user = ?1 ORDER BY seen DESC, device LIMIT -1 OFFSET ?2";
    let mut statement = connection.prepare_cached(query)?;
    let over = statement.query_map(params![user.as_bytes(), rows(DEVICES_MAX - 1)], |row| row.get(0).map(DeviceKey))?;
    for device in over.collect::<Result<Vec<_>, _>>()? {
        close(connection, &device)?;
    }
    Ok(())
}

/// Closes a mailbox. What is in it, is bounded, and so is the work.
pub(crate) fn close(connection: &Connection, device: &DeviceKey) -> Result<(), MailError> {
    for table in ["envelopes", "taken", "keys", "askers", "mailboxes"] {
        run(connection, &format!("DELETE FROM {table} WHERE device = ?1"), [device.as_bytes()])?;
    }
    Ok(())
}

/// Forgets a user who has no mailbox.
pub(crate) fn forget_user(connection: &Connection, user: &UserKey) -> Result<(), MailError> {
    for table in ["items", "users"] {
        run(connection, &format!("DELETE FROM {table} WHERE user = ?1"), [user.as_bytes()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, NOW, Shop, User, envelope, id};
    use crate::{TermsError, Verdict};
    use ahoy_protocol::List;
    use ahoy_protocol::ids::PassId;
    use ahoy_protocol::time::{CLOCK_AHEAD_MAX, DAY};

    #[test]
    fn the_newest_terms_of_any_device_hold_for_all() {
        let (mut shop, bob) = (Shop::new(), User::new(2));
        let opened = bob.open(&mut shop.store, 0);
        assert_eq!(opened, Opened { one_time_keys: 0, newer: None, is_new: true, has_changed: true });
        let mut newer = bob.terms(1, 5);
        newer.revoked = List::first_of([PassId([1; 16])]);
        let opened = shop.store.open_mailbox(NOW, &bob.verified(1, &newer)).expect("opens");
        assert_eq!((opened.newer, opened.has_changed), (None, true));
        // The first device knows nothing of it yet, and is told.
        let opened = bob.open(&mut shop.store, 0);
        assert_eq!(opened.newer.map(|newer| newer.claims()), Some(Ok(newer.clone())));
        assert!(!opened.has_changed);
        for device in 0..2 {
            assert_eq!(shop.store.mailbox(&bob.device(device)).expect("works").expect("is open").terms, newer);
        }
        let adopted = MailboxTerms { device: bob.device(0), ..newer };
        let opened = shop.store.open_mailbox(NOW, &bob.verified(0, &adopted)).expect("opens");
        assert_eq!(opened.newer, None, "the same words by another device are not news");
    }

    #[test]
    fn old_terms_that_are_played_again_change_nothing() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let mut terms = bob.terms(0, 7);
        terms.strangers = false;
        shop.store.open_mailbox(NOW, &bob.verified(0, &terms)).expect("opens");
        let again = bob.verified(0, &bob.terms(0, 1));
        assert!(!shop.store.open_for_peer(NOW, &again).expect("opens").has_changed);
        assert!(!shop.store.has_terms(&bob.device(0), &again.signed).expect("works"));
        assert_eq!(shop.store.terms_of(&bob.user()).expect("works"), Some(terms));
    }

    #[test]
    fn terms_count_only_from_the_device_itself_and_not_from_the_future() {
        let (bob, eve) = (User::new(2), User::new(1));
        let check = |terms: &MailboxTerms, signer: usize, certificate| {
            VerifiedTerms::check(&bob.network, NOW, bob.devices[signer].sign(terms).expect("fits"), certificate).err()
        };
        assert_eq!(check(&bob.terms(0, 1), 0, bob.certificate(0)), None);
        assert!(matches!(check(&bob.terms(0, 1), 1, bob.certificate(0)), Some(TermsError::Signature(_))));
        assert_eq!(check(&bob.terms(0, 1), 1, bob.certificate(1)), Some(TermsError::Contradiction));
        assert!(matches!(check(&bob.terms(0, 1), 0, eve.certificate(0)), Some(TermsError::Certificate(_))));
        let ahead = NOW.plus(CLOCK_AHEAD_MAX).0 + 1;
        assert_eq!(check(&bob.terms(0, ahead), 0, bob.certificate(0)), Some(TermsError::AheadOfClock));
    }

    #[test]
    fn a_device_too_many_takes_the_place_of_the_one_that_was_away_the_longest() {
        let (mut shop, bob) = (Shop::new(), User::new(DEVICES_MAX + 1));
        for device in 0..=DEVICES_MAX {
            let later = NOW.plus(u32::try_from(device).expect("few") * DAY);
            shop.store.open_mailbox(later, &bob.verified(device, &bob.terms(device, 1))).expect("opens");
        }
        let devices = shop.store.devices_of(&bob.user()).expect("works");
        assert_eq!(devices.len(), DEVICES_MAX);
        assert!(!devices.contains(&bob.device(0)));
        let totals = shop.store.totals().expect("works");
        assert_eq!((totals.users, totals.mailboxes), (1, u64::try_from(DEVICES_MAX).expect("few")));
    }

    #[test]
    fn a_closed_mailbox_leaves_nothing_and_its_user_goes_with_the_last() {
        let (mut shop, bob) = (Shop::new(), User::new(2));
        for device in 0..2 {
            bob.open(&mut shop.store, device);
            let posted = shop.store.post(NOW, &ALICE, &bob.permit(1), &envelope(bob.device(device), 1, 256)).expect("works");
            assert_eq!(posted, Verdict::Kept);
        }
        shop.store.close_mailbox(&bob.device(0)).expect("works");
        assert_eq!(shop.store.fetch(&bob.device(0), 0).expect("works"), None);
        assert_eq!(shop.store.fetch(&bob.device(1), 0).expect("works").expect("is open").envelopes[0].id, id(1));
        shop.store.close_mailbox(&bob.device(1)).expect("works");
        assert_eq!(shop.store.totals().expect("works"), crate::Totals::default());
    }

    #[test]
    fn mailboxes_are_gone_through_in_pages() {
        let (mut shop, bob) = (Shop::new(), User::new(5));
        (0..5).for_each(|device| drop(bob.open(&mut shop.store, device)));
        let mut seen = Vec::new();
        loop {
            let page = shop.store.mailboxes_after(seen.last(), 2).expect("works");
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|mailbox| mailbox.device));
        }
        let mut all: Vec<_> = (0..5).map(|device| bob.device(device)).collect();
        all.sort_unstable();
        assert_eq!(seen, all);
    }
}
