//! Sessions with supernodes: one home and two standbys, at which this device is registered and can be signalled.
//!
//! Each of three slots keeps one session with a supernode of its own, in the order of rendezvous hashing; when one dies, its slot goes on to
//! the next supernode, with back-off and full jitter. The presence record says where the device is, and is written again whenever that
//! changes. Requests go to the home first, and to the next session if it does not answer soon, so that a supernode that has just died
//! costs a fraction of a second.
//!
//! Nothing here depends on a prompt answer: calls go on when every supernode is gone.

use crate::home::{Account, Home};
use ahoy_directory::{Gate, choose_presence, choose_user, homes_for};
use ahoy_identity::Network;
use ahoy_login_client::LoginClient;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Push, Request, Response, SealedSignal};
use ahoy_protocol::login::Credentials;
use ahoy_protocol::record::{HOMES_MAX, PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, UserRecord};
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_protocol::{DeviceKey, List, NodeKey, Signed, UnixMillis};
use ahoy_resilience::{Backoff, share_of};
use ahoy_transport::{ClientEndpoint, Connection, TransportError, receive};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// How long a supernode has for a handshake or a registration.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a supernode has for an answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// After this time without an answer the next supernode is asked as well.
const HEDGE_TIME: Duration = Duration::from_millis(400);
/// How long a request waits for a first session.
const SESSION_WAIT: Duration = Duration::from_secs(5);
/// Requests in a row without an answer after which a session counts as dead: one may be bad luck.
const SILENT_REQUESTS_MAX: u32 = 2;
/// First and longest wait before a supernode that failed is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Changes of the sessions within this time are told to the directory at once.
const SETTLE_TIME: Duration = Duration::from_millis(50);
/// A presence record lives 60 minutes and is written again well before, jitter included.
const PRESENCE_REFRESH: Duration = Duration::from_secs(25 * 60);
/// The user record is kept for 48 hours by stores that nobody refreshes.
const RECORD_REFRESH: Duration = Duration::from_secs(6 * 3600);
/// How soon a record that could not be published is tried again.
const PUBLISH_RETRY: Duration = Duration::from_secs(5);
/// How often the login server is asked for a newer roster; supernodes tell of one sooner.
const ROSTER_REFRESH: Duration = Duration::from_secs(600);
/// How soon it is asked, without a supernode, and how rarely after a while.
const ROSTER_SEARCH_FIRST: Duration = Duration::from_secs(2);
const ROSTER_SEARCH_MOST: Duration = Duration::from_secs(60);
/// How often certificates and grant are renewed, though they live longer: a day in which the login server is away must not be noticed.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether a renewal is due.
const RENEWAL_CHECK: Duration = Duration::from_secs(600);
/// After this time without a supernode the user is told.
const ABSENCE_WARNING: Duration = Duration::from_secs(10);
/// How soon a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(300);
/// Longest time spent on saying that the device has gone.
const FAREWELL_TIME: Duration = Duration::from_millis(700);

/// A session that stands.
#[derive(Debug, Clone)]
pub struct Session {
    /// The supernode.
    pub node: NodeKey,
    /// Where it is.
    pub address: SocketAddr,
    connection: Connection,
    silent: Arc<AtomicU32>,
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
    live: watch::Sender<Vec<Session>>,
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

#[derive(Debug)]
struct Taken {
    by: Option<usize>,
    backoff: Backoff,
    until: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain values behind that are whole; going on is better than a second panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            live: watch::Sender::new(Vec::new()),
            taken: Mutex::default(),
            presence_seq: Mutex::new(0),
            presence_published: watch::Sender::new(0),
            signals,
            warnings,
            republish: Notify::new(),
            is_record_new: AtomicBool::new(false),
            last_refusal: Mutex::default(),
        });
        let mut tasks: Vec<_> = (0..HOMES_MAX).map(|slot| tokio::spawn(keep_slot(inner.clone(), slot))).collect();
        tasks.push(tokio::spawn(keep_published(inner.clone())));
        tasks.push(tokio::spawn(keep_renewed(inner.clone())));
        tasks.push(tokio::spawn(keep_roster(inner.clone())));
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

    /// The sessions that stand, the home first.
    #[must_use]
    pub fn live(&self) -> Vec<Session> {
        self.inner.live.borrow().clone()
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
        for session in self.live() {
            session.connection.close(0, "signed off");
        }
    }
}

