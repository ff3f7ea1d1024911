//! The login server's data folder: which database it uses, and the folder's name and format.

use crate::error::ServeError;
use crate::keys;
use ahoy_store::DataFolder;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the folder says it belongs to.
pub(crate) const PROGRAM: &str = "ahoy-login";
/// The format of the files in the folder.
const FORMAT: u32 = 1;
/// Remembers `--database`.
const DATABASE_FILE: &str = "database.json";
/// The database where none was named.
const DEFAULT_DATABASE: &str = "accounts.db";

/// Opens, or makes, the folder at `dir`.
pub(crate) fn open(dir: &Path) -> Result<DataFolder, ServeError> {
    Ok(DataFolder::open(dir, PROGRAM, FORMAT)?)
}

/// Whether a server has run on the folder at `dir`. One that cannot be looked into counts, so that opening it says why.
pub(crate) fn holds_network(dir: &Path) -> bool {
    dir.join(keys::DOCUMENT).try_exists().unwrap_or(true)
}

/// Where accounts are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DatabaseAddress {
    /// A file.
    Sqlite(PathBuf),
    /// A `postgres:` URL.
    Postgres(String),
}

impl DatabaseAddress {
    /// What somebody wrote after `--database`. A relative path counts from the working folder.
    pub(crate) fn parse(text: &str) -> Result<Self, ServeError> {
        let wrong = || ServeError::DatabaseAddress(shown(text));
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains(':') {
                return Err(wrong());
            }
            return Ok(Self::Sqlite(std::path::absolute(path).map_err(|_| wrong())?));
        }
        let postgres = text.starts_with("postgres://") || text.starts_with("postgresql://");
        if postgres { Ok(Self::Postgres(text.to_owned())) } else { Err(wrong()) }
    }

    /// The database that `folder` remembers, or the one in the folder itself, which moves with it.
    pub(crate) fn remembered(folder: &DataFolder) -> Result<Self, ServeError> {
        Ok(folder.read_json(DATABASE_FILE)?.unwrap_or_else(|| Self::Sqlite(folder.path().join(DEFAULT_DATABASE))))
    }

    /// Makes `folder` remember this database.
    pub(crate) fn remember(&self, folder: &DataFolder) -> Result<(), ServeError> {
        Ok(folder.write_json(DATABASE_FILE, self)?)
    }
}

impl std::fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url).unwrap_or_default()),
        }
    }
}

/// What somebody gave for an address, as it may stand in a message.
fn shown(text: &str) -> String {
    without_password(text).map_or_else(|| "what --database gives".into(), |url| format!("{url:?}"))
}

/// `url` without what may be a password. `None` for what is no URL: nobody knows where in it a password would be.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    // Options may hold a password too, and a password that was not escaped may look like options.
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    Some(match rest.rsplit_once('@') {
        _ if options.contains('@') => format!("{scheme}://"),
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or_default()),
        None => format!("{scheme}://{rest}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart_and_nothing_else_is_taken() {
        assert_eq!(DatabaseAddress::parse("sqlite:/x/a.db").expect("is one"), DatabaseAddress::Sqlite("/x/a.db".into()));
        assert_eq!(DatabaseAddress::parse("sqlite:///x/a.db").expect("is one"), DatabaseAddress::Sqlite("/x/a.db".into()));
        assert!(matches!(DatabaseAddress::parse("postgres://a@b/c"), Ok(DatabaseAddress::Postgres(_))));
        for wrong in ["", "sqlite:", "sqlite::memory:", "mysql://a@b/c", "accounts.db"] {
            assert!(matches!(DatabaseAddress::parse(wrong), Err(ServeError::DatabaseAddress(_))), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_password_is_shown_in_no_message() {
        let shown = |text: &str| DatabaseAddress::parse(text).map_or_else(|error| error.to_string(), |address| address.to_string());
        assert_eq!(shown("postgres://ann:secret@host:5432/ahoy"), "postgres://ann@host:5432/ahoy");
        assert_eq!(shown("postgres://host/ahoy?user=ann&password=secret"), "postgres://host/ahoy");
        for text in [
            "postgres://host/ahoy?password=sec@ret",
            "postgres://ann:sec?ret@host/ahoy",
            "postgres://ann:x@sec?ret@host/ahoy",
            "host=host password=secret",
            "mysql://ann:secret@host/ahoy?password=secret",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("sec") && !shown.contains("ret"), "{shown}");
        }
    }
}
