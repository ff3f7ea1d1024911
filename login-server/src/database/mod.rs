//! The database: accounts, devices, nodes, tokens, and what the roster is made of.
//!
//! The SQL is the common part of SQLite and PostgreSQL, spoken through one pool type, with no NULLs: an empty value
//! means "none". No password can be tested with what is in here alone: an OPAQUE record is of use only together with the
//! OPRF seed, which is in a file.
//!
//! Every transaction that writes begins with [`Database::write`], which takes the one write lock there is. So checks and
//! writes inside it cannot be overtaken by another writer, in this process or another.

pub(crate) mod nodes;
pub(crate) mod roster;
mod schema;
pub(crate) mod users;

use crate::error::ServeError;
use crate::folder::DatabaseAddress;
use ahoy_protocol::{NetworkId, UnixMillis};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyConnection, AnyPool, Row, Transaction};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Connections to the database: SQLite has one writer anyway, and statements here take well under a millisecond.
const CONNECTIONS_MAX: u32 = 8;
/// How long a request waits for a connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the change to a write-ahead log is tried, when several processes open a new file at once.
const WRITE_AHEAD_TRIES_MAX: u32 = 100;
/// The pause between the tries.
const WRITE_AHEAD_PAUSE: Duration = Duration::from_millis(50);

/// A pool of connections.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: AnyPool,
}

impl Database {
    /// Opens the database, and brings its tables up to date.
    pub(crate) async fn open(address: &DatabaseAddress) -> Result<Self, ServeError> {
        sqlx::any::install_default_drivers();
        let failed = |reason: String| ServeError::DatabaseOpen { database: address.to_string(), reason };
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = match address {
            DatabaseAddress::Sqlite(path) => {
                create_private(path).map_err(|error| failed(error.to_string()))?;
                let options = options.after_connect(|connection, _| Box::pin(prepare_sqlite(connection)));
                options.connect(&sqlite_url(path)).await
            }
            DatabaseAddress::Postgres(url) => options.connect(url).await,
        }
        .map_err(|error| failed(error.to_string()))?;
        schema::migrate(&pool, matches!(address, DatabaseAddress::Sqlite(_))).await?;
        Ok(Self { pool })
    }

    /// Makes sure that the database is this network's; an empty one becomes so.
    pub(crate) async fn belong_to(&self, network: &NetworkId) -> Result<(), ServeError> {
        let mut write = self.write().await?;
        let insert = "INSERT INTO meta (name, value) VALUES ('network', $1) ON CONFLICT (name) DO NOTHING";
        sqlx::query(insert).bind(network.to_string()).execute(&mut *write).await?;
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'network'").fetch_one(&mut *write).await?;
        let found: String = row.try_get(0)?;
        write.commit().await?;
        if found == network.to_string() { Ok(()) } else { Err(ServeError::DatabaseForeign) }
    }

    /// A transaction that sees one state of the database.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin().await
    }

    /// A transaction that may write, alone among its kind until it ends.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // Written first, this takes SQLite's write lock and PostgreSQL's lock on the row.
        sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'writes'").execute(&mut *transaction).await?;
        Ok(transaction)
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// The next serial of a certificate.
pub(crate) async fn next_serial(write: &mut AnyConnection) -> Result<u64, sqlx::Error> {
    let update = "UPDATE counters SET value = value + 1 WHERE name = 'serial' RETURNING value";
    unsigned(&sqlx::query(update).fetch_one(write).await?, 0)
}

/// Waits for a lock instead of failing at once, and brings each commit to the disk.
async fn prepare_sqlite(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    for pragma in ["PRAGMA busy_timeout = 5000", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"] {
        sqlx::query(pragma).execute(&mut *connection).await?;
    }
    let mut tries = 0;
    loop {
        match write_ahead(connection).await {
            // The change of mode is the one thing for which SQLite does not wait by itself.
            Err(_) if tries < WRITE_AHEAD_TRIES_MAX => tries += 1,
            done => return done,
        }
        tokio::time::sleep(WRITE_AHEAD_PAUSE).await;
    }
}

/// Makes the file one whose readers and writers do not wait for each other, if it is not.
async fn write_ahead(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let mode: String = sqlx::query("PRAGMA journal_mode").fetch_one(&mut *connection).await?.try_get(0)?;
    if mode != "wal" {
        sqlx::query("PRAGMA journal_mode = WAL").execute(connection).await?;
    }
    Ok(())
}

/// Makes the file for its owner alone; SQLite gives its companions the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}

/// A URL for `path`, whatever characters are in it.
fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            url.push(char::from(*byte));
        } else {
            write!(url, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    url
}

fn unsigned(row: &AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| decode(column))
}

fn time(row: &AnyRow, column: usize) -> Result<UnixMillis, sqlx::Error> {
    unsigned(row, column).map(UnixMillis)
}

fn array<const N: usize>(row: &AnyRow, column: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| decode(column))
}

fn decode(column: usize) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: "the value is damaged".into() }
}

/// `value` as SQL has it. Times and counters stay below the limit for millions of years.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
