//! The calls of the past.

use crate::error::ArchiveError;
use crate::open::Archive;
use crate::writer::Writer;
use crate::{integer, unsigned};
use ahoy_protocol::{CallId, UnixMillis};
use rusqlite::params;
use serde_json::Value;

/// Calls that are kept, the newest. At ten a day it is 27 years.
pub const CALLS_MAX: usize = 100_000;

/// A call of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call.
    pub id: CallId,
    /// When it was placed, or came in.
    pub began: UnixMillis,
    /// What is known of it, as an object of its owner's making; it is exported as it is.
    pub record: Value,
}

impl Writer<'_> {
    pub(crate) fn call(&self, call: &Call) -> rusqlite::Result<()> {
        let sql = "INSERT INTO calls (id, began, record) VALUES (?1, ?2, ?3)
                   ON CONFLICT (id) DO UPDATE SET began = excluded.began, record = excluded.record";
        self.run(sql, params![call.id.as_bytes(), integer(call.began.0), call.record.to_string()])?;
        self.run(
            "DELETE FROM calls WHERE id IN (SELECT id FROM calls ORDER BY began DESC LIMIT -1 OFFSET ?1)",
            params![integer(CALLS_MAX as u64)],
        )
    }
}

impl Archive {
    /// At most `count` calls that began before `before`, the newest first.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn calls(&self, before: UnixMillis, count: usize) -> Result<Vec<Call>, ArchiveError> {
        let sql = "SELECT id, began, record FROM calls WHERE began < ?1 ORDER BY began DESC LIMIT ?2";
        let before = before.0.min(i64::MAX.cast_unsigned());
        self.all(sql, params![integer(before), integer(count as u64)], |row| {
            let record: String = row.get(2)?;
            let record = serde_json::from_str(&record).map_err(|_| crate::projection::wrong(2))?;
            Ok(Call { id: CallId(row.get(0)?), began: UnixMillis(unsigned(row.get(1)?)), record })
        })
    }
}