/// Publishes the user record by way of the first supernode that can be reached, without a lasting session.
pub async fn publish_once(endpoint: &ClientEndpoint, account: &Account) -> Option<Response> {
    let roster = account.network.verify_roster(&account.roster, unix_now()).ok()?;
    for node in supernodes_for(account, &roster) {
        let Ok(connection) = register(endpoint, account, &node).await else { continue };
        let publish = Request::Publish(Record::User(account.record.clone()));
        let response = connection.request::<Request, Response>(&publish, REQUEST_TIME).await;
        connection.close(0, "done");
        match response {
            Ok(Response::Busy { .. } | Response::Refused(_)) | Err(_) => {}
            Ok(response) => return Some(response),
        }
    }
    None
}

/// The supernodes in the order in which this device prefers them.
fn supernodes_for(account: &Account, roster: &Roster) -> Vec<RosterNode> {
    let keys = roster.nodes_in(NodeRole::Supernode).map(|node| node.node);
    homes_for(&account.keys.signing.device_key(), keys)
        .into_iter()
        .filter_map(|key| roster.node(NodeRole::Supernode, &key).cloned())
        .collect()
}

/// Why a supernode did not register this device.
#[derive(Debug, Error)]
enum RegisterError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the supernode is busy")]
    Busy,
    #[error("{0}")]
    Refused(String),
}

/// Connects to a supernode and registers there.
async fn register(endpoint: &ClientEndpoint, account: &Account, node: &RosterNode) -> Result<Connection, RegisterError> {
    let connecting = endpoint.connect_node(&node.udp, &node.node, ALPN);
    let connection = timeout(CONNECT_TIME, connecting).await.map_err(|_| TransportError::TimedOut { what: "a supernode" })??;
    match connection.request::<Request, Response>(&registration(&account.credentials), CONNECT_TIME).await? {
        Response::Done => Ok(connection),
        Response::Refused(reason) => {
            connection.close(0, "not registered");
            Err(RegisterError::Refused(reason.to_string()))
        }
        _ => {
            connection.close(0, "not registered");
            Err(RegisterError::Busy)
        }
    }
}

fn registration(credentials: &Credentials) -> Request {
    Request::Register { user: credentials.user.clone(), device: credentials.device.clone() }
}

/// Keeps one session, with one supernode after the other.
async fn keep_slot(inner: Arc<Inner>, slot: usize) {
    let mut rosters = inner.roster.subscribe();
    let mut unlisted = inner.roster.subscribe();
    loop {
        let Some(node) = inner.take_node(slot) else {
            // Every supernode is taken or resting: look again soon, or when there is a newer roster.
            let pause = share_of(RETRY_FIRST * 2, random_u64()) + RETRY_FIRST / 4;
            tokio::select! {
                () = sleep(pause) => {}
                _ = rosters.changed() => {}
            }
            continue;
        };
        let account = lock(&inner.account).clone();
        match register(&inner.endpoint, &account, &node).await {
            Ok(connection) => {
                let address = node.udp.first().copied().unwrap_or_else(|| connection.remote_address());
                debug!(%address, slot, "registered at a supernode");
                let session = Session { node: node.node, address, connection, silent: Arc::default() };
                inner.set_slot(slot, Some(session.clone()));
                inner.succeeded(&node.node);
                let current = lock(&inner.account).credentials.clone();
                if current != account.credentials {
                    session.register_again(&current).await;
                }
                tokio::select! {
                    () = inner.listen(&session) => {}
                    _ = unlisted.wait_for(|roster| roster.node(NodeRole::Supernode, &node.node).is_none()) => {
                        session.connection.close(0, "not in the roster");
                    }
                }
                inner.set_slot(slot, None);
                debug!(%address, slot, "lost a supernode");
            }
            Err(RegisterError::Refused(reason)) => inner.tell_refusal(reason),
            Err(error) => debug!(%error, slot, "cannot register at a supernode"),
        }
        inner.give_back(&node.node);
    }
}

