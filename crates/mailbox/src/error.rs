//! What can go wrong with the store.

use std::path::PathBuf;
use thiserror::Error;

/// Why the store does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be opened, or is no store.
    #[error("the mail store {path} cannot be opened: {source}; if it is damaged, move it away: what it holds is at two other supernodes")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A later version of the program wrote it.
    #[error("the mail store {path} has format {found}, and this program knows {known}: run the later version that wrote it")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
}

/// Why something could not be done.
#[derive(Debug, Error)]
pub enum MailError {
    /// There is no room for a further user.
    #[error("there is no room for further mailboxes")]
    NoRoom,
    /// SQLite could not read or write.
    #[error("the mail store could not be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// What lies in the file is not what was written there.
    #[error("the mail store holds a {0} that cannot be read")]
    Damaged(&'static str),
}
