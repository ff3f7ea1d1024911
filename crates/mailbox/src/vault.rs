//! Vaults: registers of a user's, of which the higher version stays.

use crate::error::MailError;
use crate::store::{MailStore, count, integer, next_number, one, rows, run};
use ahoy_protocol::ids::{UserKey, VaultKey};
use ahoy_protocol::mail::VaultPage;
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::vault::{VAULT_ITEMS_MAX, VAULT_ITEMS_SENT_MAX, VaultItem};
use ahoy_protocol::{Blob, List, UnixMillis};
use rusqlite::{Connection, Row, params};

/// What came of items that were put into a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VaultPut {
    /// Items that are in it by this.
    pub changed: usize,
    /// Items for which there was no room, or whose version is ahead of the clock: nobody could change them for a long time.
    pub refused: usize,
}

impl MailStore {
    /// Puts items into a user's vault. `None` if he has none here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn put_vault(&mut self, now: UnixMillis, user: &UserKey, items: &[VaultItem]) -> Result<Option<VaultPut>, MailError> {
        self.put_by(now, user, items, Source::Keeper)
    }

    /// Puts those items into a user's vault of which there is none yet: for somebody who may have kept it before, and is not to be trusted
    /// with more. `None` if the user has none here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn fill_vault(&mut self, now: UnixMillis, user: &UserKey, items: &[VaultItem]) -> Result<Option<VaultPut>, MailError> {
        self.put_by(now, user, items, Source::Former)
    }

    fn put_by(&mut self, now: UnixMillis, user: &UserKey, items: &[VaultItem], source: Source) -> Result<Option<VaultPut>, MailError> {
        let bytes_max = self.limits.bytes_max;
        let putting = self.connection.savepoint()?;
        if !has_vault(&putting, user)? {
            return Ok(None);
        }
        let mut put = VaultPut::default();
        for item in items {
            let known = known(&putting, user, &item.key)?;
            if known.as_ref().is_some_and(|known| source == Source::Former || !item.supersedes(known)) {
                continue;
            }
            let is_ahead = item.version > now.plus(CLOCK_AHEAD_MAX).0;
            if is_ahead || (known.is_none() && !has_room(&putting, user, item, source, bytes_max)?) {
                put.refused += 1;
                continue;
            }
            let number = next_number(&putting, now)?;
            let upsert = "INSERT INTO items (number, user, key, version, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT DO UPDATE SET number = ?1, version = ?4, sealed = ?5";
            run(&putting, upsert, params![number, user.as_bytes(), item.key.as_bytes(), integer(item.version), &item.sealed[..]])?;
            put.changed += 1;
        }
        putting.commit()?;
        Ok(Some(put))
    }

    /// Some of the items of a user's vault, in the order in which they changed, from the one after `after` on. `None` if he has none here.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn vault(&self, user: &UserKey, after: u64) -> Result<Option<VaultPage>, MailError> {
        if !has_vault(&self.connection, user)? {
            return Ok(None);
        }
        let query = "SELECT key, version, sealed, number FROM items WHERE user = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut found = statement.query(params![user.as_bytes(), integer(after), rows(VAULT_ITEMS_SENT_MAX + 1)])?;
        let (mut items, mut next, mut has_more) = (Vec::new(), after, false);
        while let Some(row) = found.next()? {
            if items.len() == VAULT_ITEMS_SENT_MAX {
                has_more = true;
                break;
            }
            items.push(item(row)?.ok_or(MailError::Damaged("vault item"))?);
            next = count(row, 3)?;
        }
        Ok(Some(VaultPage { items: List::first_of(items), next, has_more }))
    }
}

/// Who puts items into a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A device of the user, or another supernode that keeps his mail.
    Keeper,
    /// A supernode that may have kept his mail before.
    Former,
}

impl Source {
    /// Up to how many items it may bring a vault. Whoever is not to be trusted must leave room for those who are.
    fn items_max(self) -> usize {
        match self {
            Self::Keeper => VAULT_ITEMS_MAX,
            Self::Former => VAULT_ITEMS_MAX / 2,
        }
    }
}

fn has_vault(connection: &Connection, user: &UserKey) -> Result<bool, MailError> {
    Ok(one(connection, "SELECT 1 FROM users WHERE user = ?1", [user.as_bytes()], |_| Ok(()))?.is_some())
}

fn known(connection: &Connection, user: &UserKey, key: &VaultKey) -> Result<Option<VaultItem>, MailError> {
    let query = "SELECT key, version, sealed FROM items WHERE user = ?1 AND key = ?2";
    Ok(one(connection, query, params![user.as_bytes(), key.as_bytes()], item)?.flatten())
}

/// The item in a row; `None` if it is longer than one may be.
fn item(row: &Row<'_>) -> rusqlite::Result<Option<VaultItem>> {
    let (key, version) = (VaultKey(row.get(0)?), count(row, 1)?);
    Ok(Blob::new(row.get(2)?).map(|sealed| VaultItem { key, version, sealed }))
}

