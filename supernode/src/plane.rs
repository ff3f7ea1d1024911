//! The client plane: who connects, what they may ask, and what they are answered.
//!
//! One bidirectional stream a request. A client registers first; nodes of the roster may do what their role allows. All
//! work is bounded per connection and in all, and what is over a bound is answered with `Busy` before any cryptography.

use crate::limits::{AnswerKind, Guard, Work};
use crate::lookup::{Directory, Found, PublishError};
use crate::mail::Mail;
use crate::neighbours::Neighbours;
use crate::relays::Relays;
use crate::sessions::{Session, Sessions};
use crate::visitor::Visitor;
use ahoy_directory::{VerifiedRecord, homes_for};
use ahoy_node::{Admission, Node, RosterView};
use ahoy_protocol::certificate::{DeviceCertificate, NodeRole, UserCertificate};
use ahoy_protocol::directory::{Found as FoundMessage, Push, Request, Response, SealedSignal, UNREGISTERED_BYTES_MAX, role_needed};
use ahoy_protocol::ids::{DeviceKey, NodeKey};
use ahoy_protocol::record::{HOMES_MAX, PresenceRecord, Record, Subject, UserRecord};
use ahoy_protocol::{List, Name, Signed, Text, UnixMillis};
use ahoy_transport::{Connection, NodeEndpoint, RecvStream, SendStream, TransportError, receive_body, receive_length, send};
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::task::JoinSet;

/// Requests of one connection at a time. QUIC lets a client open no more streams; this holds where it opens and resets them.
const STREAMS_MAX: u32 = 8;
/// The same for a supernode of the roster, which hands on the signals of all its clients, each for up to the time of a push.
const SUPERNODE_STREAMS_MAX: u32 = 256;
/// A request must be here this long after its stream.
const READING_TIME_MAX: Duration = Duration::from_secs(5);
/// And be answered this long after that: longer than the slowest look-up, of a user and then of his devices, and than a signal.
const ANSWERING_TIME_MAX: Duration = Duration::from_secs(6);
/// A client that does not take its answer within this time goes without.
const WRITING_TIME_MAX: Duration = Duration::from_secs(10);
/// Who has not said who he is after this long, and is no node of the roster, is turned away.
const REGISTRATION_TIME_MAX: Duration = Duration::from_secs(15);
/// What somebody is told to wait at least when there is too much to do, doubled by chance.
pub(crate) const BUSY_TIME: Duration = Duration::from_secs(1);
/// Devices whose presence one look-up finds: all of a user's.
const DEVICES_FOUND_MAX: usize = ahoy_protocol::record::DEVICES_MAX;

/// Close code for somebody who did not register.
const CODE_UNREGISTERED: u32 = 4;
/// What he is told.
pub(crate) const REGISTER_FIRST: &str = "register first";

/// Everything that requests need.
pub(crate) struct Plane {
    pub(crate) node: Arc<Node>,
    pub(crate) directory: Directory,
    pub(crate) sessions: Sessions,
    pub(crate) neighbours: Arc<Neighbours>,
    pub(crate) mail: Mail,
    pub(crate) relays: Mutex<Relays>,
    pub(crate) guard: Mutex<Guard>,
    pub(crate) work: Work,
    pub(crate) admission: Arc<Admission>,
    pub(crate) load_percent: Arc<AtomicU8>,
}

impl Plane {
    /// Takes whoever connects, until the endpoint is closed.
    pub(crate) async fn serve(self: Arc<Self>, endpoint: Arc<NodeEndpoint>) {
        let mut visits = JoinSet::new();
        while let Some(handshaking) = endpoint.accept().await {
            let plane = self.clone();
            visits.spawn(async move {
                let Some(_place) = plane.admission.enter(handshaking.client_ip()) else { return };
                match handshaking.finish().await {
                    Ok(connection) => plane.visit(connection).await,
                    Err(error) => tracing::debug!(%error, "a handshake failed"),
                }
            });
            while visits.try_join_next().is_some() {}
        }
    }

    /// Serves one connection to its end.
    async fn visit(self: Arc<Self>, connection: Connection) {
        let visitor = Arc::new(Visitor::new(connection));
        let mut requests = JoinSet::new();
        let unregistered = tokio::time::sleep(REGISTRATION_TIME_MAX);
        tokio::pin!(unregistered);
        let mut deadline_passed = false;
        let mut streams_max = STREAMS_MAX;
        loop {
            // A roster that says who this is may have come later than he.
            let allowed = self.streams_max(&visitor);
            if allowed != streams_max {
                visitor.connection.allow_streams(allowed);
                streams_max = allowed;
            }
            tokio::select! {
                stream = visitor.connection.accept_bi(), if requests.len() < streams_max as usize => match stream {
                    Ok((sending, receiving)) => {
                        requests.spawn(self.clone().handle_stream(visitor.clone(), sending, receiving));
                    }
                    Err(_) => break,
                },
                Some(_) = requests.join_next() => {}
                () = &mut unregistered, if !deadline_passed => {
                    deadline_passed = true;
                    if !self.is_known(&visitor) {
                        visitor.connection.close(CODE_UNREGISTERED, REGISTER_FIRST);
                    }
                }
            }
        }
        if let Some(device) = visitor.device() {
            self.sessions.leave(&device, &visitor.connection);
        }
    }

