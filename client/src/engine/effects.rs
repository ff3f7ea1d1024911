//! Carrying out what the desk wants done.

use super::call::{AbortOnDrop, Party};
use super::{Done, Engine, in_millis, rtt_ms};
use crate::calls::CallRecord;
use crate::courier::Courier;
use crate::events::{Event, call_word};
use crate::link::{self, Order, Privacy, Setup};
use crate::lookup::find;
use crate::media::{Microphone, NOTICES_MAX, Prepared};
use ahoy_call::{Effect, Event as DeskEvent};
use ahoy_protocol::invitation::{Invitation, SignalKind};
use ahoy_protocol::peer::EndReason;
use ahoy_protocol::{CallId, DeviceKey, List, Name, NodeKey};
use ahoy_transport::{PathStatus, UdpUse};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::warn;

/// How often an invitation is sent to a device that is not where it said.
const INVITE_TRIES_MAX: usize = 4;

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
        let relays = shared.relays.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let found = find(&shared.sessions, &name).await;
            let _ = done.send(Done::Found { call, found, took: began.elapsed() }).await;
        });
        // Meanwhile, so that the other side's answer finds this one at the relay.
        tokio::spawn(async move { tokio::join!(relays.measure_unknown(), relays.prepare()) });
    }

    fn courier(&self, call: CallId, party: &Party) -> Courier {
        Courier::new(self.shared.sessions.clone(), call, party.device.clone(), party.homes.clone())
    }

    fn invite(&mut self, id: CallId, device: DeviceKey) {
        let done = self.done.clone();
        let account = self.shared.sessions.account();
        let Some((call, party)) = self.calls.get(&id).and_then(|call| Some((call, call.parties.get(&device)?))) else { return };
        let invitation = Invitation {
            caller: account.name.clone(),
            callee: party.device.name().clone(),
            secret: party.secret,
            homes: List::first_of(self.shared.sessions.homes()),
            relays: List::first_of(call.relays.iter().copied()),
            candidates: List::default(),
        };
        let courier = self.courier(id, party);
        let inviting = tokio::spawn(async move {
            if !courier.deliver(SignalKind::Invite(invitation), INVITE_TRIES_MAX).await {
                let _ = done.send(Done::NotDelivered { call: id, device }).await;
            }
        });
        if let Some(party) = self.party(id, device) {
            party.inviting = Some(AbortOnDrop(inviting));
        }
    }

    fn signal(&mut self, call: CallId, device: DeviceKey, kind: SignalKind) {
        let Some(party) = self.party(call, device) else { return };
        // What is said now is the last word: no invitation may follow it.
        party.inviting = None;
        let Some(party) = self.calls.get(&call).and_then(|call| call.parties.get(&device)) else { return };
        let (courier, alive) = (self.courier(call, party), self.shared.alive.clone());
        tokio::spawn(async move {
            courier.deliver(kind, 1).await;
            drop(alive);
        });
    }

    /// What a link with a device of a call needs to know.
    fn link_setup(&self, id: CallId, device: DeviceKey) -> Option<Setup> {
        let call = self.calls.get(&id)?;
        let party = call.parties.get(&device)?;
        let offered = call.invitation.as_ref().map_or_else(|| call.relays.clone(), |invitation| invitation.relays.to_vec());
        let (homes, secret, birthday) = (party.homes.clone(), party.secret, self.config.reach.birthday.is_allowed());
        Some(Setup { call: id, device: party.device.clone(), homes, secret, offered, birthday })
    }

    fn join_caller(&mut self, call: CallId, device: DeviceKey) {
        let Some(setup) = self.link_setup(call, device) else { return };
        let shared = self.shared.clone();
        if let Some(party) = self.party(call, device) {
            party.link = Some(link::to_caller(shared, setup));
        }
    }

    fn connect_callee(&mut self, call: CallId, device: DeviceKey, relay: NodeKey) {
        let Some(setup) = self.link_setup(call, device) else { return };
        let shared = self.shared.clone();
        if let Some(party) = self.party(call, device) {
            party.link = Some(link::to_callee(shared, setup, relay));
        }
    }

    /// Makes ready while it rings what the sound of a call will need.
    fn prepare_media(&mut self, id: CallId, microphone: Microphone) {
        if let Some(call) = self.calls.get_mut(&id).filter(|call| call.prepared.is_none() && call.media.is_none()) {
            // What fails here fails again when the sound is to start, and is told then.
            call.prepared = Prepared::new(&call.media_options, &self.config.sound, &self.controls, microphone).ok();
        }
    }

    fn start_media(&mut self, id: CallId, device: DeviceKey) {
        let notices = self.notices.clone();
        let (policy, udp) = (self.config.reach.relay, self.config.reach.udp);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.ring = None;
        let Some(party) = call.parties.get(&device) else { return };
        let Some((connection, path)) = party.connected.as_ref().map(|link| (link.connection.clone(), link.path.clone())) else { return };
        if let Some(link) = &party.link {
            // Without UDP there is no other way either.
            let stays_on_relays = call.relay_only || policy.keeps_on_relays(call.is_stranger) || udp == UdpUse::Never;
            link.order(Order::Answered(if stays_on_relays { Privacy::RelaysOnly } else { Privacy::Open }));
        }
        let (told, mut queue) = mpsc::channel(NOTICES_MAX);
        let prepare = || Prepared::new(&call.media_options, &self.config.sound, &self.controls, Microphone::AtAnswer);
        let prepared = call.prepared.take().map_or_else(prepare, Ok);
        match prepared.and_then(|prepared| prepared.start(connection, path, told)) {
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
                self.prepare_media(call, Microphone::AtAnswer);
                self.ring(call);
                if self.config.auto_answer {
                    self.answer(Instant::now());
                }
            }
            DeskEvent::Ringing { call: id, device } => {
                let Some(call) = self.calls.get(&id) else { return };
                let after_ms = in_millis(call.since.elapsed());
                self.tell(Event::Ringing { call: call_word(id), device: device.to_string(), after_ms });
                self.prepare_media(id, Microphone::Early);
            }
            DeskEvent::Connected { call, with, device } => {
                self.remember_talk(with.clone());
                self.tell_connected(call, &with, device);
            }
            DeskEvent::Ended { call: id, with, reason, connected_for } => {
                self.controls.end_call();
                self.keep_record(id, &with, reason, connected_for.unwrap_or_default());
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

    /// Keeps what the call was like in the home.
    fn keep_record(&self, id: CallId, with: &Name, reason: EndReason, connected_for: Duration) {
        let Some(call) = self.calls.get(&id) else { return };
        let record = CallRecord {
            call: call_word(id),
            with: with.to_string(),
            direction: if call.invitation.is_some() { "incoming" } else { "outgoing" }.to_owned(),
            began_ms: call.began.0,
            seconds: connected_for.as_secs_f64(),
            reason: reason.as_str().to_owned(),
            ..CallRecord::default()
        };
        let record = call.figures.complete(record, &call.summary.stats);
        let (home, alive) = (self.home.clone(), self.shared.alive.clone());
        // The end of the call does not wait for the disk; that of the program does.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = home.remember_call(record) {
                warn!(%error, "a call could not be kept");
            }
            drop(alive);
        });
    }

    fn tell_connected(&mut self, id: CallId, with: &Name, device: DeviceKey) {
        let events = self.events.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let path = call.path(Some(&device)).map(|path| path.kind.as_str().to_owned()).unwrap_or_default();
        let setup_ms = in_millis(call.since.elapsed());
        let _ = events.send(Event::Connected { call: call_word(id), with: with.to_string(), path, setup_ms });
        if let Some(watched) = call.connected(Some(&device)).map(|connected| connected.path.clone()) {
            call.path_task = Some(AbortOnDrop(tokio::spawn(tell_paths(id, watched, events))));
        }
    }
}

/// Tells the way the packets go, each change of it, and when nothing comes by any.
async fn tell_paths(call: CallId, mut watched: watch::Receiver<PathStatus>, events: broadcast::Sender<Event>) {
    let mut told = None;
    let mut is_silent = false;
    loop {
        let status = *watched.borrow_and_update();
        if status.is_silent && !is_silent {
            let _ = events.send(Event::Reconnecting { call: call_word(call) });
            // Whichever way it comes back is news.
            told = None;
        } else if !status.is_silent && told != Some(status.kind) {
            told = Some(status.kind);
            let event = Event::Path { call: call_word(call), kind: status.kind.as_str().to_owned(), rtt_ms: rtt_ms(&status) };
            let _ = events.send(event);
        }
        is_silent = status.is_silent;
        if watched.changed().await.is_err() {
            return;
        }
    }
}
