//! What can go wrong with the login server, in words for the person who waits.

use ahoy_identity::ChainError;
use ahoy_identity::password::WeakPassword;
use ahoy_protocol::login::LoginError;
use thiserror::Error;

/// Why the login server gave nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginClientError {
    /// Nobody answers there.
    #[error("cannot reach the login server at {address}: {reason}; check that it runs and that this machine is connected")]
    Unreachable {
        /// `HOST:PORT`.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The proxy's URL is none.
    #[error(
        "the proxy cannot be used; write it as http://HOST:PORT or socks5://HOST:PORT, with USER:PASSWORD@ before the host where it wants one"
    )]
    Proxy,
    /// Somebody answers, with another key.
    #[error(
        "the server at {address} is not the one this network link names; ask whoever runs the network for the right link, and do not type your password until you have it"
    )]
    OtherServer {
        /// `HOST:PORT`.
        address: String,
    },
    /// The answer is not one of a login server.
    #[error(
        "the login server at {address} gave an answer that makes no sense ({reason}); is one of the two programs older than the other?"
    )]
    Answer {
        /// `HOST:PORT`.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The login server refused.
    #[error(transparent)]
    Refused(LoginError),
    /// The password would be guessed.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// Something that came does not hold.
    #[error(
        "the login server sent a {what} that cannot be trusted: {reason}; if this machine's clock is wrong, set it right, else tell whoever runs the network"
    )]
    Untrusted {
        /// What came.
        what: &'static str,
        /// Why it does not hold.
        reason: ChainError,
    },
    /// The password opened the account but not the user key.
    #[error("the backup of your key that the login server sent cannot be opened; tell whoever runs the network")]
    Backup,
    /// A message of the password exchange makes no sense.
    #[error("the exchange with the login server went wrong; try again")]
    Malformed,
}

impl LoginClientError {
    /// True if the server could not be reached or had a problem of its own, so that a later try may do better.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused(LoginError::Internal | LoginError::SlowDown { .. }))
    }
}
