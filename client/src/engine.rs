//! The engine: owner of the desk, and of everything that belongs to a call.
//!
//! One task. Commands, signals, link events and notices of media come in by bounded queues; the desk decides; its effects are carried
//! out here. What takes time (look-ups, sending signals) runs in tasks of its own and comes back as a [`Done`].

use crate::events::{Event, call_word};
use crate::home::{Account, Home, PinCheck};
use crate::link::{self, LAST_WORDS_TIME, LINK_QUEUE, Link, LinkEvent, LinkEventKind, Order, Shared};
use crate::lookup::{LookUpError, Person, find};
use crate::media::{Media, MediaOptions, MediaSummary, NOTICES_MAX, Notice};
use crate::relays::Relays;
use crate::sessions::Sessions;
use crate::signals;
use ahoy_call::{Caller, Desk, Effect, Event as DeskEvent, Identity, PlaceError};
use ahoy_directory::Gate;
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::directory::{Request, Response, SealedSignal};
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::{Invitation, RelayOffer, SignalKind};
use ahoy_protocol::record::HOMES_MAX;
use ahoy_protocol::{CallId, DeviceKey, List, Name, NodeKey, UnixMillis};
use ahoy_transport::{ClientEndpoint, Connection, PathStatus, TransportError};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info};

/// Commands, signals and results waiting for the engine. A person gives few of the first; supernodes limit the second.
const QUEUE_MAX: usize = 64;
/// Events that a slow reader may be behind.
const EVENTS_MAX: usize = 256;
/// How often an invitation is sent to a device that is not where it said.
const INVITE_TRIES_MAX: usize = 4;
/// Time between two tries: a device that has lost its supernode is at the next one by then.
const INVITE_PAUSE: Duration = Duration::from_millis(900);

/// How long the connections' last packets may take at the end.
const CLOSING_TIME: Duration = Duration::from_millis(300);

/// How the engine behaves.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Take every call at once.
    pub auto_answer: bool,
    /// Sound of calls for which nothing else was said.
    pub media: MediaOptions,
}

/// What the engine can be asked to do.
#[derive(Debug)]
pub enum Command {
    /// Call somebody.
    Place {
        /// Whom.
        to: Name,
        /// With which sound; `None`: as configured.
        media: Option<MediaOptions>,
        /// Never use a direct path.
        relay_only: bool,
        /// The call, or why not.
        reply: oneshot::Sender<Result<CallId, PlaceError>>,
    },
    /// Take the call that rings. The reply is false if none does.
    Answer(oneshot::Sender<bool>),
    /// Do not take the call that rings. The reply is false if none does.
    Decline(oneshot::Sender<bool>),
    /// End the call. The reply is false if there is none.
    HangUp(oneshot::Sender<bool>),
    /// End the call, sign off and stop. The reply comes when all is done.
    Stop(oneshot::Sender<()>),
}

/// Why the engine does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The stored roster has lapsed, or is not genuine.
    #[error("what this device knows of the network has lapsed, and the login server cannot be reached; try again when it can")]
    Roster,
    /// The UDP port.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The other end of a running engine.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    sessions: Sessions,
}

impl Handle {
    /// What happens from here on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Waits until this device can be called.
    pub async fn online(&self) {
        self.sessions.online().await;
    }

    /// The `online` event, as things are.
    #[must_use]
    pub fn online_event(&self) -> Event {
        let account = self.sessions.account();
        Event::Online {
            name: account.name.to_string(),
            device: account.keys.signing.device_key().to_string(),
            supernodes: self.sessions.live().iter().map(|session| session.address.to_string()).collect(),
        }
    }

    /// Calls somebody.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn place(&self, to: Name, media: Option<MediaOptions>, relay_only: bool) -> Result<CallId, String> {
        let (reply, answer) = oneshot::channel();
        self.give(Command::Place { to, media, relay_only, reply }).await?;
        answer.await.map_err(|_| STOPPED.to_owned())?.map_err(|error| error.to_string())
    }

    /// Takes the call that rings.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn answer(&self) -> Result<(), String> {
        self.ask(Command::Answer, "no call rings").await
    }

    /// Does not take the call that rings.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn decline(&self) -> Result<(), String> {
        self.ask(Command::Decline, "no call rings").await
    }

    /// Ends the call.
    ///
    /// # Errors
    /// A sentence for the user.
    pub async fn hang_up(&self) -> Result<(), String> {
        self.ask(Command::HangUp, "there is no call").await
    }

    /// Ends everything.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.give(Command::Stop(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    async fn give(&self, command: Command) -> Result<(), String> {
        self.commands.send(command).await.map_err(|_| STOPPED.to_owned())
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<bool>) -> Command, otherwise: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.give(command(reply)).await?;
        if answer.await.map_err(|_| STOPPED.to_owned())? { Ok(()) } else { Err(otherwise.to_owned()) }
    }
}

