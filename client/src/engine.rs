//! The engine: owner of the desk, and of everything that belongs to a call.
//!
//! One task. Commands, signals, link events and notices of media come in by bounded queues; the desk decides; its effects are carried
//! out here. What takes time (look-ups, sending signals) runs in tasks of its own and comes back as a [`Done`].

mod call;
mod claims;
mod effects;
mod figures;
mod handle;
mod ports;
mod sound;

pub use claims::Claims;
pub use handle::{Command, Handle};
pub use sound::Turn;

use crate::events::{Event, Stats, call_word};
use crate::home::{Account, Home, PinCheck};
use crate::link::{LAST_WORDS_TIME, LINK_QUEUE, LinkEvent, LinkEventKind, Order, Shared};
use crate::lookup::{LookUpError, Person};
use crate::media::{Controls, MediaOptions, NOTICES_MAX, Notice};
use crate::reach::ReachSettings;
use crate::relays::Relays;
use crate::sessions::Sessions;
use crate::signals;
use crate::sound::SoundSettings;
use ahoy_call::{Caller, Desk, Identity};
use ahoy_directory::Gate;
use ahoy_protocol::directory::SealedSignal;
use ahoy_protocol::ids::CallSecret;
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::PeerMessage;
use ahoy_protocol::{CallId, DeviceKey, Name, UnixMillis};
use ahoy_transport::{ClientEndpoint, PathStatus, TransportError};
use call::{AbortOnDrop, Call, Party};
use ports::Ports;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

/// Commands, signals and results waiting for the engine. A person gives few of the first; supernodes limit the second.
const QUEUE_MAX: usize = 64;
/// Events that a slow reader may be behind.
const EVENTS_MAX: usize = 256;
/// How long the connections' last packets may take at the end.
const CLOSING_TIME: Duration = Duration::from_millis(300);

/// How the engine behaves.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Take every call at once.
    pub auto_answer: bool,
    /// Sound of calls for which nothing else was said.
    pub media: MediaOptions,
    /// How this device may reach the network and be reached.
    pub reach: ReachSettings,
    /// How it sounds.
    pub sound: SoundSettings,
    /// Where this device is one of several in this process that share the calls: with whom, and its number.
    pub claims: Option<(Arc<Claims>, u8)>,
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

/// Starts an engine for the account in `home`.
///
/// # Errors
/// See [`StartError`].
pub async fn start(home: Arc<Home>, mut account: Account, config: Config) -> Result<Handle, StartError> {
    let roster = newest_roster(&home, &mut account).await.ok_or(StartError::Roster)?;
    let endpoint = ClientEndpoint::bind(None, &account.keys.signing)?;
    endpoint.set_reach(config.reach.of_transport());
    let (signals, sealed) = mpsc::channel(QUEUE_MAX);
    let (warnings, warned) = mpsc::channel(QUEUE_MAX);
    let me = Identity { name: account.name.clone(), user: own_user_key(&account), device: account.keys.signing.device_key() };
    let sessions = Sessions::start(endpoint.clone(), home.clone(), account, roster, signals, warnings);
    let relays = Relays::new(endpoint.clone(), sessions.clone());
    let measuring = AbortOnDrop(tokio::spawn(relays.clone().keep_measured()));
    let (link_events, links) = mpsc::channel(LINK_QUEUE);
    let (alive, speakers) = mpsc::channel(1);
    let (ports, port_mapped) = Ports::start(&config.reach, &endpoint, &sessions);
    let shared = Shared { endpoint, sessions: sessions.clone(), relays, port_mapped, events: link_events, alive: Some(alive) };
    let (commands, queue) = mpsc::channel(QUEUE_MAX);
    let (done, results) = mpsc::channel(QUEUE_MAX);
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let events = broadcast::Sender::new(EVENTS_MAX);
    let controls = Controls::default();
    controls.set_volume(config.sound.volume);
    controls.push_to_talk(config.sound.push_to_talk);
    let engine = Engine {
        home: home.clone(),
        config,
        controls: Arc::new(controls),
        shared,
        desk: Desk::new(me),
        calls: BTreeMap::new(),
        events: events.clone(),
        done,
        notices,
        speakers,
        _measuring: measuring,
        ports,
        inputs: Inputs { commands: queue, sealed, warned, links, results, noticed },
    };
    tokio::spawn(engine.run());
    Ok(Handle { commands, events, sessions, home })
}