    fn is_known(&self, visitor: &Visitor) -> bool {
        visitor.device().is_some() || self.is_node(visitor)
    }

    fn is_node(&self, visitor: &Visitor) -> bool {
        self.roster().roster.nodes.iter().any(|node| node.node == NodeKey(visitor.key))
    }

    fn is_supernode(&self, visitor: &Visitor) -> bool {
        self.roster().roster.node(NodeRole::Supernode, &NodeKey(visitor.key)).is_some()
    }

    fn streams_max(&self, visitor: &Visitor) -> u32 {
        if self.is_supernode(visitor) { SUPERNODE_STREAMS_MAX } else { STREAMS_MAX }
    }

    async fn handle_stream(self: Arc<Self>, visitor: Arc<Visitor>, mut sending: SendStream, mut receiving: RecvStream) {
        let response = match self.read_and_answer(&visitor, &mut receiving).await {
            Ok(Some(response)) => response,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a request could not be read");
                refused(&error.to_string())
            }
        };
        // Without an answer the asker goes elsewhere, as he would after "not now".
        let kind = match &response {
            _ if !self.is_known(&visitor) => AnswerKind::ToStranger,
            Response::Mail(_) => AnswerKind::Mail,
            _ => AnswerKind::Other,
        };
        let Some(_room) = self.work.begin_answer(kind) else { return };
        let writing = async {
            send(&mut sending, &response).await?;
            let _ = sending.finish();
            // Until the answer is acknowledged the stream counts against the asker.
            let _ = sending.stopped().await;
            Ok::<_, TransportError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(WRITING_TIME_MAX, writing).await {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }

    async fn read_and_answer(&self, visitor: &Visitor, receiving: &mut RecvStream) -> Result<Option<Response>, TransportError> {
        let taken = if self.is_supernode(visitor) { visitor.take_supernode_request() } else { visitor.take_request() };
        if let Err(wait) = taken {
            return Ok(Some(self.busy(visitor, wait)));
        }
        let Some(length) = in_time(receive_length::<Request>(receiving)).await? else { return Ok(None) };
        let _long = match self.room_to_read(visitor, length).await {
            Ok(room) => room,
            Err(response) => return Ok(Some(response)),
        };
        let request: Request = in_time(receive_body(receiving, length)).await?;
        if is_of_devices(&request)
            && let Err(response) = self.registered(visitor).await
        {
            return Ok(Some(response));
        }
        // Not before the request is here: whoever opens streams and sends nothing must not take the room of others.
        let Some(_room) = self.work.begin_request() else { return Ok(Some(self.busy(visitor, BUSY_TIME))) };
        let answering = Box::pin(self.answer(visitor, request));
        let answer = tokio::time::timeout(ANSWERING_TIME_MAX, answering).await;
        Ok(Some(answer.unwrap_or_else(|_| self.busy(visitor, BUSY_TIME))))
    }

    /// Room to read a request of this length, or what is answered instead: only those who have said who they are send long ones.
    async fn room_to_read(&self, visitor: &Visitor, length: usize) -> Result<Option<SemaphorePermit<'_>>, Response> {
        if length <= UNREGISTERED_BYTES_MAX {
            return Ok(None);
        }
        self.registered(visitor).await?;
        if !self.is_known(visitor) {
            return Err(visitor.refusal().unwrap_or_else(|| refused(REGISTER_FIRST)));
        }
        self.work.begin_long_request().map(Some).ok_or_else(|| self.busy(visitor, BUSY_TIME))
    }

    /// Waits for the registration of somebody of whom one may come, if there is room for one more who waits.
    async fn registered(&self, visitor: &Visitor) -> Result<(), Response> {
        if !visitor.may_register() || self.is_node(visitor) {
            return Ok(());
        }
        let Some(_room) = self.work.begin_wait() else { return Err(self.busy(visitor, BUSY_TIME)) };
        visitor.registration().await;
        // Who sends none has had his wait: what he asks later is answered at once, so that he takes no more room that others need.
        if visitor.may_register() {
            visitor.set_refused(refused(REGISTER_FIRST));
        }
        Ok(())
    }