const STOPPED: &str = "the program is stopping";

/// Starts an engine for the account in `home`.
///
/// # Errors
/// See [`StartError`].
pub async fn start(home: Arc<Home>, mut account: Account, config: Config) -> Result<Handle, StartError> {
    let roster = newest_roster(&mut account).await.ok_or(StartError::Roster)?;
    let endpoint = ClientEndpoint::bind(None, &account.keys.signing)?;
    let (signals, sealed) = mpsc::channel(QUEUE_MAX);
    let (warnings, warned) = mpsc::channel(QUEUE_MAX);
    let me = Identity { name: account.name.clone(), user: own_user_key(&account), device: account.keys.signing.device_key() };
    let sessions = Sessions::start(endpoint.clone(), home.clone(), account, roster, signals, warnings);
    let relays = Relays::new(endpoint.clone(), sessions.clone());
    let (link_events, links) = mpsc::channel(LINK_QUEUE);
    let (alive, speakers) = mpsc::channel(1);
    let shared = Shared { endpoint, sessions: sessions.clone(), relays, events: link_events, alive: Some(alive) };
    let (commands, queue) = mpsc::channel(QUEUE_MAX);
    let (done, results) = mpsc::channel(QUEUE_MAX);
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let events = broadcast::Sender::new(EVENTS_MAX);
    let engine = Engine {
        home,
        config,
        shared,
        desk: Desk::new(me),
        calls: BTreeMap::new(),
        events: events.clone(),
        done,
        notices,
        speakers,
        inputs: Inputs { commands: queue, sealed, warned, links, results, noticed },
    };
    tokio::spawn(engine.run());
    Ok(Handle { commands, events, sessions })
}

/// The user key that the login server certified for this account.
fn own_user_key(account: &Account) -> ahoy_protocol::UserKey {
    let certificate = account.network.verify_issued(&account.credentials.user).ok();
    certificate.map_or(ahoy_protocol::UserKey([0; 32]), |certificate| certificate.user)
}

/// The stored roster if it still counts, else the login server's.
async fn newest_roster(account: &mut Account) -> Option<ahoy_protocol::roster::Roster> {
    let now = UnixMillis::from(SystemTime::now());
    if let Ok(roster) = account.network.verify_roster(&account.roster, now) {
        return Some(roster);
    }
    let login = ahoy_login_client::LoginClient::with_network(&account.link, account.document.clone()).ok()?;
    let signed = login.roster(0, 0).await.ok()??;
    let roster = account.network.verify_roster(&signed, now).ok()?;
    account.roster = signed;
    Some(roster)
}

/// What comes back from tasks.
#[derive(Debug)]
enum Done {
    Found { call: CallId, found: Result<Person, LookUpError>, relays: Vec<RelayOffer>, took: Duration },
    NotDelivered { call: CallId, device: DeviceKey },
}

struct Inputs {
    commands: mpsc::Receiver<Command>,
    sealed: mpsc::Receiver<SealedSignal>,
    warned: mpsc::Receiver<String>,
    links: mpsc::Receiver<LinkEvent>,
    results: mpsc::Receiver<Done>,
    noticed: mpsc::Receiver<(CallId, Notice)>,
}

struct Engine {
    home: Arc<Home>,
    config: Config,
    shared: Shared,
    desk: Desk,
    calls: BTreeMap<CallId, Call>,
    events: broadcast::Sender<Event>,
    done: mpsc::Sender<Done>,
    notices: mpsc::Sender<(CallId, Notice)>,
    /// Ends when nobody has anything to say any more.
    speakers: mpsc::Receiver<Infallible>,
    inputs: Inputs,
}

/// What belongs to a call beyond the desk's view of it.
struct Call {
    /// When it was placed, or came in; for a call that came in, then when it was answered.
    since: Instant,
    media_options: MediaOptions,
    relay_only: bool,
    relays: Vec<RelayOffer>,
    supernodes_asked: u16,
    found_at: Vec<String>,
    look_up: Duration,
    parties: BTreeMap<DeviceKey, Party>,
    /// Of a call that came in.
    invitation: Option<Invitation>,
    /// The device with which sound is to flow, once the link stands.
    media_with: Option<DeviceKey>,
    media: Option<Media>,
    summary: MediaSummary,
    path_task: Option<AbortOnDrop>,
}

