//! Keys with which others begin ratchets towards a device that is away.
//!
//! A one-time key is given out once. When they run out, or to a user who has taken his share of a day, the fallback key is given. The device
//! signed each; whoever takes one checks that, and not this store: a device that offers bad keys is one that nobody can write to.

use crate::error::MailError;
use crate::limits::{ASKER_TIME, KEYS_GIVEN_MAX, KEYS_PER_ASKER_MAX};
use crate::mail::is_open;
use crate::mailbox::find;
use crate::store::{MailStore, integer, next_number, one, run, signed};
use crate::writer::Writer;
use ahoy_protocol::ids::{DeviceKey, UserKey};
use ahoy_protocol::mail::{ONE_TIME_KEYS_MAX, Permit, Prekey, PrekeyKind};
use ahoy_protocol::{Signed, UnixMillis};
use rusqlite::{Connection, params};

/// Kinds of keys in the store.
const ONE_TIME: i64 = 0;
const FALLBACK: i64 = 1;
/// A one-time key that was given out: remembered, so that it is not given again.
const GIVEN: i64 = 2;

impl MailStore {
    /// Adds keys of a device to those that it has. A key that was given out already is not given again. False if the device has no mailbox
    /// here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn add_keys(&mut self, now: UnixMillis, device: &DeviceKey, keys: &[Signed<Prekey>]) -> Result<bool, MailError> {
        let adding = self.connection.savepoint()?;
        let is_open = add(&adding, now, device, keys)?;
        adding.commit()?;
        Ok(is_open)
    }

    /// Puts keys of a device in the place of those that it has. False if it has no mailbox here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn replace_keys(&mut self, now: UnixMillis, device: &DeviceKey, keys: &[Signed<Prekey>]) -> Result<bool, MailError> {
        let replacing = self.connection.savepoint()?;
        run(&replacing, "DELETE FROM keys WHERE device = ?1 AND kind != ?2", params![device.as_bytes(), GIVEN])?;
        let is_open = add(&replacing, now, device, keys)?;
        replacing.commit()?;
        Ok(is_open)
    }

    /// Gives out a key of a device to a device of `from`; `None` if there is none to be had, or not for him.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn take_key(
        &mut self,
        now: UnixMillis,
        from: &UserKey,
        permit: &Permit,
        device: &DeviceKey,
    ) -> Result<Option<Signed<Prekey>>, MailError> {
        let taking = self.connection.savepoint()?;
        let Some(mailbox) = find(&taking, device)? else { return Ok(None) };
        match Writer::admitted(&mailbox.terms, from, permit) {
            Some(Writer::Own | Writer::Pass(_)) => {}
            Some(Writer::Stranger(_)) | None => return Ok(None),
        }
        let may_have_one_time = keys_given(&taking, now, from, device)? < KEYS_PER_ASKER_MAX;
        let one_time = if may_have_one_time { oldest(&taking, device, ONE_TIME)? } else { None };
        let key = match one_time {
            Some((number, key)) => {
                give(&taking, now, device, number)?;
                count_asker(&taking, now, from, device)?;
                Some(key)
            }
            None => oldest(&taking, device, FALLBACK)?.map(|(_, key)| key),
        };
        taking.commit()?;
        Ok(key)
    }
}

/// One-time keys of a device that are left.
pub(crate) fn one_time_keys(connection: &Connection, device: &DeviceKey) -> Result<u8, MailError> {
    let query = "SELECT count(*) FROM keys WHERE device = ?1 AND kind = ?2";
    Ok(one(connection, query, params![device.as_bytes(), ONE_TIME], |row| row.get(0))?.unwrap_or(0))
}

fn add(connection: &Connection, now: UnixMillis, device: &DeviceKey, keys: &[Signed<Prekey>]) -> Result<bool, MailError> {
    if !is_open(connection, device)? {
        return Ok(false);
    }
    let mut room = ONE_TIME_KEYS_MAX.saturating_sub(one_time_keys(connection, device)?.into());
    for key in keys {
        let Ok(claims) = key.claims() else { continue };
        if claims.device != *device {
            continue;
        }
        let kind = match claims.kind {
            PrekeyKind::OneTime if room == 0 => continue,
            PrekeyKind::OneTime => ONE_TIME,
            PrekeyKind::Fallback => {
                run(connection, "DELETE FROM keys WHERE device = ?1 AND kind = ?2", params![device.as_bytes(), FALLBACK])?;
                FALLBACK
            }
        };
        let number = next_number(connection, now)?;
        let insert = "INSERT OR IGNORE INTO keys (number, device, key, kind, prekey, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let values = params![number, device.as_bytes(), claims.key.as_bytes(), kind, key.body(), key.signature().0];
        let is_new = run(connection, insert, values)? > 0;
        room -= usize::from(is_new && kind == ONE_TIME);
    }
    Ok(true)
}

fn oldest(connection: &Connection, device: &DeviceKey, kind: i64) -> Result<Option<(i64, Signed<Prekey>)>, MailError> {
    let query = "SELECT number, prekey, signature FROM keys WHERE device = ?1 AND kind = ?2 ORDER BY number LIMIT 1";
    Ok(one(connection, query, params![device.as_bytes(), kind], |row| Ok((row.get(0)?, signed(row, 1)?)))?)
}

