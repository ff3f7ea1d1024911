//! What every request has at hand.

use crate::clock::Clock;
use crate::database::Database;
use crate::issuer::Issuer;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::roster::RosterKeeper;
use crate::throttle::Throttle;
use ahoy_protocol::login::LoginError;
use ahoy_protocol::{Text, UnixMillis};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

/// The parts of a running server.
pub(crate) struct App {
    pub(crate) keys: Keys,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) database: Database,
    pub(crate) roster: RosterKeeper,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Requests in work.
    pub(crate) work: Semaphore,
    /// Requests that wait for a newer roster.
    pub(crate) waiters: Semaphore,
    /// True once the server stops.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) throttle: Mutex<Throttle>,
}

impl App {
    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    pub(crate) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        // Nothing that runs under this lock panics, and a half-counted try would do no harm.
        self.throttle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A refusal, or the server's own trouble, which is logged where it happens and told to nobody.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) LoginError);

impl Refusal {
    /// A request that contradicts itself, the account, or the clock.
    pub(crate) fn because(reason: &str) -> Self {
        Self(LoginError::Refused(Text::fitting(reason)))
    }
}

impl From<LoginError> for Refusal {
    fn from(error: LoginError) -> Self {
        Self(error)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "the database failed");
        Self(LoginError::Internal)
    }
}
