//! What can be wrong with an archive, in one sentence each that says what to do.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why an archive cannot be used, or a batch was not taken. Nothing of a batch that failed is in the archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The key is not the one it was made with, or the file is not an archive.
    #[error("the key does not open {path}: it is another account's, or {path} is no archive; sign in again with the password", path = .path.display())]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// A later version of the program wrote it.
    #[error("{path} was written by a newer version of this program (format {found}; this one reads up to {readable}); update the program", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest format that is read.
        readable: u32,
    },
    /// There is no room on the disk.
    #[error("the disk that {path} is on is full; nothing that was kept is lost, but nothing more can be kept: free some space", path = .path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes to it and does not stop.
    #[error("{path} is in use by another program; stop that one first", path = .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It holds something that this program did not write.
    #[error("{path} is damaged ({reason}); restore it from a backup, or move it away and import an export", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The copy that is made before a later format is begun could not be made.
    #[error("cannot copy {path} before bringing it to a later format: {source}; it is as it was; check the free space on its disk", path = .path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused to read or write.
    #[error("cannot use {path}: {reason}; check its permissions and the disk it is on", path = .path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        reason: String,
    },
}

impl ArchiveError {
    /// What an error of SQLite about `path` means.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        // Only codes and SQLite's own words are passed on; SQL text could hold what was being written.
        let reason = match error {
            rusqlite::Error::SqliteFailure(failure, _) => failure.to_string(),
            rusqlite::Error::SqlInputError { error, .. } => error.to_string(),
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => "a value has the wrong form".into(),
            _ => "the answer was not understood".into(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::WrongKey { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, reason },
            Some(_) => Self::Failed { path, reason },
            None => Self::Damaged { path, reason },
        }
    }
}

/// Why an export was not written, or not read.
#[derive(Debug, Error)]
pub enum TransferError {
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Where it was written to.
    #[error("cannot write the export: {0}; check the free space and the permissions there")]
    Write(#[from] io::Error),
    /// What was read is not an export.
    #[error("cannot read the export: {0}")]
    Read(String),
    /// A later version of the program wrote it.
    #[error(
        "the export was written by a newer version of this program (version {found}; this one reads up to {readable}); update the program"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The latest version that is read.
        readable: u32,
    },
}
