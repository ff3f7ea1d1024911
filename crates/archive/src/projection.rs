//! From entries to messages: what people see follows from the entries that are shown, whatever their order.
//!
//! A text, file or voice entry is a row of `messages`. An edit, deletion or reaction is kept by what it is about, the last of each user; it
//! takes effect when it comes and, if that is later, when its message comes.

use crate::writer::Writer;
use crate::{integer, unsigned};
use ahoy_protocol::Wire;
use ahoy_protocol::ids::{ConversationId, DeviceKey};
use ahoy_protocol::message::{Body, Entry, EntryRef};
use rusqlite::{OptionalExtension, Row, params};

/// How far an own message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// It is here only.
    Waiting = 0,
    /// Mailboxes keep it.
    InNetwork = 1,
    /// A device of the recipient has it.
    Delivered = 2,
    /// The recipient read it.
    Read = 3,
}

impl Delivery {
    /// The state that was kept as this number.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        [Self::Waiting, Self::InNetwork, Self::Delivered, Self::Read].into_iter().find(|state| *state as i64 == number)
    }
}

/// An entry with what is known of it besides.
struct Shown {
    log: i64,
    conversation: i64,
    author: DeviceKey,
    user: String,
    received: i64,
    entry: Entry,
}

impl Writer<'_> {
    /// An entry counts from now on. One that is not there, or counts already, changes nothing.
    pub(crate) fn show(&self, log: i64, seq: u64) -> rusqlite::Result<()> {
        let sql = "SELECT l.conversation, l.author, l.user, e.received, e.bytes
                   FROM entries e JOIN logs l ON l.id = e.log WHERE e.log = ?1 AND e.seq = ?2 AND e.shown = 0";
        let read = |row: &Row<'_>| {
            Ok(Shown {
                log,
                conversation: row.get(0)?,
                author: DeviceKey(row.get(1)?),
                user: row.get(2)?,
                received: row.get(3)?,
                entry: read_entry(row, 4)?,
            })
        };
        let shown = self.0.prepare_cached(sql)?.query_row(params![log, integer(seq)], read).optional()?;
        let Some(shown) = shown else { return Ok(()) };
        self.run("UPDATE entries SET shown = 1 WHERE log = ?1 AND seq = ?2", params![log, integer(seq)])?;
        match &shown.entry.body {
            Body::Text { text, .. } => self.add_message(&shown, text),
            Body::File(file) => self.add_message(&shown, &file.name),
            Body::Voice { .. } => self.add_message(&shown, ""),
            Body::Edit { of, text } => self.edit(&shown, of, Some(text)),
            Body::Delete { of } => self.edit(&shown, of, None),
            Body::Reaction { to, emoji, on } => self.react(&shown, to, emoji, *on),
        }
    }

    fn add_message(&self, shown: &Shown, text: &str) -> rusqlite::Result<()> {
        let (log, seq) = (shown.log, integer(shown.entry.seq));
        let sql = "INSERT INTO messages (conversation, log, seq, placed, rank, scope, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let (placed, rank, scope) = (self.placed(shown)?, rank(&shown.author), scope(shown.conversation));
        self.run(sql, params![shown.conversation, log, seq, placed, rank, scope, text])?;
        self.apply_edit(log, seq)
    }

    /// When a message stands in its conversation: when it was written, but not after it came, for clocks are ahead; and between those
    /// before and after it in its log, for clocks are set.
    fn placed(&self, shown: &Shown) -> rusqlite::Result<i64> {
        let place = |sql: &str, default: i64| {
            let found = self.0.prepare_cached(sql)?.query_row(params![shown.log, integer(shown.entry.seq)], |row| row.get(0)).optional();
            found.map(|place: Option<i64>| place.unwrap_or(default))
        };
        let before = place("SELECT placed FROM messages WHERE log = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT 1", 0)?;
        let after = place("SELECT placed FROM messages WHERE log = ?1 AND seq > ?2 ORDER BY seq LIMIT 1", i64::MAX)?;
        let written = integer(shown.entry.written.0.min(unsigned(shown.received)));
        Ok(written.max(before).min(after))
    }

    fn edit(&self, shown: &Shown, of: &EntryRef, text: Option<&str>) -> rusqlite::Result<()> {
        let log = self.target(shown, of)?;
        // Of several edits the last stays, and a deletion (no text) stays in any case.
        let sql = "INSERT INTO edits (log, seq, user, written, by_author, by_seq, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (log, seq, user) DO UPDATE
                   SET written = excluded.written, by_author = excluded.by_author, by_seq = excluded.by_seq, text = excluded.text
                   WHERE text IS NOT NULL AND (excluded.text IS NULL
                         OR (excluded.written, excluded.by_author, excluded.by_seq) > (written, by_author, by_seq))";
        let (seq, entry) = (integer(of.seq), &shown.entry);
        let by = (integer(entry.written.0), shown.author.as_bytes(), integer(entry.seq));
        self.run(sql, params![log, seq, shown.user, by.0, by.1, by.2, text])?;
        self.apply_edit(log, seq)
    }

    /// Brings a message, if it is here, to what its own user last did to it.
    fn apply_edit(&self, log: i64, seq: i64) -> rusqlite::Result<()> {
        let sql = "UPDATE messages SET text = ifnull(e.text, ''), edited = e.written, deleted = e.text IS NULL
                   FROM edits e JOIN logs l ON l.id = e.log AND l.user = e.user
                   WHERE e.log = ?1 AND e.seq = ?2 AND messages.log = ?1 AND messages.seq = ?2";
        self.run(sql, params![log, seq])
    }

    fn react(&self, shown: &Shown, to: &EntryRef, emoji: &str, on: bool) -> rusqlite::Result<()> {
        let log = self.target(shown, to)?;
        let sql = "INSERT INTO reactions (log, seq, emoji, user, written, by_author, by_seq, is_on) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT (log, seq, emoji, user) DO UPDATE
                   SET written = excluded.written, by_author = excluded.by_author, by_seq = excluded.by_seq, is_on = excluded.is_on
                   WHERE (excluded.written, excluded.by_author, excluded.by_seq) > (written, by_author, by_seq)";
        let (seq, entry) = (integer(to.seq), &shown.entry);
        let by = (integer(entry.written.0), shown.author.as_bytes(), integer(entry.seq));
        self.run(sql, params![log, seq, emoji, shown.user, by.0, by.1, by.2, on])
    }

    /// The log that an entry is about, in its own conversation.
    fn target(&self, shown: &Shown, about: &EntryRef) -> rusqlite::Result<i64> {
        self.log(&shown.entry.conversation, &about.author)
    }
}

/// The entry in column `column`.
pub(crate) fn read_entry(row: &Row<'_>, column: usize) -> rusqlite::Result<Entry> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|_| wrong(column))?;
    Entry::decode(bytes).map_err(|_| wrong(column))
}

/// A column holds what was never written there.
pub(crate) fn wrong(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, String::new(), rusqlite::types::Type::Blob)
}

/// Settles the order of messages of the same millisecond alike on all devices.
fn rank(author: &DeviceKey) -> i64 {
    i64::from_be_bytes(author.0[..8].try_into().expect("a key is longer than eight bytes"))
}

/// A word of the index that all messages of a conversation, and no others, have in their scope.
pub(crate) fn scope(conversation: i64) -> String {
    format!("c{conversation}")
}

/// The row of a conversation, if there is one.
pub(crate) fn conversation_row(connection: &rusqlite::Connection, conversation: &ConversationId) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM conversations WHERE conversation = ?1";
    connection.prepare_cached(sql)?.query_row([conversation.as_bytes()], |row| row.get(0)).optional()
}
