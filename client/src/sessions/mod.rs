//! Sessions with supernodes: one home and two standbys, at which this device is registered and can be signalled.
//!
//! Each of three slots keeps one session with a supernode of its own; the presence record says where the device is, and is written again
//! whenever that changes. Requests go to the home first, and to the next session if it does not answer soon, so that a supernode that has
//! just died costs a fraction of a second. They do not wait for the registration either: the supernode holds what comes with it.
//!
//! Nothing here depends on a prompt answer: calls go on when every supernode is gone.

mod publish;
mod renewal;
mod request;
mod roster;
mod slots;

pub use publish::publish_once;

use crate::home::{Account, Home};
use ahoy_protocol::directory::{Request, Response, SealedSignal};
use ahoy_protocol::record::HOMES_MAX;
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{NodeKey, UnixMillis};
use ahoy_transport::{ClientEndpoint, Connection};
use slots::Taken;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

/// How long a supernode has for an answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// After this time without a supernode the user is told.
const ABSENCE_WARNING: Duration = Duration::from_secs(10);
/// Longest time spent on saying that the device has gone.
const FAREWELL_TIME: Duration = Duration::from_millis(700);

/// A session with a supernode.
#[derive(Debug, Clone)]
pub struct Session {
    /// The supernode.
    pub node: NodeKey,
    /// Where it is; where it is reached through a tunnel, the address that stands for the tunnel.
    pub address: SocketAddr,
    /// Where it is, for people.
    pub shown: SocketAddr,
    connection: Connection,
    /// False while the registration is on its way: questions may be asked, signals cannot come yet.
    is_registered: bool,
    silent: Arc<AtomicU32>,
}

impl Session {
    /// Whether the supernode is reached over TCP.
    #[must_use]
    pub fn is_tunnelled(&self) -> bool {
        self.connection.is_tunnelled()
    }
}

/// The sessions of this device. Clones share them; the tasks end with [`Sessions::stop`], or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
    tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Inner {
    endpoint: ClientEndpoint,
    home: Arc<Home>,
    account: Mutex<Arc<Account>>,
    roster: watch::Sender<Arc<Roster>>,
    /// Sessions by slot.
    slots: Mutex<BTreeMap<usize, Session>>,
    /// The same in order, for those who wait for one.
    connected: watch::Sender<Vec<Session>>,
    /// Supernodes at which a slot is trying, or has failed, and until when the others leave them alone.
    taken: Mutex<BTreeMap<NodeKey, Taken>>,
    presence_seq: Mutex<u64>,
    presence_published: watch::Sender<u64>,
    signals: mpsc::Sender<SealedSignal>,
    warnings: mpsc::Sender<String>,
    /// Wakes the publisher.
    republish: Notify,
    /// The user record has changed, and is to be published whatever the time.
    is_record_new: AtomicBool,
    /// Why the last supernode that refused this device did so; told once.
    last_refusal: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain values behind that are whole; going on is better than a second panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of `sessions` at whose supernodes this device is registered.
fn registered(sessions: &[Session]) -> impl Iterator<Item = &Session> {
    sessions.iter().filter(|session| session.is_registered)
}

fn unix_now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}

fn random_u64() -> u64 {
    u64::from_le_bytes(ahoy_identity::random())
}

impl Sessions {
    /// Starts to keep sessions. Signals for this device, still sealed, go to `signals`, dropped when it is full; what the user
    /// should know goes to `warnings`.
    #[must_use]
    pub fn start(
        endpoint: ClientEndpoint,
        home: Arc<Home>,
        account: Account,
        roster: Roster,
        signals: mpsc::Sender<SealedSignal>,
        warnings: mpsc::Sender<String>,
    ) -> Self {
        let inner = Arc::new(Inner {
            endpoint,
            home,
            account: Mutex::new(Arc::new(account)),
            roster: watch::Sender::new(Arc::new(roster)),
            slots: Mutex::default(),
            connected: watch::Sender::new(Vec::new()),
            taken: Mutex::default(),
            presence_seq: Mutex::new(0),
            presence_published: watch::Sender::new(0),
            signals,
            warnings,
            republish: Notify::new(),
            is_record_new: AtomicBool::new(false),
            last_refusal: Mutex::default(),
        });
        let mut tasks: Vec<_> = (0..HOMES_MAX).map(|slot| tokio::spawn(slots::keep_slot(inner.clone(), slot))).collect();
        tasks.push(tokio::spawn(publish::keep_published(inner.clone())));
        tasks.push(tokio::spawn(renewal::keep_renewed(inner.clone())));
        tasks.push(tokio::spawn(roster::keep_roster(inner.clone())));
        tasks.push(tokio::spawn(warn_of_absence(inner.clone())));
        Self { inner, tasks: Arc::new(Tasks(tasks)) }
    }