/// A task that ends when nobody waits for it any more.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A device on the other side.
struct Party {
    device: VerifiedDevice,
    homes: Vec<NodeKey>,
    secret: CallSecret,
    inviting: Option<AbortOnDrop>,
    link: Option<Link>,
    connected: Option<(Connection, watch::Receiver<PathStatus>)>,
}

impl Call {
    fn new(now: Instant, media_options: MediaOptions, relay_only: bool) -> Self {
        Self {
            since: now,
            media_options,
            relay_only,
            relays: Vec::new(),
            supernodes_asked: 0,
            found_at: Vec::new(),
            look_up: Duration::ZERO,
            parties: BTreeMap::new(),
            invitation: None,
            media_with: None,
            media: None,
            summary: MediaSummary::default(),
            path_task: None,
        }
    }

    fn path(&self, device: Option<&DeviceKey>) -> Option<PathStatus> {
        Some(*self.parties.get(device?)?.connected.as_ref()?.1.borrow())
    }
}

impl Engine {
    async fn run(mut self) {
        loop {
            let due = self.desk.poll_timeout();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = self.inputs.commands.recv() => match command {
                    Some(Command::Stop(reply)) => {
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    Some(command) => self.handle_command(command),
                    None => return self.stop().await,
                },
                Some(sealed) = self.inputs.sealed.recv() => self.handle_sealed(&sealed),
                Some(text) = self.inputs.warned.recv() => self.tell(Event::Warning { text }),
                Some(event) = self.inputs.links.recv() => self.handle_link(event),
                Some(done) = self.inputs.results.recv() => self.handle_done(done),
                Some((call, notice)) = self.inputs.noticed.recv() => self.handle_notice(call, notice),
                () = timer => self.desk.handle_timeout(Instant::now()),
            }
            self.carry_out_effects().await;
        }
    }

    async fn stop(&mut self) {
        self.desk.leave(Instant::now());
        self.carry_out_effects().await;
        self.shared.alive = None;
        let _ = timeout(LAST_WORDS_TIME, self.speakers.recv()).await;
        self.shared.sessions.stop().await;
        self.shared.endpoint.close();
        let _ = timeout(CLOSING_TIME, self.shared.endpoint.closed()).await;
    }

    fn tell(&self, event: Event) {
        // Nobody listens: fine.
        let _ = self.events.send(event);
    }

