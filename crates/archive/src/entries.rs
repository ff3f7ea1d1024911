//! Reading logs as they were written, for devices that lack entries.

use crate::error::ArchiveError;
use crate::messages::read_name;
use crate::open::Archive;
use crate::projection::read_entry;
use crate::{integer, unsigned};
use ahoy_protocol::ids::{ConversationId, DeviceKey, EntryHash};
use ahoy_protocol::message::{ENTRIES_HANDED_ON_MAX, Entry, EntryRef};
use ahoy_protocol::{Name, UnixMillis};
use rusqlite::params;

/// An entry as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The entry.
    pub entry: Entry,
    /// Its hash.
    pub hash: EntryHash,
    /// When it came.
    pub received: UnixMillis,
    /// Whether it counts.
    pub is_shown: bool,
}

/// How far a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The conversation it is in.
    pub conversation: ConversationId,
    /// Whose it is.
    pub author: DeviceKey,
    /// The user of that device.
    pub user: Name,
    /// The number of its last entry here.
    pub seq: u64,
    /// That entry's hash.
    pub hash: EntryHash,
    /// Up to which number the user has read it.
    pub read: u64,
}

impl Archive {
    /// The entries of a log with numbers from `first` to `last` that are here: the first [`ENTRIES_HANDED_ON_MAX`] of them.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn entries(
        &self,
        conversation: &ConversationId,
        author: &DeviceKey,
        first: u64,
        last: u64,
    ) -> Result<Vec<StoredEntry>, ArchiveError> {
        let sql = "SELECT e.bytes, e.hash, e.received, e.shown
                   FROM conversations c JOIN logs l ON l.conversation = c.id JOIN entries e ON e.log = l.id
                   WHERE c.conversation = ?1 AND l.author = ?2 AND e.seq BETWEEN ?3 AND ?4 ORDER BY e.seq LIMIT ?5";
        let limit = i64::try_from(ENTRIES_HANDED_ON_MAX).expect("the bound is small");
        let last = last.min(i64::MAX.cast_unsigned());
        let params = params![conversation.as_bytes(), author.as_bytes(), integer(first), integer(last), limit];
        self.all(sql, params, |row| {
            Ok(StoredEntry {
                entry: read_entry(row, 0)?,
                hash: EntryHash(row.get(1)?),
                received: UnixMillis(unsigned(row.get(2)?)),
                is_shown: row.get(3)?,
            })
        })
    }

    /// The hash of an entry that is here.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn hash(&self, conversation: &ConversationId, entry: &EntryRef) -> Result<Option<EntryHash>, ArchiveError> {
        let sql = "SELECT e.hash FROM conversations c JOIN logs l ON l.conversation = c.id JOIN entries e ON e.log = l.id
                   WHERE c.conversation = ?1 AND l.author = ?2 AND e.seq = ?3";
        let params = params![conversation.as_bytes(), entry.author.as_bytes(), integer(entry.seq)];
        self.one(sql, params, |row| row.get(0).map(EntryHash))
    }

    /// Every log of which there are entries.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn logs(&self) -> Result<Vec<LogHead>, ArchiveError> {
        let sql = "SELECT c.conversation, l.author, l.user, e.seq, e.hash, l.read
                   FROM logs l JOIN conversations c ON c.id = l.conversation
                   JOIN entries e ON e.log = l.id AND e.seq = (SELECT max(seq) FROM entries WHERE log = l.id) ORDER BY l.id";
        self.all(sql, &[], |row| {
            Ok(LogHead {
                conversation: ConversationId(row.get(0)?),
                author: DeviceKey(row.get(1)?),
                user: read_name(row, 2)?,
                seq: unsigned(row.get(3)?),
                hash: EntryHash(row.get(4)?),
                read: unsigned(row.get(5)?),
            })
        })
    }
}
