//! Dropping what has had its time.

use crate::error::MailError;
use crate::limits::{ASKER_TIME, MAILBOX_LIFE, VAULT_LIFE};
use crate::mailbox::{close, forget_user};
use crate::store::{MailStore, integer, run};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::{DeviceKey, UserKey};
use rusqlite::{Connection, Params, params};

/// Rows of one kind that one sweep drops at most. Whoever sweeps every few seconds keeps up with any rate at which they can come.
const ROWS_MAX: i64 = 2000;
/// Mailboxes and users that one sweep drops at most, each with all that it holds.
const HOLDERS_MAX: i64 = 8;
/// Pages of the file that one sweep gives back to the file system at most.
const PAGES_MAX: i64 = 512;

/// What one sweep dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Envelopes that nobody fetched in time.
    pub envelopes: usize,
    /// Mailboxes that their devices did not open in time.
    pub mailboxes: usize,
    /// Users of whom nothing was seen.
    pub users: usize,
}

impl MailStore {
    /// Drops some of what has had its time.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub fn sweep(&mut self, now: UnixMillis) -> Result<Swept, MailError> {
        let sweeping = self.connection.savepoint()?;
        let ended = |table| format!("DELETE FROM {table} WHERE number IN (SELECT number FROM {table} WHERE not_after <= ?1 LIMIT ?2)");
        let envelopes = run(&sweeping, &ended("envelopes"), params![integer(now.0), ROWS_MAX])?;
        run(&sweeping, &ended("taken"), params![integer(now.0), ROWS_MAX])?;
        let idle_askers = "DELETE FROM askers WHERE (device, asker) IN (SELECT device, asker FROM askers WHERE since <= ?1 LIMIT ?2)";
        run(&sweeping, idle_askers, params![integer(now.minus(ASKER_TIME).0), ROWS_MAX])?;
        let idle = "SELECT device FROM mailboxes WHERE seen <= ?1 LIMIT ?2";
        let mailboxes = holders(&sweeping, idle, params![integer(now.minus(MAILBOX_LIFE).0), HOLDERS_MAX])?;
        for device in &mailboxes {
            close(&sweeping, &DeviceKey(*device))?;
        }
        let gone =
            "SELECT user FROM users WHERE seen <= ?1 AND NOT EXISTS (SELECT 1 FROM mailboxes WHERE mailboxes.user = users.user) LIMIT ?2";
        let users = holders(&sweeping, gone, params![integer(now.minus(VAULT_LIFE).0), HOLDERS_MAX])?;
        for user in &users {
            forget_user(&sweeping, &UserKey(*user))?;
        }
        sweeping.commit()?;
        give_room_back(&self.connection)?;
        Ok(Swept { envelopes, mailboxes: mailboxes.len(), users: users.len() })
    }
}

/// Gives free pages back to the file system: one at each step of the statement.
fn give_room_back(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_MAX})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

fn holders(connection: &Connection, query: &str, params: impl Params) -> Result<Vec<[u8; 32]>, MailError> {
    let mut statement = connection.prepare_cached(query)?;
    let keys = statement.query_map(params, |row| row.get(0))?;
    Ok(keys.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, NOW, Shop, User, envelope};
    use crate::{Totals, Verdict};
    use ahoy_protocol::mail::ENVELOPE_LIFE;
    use ahoy_protocol::time::DAY;

    #[test]
    fn what_nobody_fetched_goes_after_its_time_and_the_mailbox_and_the_user_after_theirs() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let wrote = envelope(bob.device(0), 1, 256);
        shop.store.post(NOW, &ALICE, &bob.permit(1), &wrote).expect("works");
        assert_eq!(shop.store.sweep(NOW.plus(9 * DAY)).expect("works"), Swept::default());
        assert_eq!(shop.store.sweep(NOW.plus(10 * DAY)).expect("works").envelopes, 1);
        assert_eq!(shop.store.sweep(NOW.plus(MAILBOX_LIFE)).expect("works").mailboxes, 1);
        assert_eq!(shop.store.post(NOW, &ALICE, &bob.permit(1), &wrote).expect("works"), Verdict::NoMailbox);
        assert_eq!(shop.store.sweep(NOW.plus(VAULT_LIFE)).expect("works").users, 1);
        assert_eq!(shop.store.totals().expect("works"), Totals::default());
    }

    #[test]
    fn what_was_deleted_gives_its_room_back_to_the_file_system() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        for n in 0..20 {
            shop.store.post(NOW, &ALICE, &bob.permit(1), &envelope(bob.device(0), n, 64 * 1024)).expect("works");
        }
        shop.store.sweep(NOW.plus(10 * DAY)).expect("works");
        let free: i64 = shop.store.connection.pragma_query_value(None, "freelist_count", |row| row.get(0)).expect("works");
        assert_eq!(free, 0);
    }

    #[test]
    fn that_an_envelope_was_taken_is_remembered_as_long_as_it_could_come_back() {
        let (mut shop, bob) = (Shop::new(), User::new(1));
        bob.open(&mut shop.store, 0);
        let wrote = envelope(bob.device(0), 1, 256);
        shop.store.delete(NOW, &bob.device(0), &[wrote.id]).expect("works");
        shop.store.sweep(NOW.plus(ENVELOPE_LIFE - DAY)).expect("works");
        assert_eq!(shop.store.wanted(&bob.device(0), &[wrote.id]).expect("works"), []);
        shop.store.sweep(NOW.plus(ENVELOPE_LIFE)).expect("works");
        assert_eq!(shop.store.wanted(&bob.device(0), &[wrote.id]).expect("works"), [wrote.id]);
    }
}
