//! Opening an archive: key, format, and what is checked before anything is written.

use crate::error::ArchiveError;
use crate::schema;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The file in its folder.
const FILE: &str = "archive.sqlite";
/// How long another process may hold the file, as a copying or checking one does for a moment.
const BUSY_TIME: Duration = Duration::from_secs(5);
/// Statements that are kept compiled: all that there are.
const STATEMENTS_KEPT: usize = 96;

/// What a device keeps.
#[derive(Debug)]
pub struct Archive {
    pub(crate) connection: Connection,
    path: PathBuf,
}

impl Archive {
    /// The archive in the folder `dir`, made if there is none. One of an earlier format is copied and brought to this one.
    ///
    /// # Errors
    /// If the key is another, the format later, or the system refuses; the archive is then as it was.
    pub fn open(dir: &Path, key: &[u8; 32]) -> Result<Self, ArchiveError> {
        Self::open_with(dir, key, schema::MIGRATIONS)
    }

    pub(crate) fn open_with(dir: &Path, key: &[u8; 32], migrations: &[&str]) -> Result<Self, ArchiveError> {
        let path = dir.join(FILE);
        // SQLite would make it readable for all; its log takes the permissions of the file.
        let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        made.map_err(|error| ArchiveError::Failed { path: path.clone(), reason: error.to_string() })?;
        let mut connection = connect(&path, key).map_err(|error| ArchiveError::of(&path, &error))?;
        schema::migrate(&mut connection, &path, migrations)?;
        Ok(Self { connection, path })
    }

    /// Where the archive is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of the archive and finds out whether it is whole.
    ///
    /// # Errors
    /// [`ArchiveError::Damaged`] if it is not.
    pub fn check(&self) -> Result<(), ArchiveError> {
        self.check_pages()
            .map_err(|error| self.failed(error))?
            .map_or(Ok(()), |reason| Err(ArchiveError::Damaged { path: self.path.clone(), reason }))
    }

    /// What is wrong with the pages, the tables or the search index.
    fn check_pages(&self) -> rusqlite::Result<Option<String>> {
        let mut statement = self.connection.prepare("PRAGMA cipher_integrity_check")?;
        if let Some(row) = statement.query([])?.next()? {
            return row.get(0).map(Some);
        }
        let found: String = self.connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Ok(Some(found));
        }
        self.connection.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)", [])?;
        Ok(None)
    }

    /// What an error of SQLite means for this archive.
    pub(crate) fn failed(&self, error: rusqlite::Error) -> ArchiveError {
        ArchiveError::of(&self.path, &error)
    }
}

/// A connection that can read: with a wrong key this fails at the first page.
fn connect(path: &Path, key: &[u8; 32]) -> rusqlite::Result<Connection> {
    // One thread at a time has the archive, so SQLite need not lock itself.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // What is wrong is told by errors; SQLCipher would write it to the program's standard error, too.
    connection.execute_batch("PRAGMA cipher_log_level = NONE")?;
    // The bytes are the key: nothing is derived from them, which for a random key would only take time.
    let hex = Zeroizing::new(data_encoding::HEXLOWER.encode(key));
    connection.execute_batch(&Zeroizing::new(format!("PRAGMA key = \"x'{}'\"", *hex)))?;
    connection.busy_timeout(BUSY_TIME)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    schema::version(&connection)?;
    Ok(connection)
}