    async fn answer(&self, visitor: &Visitor, request: Request) -> Response {
        if let Some(role) = role_needed(&request) {
            if self.roster().roster.node(role, &NodeKey(visitor.key)).is_none() {
                return refused(&format!("only a {role} of this network may ask this"));
            }
            return self.answer_node(visitor, request).await;
        }
        match request {
            Request::Register { user, device } => {
                let response = self.register(visitor, &user, &device);
                if response != Response::Done {
                    visitor.set_refused(response.clone());
                }
                response
            }
            Request::Roster { since } => {
                // It is by far the longest answer that a stranger can have.
                if !self.is_node(visitor)
                    && let Err(wait) = visitor.take_walk()
                {
                    return self.busy(visitor, wait);
                }
                let view = self.roster();
                Response::Roster((view.roster.version > since).then(|| view.signed.clone()))
            }
            request => match visitor.device() {
                Some(device) => self.answer_device(visitor, device, request).await,
                None => visitor.refusal().unwrap_or_else(|| refused(REGISTER_FIRST)),
            },
        }
    }

    async fn answer_node(&self, visitor: &Visitor, request: Request) -> Response {
        match request {
            Request::Forward { to, sealed } => Response::Delivered { devices: self.deliver(&to, sealed).await },
            Request::RelayStatus { load_percent } => {
                let mut relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
                relays.handle_status(Instant::now(), NodeKey(visitor.key), load_percent);
                Response::Done
            }
            Request::ForwardMail(forward) => self.answer_forwarded_mail(visitor, *forward).await,
            _ => refused("not a request of nodes"),
        }
    }

    async fn answer_device(&self, visitor: &Visitor, device: DeviceKey, request: Request) -> Response {
        if matches!(request, Request::Publish(_) | Request::Find(_))
            && let Err(wait) = visitor.take_walk()
        {
            return self.busy(visitor, wait);
        }
        match request {
            Request::Publish(record) => self.publish(visitor, record).await,
            Request::Find(name) => self.find(name).await.map_or_else(|| self.busy(visitor, BUSY_TIME), Response::Found),
            Request::Signal { to, homes, sealed } => self.signal(visitor, device, to, homes, sealed).await,
            Request::Relays => {
                let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
                Response::Relays(List::first_of(relays.named(Instant::now(), &self.roster().roster, &device)))
            }
            Request::Mail(request) => self.answer_mail(visitor, device, *request).await,
            _ => refused("not a request of devices"),
        }
    }

    fn register(&self, visitor: &Visitor, user: &Signed<UserCertificate>, certificate: &Signed<DeviceCertificate>) -> Response {
        let (user, device) = match self.node.network().verify_pair(user, certificate, now()) {
            Ok(pair) => pair,
            Err(error) => return refused(&format!("your certificates were refused: {error}")),
        };
        let key = device.device();
        if key.0 != visitor.key {
            return refused("the device certificate is another device's");
        }
        let serials = [user.serial, device.certificate.serial];
        if serials.iter().any(|serial| self.roster().roster.is_revoked(*serial)) {
            return refused("your certificate was revoked");
        }
        let not_after = user.not_after.min(device.certificate.not_after);
        let certificate = Arc::new(certificate.clone());
        let session = Session { connection: visitor.connection.clone(), user: user.user, certificate, serials, not_after };
        if !self.sessions.enter(key, session) {
            return self.busy(visitor, BUSY_TIME);
        }
        visitor.set_registered(key);
        // It may have ended before it was entered, and then nobody else takes it out.
        if visitor.connection.is_closed() {
            self.sessions.leave(&key, &visitor.connection);
        }
        Response::Done
    }

    async fn publish(&self, visitor: &Visitor, record: Record) -> Response {
        match self.directory.publish(record).await {
            Ok(stored) => Response::Published { stored },
            Err(PublishError::Superseded(newer)) => Response::Superseded(*newer),
            Err(PublishError::Refused(error)) => refused(&error.to_string()),
            Err(PublishError::Busy) => self.busy(visitor, BUSY_TIME),
        }
    }

    /// The user records under a name, and the presence of the devices in them. `None` if nothing was found and there was too
    /// much to do to ask others.
    async fn find(&self, name: Name) -> Option<FoundMessage> {
        // The first record seen most likely names the devices that the newest names: where they are is asked while that is being settled.
        let (tell, told) = oneshot::channel();
        let subject = Subject::User(name);
        let early = async {
            match told.await {
                Ok(record) => self.find_devices(devices_in([&record])).await,
                Err(_) => Vec::new(),
            }
        };
        let (found, mut presence) = tokio::join!(self.directory.look_up_telling(&subject, tell), early);
        if found.is_unasked() {
            return None;
        }
        let devices = devices_in(&found.records);
        presence.retain(|(device, _)| devices.contains(device));
        let missing = devices.into_iter().filter(|device| presence.iter().all(|(known, _)| known != device)).collect();
        presence.extend(self.find_devices(missing).await);
        let presence: Vec<Found> = presence.into_iter().map(|(_, found)| found).collect();
        if presence.iter().all(|found| found.records.is_empty()) && presence.iter().any(Found::is_unasked) {
            return None;
        }
        let asked = presence.iter().map(|found| found.asked).chain([found.asked]).max();
        Some(FoundMessage {
            users: List::first_of(found.records.into_iter().filter_map(user_record)),
            presence: List::first_of(presence.into_iter().filter_map(|found| found.records.into_iter().next()).filter_map(presence_record)),
            supernodes_asked: asked.unwrap_or(1),
        })
    }

