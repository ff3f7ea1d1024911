//! One connection: who is there, how far its registration is, and how much it may ask.
//!
//! A client asks its first questions together with its registration, to save a round trip. What comes before the registration is done
//! waits for it, and is answered as the registration was if that fails.

use crate::limits::{POSTING_RATE, REQUEST_RATE, SUPERNODE_REQUEST_RATE, WALK_RATE};
use ahoy_directory::TokenBucket;
use ahoy_protocol::directory::Response;
use ahoy_protocol::ids::DeviceKey;
use ahoy_transport::Connection;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a request waits for the registration that belongs to it. Both were sent together, so that only loss separates them: two
/// repetitions round the world fit.
pub(crate) const REGISTRATION_WAIT_MAX: Duration = Duration::from_secs(2);

/// One connection.
pub(crate) struct Visitor {
    pub(crate) connection: Connection,
    pub(crate) key: [u8; 32],
    registration: watch::Sender<Registration>,
    requests: Mutex<TokenBucket>,
    /// Counts requests while the roster says that this is a supernode.
    supernode_requests: Mutex<TokenBucket>,
    /// Counts those requests that other supernodes have to work for, and those for a whole roster.
    walks: Mutex<TokenBucket>,
    /// Counts envelopes.
    postings: Mutex<TokenBucket>,
}

#[derive(Debug, Clone)]
enum Registration {
    Awaited,
    Done(DeviceKey),
    /// What it was answered.
    Failed(Response),
}

impl Visitor {
    pub(crate) fn new(connection: Connection) -> Self {
        let key = connection.peer_key();
        let now = Instant::now();
        let bucket = |rate| TokenBucket::new(rate, now).into();
        Self {
            connection,
            key,
            registration: watch::Sender::new(Registration::Awaited),
            requests: bucket(REQUEST_RATE),
            supernode_requests: bucket(SUPERNODE_REQUEST_RATE),
            walks: bucket(WALK_RATE),
            postings: bucket(POSTING_RATE),
        }
    }

    /// The device, once it has registered.
    pub(crate) fn device(&self) -> Option<DeviceKey> {
        match *self.registration.borrow() {
            Registration::Done(device) => Some(device),
            Registration::Awaited | Registration::Failed(_) => None,
        }
    }

    /// True while nothing has been heard of a registration.
    pub(crate) fn may_register(&self) -> bool {
        matches!(*self.registration.borrow(), Registration::Awaited)
    }

    /// What a failed registration was answered.
    pub(crate) fn refusal(&self) -> Option<Response> {
        match &*self.registration.borrow() {
            Registration::Failed(response) => Some(response.clone()),
            Registration::Awaited | Registration::Done(_) => None,
        }
    }

    /// Waits until there has been a registration, or for as long as one may take.
    pub(crate) async fn registration(&self) {
        let mut registration = self.registration.subscribe();
        let waiting = registration.wait_for(|registration| !matches!(registration, Registration::Awaited));
        let _ = tokio::time::timeout(REGISTRATION_WAIT_MAX, waiting).await;
    }

    pub(crate) fn set_registered(&self, device: DeviceKey) {
        self.registration.send_replace(Registration::Done(device));
    }

    /// A registration failed. Who is registered stays so.
    pub(crate) fn set_refused(&self, response: Response) {
        self.registration.send_if_modified(|registration| {
            let is_news = !matches!(registration, Registration::Done(_));
            if is_news {
                *registration = Registration::Failed(response);
            }
            is_news
        });
    }

    /// Counts a request, or says how long it has to wait.
    pub(crate) fn take_request(&self) -> Result<(), Duration> {
        take(&self.requests)
    }

    /// Counts a request of a supernode, or says how long it has to wait.
    pub(crate) fn take_supernode_request(&self) -> Result<(), Duration> {
        take(&self.supernode_requests)
    }

    /// Counts a request that others have to work for, or says how long it has to wait.
    pub(crate) fn take_walk(&self) -> Result<(), Duration> {
        take(&self.walks)
    }

    /// Counts so many envelopes, or says how long one has to wait. Those that were counted before there were too many stay so: who posts too
    /// much waits for longer.
    pub(crate) fn take_postings(&self, count: usize) -> Result<(), Duration> {
        (0..count).try_for_each(|_| take(&self.postings))
    }
}

fn take(bucket: &Mutex<TokenBucket>) -> Result<(), Duration> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
}