/// Keeps the directory right about this device.
async fn keep_published(inner: Arc<Inner>) {
    let mut live = inner.live.subscribe();
    let mut rosters = inner.roster.subscribe();
    let mut record_due = Instant::now();
    let mut salts = Vec::new();
    let mut known = BTreeSet::new();
    loop {
        sleep(SETTLE_TIME).await;
        let sessions = live.borrow_and_update().clone();
        let homes: Vec<NodeKey> = sessions.iter().map(|session| session.node).collect();
        // A supernode that has just begun may hold nothing, and there may be no other.
        let connections: BTreeSet<usize> = sessions.iter().map(|session| session.connection.id()).collect();
        let is_news = !connections.is_subset(&known) || inner.is_record_new.swap(false, Ordering::Relaxed);
        known = connections;
        let mut pause = PRESENCE_REFRESH - share_of(PRESENCE_REFRESH / 10, random_u64());
        if !homes.is_empty() {
            let current_salts = rosters.borrow_and_update().salts_at(unix_now());
            if is_news || record_due <= Instant::now() || salts != current_salts {
                if inner.publish_record().await {
                    record_due = Instant::now() + RECORD_REFRESH - share_of(RECORD_REFRESH / 10, random_u64());
                    salts = current_salts;
                } else {
                    record_due = Instant::now();
                    pause = PUBLISH_RETRY;
                }
            }
            if inner.publish_presence(&homes).await {
                inner.presence_published.send_modify(|count| *count += 1);
            } else {
                pause = PUBLISH_RETRY;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = live.changed() => {}
            _ = rosters.changed() => {}
            () = inner.republish.notified() => {}
        }
    }
}

/// Keeps certificates and grant fresh.
async fn keep_renewed(inner: Arc<Inner>) {
    let mut retry_at = None;
    loop {
        let now = unix_now();
        if inner.is_renewal_due(now) && retry_at.is_none_or(|at| at <= now) {
            retry_at = None;
            if let Err(reason) = inner.renew().await {
                info!(%reason, "certificates could not be renewed");
                retry_at = Some(now.plus(RENEWAL_RETRY));
            }
        }
        // Short sleeps: a long one stands still while a laptop is suspended.
        sleep(RENEWAL_CHECK / 2 + share_of(RENEWAL_CHECK, random_u64())).await;
    }
}

/// Says so if no supernode can be reached for long.
async fn warn_of_absence(inner: Arc<Inner>) {
    sleep(ABSENCE_WARNING).await;
    if inner.live.borrow().is_empty() {
        let reason = lock(&inner.last_refusal).clone();
        let reason = reason.unwrap_or_else(|| "check this computer's network connection".to_owned());
        let _ = inner.warnings.try_send(format!("no supernode can be reached; still trying ({reason})"));
    }
}

/// Keeps the roster new, from the login server: now and then while there are supernodes, which tell of a newer one sooner, and soon while
/// there are none, since they may be elsewhere by now.
async fn keep_roster(inner: Arc<Inner>) {
    let mut live = inner.live.subscribe();
    let mut backoff = Backoff::new(ROSTER_SEARCH_FIRST, ROSTER_SEARCH_MOST);
    loop {
        let account = lock(&inner.account).clone();
        if let Ok(login) = LoginClient::with_network(&account.link, account.document.clone()) {
            let since = inner.roster.borrow().version;
            match login.roster(since, 0).await {
                Ok(Some(roster)) => inner.adopt_roster(&roster),
                Ok(None) => {}
                Err(error) => debug!(%error, "no newer roster from the login server"),
            }
        }
        if live.borrow_and_update().is_empty() {
            sleep(ROSTER_SEARCH_FIRST + backoff.after_failure(random_u64())).await;
        } else {
            backoff.after_success();
            tokio::select! {
                () = sleep(ROSTER_REFRESH - share_of(ROSTER_REFRESH / 5, random_u64())) => {}
                // What it waited for is let go of before the next wait.
                () = async { drop(live.wait_for(Vec::is_empty).await) } => sleep(share_of(ROSTER_SEARCH_FIRST, random_u64())).await,
            }
        }
    }
}

impl Inner {
    /// The supernode that this slot tries next, marked as its own.
    fn take_node(&self, slot: usize) -> Option<RosterNode> {
        let account = lock(&self.account).clone();
        let roster = self.roster.borrow().clone();
        let now = Instant::now();
        let mut taken = lock(&self.taken);
        let is_free = |node: &RosterNode| taken.get(&node.node).is_none_or(|taken| taken.by.is_none() && taken.until <= now);
        let node = supernodes_for(&account, &roster).into_iter().find(is_free)?;
        let entry =
            taken.entry(node.node).or_insert_with(|| Taken { by: None, backoff: Backoff::new(RETRY_FIRST, RETRY_MOST), until: now });
        entry.by = Some(slot);
        Some(node)
    }

    /// A slot is done with a supernode, which rests for a while.
    fn give_back(&self, node: &NodeKey) {
        if let Some(taken) = lock(&self.taken).get_mut(node) {
            taken.by = None;
            taken.until = Instant::now() + taken.backoff.after_failure(random_u64());
        }
    }

    fn succeeded(&self, node: &NodeKey) {
        if let Some(taken) = lock(&self.taken).get_mut(node) {
            taken.backoff.after_success();
        }
    }

    fn set_slot(&self, slot: usize, session: Option<Session>) {
        let sessions = {
            let mut slots = lock(&self.slots);
            match session {
                Some(session) => slots.insert(slot, session),
                None => slots.remove(&slot),
            };
            slots.values().cloned().collect()
        };
        self.live.send_replace(sessions);
    }

    /// Takes what a supernode pushes, until the session ends.
    async fn listen(self: &Arc<Self>, session: &Session) {
        while let Ok(mut stream) = session.connection.accept_uni().await {
            match timeout(REQUEST_TIME, receive::<Push>(&mut stream)).await {
                Ok(Ok(Some(Push::Deliver(sealed)))) => {
                    // Full: more signals than anybody is called. Their senders try again.
                    let _ = self.signals.try_send(sealed);
                }
                Ok(Ok(Some(Push::RosterVersion(version)))) => {
                    // An invitation behind it must not wait.
                    let (inner, session) = (self.clone(), session.clone());
                    tokio::spawn(async move { inner.fetch_roster(&session, version).await });
                }
                Ok(Ok(Some(Push::Drain { within_ms }))) => {
                    debug!(within_ms, "a supernode is about to stop");
                    return;
                }
                Ok(Ok(None) | Err(_)) | Err(_) => {}
            }
        }
    }

    async fn fetch_roster(&self, session: &Session, version: u64) {
        let since = self.roster.borrow().version;
        if version <= since {
            return;
        }
        if let Ok(Response::Roster(Some(roster))) = session.connection.request(&Request::Roster { since }, REQUEST_TIME).await {
            self.adopt_roster(&roster);
        }
    }

    /// Takes a roster over if it is genuine and newer.
    fn adopt_roster(&self, signed: &Signed<Roster>) {
        let account = lock(&self.account).clone();
        let Ok(roster) = account.network.verify_roster(signed, unix_now()) else {
            warn!("a roster that this network did not sign was refused");
            return;
        };
        let is_newer = self.roster.send_if_modified(|known| {
            let is_newer = roster.version > known.version;
            if is_newer {
                *known = Arc::new(roster);
            }
            is_newer
        });
        if is_newer && let Err(error) = self.home.save_roster(signed) {
            warn!(%error, "the roster could not be kept");
        }
    }

    async fn request(&self, request: Request) -> Option<Response> {
        self.request_until(request, |response| !matches!(response, Response::Busy { .. } | Response::Refused(_))).await
    }

    /// Asks one supernode after the other until an answer is good: the next one when the last was not, or is slow. Without a good
    /// answer, the first of those that came.
    async fn request_until(&self, request: Request, is_good: impl Fn(&Response) -> bool) -> Option<Response> {
        let mut live = self.live.subscribe();
        let sessions = timeout(SESSION_WAIT, live.wait_for(|sessions| !sessions.is_empty())).await.ok()?.ok()?.clone();
        let request = Arc::new(request);
        let (answered, mut answers) = mpsc::channel(HOMES_MAX);
        let mut left = sessions.into_iter();
        let (mut unanswered, mut fallback) = (0, None);
        loop {
            if let Some(session) = left.next() {
                unanswered += 1;
                let (request, answered) = (request.clone(), answered.clone());
                // Not given up when another answers first: a supernode that is silent is to be noticed. It ends by its time-out.
                tokio::spawn(async move {
                    let answer = session.request(&request).await;
                    let _ = answered.send(answer).await;
                });
            } else if unanswered == 0 {
                return fallback;
            }
            tokio::select! {
                Some(answer) = answers.recv() => {
                    unanswered -= 1;
                    match answer {
                        Some(response) if is_good(&response) => return Some(response),
                        Some(response) => fallback = fallback.or(Some(response)),
                        None => {}
                    }
                }
                () = sleep(HEDGE_TIME), if left.len() > 0 => {}
            }
        }
    }

    /// Writes the presence record. True once the directory has it.
    async fn publish_presence(&self, homes: &[NodeKey]) -> bool {
        let account = lock(&self.account).clone();
        let Some(record) = self.presence_record(&account, homes) else { return false };
        match self.request(Request::Publish(Record::Presence(record))).await {
            Some(Response::Published { .. }) => true,
            Some(Response::Superseded(Record::Presence(newer))) => {
                self.step_over(&account.network, &newer);
                false
            }
            other => {
                debug!(?other, "the presence record was not published");
                false
            }
        }
    }

    fn presence_record(&self, account: &Account, homes: &[NodeKey]) -> Option<PresenceRecord> {
        let now = unix_now();
        let seq = {
            let mut seq = lock(&self.presence_seq);
            *seq = now.0.max(*seq + 1);
            *seq
        };
        let statement = PresenceStatement {
            device: account.keys.signing.device_key(),
            seq,
            homes: List::first_of(homes.iter().copied()),
            issued: now,
            not_after: now.plus(PRESENCE_LIFE),
        };
        let statement = account.keys.signing.sign(&statement).ok()?;
        Some(PresenceRecord { statement, certificate: account.credentials.device.clone() })
    }

    /// Our clock was ahead once: number the next record above what the directory holds.
    fn step_over(&self, network: &Network, newer: &PresenceRecord) {
        let roster = self.roster.borrow().clone();
        let gate = Gate { network, roster: &roster };
        let device = lock(&self.account).keys.signing.device_key();
        if let Some(known) = choose_presence(&gate, unix_now(), &device, [newer]) {
            let mut seq = lock(&self.presence_seq);
            *seq = (*seq).max(known.seq);
            drop(seq);
            self.republish.notify_one();
        }
    }

    /// Writes the user record again. True once the directory has it, or a newer one.
    async fn publish_record(&self) -> bool {
        let account = lock(&self.account).clone();
        match self.request(Request::Publish(Record::User(account.record.clone()))).await {
            Some(Response::Published { .. }) => true,
            Some(Response::Superseded(Record::User(newer))) => {
                self.adopt_record(&account, newer);
                true
            }
            other => {
                debug!(?other, "the user record was not published");
                false
            }
        }
    }

    /// Another device of the user has written a newer record: it is ours from here on.
    fn adopt_record(&self, account: &Account, newer: UserRecord) {
        let roster = self.roster.borrow().clone();
        let gate = Gate { network: &account.network, roster: &roster };
        let Some(known) = choose_user(&gate, unix_now(), &account.name, [&newer]) else { return };
        let device = account.keys.signing.device_key();
        if !known.devices.iter().any(|listed| listed.device() == device) {
            let text = "this device was removed from the account; sign in again to use it".to_owned();
            let _ = self.warnings.try_send(text);
            return;
        }
        let before: BTreeSet<DeviceKey> =
            account.record.statement.claims().map(|own| own.devices.iter().copied().collect()).unwrap_or_default();
        let added: Vec<String> = known
            .devices
            .iter()
            .filter(|device| !before.contains(&device.device()))
            .map(|device| device.statement.label.to_string())
            .collect();
        if !added.is_empty() {
            let text = format!("a device was added to your account: {}; if that was not you, change your password", added.join(", "));
            let _ = self.warnings.try_send(text);
        }
        self.update_account(|account| account.record = newer.clone());
        if let Err(error) = self.home.save_record(&newer) {
            warn!(%error, "the user record could not be kept");
        }
    }

    /// True once the grant has half of its life, or a day, behind it.
    fn is_renewal_due(&self, now: UnixMillis) -> bool {
        let account = lock(&self.account).clone();
        let Ok(grant) = account.network.verify_issued(&account.credentials.grant) else { return true };
        let half = grant.not_after.since(grant.issued) / 2;
        now.since(grant.issued) >= half.min(RENEWAL)
    }

    async fn renew(&self) -> Result<(), String> {
        let account = lock(&self.account).clone();
        let login = LoginClient::with_network(&account.link, account.document.clone()).map_err(|error| error.to_string())?;
        let credentials = login.renew(&account.keys.signing).await.map_err(|error| error.to_string())?;
        let renewed = account.network.verify_issued(&credentials.user).map_err(|error| error.to_string())?;
        if renewed.name != account.name {
            return Err("the login server renewed another account than this one".to_owned());
        }
        self.home.save_credentials(&credentials).map_err(|error| error.to_string())?;
        self.adopt_roster(&credentials.roster.clone());
        self.update_account(|account| account.renew_record(&credentials));
        let record = lock(&self.account).record.clone();
        self.home.save_record(&record).map_err(|error| error.to_string())?;
        let sessions = self.live.borrow().clone();
        for session in sessions {
            session.register_again(&credentials).await;
        }
        self.is_record_new.store(true, Ordering::Relaxed);
        self.republish.notify_one();
        Ok(())
    }

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

impl Account {
    /// Takes renewed credentials over, into the user record too: each device keeps the certificates in it fresh.
    fn renew_record(&mut self, credentials: &Credentials) {
        self.record.certificate = credentials.user.clone();
        let renewed = |old: &Signed<_>| {
            let device = |signed: &Signed<ahoy_protocol::certificate::DeviceCertificate>| {
                signed.claims().ok().and_then(|certificate| certificate.statement.claims().ok()).map(|statement| statement.device)
            };
            let same = credentials.devices.iter().find(|new| device(new).is_some() && device(new) == device(old));
            same.unwrap_or(old).clone()
        };
        self.record.devices = List::first_of(self.record.devices.iter().map(renewed).collect::<Vec<_>>());
        self.credentials = credentials.clone();
    }
}

impl Session {
    /// Shows renewed certificates: a supernode ends a session when those that it began with lapse.
    async fn register_again(&self, credentials: &Credentials) {
        if !matches!(self.request(&registration(credentials)).await, Some(Response::Done)) {
            self.connection.close(0, "not registered");
        }
    }

    /// Asks this supernode. `None` if it does not answer.
    async fn request(&self, request: &Request) -> Option<Response> {
        match self.connection.request(request, REQUEST_TIME).await {
            Ok(response) => {
                self.silent.store(0, Ordering::Relaxed);
                Some(response)
            }
            Err(error) => {
                debug!(%error, address = %self.address, "a supernode does not answer");
                if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_REQUESTS_MAX {
                    self.connection.close(0, "silent");
                }
                None
            }
        }
    }
}
