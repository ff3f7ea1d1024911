//! What each change of a batch does to the tables, inside the batch's transaction.

use crate::batch::{Append, Change, LogRange};
use crate::{integer, unsigned};
use ahoy_protocol::ids::{ConversationId, DeviceKey, EnvelopeId};
use ahoy_protocol::{UnixMillis, Wire};
use rusqlite::{Connection, OptionalExtension, params};

/// Writes inside a transaction.
pub(crate) struct Writer<'a>(pub(crate) &'a Connection);

impl Writer<'_> {
    /// Does what `change` says.
    pub(crate) fn apply(&self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Append(append) => self.append(append),
            Change::Show { log } => self.show_range(log),
            Change::State { log, state } => {
                let sql = "UPDATE messages SET state = max(state, ?4) WHERE log = ?1 AND seq BETWEEN ?2 AND ?3";
                let (first, last) = bounds(log);
                self.run(sql, params![self.log(&log.conversation, &log.author)?, first, last, *state as i64])
            }
            Change::Read { conversation, author, up_to } => {
                let log = self.log(conversation, author)?;
                self.run("UPDATE logs SET read = max(read, ?2) WHERE id = ?1", params![log, integer(*up_to)])
            }
            Change::Draft { conversation, text } => {
                let id = self.conversation(conversation)?;
                self.run("UPDATE conversations SET draft = ?2 WHERE id = ?1", params![id, text])
            }
            Change::Save { key, bytes } => self.save(key, bytes),
            Change::Post(outgoing) => self.post(outgoing),
            Change::Retry { id, next_try } => self.retry(id, *next_try),
            Change::Posted { id } => self.run("DELETE FROM outbox WHERE id = ?1", params![id.as_bytes()]),
            Change::Seen { id, until } => self.seen(id, *until),
            Change::ForgetSeen { now } => self.run("DELETE FROM seen WHERE until < ?1", params![integer(now.0)]),
            Change::Call(call) => self.call(call),
        }
    }

    fn append(&self, append: &Append) -> rusqlite::Result<()> {
        let log = self.log(&append.entry.conversation, &append.author)?;
        self.name(log, append)?;
        let bytes = append.entry.encode().map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let (seq, received) = (integer(append.entry.seq), integer(append.received.0));
        let sql = "INSERT INTO entries (log, seq, hash, received, shown, bytes) VALUES (?1, ?2, ?3, ?4, 0, ?5) ON CONFLICT DO NOTHING";
        self.run(sql, params![log, seq, append.hash.as_bytes(), received, bytes])?;
        if append.is_shown { self.show(log, append.entry.seq) } else { Ok(()) }
    }

    /// Says of a log whose it is, and with whom the conversation is, where that is not known.
    fn name(&self, log: i64, append: &Append) -> rusqlite::Result<()> {
        self.run("UPDATE logs SET user = ?2 WHERE id = ?1 AND user = ''", params![log, append.user.as_str()])?;
        let title = "UPDATE conversations SET title = ?2 WHERE conversation = ?1 AND title = ''";
        self.run(title, params![append.entry.conversation.as_bytes(), append.with.as_str()])
    }

    fn show_range(&self, log: &LogRange) -> rusqlite::Result<()> {
        let (first, last) = bounds(log);
        let row = self.log(&log.conversation, &log.author)?;
        let sql = "SELECT seq FROM entries WHERE log = ?1 AND seq BETWEEN ?2 AND ?3 AND shown = 0 ORDER BY seq";
        let waiting: Vec<i64> =
            self.0.prepare_cached(sql)?.query_map(params![row, first, last], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        waiting.into_iter().try_for_each(|seq| self.show(row, unsigned(seq)))
    }

    /// The row of a log, made if there is none.
    pub(crate) fn log(&self, conversation: &ConversationId, author: &DeviceKey) -> rusqlite::Result<i64> {
        let conversation = self.conversation(conversation)?;
        let known = "SELECT id FROM logs WHERE conversation = ?1 AND author = ?2";
        let key = params![conversation, author.as_bytes()];
        match self.0.prepare_cached(known)?.query_row(key, |row| row.get(0)).optional()? {
            Some(id) => Ok(id),
            None => self.insert("INSERT INTO logs (conversation, author) VALUES (?1, ?2)", key),
        }
    }

    /// The row of a conversation, made if there is none.
    fn conversation(&self, conversation: &ConversationId) -> rusqlite::Result<i64> {
        let known = "SELECT id FROM conversations WHERE conversation = ?1";
        let key = params![conversation.as_bytes()];
        match self.0.prepare_cached(known)?.query_row(key, |row| row.get(0)).optional()? {
            Some(id) => Ok(id),
            None => self.insert("INSERT INTO conversations (conversation) VALUES (?1)", key),
        }
    }

    fn save(&self, key: &str, bytes: &[u8]) -> rusqlite::Result<()> {
        if bytes.is_empty() {
            return self.run("DELETE FROM registers WHERE key = ?1", params![key]);
        }
        self.run(
            "INSERT INTO registers (key, bytes) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes",
            params![key, bytes],
        )
    }

    fn retry(&self, id: &EnvelopeId, next_try: UnixMillis) -> rusqlite::Result<()> {
        self.run("UPDATE outbox SET tries = tries + 1, next_try = ?2 WHERE id = ?1", params![id.as_bytes(), integer(next_try.0)])
    }

    fn seen(&self, id: &EnvelopeId, until: UnixMillis) -> rusqlite::Result<()> {
        let sql = "INSERT INTO seen (id, until) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET until = max(until, excluded.until)";
        self.run(sql, params![id.as_bytes(), integer(until.0)])
    }

    /// Runs a statement that changes rows, or none.
    pub(crate) fn run(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<()> {
        self.0.prepare_cached(sql)?.execute(params).map(drop)
    }

    fn insert(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<i64> {
        self.0.prepare_cached(sql)?.insert(params)
    }
}

/// The first and last number of a range, as SQLite compares them.
fn bounds(log: &LogRange) -> (i64, i64) {
    let bound = |seq: u64| integer(seq.min(i64::MAX.cast_unsigned()));
    (bound(log.first), bound(log.last))
}
