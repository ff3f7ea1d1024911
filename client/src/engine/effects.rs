//! Carrying out what the desk wants done.

use super::call::{AbortOnDrop, Party};
use super::{Done, Engine, in_millis, rtt_ms};
use crate::events::{Event, call_word};
use crate::link::{self, Order};
use crate::lookup::find;
use crate::media::{Media, NOTICES_MAX};
use crate::sessions::Sessions;
use crate::signals;
use ahoy_call::{Effect, Event as DeskEvent};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::invitation::{Invitation, SignalKind};
use ahoy_protocol::record::HOMES_MAX;
use ahoy_protocol::{CallId, DeviceKey, List, Name, NodeKey, UnixMillis};
use ahoy_transport::PathStatus;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::debug;

/// How often an invitation is sent to a device that is not where it said.
const INVITE_TRIES_MAX: usize = 4;
/// Time between two tries: a device that has lost its supernode is at the next one by then.
const INVITE_PAUSE: Duration = Duration::from_millis(900);

impl Engine {
    pub(super) async fn carry_out_effects(&mut self) {
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
