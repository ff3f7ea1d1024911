//! The outbox, and which envelopes came already.

use crate::error::ArchiveError;
use crate::open::Archive;
use crate::writer::Writer;
use crate::{integer, unsigned};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::{DeviceKey, EnvelopeId};
use rusqlite::params;

/// An envelope on its way out. Put again, it is the same envelope, so it is kept as it was first sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The envelope.
    pub id: EnvelopeId,
    /// The device it is for.
    pub to: DeviceKey,
    /// When it is to be sent next.
    pub next_try: UnixMillis,
    /// How often it was sent.
    pub tries: u32,
    /// The envelope and what belongs to it, as its owner encodes it.
    pub bytes: Vec<u8>,
}

impl Writer<'_> {
    pub(crate) fn post(&self, outgoing: &Outgoing) -> rusqlite::Result<()> {
        let sql = "INSERT INTO outbox (id, addressee, next_try, tries, bytes) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
        let (id, to) = (outgoing.id.as_bytes(), outgoing.to.as_bytes());
        self.run(sql, params![id, to, integer(outgoing.next_try.0), outgoing.tries, outgoing.bytes])
    }
}

impl Archive {
    /// At most `count` envelopes that are due at `now`, the longest due first.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn due(&self, now: UnixMillis, count: usize) -> Result<Vec<Outgoing>, ArchiveError> {
        let sql = "SELECT id, addressee, next_try, tries, bytes FROM outbox WHERE next_try <= ?1 ORDER BY next_try, rowid LIMIT ?2";
        self.all(sql, params![integer(now.0), integer(count as u64)], |row| {
            Ok(Outgoing {
                id: EnvelopeId(row.get(0)?),
                to: DeviceKey(row.get(1)?),
                next_try: UnixMillis(unsigned(row.get(2)?)),
                tries: row.get(3)?,
                bytes: row.get(4)?,
            })
        })
    }

    /// When the next envelope is due; `None`: the outbox is empty.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn next_due(&self) -> Result<Option<UnixMillis>, ArchiveError> {
        let sql = "SELECT next_try FROM outbox ORDER BY next_try LIMIT 1";
        self.one(sql, &[], |row| row.get(0).map(|at| UnixMillis(unsigned(at))))
    }

    /// How many envelopes are in the outbox.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn outbox_len(&self) -> Result<u64, ArchiveError> {
        let len = self.one("SELECT count(*) FROM outbox", &[], |row| row.get(0).map(unsigned))?;
        Ok(len.unwrap_or_default())
    }

    /// Whether an envelope came already.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn is_seen(&self, id: &EnvelopeId) -> Result<bool, ArchiveError> {
        let found = self.one("SELECT 1 FROM seen WHERE id = ?1", params![id.as_bytes()], |_| Ok(()))?;
        Ok(found.is_some())
    }
}