    fn handle_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Place { to, media, relay_only, reply } => {
                let call = CallId(ahoy_identity::random());
                let placed = self.desk.place(now, call, to);
                if placed.is_ok() {
                    let media = media.unwrap_or_else(|| self.config.media.clone());
                    self.calls.insert(call, Call::new(now, media, relay_only));
                }
                let _ = reply.send(placed.map(|()| call));
            }
            Command::Answer(reply) => {
                let _ = reply.send(self.answer(now));
            }
            Command::Decline(reply) => {
                let _ = reply.send(self.desk.decline(now));
            }
            Command::HangUp(reply) => {
                let _ = reply.send(self.desk.hang_up(now));
            }
            // Handled where the loop can end.
            Command::Stop(_) => {}
        }
    }

    fn answer(&mut self, now: Instant) -> bool {
        if let Some(call) = self.desk.current().and_then(|call| self.calls.get_mut(&call)) {
            call.since = now;
        }
        self.desk.answer(now)
    }

    /// Checks a signal; one that does not hold is dropped without a word.
    fn handle_sealed(&mut self, sealed: &SealedSignal) {
        let (account, roster) = (self.shared.sessions.account(), self.shared.sessions.roster());
        let gate = Gate { network: &account.network, roster: &roster };
        let received = match signals::open(&account, &gate, UnixMillis::from(SystemTime::now()), sealed) {
            Ok(received) => received,
            Err(error) => return debug!(%error, "a signal was dropped"),
        };
        let now = Instant::now();
        match received.kind {
            SignalKind::Invite(invitation) => {
                if !self.is_trusted(&received.user.name, &received.user.user, received.user.epoch)
                    || self.calls.contains_key(&received.call)
                {
                    return;
                }
                let caller = Caller { name: received.user.name, user: received.user.user, device: received.device.device() };
                let mut call = Call::new(now, self.config.media.clone(), false);
                let homes = invitation.homes.to_vec();
                let party =
                    Party { device: received.device, homes, secret: invitation.secret, inviting: None, link: None, connected: None };
                call.parties.insert(caller.device, party);
                call.invitation = Some(invitation);
                let before = self.desk.current();
                self.calls.insert(received.call, call);
                self.desk.handle_invite(now, received.call, caller);
                self.inherit(before, received.call);
            }
            kind => self.desk.handle_signal(now, received.call, received.device.device(), &kind),
        }
    }

    /// When two people call each other, the call that stands is to the user the one that he placed: with its sound, and its privacy.
    fn inherit(&mut self, before: Option<CallId>, now: CallId) {
        if self.desk.current() != Some(now) {
            return;
        }
        let Some(old) = before.filter(|before| *before != now).and_then(|before| self.calls.get(&before)) else { return };
        if old.invitation.is_some() {
            return;
        }
        let (media_options, relay_only) = (old.media_options.clone(), old.relay_only);
        if let Some(call) = self.calls.get_mut(&now) {
            call.media_options = media_options;
            call.relay_only = relay_only;
        }
    }

    /// False for a key that has changed: then the user is warned.
    fn is_trusted(&self, name: &Name, user: &ahoy_protocol::UserKey, epoch: u32) -> bool {
        match self.home.check_pin(name, user, epoch) {
            Ok(PinCheck::First | PinCheck::Same) => true,
            Ok(PinCheck::Changed) => {
                let text = format!(
                    "the key of {name} is not the one this device knows: somebody may be pretending to be {name}, or {name} began anew. \
                     Ask {name} on another way; if it is true, use `ahoy trust {name}`"
                );
                self.tell(Event::Warning { text });
                false
            }
            Err(error) => {
                self.tell(Event::Warning { text: error.to_string() });
                false
            }
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = Instant::now();
        let LinkEvent { call, device, kind } = event;
        match kind {
            LinkEventKind::Connected { connection, path } => {
                if let Some(party) = self.calls.get_mut(&call).and_then(|call| call.parties.get_mut(&device)) {
                    party.connected = Some((connection, path));
                    self.desk.handle_peer_connected(now, call, device);
                }
            }
            LinkEventKind::Message(message) => self.desk.handle_peer_message(now, call, device, &message),
            LinkEventKind::Lost(reason) => {
                if self.desk.current() == Some(call) {
                    info!(reason, "a link is lost");
                }
                self.desk.handle_peer_lost(now, call, device);
            }
        }
    }

    fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Found { call, found, relays, took } => self.handle_found(now, call, found, relays, took),
            Done::NotDelivered { call, device } => self.desk.handle_undelivered(now, call, device),
        }
    }

    fn handle_found(&mut self, now: Instant, id: CallId, found: Result<Person, LookUpError>, relays: Vec<RelayOffer>, took: Duration) {
        let person = match found {
            Ok(person) => person,
            Err(error) => {
                self.tell(Event::Warning { text: error.to_string() });
                return self.desk.handle_found(now, id, &[]);
            }
        };
        if !self.is_trusted(&person.name, &person.user, person.epoch) {
            return self.desk.handle_found(now, id, &[]);
        }
        if relays.is_empty() {
            let text = "no relay can be reached, so no call can begin; ask whoever runs the network".to_owned();
            self.tell(Event::Warning { text });
            return self.desk.handle_found(now, id, &[]);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.relays = relays;
        call.supernodes_asked = person.supernodes_asked;
        call.found_at = person.found_at.iter().map(ToString::to_string).collect();
        call.look_up = took;
        let mut devices = Vec::new();
        for (device, homes) in person.devices {
            let key = device.device();
            let secret = CallSecret(ahoy_identity::random());
            call.parties.insert(key, Party { device, homes, secret, inviting: None, link: None, connected: None });
            devices.push(key);
        }
        self.desk.handle_found(now, id, &devices);
    }

    fn handle_notice(&mut self, id: CallId, notice: Notice) {
        let Some(call) = self.calls.get(&id) else { return };
        let word = call_word(id);
        let event = match notice {
            Notice::Started { play_started_us, record_started_us } => Event::Media { call: word, play_started_us, record_started_us },
            Notice::FirstSound(after) => Event::FirstSound { call: word, after_ms: in_millis(after) },
            Notice::Warning(text) => Event::Warning { text },
            Notice::Stats(mut stats) => {
                let path = call.path(call.media_with.as_ref());
                stats.call = word;
                stats.rtt_ms = path.as_ref().and_then(rtt_ms).or(stats.rtt_ms);
                stats.path = path.map(|path| path.kind.as_str().to_owned()).unwrap_or_default();
                Event::Stats(stats)
            }
        };
        self.tell(event);
    }

    async fn carry_out_effects(&mut self) {
        while let Some(effect) = self.desk.poll_effect() {
            self.carry_out(effect).await;
        }
        // What belonged to a call that is over goes with it; links deliver their last words by themselves.
        let current = self.desk.current();
        self.calls.retain(|call, _| Some(*call) == current);
    }

    async fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::LookUp { call, name } => self.look_up(call, name),
            Effect::Invite { call, device } => self.invite(call, device),
            Effect::JoinCaller { call, device } => self.join_caller(call, device),
            Effect::ConnectCallee { call, device, relay } => self.connect_callee(call, device, relay),
            Effect::Signal { call, device, kind } => self.signal(call, device, kind),
            Effect::Tell { call, device, message } => {
                if let Some(link) = self.party(call, device).and_then(|party| party.link.as_ref()) {
                    link.order(Order::Tell(message));
                }
            }
            Effect::Close { call, device } => {
                if let Some(party) = self.party(call, device) {
                    party.link = None;
                }
            }
            Effect::StartMedia { call, device } => self.start_media(call, device),
            Effect::StopMedia { call } => {
                if let Some(call) = self.calls.get_mut(&call)
                    && let Some(media) = call.media.take()
                {
                    call.summary = media.stop().await;
                    if let Some(text) = call.summary.warning.take() {
                        self.tell(Event::Warning { text });
                    }
                }
            }
            Effect::Event(event) => self.tell_desk_event(event),
        }
    }

    fn party(&mut self, call: CallId, device: DeviceKey) -> Option<&mut Party> {
        self.calls.get_mut(&call)?.parties.get_mut(&device)
    }

    fn look_up(&self, call: CallId, name: Name) {
        let (shared, done) = (self.shared.clone(), self.done.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let looking_up = async { (find(&shared.sessions, &name).await, began.elapsed()) };
            let ((found, took), relays) = tokio::join!(looking_up, shared.relays.offers());
            let _ = done.send(Done::Found { call, found, relays, took }).await;
        });
    }

    fn invite(&mut self, id: CallId, device: DeviceKey) {
        let (shared, done) = (self.shared.clone(), self.done.clone());
        let account = shared.sessions.account();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let relays = List::first_of(call.relays.iter().copied());
        let Some(party) = call.parties.get_mut(&device) else { return };
        let invitation = Invitation {
            caller: account.name.clone(),
            callee: party.device.name().clone(),
            secret: party.secret,
            homes: List::first_of(shared.sessions.live().iter().map(|session| session.node)),
            relays,
            candidates: List::default(),
        };
        let (to, homes) = (party.device.clone(), party.homes.clone());
        let inviting = tokio::spawn(async move {
            let kind = SignalKind::Invite(invitation);
            if !deliver(&shared.sessions, id, &to, homes, kind, INVITE_TRIES_MAX).await {
                let _ = done.send(Done::NotDelivered { call: id, device }).await;
            }
        });
        party.inviting = Some(AbortOnDrop(inviting));
    }

    fn signal(&mut self, call: CallId, device: DeviceKey, kind: SignalKind) {
        let shared = self.shared.clone();
        let Some(party) = self.party(call, device) else { return };
        // What is said now is the last word: no invitation may follow it.
        party.inviting = None;
        let (to, homes) = (party.device.clone(), party.homes.clone());
        tokio::spawn(async move { deliver(&shared.sessions, call, &to, homes, kind, 1).await });
    }

    fn join_caller(&mut self, id: CallId, device: DeviceKey) {
        let shared = self.shared.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(invitation), Some(party)) = (call.invitation.clone(), call.parties.get_mut(&device)) else { return };
        party.link = Some(link::to_caller(shared, id, party.device.clone(), invitation));
    }

    fn connect_callee(&mut self, call: CallId, device: DeviceKey, relay: NodeKey) {
        let shared = self.shared.clone();
        let Some(party) = self.party(call, device) else { return };
        party.link = Some(link::to_callee(shared, call, party.device.clone(), party.secret, relay));
    }

    fn start_media(&mut self, id: CallId, device: DeviceKey) {
        let notices = self.notices.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some((party, (connection, _))) = call.parties.get(&device).and_then(|party| Some((party, party.connected.as_ref()?))) else {
            return;
        };
        if let (false, Some(link)) = (call.relay_only, &party.link) {
            link.order(Order::ExchangeAddresses);
        }
        let (told, mut queue) = mpsc::channel(NOTICES_MAX);
        match Media::start(connection.clone(), &call.media_options, told) {
            Ok(media) => {
                call.media = Some(media);
                call.media_with = Some(device);
                tokio::spawn(async move {
                    while let Some(notice) = queue.recv().await {
                        if notices.send((id, notice)).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Err(error) => {
                self.tell(Event::Warning { text: error.to_string() });
                self.desk.fail(Instant::now(), id);
            }
        }
    }

    fn tell_desk_event(&mut self, event: DeskEvent) {
        match event {
            DeskEvent::Calling { call: id, to, devices } => {
                let Some(call) = self.calls.get(&id) else { return };
                self.tell(Event::Calling {
                    call: call_word(id),
                    to: to.to_string(),
                    devices,
                    supernodes_asked: call.supernodes_asked,
                    found_at: call.found_at.clone(),
                    look_up_ms: in_millis(call.look_up),
                });
            }
            DeskEvent::Incoming { call, from } => {
                self.tell(Event::Incoming { call: call_word(call), from: from.to_string() });
                if self.config.auto_answer {
                    self.answer(Instant::now());
                }
            }
            DeskEvent::Ringing { call: id, device } => {
                let Some(call) = self.calls.get(&id) else { return };
                let after_ms = in_millis(call.since.elapsed());
                self.tell(Event::Ringing { call: call_word(id), device: device.to_string(), after_ms });
            }
            DeskEvent::Connected { call, with, device } => self.tell_connected(call, &with, device),
            DeskEvent::Ended { call: id, with, reason, connected_for } => {
                let summary = self.calls.get(&id).map(|call| call.summary.clone()).unwrap_or_default();
                self.tell(Event::Ended {
                    call: call_word(id),
                    with: with.to_string(),
                    reason: reason.as_str().to_owned(),
                    seconds: connected_for.unwrap_or_default().as_secs_f64(),
                    received: summary.stats.received,
                    lost: summary.stats.lost,
                    recording: summary.recording.map(|path| path.display().to_string()),
                });
            }
        }
    }

    fn tell_connected(&mut self, id: CallId, with: &Name, device: DeviceKey) {
        let events = self.events.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let path = call.path(Some(&device)).map(|path| path.kind.as_str().to_owned()).unwrap_or_default();
        let setup_ms = in_millis(call.since.elapsed());
        let _ = events.send(Event::Connected { call: call_word(id), with: with.to_string(), path, setup_ms });
        if let Some((_, watched)) = call.parties.get(&device).and_then(|party| party.connected.clone()) {
            call.path_task = Some(AbortOnDrop(tokio::spawn(tell_paths(id, watched, events))));
        }
    }
}

/// Tells the way the packets go, and each change of it.
async fn tell_paths(call: CallId, mut watched: watch::Receiver<PathStatus>, events: broadcast::Sender<Event>) {
    let mut told = None;
    loop {
        let status = *watched.borrow_and_update();
        if told != Some(status.kind) {
            told = Some(status.kind);
            let event = Event::Path { call: call_word(call), kind: status.kind.as_str().to_owned(), rtt_ms: rtt_ms(&status) };
            let _ = events.send(event);
        }
        if watched.changed().await.is_err() {
            return;
        }
    }
}

/// Sends a signal to a device, and again to where it is by then if it has moved. False if it is nowhere.
async fn deliver(sessions: &Sessions, call: CallId, to: &VerifiedDevice, mut homes: Vec<NodeKey>, kind: SignalKind, tries: usize) -> bool {
    for attempt in 0..tries {
        if attempt > 0 {
            tokio::time::sleep(INVITE_PAUSE).await;
            if let Ok(person) = find(sessions, to.name()).await
                && let Some((_, newer)) = person.devices.into_iter().find(|(device, _)| device.device() == to.device())
            {
                homes = newer;
            }
        }
        let now = UnixMillis::from(SystemTime::now());
        let Some(sealed) = signals::seal(&sessions.account(), now, call, to.device(), &to.seal(), kind.clone()) else { return false };
        let at = List::first_of(homes.iter().copied().take(HOMES_MAX));
        match sessions.request(Request::Signal { to: to.device(), homes: at, sealed }).await {
            Some(Response::Delivered { devices }) if devices > 0 => return true,
            other => debug!(?other, attempt, "a signal was not delivered"),
        }
    }
    false
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rtt_ms(status: &PathStatus) -> Option<f64> {
    status.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0)
}