/// The user key that the login server certified for this account.
fn own_user_key(account: &Account) -> ahoy_protocol::UserKey {
    let certificate = account.network.verify_issued(&account.credentials.user).ok();
    certificate.map_or(ahoy_protocol::UserKey([0; 32]), |certificate| certificate.user)
}

/// The stored roster if it still counts, else the login server's.
async fn newest_roster(home: &Home, account: &mut Account) -> Option<ahoy_protocol::roster::Roster> {
    let now = UnixMillis::from(SystemTime::now());
    if let Ok(roster) = account.network.verify_roster(&account.roster, now) {
        return Some(roster);
    }
    let login = home.login_client(account).ok()?;
    let signed = login.roster(0, 0).await.ok()??;
    let roster = account.network.verify_roster(&signed, now).ok()?;
    account.roster = signed;
    Some(roster)
}

/// What comes back from tasks.
#[derive(Debug)]
enum Done {
    Found { call: CallId, found: Result<Person, LookUpError>, took: Duration },
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
    controls: Arc<Controls>,
    shared: Shared,
    desk: Desk,
    calls: BTreeMap<CallId, Call>,
    events: broadcast::Sender<Event>,
    done: mpsc::Sender<Done>,
    notices: mpsc::Sender<(CallId, Notice)>,
    /// Ends when nobody has anything to say any more.
    speakers: mpsc::Receiver<Infallible>,
    _measuring: AbortOnDrop,
    ports: Ports,
    inputs: Inputs,
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
        // Both take their time, and neither needs the other.
        tokio::join!(self.shared.sessions.stop(), self.ports.stop());
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
            Command::Follow(reach, sound) => {
                self.set_reach(*reach);
                self.set_sound(*sound);
            }
            Command::Turn(turn, reply) => {
                let _ = reply.send(self.turn(turn));
            }
            // Handled where the loop can end.
            Command::Stop(_) => {}
        }
    }

    /// Counts for calls and connections that begin after it.
    fn set_reach(&mut self, reach: ReachSettings) {
        self.shared.endpoint.set_reach(reach.of_transport());
        if (reach.port_mapping, reach.udp) != (self.config.reach.port_mapping, self.config.reach.udp) {
            let (ports, port_mapped) = Ports::start(&reach, &self.shared.endpoint, &self.shared.sessions);
            let mut before = std::mem::replace(&mut self.ports, ports);
            tokio::spawn(async move { before.stop().await });
            self.shared.port_mapped = port_mapped;
        }
        self.config.reach = reach;
    }

    fn answer(&mut self, now: Instant) -> bool {
        if let Some(call) = self.desk.current().and_then(|call| self.calls.get_mut(&call)) {
            call.since = now;
            call.ring = None;
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
                let Some(pin) = self.trusted(&received.user.name, &received.user.user, received.user.epoch) else { return };
                if self.calls.contains_key(&received.call) || self.is_anothers(received.call) {
                    return;
                }
                let caller = Caller { name: received.user.name, user: received.user.user, device: received.device.device() };
                let mut call = Call::new(now, self.config.media.clone(), false);
                call.is_stranger = pin != PinCheck::Same;
                let party = Party::new(received.device, invitation.homes.to_vec(), invitation.secret);
                call.parties.insert(caller.device, party);
                call.invitation = Some(invitation);
                let before = self.desk.current();
                self.calls.insert(received.call, call);
                self.desk.handle_invite(now, received.call, caller);
                self.inherit(before, received.call);
            }
            SignalKind::Leg(news) => {
                let party = self.calls.get(&received.call).and_then(|call| call.parties.get(&received.device.device()));
                if let Some(link) = party.and_then(|party| party.link.as_ref()) {
                    link.order(Order::HearOfLeg(news));
                }
            }
            kind => self.desk.handle_signal(now, received.call, received.device.device(), &kind),
        }
    }

    /// Whether another device of this process takes the call. One that is in a call takes no other, and says so.
    fn is_anothers(&self, call: CallId) -> bool {
        let is_free = self.desk.current().is_none();
        self.config.claims.as_ref().is_some_and(|(claims, device)| is_free && !claims.claim(call, *device))
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
        let (media_options, relay_only, is_stranger) = (old.media_options.clone(), old.relay_only, old.is_stranger);
        if let Some(call) = self.calls.get_mut(&now) {
            call.media_options = media_options;
            call.relay_only = relay_only;
            // To look somebody up is not to know him.
            call.is_stranger |= is_stranger;
        }
    }

    /// From here on they are no strangers to each other.
    fn remember_talk(&self, with: Name) {
        let home = self.home.clone();
        // The call does not wait for the disk.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = home.remember_talk(&with) {
                warn!(%error, "a call could not be remembered");
            }
        });
    }

    /// `None` for a key that has changed: then the user is warned.
    fn trusted(&self, name: &Name, user: &ahoy_protocol::UserKey, epoch: u32) -> Option<PinCheck> {
        match self.home.check_pin(name, user) {
            Ok(known @ (PinCheck::Same | PinCheck::Seen)) => Some(known),
            Ok(PinCheck::First) => {
                let (home, name, user) = (self.home.clone(), name.clone(), *user);
                // The call does not wait for the disk.
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = home.remember_pin(&name, &user, epoch) {
                        warn!(%error, "the key of somebody could not be remembered");
                    }
                });
                Some(PinCheck::First)
            }
            Ok(PinCheck::Changed) => {
                let text = format!(
                    "the key of {name} is not the one this device knows: somebody may be pretending to be {name}, or {name} began anew. \
                     Ask {name} on another way; if it is true, use `ahoy trust {name}`"
                );
                self.tell(Event::Warning { text });
                None
            }
            Err(error) => {
                self.tell(Event::Warning { text: error.to_string() });
                None
            }
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = Instant::now();
        let LinkEvent { call, device, kind } = event;
        match kind {
            LinkEventKind::Connected(connected) => {
                if let Some(party) = self.calls.get_mut(&call).and_then(|call| call.parties.get_mut(&device)) {
                    party.connected = Some(connected);
                    self.desk.handle_peer_connected(now, call, device);
                }
            }
            LinkEventKind::Message(PeerMessage::Hold(on)) => self.handle_hold(call, device, on),
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
            Done::Found { call, found, took } => self.handle_found(now, call, found, took),
            Done::NotDelivered { call, device } => self.desk.handle_undelivered(now, call, device),
        }
    }

    fn handle_found(&mut self, now: Instant, id: CallId, found: Result<Person, LookUpError>, took: Duration) {
        let person = match found {
            Ok(person) => person,
            Err(error) => {
                self.tell(Event::Warning { text: error.to_string() });
                return self.desk.handle_found(now, id, &[]);
            }
        };
        let Some(pin) = self.trusted(&person.name, &person.user, person.epoch) else {
            return self.desk.handle_found(now, id, &[]);
        };
        let relays = self.shared.relays.offers();
        if relays.is_empty() {
            let text = "no relay can be reached, so no call can begin; ask whoever runs the network".to_owned();
            self.tell(Event::Warning { text });
            return self.desk.handle_found(now, id, &[]);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.relays = relays;
        call.is_stranger = pin != PinCheck::Same;
        call.supernodes_asked = person.supernodes_asked;
        call.found_at = person.found_at.iter().map(ToString::to_string).collect();
        call.look_up = took;
        let mut devices = Vec::new();
        for (device, homes) in person.devices {
            let key = device.device();
            let secret = CallSecret(ahoy_identity::random());
            call.parties.insert(key, Party::new(device, homes, secret));
            devices.push(key);
        }
        self.desk.handle_found(now, id, &devices);
    }

    fn handle_notice(&mut self, id: CallId, notice: Notice) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let word = call_word(id);
        let event = match notice {
            Notice::Started { play_started_us, record_started_us } => Event::Media { call: word, play_started_us, record_started_us },
            Notice::FirstSound(after) => Event::FirstSound { call: word, after_ms: in_millis(after) },
            Notice::Warning(text) => Event::Warning { text },
            Notice::Device { role, state, name } => {
                Event::Device { call: word, role: role.as_str().to_owned(), state: state.to_owned(), name }
            }
            Notice::Stats(stats) => {
                let stats = Stats { call: word, ..figures::complete(call, &self.shared, *stats) };
                call.figures.add(&stats);
                Event::Stats(Box::new(stats))
            }
        };
        self.tell(event);
    }
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn rtt_ms(status: &PathStatus) -> Option<f64> {
    status.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0)
}