    async fn find_devices(&self, devices: Vec<DeviceKey>) -> Vec<(DeviceKey, Found)> {
        let looking = devices.into_iter().map(async |device| (device, self.directory.look_up(&Subject::Device(device)).await));
        futures::future::join_all(looking).await
    }

    /// Carries a signal to a device, here or at the other supernodes that it named, at all of them at once.
    async fn signal(
        &self,
        visitor: &Visitor,
        from: DeviceKey,
        to: DeviceKey,
        homes: List<NodeKey, HOMES_MAX>,
        sealed: SealedSignal,
    ) -> Response {
        let allowed = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take_signal(Instant::now(), from, to);
        if let Err(wait) = allowed {
            return self.busy(visitor, wait);
        }
        if self.deliver(&to, sealed.clone()).await > 0 {
            return Response::Delivered { devices: 1 };
        }
        let own = self.node.key().node_key();
        let forward = Request::Forward { to, sealed };
        let mut asked: FuturesUnordered<_> =
            homes.iter().filter(|home| **home != own).map(|home| self.neighbours.ask(home, &forward)).collect();
        while let Some(response) = asked.next().await {
            if matches!(response, Some(Response::Delivered { devices: 1.. })) {
                return Response::Delivered { devices: 1 };
            }
        }
        Response::Delivered { devices: 0 }
    }

    async fn deliver(&self, to: &DeviceKey, sealed: SealedSignal) -> u8 {
        u8::from(self.sessions.push(to, &Push::Deliver(sealed)).await)
    }

    pub(crate) fn busy(&self, visitor: &Visitor, wait: Duration) -> Response {
        let own = self.node.key().node_key();
        let roster = self.roster();
        let others = roster.roster.nodes_in(NodeRole::Supernode).map(|node| node.node).filter(|node| *node != own);
        // Between once and twice the time, so that those who were refused together do not come back together.
        let share = f64::from(u16::from_le_bytes(ahoy_identity::random())) / f64::from(u16::MAX);
        Response::Busy {
            retry_after_ms: u32::try_from(wait.max(BUSY_TIME).mul_f64(1.0 + share).as_millis()).unwrap_or(u32::MAX),
            alternatives: List::first_of(homes_for(&DeviceKey(visitor.key), others)),
        }
    }

    /// The roster in force.
    pub(crate) fn roster(&self) -> Arc<RosterView> {
        self.node.roster().borrow().clone()
    }

    /// Tells whoever asks over UDP how loaded this supernode is.
    pub(crate) fn update_load(&self, connections: usize, connections_max: usize) {
        let load = (100 * connections / connections_max.max(1)).max(self.work.load_percent()).min(100);
        self.load_percent.store(u8::try_from(load).unwrap_or(100), Ordering::Relaxed);
    }
}

/// The devices that user records name, each once.
fn devices_in<'a>(records: impl IntoIterator<Item = &'a VerifiedRecord>) -> Vec<DeviceKey> {
    let mut devices = Vec::new();
    for device in records.into_iter().flat_map(|record| record.content().devices()) {
        if !devices.contains(&device) {
            devices.push(device);
        }
    }
    devices.truncate(DEVICES_FOUND_MAX);
    devices
}

/// True for what only a registered device may ask.
fn is_of_devices(request: &Request) -> bool {
    role_needed(request).is_none() && !matches!(request, Request::Register { .. } | Request::Roster { .. })
}

fn user_record(record: VerifiedRecord) -> Option<UserRecord> {
    match record.into_record() {
        Record::User(record) => Some(record),
        Record::Presence(_) => None,
    }
}

fn presence_record(record: VerifiedRecord) -> Option<PresenceRecord> {
    match record.into_record() {
        Record::Presence(record) => Some(record),
        Record::User(_) => None,
    }
}

/// What is read within the time that a request may take.
async fn in_time<T>(reading: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
    let reading = tokio::time::timeout(READING_TIME_MAX, reading);
    reading.await.unwrap_or(Err(TransportError::TimedOut { what: "a request" }))
}

pub(crate) fn refused(why: &str) -> Response {
    Response::Refused(Text::fitting(why))
}

pub(crate) fn now() -> UnixMillis {
    SystemTime::now().into()
}
