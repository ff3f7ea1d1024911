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
use ahoy_protocol::record::{HOMES_MAX, PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, UserRecord};
use ahoy_protocol::roster::{Roster, RosterNode};
use ahoy_protocol::{List, NodeKey, Signed, UnixMillis};
use ahoy_resilience::{Backoff, share_of};
use ahoy_transport::{ClientEndpoint, Connection, TransportError, receive};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
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
/// Half the life of a relay grant, the credential that lapses first.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);
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
    silent: Arc<std::sync::atomic::AtomicU32>,
}

/// The sessions of this device. Clones share them; the tasks end with [`Sessions::stop`], or when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
    _tasks: Arc<Tasks>,
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
        });
        let mut tasks: Vec<_> = (0..HOMES_MAX).map(|slot| tokio::spawn(keep_slot(inner.clone(), slot))).collect();
        tasks.push(tokio::spawn(keep_published(inner.clone())));
        tasks.push(tokio::spawn(keep_renewed(inner.clone())));
        tasks.push(tokio::spawn(keep_roster(inner.clone())));
        Self { inner, _tasks: Arc::new(Tasks(tasks)) }
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

    /// Says that the device has gone, as far as that is quickly done, and ends the sessions.
    pub async fn stop(&self) {
        let farewell = self.inner.publish_presence(&[]);
        let _ = timeout(FAREWELL_TIME, farewell).await;
        for task in &self._tasks.0 {
            task.abort();
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

/// Connects to a supernode and registers there.
async fn register(endpoint: &ClientEndpoint, account: &Account, node: &RosterNode) -> Result<Connection, TransportError> {
    let connecting = endpoint.connect_node(&node.udp, &node.node, ALPN);
    let connection = timeout(CONNECT_TIME, connecting).await.map_err(|_| TransportError::TimedOut { what: "a supernode" })??;
    let request = Request::Register { user: account.credentials.user.clone(), device: account.credentials.device.clone() };
    match connection.request::<Request, Response>(&request, CONNECT_TIME).await? {
        Response::Done => Ok(connection),
        other => {
            debug!(?other, "a supernode does not register this device");
            connection.close(0, "not registered");
            Err(TransportError::Refused)
        }
    }
}

/// Keeps one session, with one supernode after the other.
async fn keep_slot(inner: Arc<Inner>, slot: usize) {
    let mut rosters = inner.roster.subscribe();
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
                inner.listen(&session).await;
                inner.set_slot(slot, None);
                debug!(%address, slot, "lost a supernode");
            }
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
    loop {
        sleep(SETTLE_TIME).await;
        let homes: Vec<NodeKey> = live.borrow_and_update().iter().map(|session| session.node).collect();
        let mut pause = PRESENCE_REFRESH - share_of(PRESENCE_REFRESH / 10, random_u64());
        if !homes.is_empty() {
            let current_salts = rosters.borrow_and_update().salts_at(unix_now());
            if record_due <= Instant::now() || salts != current_salts {
                if inner.publish_record().await {
                    record_due = Instant::now() + RECORD_REFRESH - share_of(RECORD_REFRESH / 10, random_u64());
                    salts = current_salts;
                } else {
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
    let mut pause = inner.until_renewal();
    loop {
        sleep(pause).await;
        pause = match inner.renew().await {
            Ok(()) => RENEWAL - share_of(RENEWAL / 10, random_u64()),
            Err(reason) => {
                info!(%reason, "certificates could not be renewed");
                RENEWAL_RETRY + share_of(RENEWAL_RETRY, random_u64())
            }
        };
    }
}

/// Keeps the roster new, from the login server.
async fn keep_roster(inner: Arc<Inner>) {
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
        sleep(ROSTER_REFRESH - share_of(ROSTER_REFRESH / 5, random_u64())).await;
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
    async fn listen(&self, session: &Session) {
        while let Ok(mut stream) = session.connection.accept_uni().await {
            match timeout(REQUEST_TIME, receive::<Push>(&mut stream)).await {
                Ok(Ok(Some(Push::Deliver(sealed)))) => {
                    // Full: more signals than anybody is called. Their senders try again.
                    let _ = self.signals.try_send(sealed);
                }
                Ok(Ok(Some(Push::RosterVersion(version)))) => self.fetch_roster(session, version).await,
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
        let mut live = self.live.subscribe();
        let sessions = timeout(SESSION_WAIT, live.wait_for(|sessions| !sessions.is_empty())).await.ok()?.ok()?.clone();
        let request = Arc::new(request);
        let mut asked = JoinSet::new();
        for (rank, session) in sessions.into_iter().enumerate() {
            let request = request.clone();
            asked.spawn(async move {
                sleep(HEDGE_TIME * u32::try_from(rank).unwrap_or(0)).await;
                session.request(&request).await
            });
        }
        let mut refused = None;
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Some(response @ (Response::Busy { .. } | Response::Refused(_)))) => refused = Some(response),
                Ok(Some(response)) => return Some(response),
                Ok(None) | Err(_) => {}
            }
        }
        refused
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
        let before = account.record.devices.len();
        if known.devices.len() > before {
            let labels: Vec<String> = known.devices.iter().skip(before).map(|device| device.statement.label.to_string()).collect();
            let text = format!("a device was added to your account: {}; if that was not you, change your password", labels.join(", "));
            let _ = self.warnings.try_send(text);
        }
        self.update_account(|account| account.record = newer.clone());
        if let Err(error) = self.home.save_record(&newer) {
            warn!(%error, "the user record could not be kept");
        }
    }

    /// How long until the grant has half of its life behind it.
    fn until_renewal(&self) -> Duration {
        let account = lock(&self.account).clone();
        let Ok(grant) = account.network.verify_issued(&account.credentials.grant) else { return Duration::ZERO };
        let half = grant.not_after.since(grant.issued) / 2;
        let left = grant.issued.plus(half).since(unix_now());
        left.min(RENEWAL)
    }

    async fn renew(&self) -> Result<(), String> {
        let account = lock(&self.account).clone();
        let login = LoginClient::with_network(&account.link, account.document.clone()).map_err(|error| error.to_string())?;
        let credentials = login.renew(&account.keys.signing).await.map_err(|error| error.to_string())?;
        self.home.save_credentials(&credentials).map_err(|error| error.to_string())?;
        self.adopt_roster(&credentials.roster.clone());
        self.update_account(|account| account.renew_record(&credentials));
        self.republish.notify_one();
        Ok(())
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
    fn renew_record(&mut self, credentials: &ahoy_protocol::login::Credentials) {
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
    /// Asks this supernode. `None` if it does not answer.
    async fn request(&self, request: &Request) -> Option<Response> {
        use std::sync::atomic::Ordering::Relaxed;
        match self.connection.request(request, REQUEST_TIME).await {
            Ok(response) => {
                self.silent.store(0, Relaxed);
                Some(response)
            }
            Err(error) => {
                debug!(%error, address = %self.address, "a supernode does not answer");
                if self.silent.fetch_add(1, Relaxed) + 1 >= SILENT_REQUESTS_MAX {
                    self.connection.close(0, "silent");
                }
                None
            }
        }
    }
}
