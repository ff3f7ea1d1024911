//! Why something with a connection failed, in words for the person who asked for it.

use crate::ProxyError;
use ahoy_protocol::WireError;
use quinn::{ConnectionError, ReadError, ReadExactError, SendDatagramError, TransportErrorCode, WriteError};
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// TLS alert that both verifiers of this crate give for a key that is not the one demanded (`access_denied`).
const ALERT_ACCESS_DENIED: u8 = 49;

/// Why something with a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// Another program has the port.
    #[error("UDP port {} of {} is in use; end the program that has it, or choose another port", address.port(), address.ip())]
    PortInUse {
        /// Where one was to listen.
        address: SocketAddr,
    },
    /// Another program has the TCP port.
    #[error("TCP port {} of {} is in use; end the program that has it, or choose another port", address.port(), address.ip())]
    TcpPortInUse {
        /// Where one was to listen.
        address: SocketAddr,
    },
    /// Nobody can be reached there over TCP, or who answers speaks another protocol.
    #[error("cannot reach {address} over TCP: {reason}")]
    Tcp {
        /// What was to be reached.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The proxy does not help.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The socket could not be made.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// Where one was to listen.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// There is no socket of this address's family.
    #[error("this machine cannot reach {address}: it has no socket of that kind of address")]
    NoSocket {
        /// What was to be reached.
        address: SocketAddr,
    },
    /// The address may not be connected to.
    #[error("{address} is not an address to connect to")]
    BadAddress {
        /// What was to be reached.
        address: SocketAddr,
    },
    /// The keys could not be made into a TLS configuration, or there is no runtime.
    #[error("cannot set up QUIC: {0}")]
    Setup(String),
    /// The other side has another key than the one demanded, or none.
    #[error("the other side proved another key than expected")]
    WrongKey,
    /// The other side takes no more connections.
    #[error("the other side takes no more connections; try another or wait")]
    Refused,
    /// A table of this endpoint is full.
    #[error("too many {what} at once")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
    },
    /// Nothing came in time.
    #[error("no answer in time while waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
    },
    /// The other side closed the connection.
    #[error("the other side closed the connection ({code}: {reason})")]
    Closed {
        /// Its code.
        code: u64,
        /// Its reason.
        reason: String,
    },
    /// This side closed the connection.
    #[error("the connection is closed")]
    ClosedHere,
    /// The connection failed.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The other side stopped or reset the stream, or ended it within a message.
    #[error("the stream ended too early")]
    StreamEnded,
    /// The other side ended the stream without an answer.
    #[error("the other side ended the stream without an answer")]
    NoAnswer,
    /// The bytes are no message, or the message is too long.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The datagram is longer than the path carries, or the other side takes none.
    #[error("the datagram cannot be sent: {0}")]
    Datagram(&'static str),
}

impl TransportError {
    pub(crate) fn tcp(address: SocketAddr, error: &io::Error) -> Self {
        Self::Tcp { address, reason: error.to_string() }
    }

    pub(crate) fn bind(address: SocketAddr, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            _ => Self::Bind { address, reason: error.to_string() },
        }
    }
}

impl From<ConnectionError> for TransportError {
    fn from(error: ConnectionError) -> Self {
        let wrong_key = TransportErrorCode::crypto(ALERT_ACCESS_DENIED);
        match error {
            ConnectionError::TransportError(error) if error.code == wrong_key => Self::WrongKey,
            ConnectionError::ConnectionClosed(close) if close.error_code == wrong_key => Self::WrongKey,
            ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Refused,
            ConnectionError::ApplicationClosed(close) => {
                Self::Closed { code: close.error_code.into_inner(), reason: String::from_utf8_lossy(&close.reason).into_owned() }
            }
            ConnectionError::TimedOut => Self::TimedOut { what: "the connection" },
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::CidsExhausted => Self::Lost(error.to_string()),
        }
    }
}

impl From<WriteError> for TransportError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::StreamEnded,
        }
    }
}

impl From<ReadError> for TransportError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(_) | ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::StreamEnded,
        }
    }
}

impl From<ReadExactError> for TransportError {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::StreamEnded,
            ReadExactError::ReadError(error) => error.into(),
        }
    }
}

impl From<SendDatagramError> for TransportError {
    fn from(error: SendDatagramError) -> Self {
        match error {
            SendDatagramError::ConnectionLost(error) => error.into(),
            SendDatagramError::TooLarge => Self::Datagram("it is too long"),
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => Self::Datagram("this connection carries none"),
        }
    }
}