fn has_room(connection: &Connection, user: &UserKey, item: &VaultItem, source: Source, bytes_max: u64) -> Result<bool, MailError> {
    let items = one(connection, "SELECT items FROM users WHERE user = ?1", [user.as_bytes()], |row| count(row, 0))?.unwrap_or(0);
    let bytes = one(connection, "SELECT bytes FROM node", [], |row| count(row, 0))?.unwrap_or(0);
    let len = u64::try_from(item.sealed.len()).unwrap_or(u64::MAX);
    Ok(usize::try_from(items).is_ok_and(|items| items < source.items_max()) && bytes.saturating_add(len) <= bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, Shop, User};

    fn register(key: u16, version: u64, says: u8) -> VaultItem {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&key.to_be_bytes());
        VaultItem { key: VaultKey(bytes), version, sealed: Blob::new(vec![says; 40]).expect("fits") }
    }

    fn items(store: &MailStore, user: &UserKey, after: u64) -> Vec<VaultItem> {
        store.vault(user, after).expect("works").expect("has one").items.into_vec()
    }

    #[test]
    fn of_two_items_with_one_key_the_higher_version_stays_in_whichever_order_they_come() {
        for order in [[1, 2], [2, 1]] {
            let (mut shop, bob) = (Shop::new(), User::new(1));
            bob.open(&mut shop.store, 0);
            for version in order {
                shop.store.put_vault(NOW, &bob.user(), &[register(1, version, 7)]).expect("works");
            }
            assert_eq!(items(&shop.store, &bob.user(), 0), [register(1, 2, 7)]);
        }
    }

    #[test]
    fn what_was_written_at_once_ends_alike_everywhere() {
        for order in [[3, 4], [4, 3]] {
            let (mut shop, bob) = (Shop::new(), User::new(1));
            bob.open(&mut shop.store, 0);
            let _ = order.map(|says| shop.store.put_vault(NOW, &bob.user(), &[register(1, 1, says)]).expect("works"));
            assert_eq!(items(&shop.store, &bob.user(), 0), [register(1, 1, 4)]);
        }
    }

    #[test]
    fn a_device_reads_what_changed_since_it_read_last() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        assert_eq!(shop.store.put_vault(NOW, &bob.user(), &[register(1, 1, 1)]).expect("works"), None);
        bob.open(&mut shop.store, 0);
        let many: Vec<_> = (0..200).map(|key| register(key, 1, 1)).collect();
        assert_eq!(shop.store.put_vault(NOW, &bob.user(), &many).expect("works"), Some(VaultPut { changed: 200, refused: 0 }));
        let first = shop.store.vault(&bob.user(), 0).expect("works").expect("has one");
        assert_eq!((first.items.len(), first.has_more), (VAULT_ITEMS_SENT_MAX, true));
        let second = shop.store.vault(&bob.user(), first.next).expect("works").expect("has one");
        assert_eq!((second.items.len(), second.has_more), (200 - VAULT_ITEMS_SENT_MAX, false));
        shop.store.put_vault(NOW, &bob.user(), &[register(5, 2, 2), register(6, 1, 1)]).expect("works");
        assert_eq!(items(&shop.store, &bob.user(), second.next), [register(5, 2, 2)]);
    }

    #[test]
    fn who_kept_it_before_adds_what_is_missing_and_replaces_nothing() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        shop.store.put_vault(NOW, &bob.user(), &[register(1, 1, 1)]).expect("works");
        shop.store.fill_vault(NOW, &bob.user(), &[register(1, 2, 2), register(2, 1, 2)]).expect("works");
        assert_eq!(items(&shop.store, &bob.user(), 0), [register(1, 1, 1), register(2, 1, 2)]);
    }

    #[test]
    fn an_item_nobody_could_change_and_one_too_many_are_refused() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let ahead = register(1, NOW.plus(CLOCK_AHEAD_MAX).0 + 1, 1);
        assert_eq!(shop.store.put_vault(NOW, &bob.user(), &[ahead]).expect("works"), Some(VaultPut { changed: 0, refused: 1 }));
        let many: Vec<_> = (0..u16::try_from(VAULT_ITEMS_MAX).expect("fits")).map(|key| register(key, 1, 1)).collect();
        let put = shop.store.together(|store| store.put_vault(NOW, &bob.user(), &many)).expect("is written").expect("works");
        assert_eq!(put, Some(VaultPut { changed: VAULT_ITEMS_MAX, refused: 0 }));
        let more = [register(60_000, 1, 1), register(0, 2, 1)];
        assert_eq!(shop.store.put_vault(NOW, &bob.user(), &more).expect("works"), Some(VaultPut { changed: 1, refused: 1 }));
    }
}
