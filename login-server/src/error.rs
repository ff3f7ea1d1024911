//! Why the login server, or one of its commands, cannot do what it was asked: one sentence each, which says what to do.

use ahoy_protocol::Name;
use ahoy_protocol::name::NameError;
use ahoy_store::StoreError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address to listen on.
    #[error("cannot listen on {address}: {}", listen_advice(.option, .source))]
    Listen {
        /// The option that gave it.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// `--public-host` is no host.
    #[error("{0:?} is not a host name or an address; give --public-host as others would write it, without a port")]
    PublicHost(String),
    /// A key file of an established network is gone.
    #[error("{file} is missing from the data folder {dir}; restore it from a backup, for without it the network cannot go on", dir = .dir.display())]
    KeyMissing {
        /// The file.
        file: &'static str,
        /// The data folder.
        dir: PathBuf,
    },
    /// A key file holds no key.
    #[error("{file} in the data folder {dir} is damaged; restore it from a backup", dir = .dir.display())]
    KeyDamaged {
        /// The file.
        file: &'static str,
        /// The data folder.
        dir: PathBuf,
    },
    /// `--database` is none that is spoken here.
    #[error("{0} is not a database address; write sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE")]
    DatabaseAddress(String),
    /// The database cannot be opened.
    #[error("cannot open the database {database}: {reason}; check that it is there and that its address (--database) is right")]
    DatabaseOpen {
        /// Its address, without a password.
        database: String,
        /// What the driver said.
        reason: String,
    },
    /// The database was written by a later version.
    #[error("the database has format {found} and this ahoy-login reads up to {readable}; update ahoy-login")]
    DatabaseNewer {
        /// Its format.
        found: u32,
        /// The latest that is read.
        readable: u32,
    },
    /// The database belongs to another network.
    #[error(
        "the database belongs to another network than the keys in the data folder; use the database that belongs to them, or an empty one"
    )]
    DatabaseForeign,
    /// A statement failed.
    #[error("the database could not do its work: {0}; check its disk and try again")]
    Database(String),
    /// No server has run on the data folder.
    #[error("{dir} holds no network; give the folder that `ahoy-login serve` uses", dir = .0.display())]
    NoNetwork(PathBuf),
    /// What was given for a name is none.
    #[error("{name:?} is not a name: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// No account has this name.
    #[error("there is no account {0}; see `ahoy-login users list`")]
    UnknownUser(Name),
    /// No node has this key.
    #[error("there is no node {0}; see `ahoy-login nodes list`")]
    UnknownNode(String),
    /// Keys, certificates or the server around them could not be set up.
    #[error("cannot set up the server: {0}")]
    Setup(String),
}

impl From<sqlx::Error> for ServeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.to_string())
    }
}

fn listen_advice(option: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("the port is in use; stop the program that uses it, or give another port with {option}"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; give one of its own with {option}, or 0.0.0.0 for all")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need a privilege, so give a higher one with {option}, or grant CAP_NET_BIND_SERVICE")
        }
        _ => format!("{error}; give another address with {option}"),
    }
}
