//! What can go wrong before a node serves, each with a sentence that says what to do.

use ahoy_identity::ChainError;
use ahoy_login_client::LoginClientError;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::link::LinkError;
use ahoy_store::StoreError;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why a node cannot join its network.
#[derive(Debug, Error)]
pub enum NodeError {
    /// `--network` is not a network link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The login server refused, or cannot be reached and there is nothing to go on with.
    #[error(transparent)]
    Login(#[from] LoginClientError),
    /// The node key in the data folder is damaged.
    #[error("the node key in {} is damaged; restore it from a backup, or remove it and start with a new token", .0.display())]
    Key(PathBuf),
    /// No certificate and no token.
    #[error("{} holds no certificate for this network; get a token with `ahoy-login node-token` and start with --token", .0.display())]
    NoCertificate(PathBuf),
    /// The token is too long to be one.
    #[error("--token is not a node token; get one with `ahoy-login node-token`")]
    Token,
    /// The certificate ran out and the login server cannot be reached.
    #[error("{problem}, and the certificate or the roster in {} is too old to go on without it", folder.display())]
    Lapsed {
        /// Why it cannot be renewed.
        problem: LoginClientError,
        /// The data folder.
        folder: PathBuf,
    },
    /// What the login server sent is not signed as it must be.
    #[error("the login server's answer was refused: {0}; if this machine's clock is wrong, set it right")]
    Chain(#[from] ChainError),
    /// The login server certified something else.
    #[error("the login server's certificate is not for this {0}'s key; its operator should look into it")]
    NotOurs(NodeRole),
    /// A listen address that nobody can be told.
    #[error("{0} is no address that others can reach; say with --public HOST:PORT where this node is")]
    Unspecified(SocketAddr),
    /// The address for counters cannot be had.
    #[error("cannot serve metrics at {address}: {source}; choose another address with --metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// `--public` is not HOST:PORT.
    #[error("--public {0} is not HOST:PORT, such as relay.example:4433")]
    PublicForm(String),
    /// `--public` does not resolve.
    #[error("--public {host} cannot be resolved: {source}; give an IP address, or a name that is in the DNS")]
    PublicName {
        /// What was given.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// `--public` resolves to nothing of a family that is listened on.
    #[error("--public {0} has no address of the kind (IPv4 or IPv6) that --listen names")]
    PublicFamily(String),
    /// More addresses than a roster lists for a node.
    #[error("a node may have at most {max} addresses of a kind; give fewer")]
    TooManyAddresses {
        /// The most it may have.
        max: usize,
    },
}

/// Why a roster is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RosterRefused {
    /// Not signed as it must be, or out of its time.
    #[error("a roster was refused: {0}")]
    Chain(#[from] ChainError),
    /// Older than the one at hand.
    #[error("a roster of version {offered} was refused; version {held} is known")]
    Older {
        /// Its version.
        offered: u64,
        /// The version at hand.
        held: u64,
    },
}
