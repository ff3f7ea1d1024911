//! Registers: small states of other crates under names of theirs, read whole at the start.

use crate::error::ArchiveError;
use crate::open::Archive;
use rusqlite::params;

impl Archive {
    /// What a register holds.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn register(&self, key: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.one("SELECT bytes FROM registers WHERE key = ?1", params![key], |row| row.get(0))
    }

    /// All registers whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn registers(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        // The end of the range is the prefix followed by the last character there is.
        let sql = "SELECT key, bytes FROM registers WHERE key >= ?1 AND key <= ?1 || char(0x10FFFF) ORDER BY key";
        self.all(sql, params![prefix], |row| Ok((row.get(0)?, row.get(1)?)))
    }
}