    /// The account, with the newest credentials.
    #[must_use]
    pub fn account(&self) -> Arc<Account> {
        lock(&self.inner.account).clone()
    }

    /// The newest roster.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.inner.roster.borrow().clone()
    }

    /// The sessions at whose supernodes this device is registered, the home first.
    #[must_use]
    pub fn live(&self) -> Vec<Session> {
        registered(&self.inner.connected.borrow()).cloned().collect()
    }

    /// The supernodes at which this device will be found by whoever answers it: with those at which its registration is on its way.
    #[must_use]
    pub fn homes(&self) -> Vec<NodeKey> {
        let mut sessions = self.inner.connected.borrow().clone();
        sessions.sort_by_key(|session| !session.is_registered);
        sessions.iter().map(|session| session.node).collect()
    }

    /// Waits until the device is registered and the directory says so.
    pub async fn online(&self) {
        let mut published = self.inner.presence_published.subscribe();
        // The sender lives in `self`, so the wait ends with the condition.
        let _ = published.wait_for(|count| *count > 0).await;
    }

    /// Asks the supernodes: the home first, the others when it is slow. `None` if none answers.
    pub async fn request(&self, request: Request) -> Option<Response> {
        self.inner.request(request).await
    }

    /// Like [`Sessions::request`], but goes on to the next supernode until an answer is good. Without a good one, it is the first that came.
    pub async fn request_until(&self, request: Request, is_good: impl Fn(&Response) -> bool) -> Option<Response> {
        self.inner.request_until(request, is_good).await
    }

    /// Why the last supernode that refused this device did so.
    #[must_use]
    pub fn last_refusal(&self) -> Option<String> {
        lock(&self.inner.last_refusal).clone()
    }

    /// Says that the device has gone, as far as that is quickly done, and ends the sessions.
    pub async fn stop(&self) {
        // First, so that none of them says the contrary afterwards.
        for task in &self.tasks.0 {
            task.abort();
        }
        if !self.live().is_empty() {
            let _ = timeout(FAREWELL_TIME, self.inner.publish_presence(&[])).await;
        }
        for session in self.inner.connected.borrow().iter() {
            session.connection.close(0, "signed off");
        }
    }
}

/// Says so if no supernode can be reached for long.
async fn warn_of_absence(inner: Arc<Inner>) {
    sleep(ABSENCE_WARNING).await;
    if registered(&inner.connected.borrow()).next().is_none() {
        let reason = lock(&inner.last_refusal).clone();
        let reason = reason.unwrap_or_else(|| "check this computer's network connection".to_owned());
        let _ = inner.warnings.try_send(format!("no supernode can be reached; still trying ({reason})"));
    }
}

impl Inner {
    /// Tells the user once why supernodes refuse this device.
    fn tell_refusal(&self, reason: String) {
        let mut last = lock(&self.last_refusal);
        if last.as_ref() != Some(&reason) {
            let text = format!("a supernode refuses this device: {reason}; if this computer's clock is right, sign in again");
            let _ = self.warnings.try_send(text);
            *last = Some(reason);
        }
    }

    fn update_account(&self, change: impl FnOnce(&mut Account)) {
        let mut shared = lock(&self.account);
        let mut account = Account::clone(&shared);
        change(&mut account);
        *shared = Arc::new(account);
    }
}