fn give(connection: &Connection, now: UnixMillis, device: &DeviceKey, number: i64) -> Result<(), MailError> {
    let given = next_number(connection, now)?;
    run(connection, "UPDATE keys SET number = ?2, kind = ?3 WHERE number = ?1", params![number, given, GIVEN])?;
    let forget = "DELETE FROM keys WHERE number IN
        (SELECT number FROM keys WHERE device = ?1 AND kind = ?2 ORDER BY number DESC LIMIT -1 OFFSET ?3)";
    run(connection, forget, params![device.as_bytes(), GIVEN, integer(KEYS_GIVEN_MAX)])?;
    Ok(())
}

/// One-time keys of a device that were given to a user of late.
fn keys_given(connection: &Connection, now: UnixMillis, from: &UserKey, device: &DeviceKey) -> Result<u32, MailError> {
    let query = "SELECT given FROM askers WHERE device = ?1 AND asker = ?2 AND since > ?3";
    let since = integer(now.minus(ASKER_TIME).0);
    Ok(one(connection, query, params![device.as_bytes(), from.as_bytes(), since], |row| row.get(0))?.unwrap_or(0))
}

fn count_asker(connection: &Connection, now: UnixMillis, from: &UserKey, device: &DeviceKey) -> Result<(), MailError> {
    let upsert = "INSERT INTO askers (device, asker, since, given) VALUES (?1, ?2, ?3, 1) ON CONFLICT DO UPDATE SET
        given = CASE WHEN since > ?4 THEN given + 1 ELSE 1 END, since = CASE WHEN since > ?4 THEN since ELSE ?3 END";
    let (now, since) = (integer(now.0), integer(now.minus(ASKER_TIME).0));
    run(connection, upsert, params![device.as_bytes(), from.as_bytes(), now, since])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, NOW, Shop, User};
    use PrekeyKind::{Fallback, OneTime};

    fn taken(shop: &mut Shop, bob: &User, now: UnixMillis, from: UserKey) -> Option<(u8, PrekeyKind)> {
        let key = shop.store.take_key(now, &from, &bob.permit(1), &bob.device(0)).expect("works")?;
        let claims = key.claims().expect("readable");
        Some((claims.key.0[0], claims.kind))
    }

    fn stocked(one_time: u8) -> (Shop, User) {
        let (mut shop, bob) = (Shop::new(), User::new(2));
        bob.open(&mut shop.store, 0);
        let mut keys = vec![bob.key(0, 200, Fallback)];
        keys.extend((0..one_time).map(|n| bob.key(0, n, OneTime)));
        assert!(shop.store.add_keys(NOW, &bob.device(0), &keys).expect("works"));
        (shop, bob)
    }

    #[test]
    fn each_one_time_key_is_given_once_and_then_the_fallback() {
        let (mut shop, bob) = stocked(2);
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((0, OneTime)));
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((1, OneTime)));
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((200, Fallback)));
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((200, Fallback)));
    }

    #[test]
    fn a_key_that_is_offered_again_after_it_was_given_is_not_given_again() {
        let (mut shop, bob) = stocked(1);
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((0, OneTime)));
        let keys = [bob.key(0, 0, OneTime), bob.key(0, 1, OneTime)];
        shop.store.replace_keys(NOW, &bob.device(0), &keys).expect("works");
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), Some((1, OneTime)));
        assert_eq!(taken(&mut shop, &bob, NOW, ALICE), None, "the fallback was replaced by none");
    }

    #[test]
    fn one_asker_cannot_use_up_the_keys_of_all() {
        let (mut shop, bob) = stocked(50);
        let one_time = |shop: &mut Shop, now, from| (0..40).filter(|_| matches!(taken(shop, &bob, now, from), Some((_, OneTime)))).count();
        assert_eq!(one_time(&mut shop, NOW, ALICE), 16);
        assert_eq!(one_time(&mut shop, NOW, UserKey([3; 32])), 16);
        assert_eq!(one_time(&mut shop, NOW.plus(ASKER_TIME), ALICE), 16, "the next day");
    }

    #[test]
    fn strangers_get_no_key_and_nobody_offers_anothers() {
        let (mut shop, bob) = stocked(1);
        assert_eq!(shop.store.take_key(NOW, &ALICE, &Permit::Stranger, &bob.device(0)).expect("works"), None);
        assert_eq!(shop.store.take_key(NOW, &ALICE, &Permit::Own, &bob.device(0)).expect("works"), None);
        bob.open(&mut shop.store, 1);
        shop.store.add_keys(NOW, &bob.device(1), &[bob.key(0, 9, OneTime)]).expect("works");
        assert_eq!(shop.store.take_key(NOW, &bob.user(), &Permit::Own, &bob.device(1)).expect("works"), None);
        assert!(!shop.store.add_keys(NOW, &User::new(1).device(0), &[]).expect("works"), "no mailbox, no keys");
    }

    #[test]
    fn a_device_has_at_most_so_many_keys_here_and_is_told_how_many() {
        let (mut shop, bob) = stocked(50);
        let more: Vec<_> = (50..60).map(|n| bob.key(0, n, OneTime)).collect();
        shop.store.add_keys(NOW, &bob.device(0), &more).expect("works");
        assert_eq!(bob.open(&mut shop.store, 0).one_time_keys, 50);
        taken(&mut shop, &bob, NOW, ALICE);
        assert_eq!(bob.open(&mut shop.store, 0).one_time_keys, 49);
    }
}
