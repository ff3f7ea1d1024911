//! A call that was placed here.

use crate::desk::{Caller, Effect, Effects, Event, Identity};
use crate::{INVITE_TIME, LAST_WORD_TIME, LOOK_UP_TIME, RING_TIME};
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::{EndReason, PeerMessage};
use ahoy_protocol::record::DEVICES_MAX;
use ahoy_protocol::{CallId, DeviceKey, Name, NodeKey};
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Outgoing {
    call: CallId,
    to: Name,
    state: State,
    devices: BTreeMap<DeviceKey, Device>,
    /// What is to be done, until the desk takes it.
    effects: Effects,
    /// False once another call has taken this one's place: then its end is nobody's news.
    is_reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LookingUp {
        until: Instant,
    },
    /// Invited; nobody rings yet.
    Inviting {
        until: Instant,
    },
    Ringing {
        until: Instant,
    },
    Connected {
        device: DeviceKey,
        since: Instant,
    },
    Ended(EndReason, Option<Instant>),
}

/// What one device of the callee does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    Invited,
    Ringing {
        is_connected: bool,
    },
    /// The connection with it is lost; its word on why may be on its way through the supernodes.
    Lost {
        until: Instant,
    },
    Gone(EndReason),
}

impl Outgoing {
    pub(crate) fn new(now: Instant, call: CallId, to: Name, effects: &mut Effects) -> Self {
        effects.push_back(Effect::LookUp { call, name: to.clone() });
        let state = State::LookingUp { until: now + LOOK_UP_TIME };
        Self { call, to, state, devices: BTreeMap::new(), effects: Effects::new(), is_reported: true }
    }

    pub(crate) fn id(&self) -> CallId {
        self.call
    }

    /// True if `caller`, who calls us while we call him, has the lower user key.
    pub(crate) fn yields_to(&self, caller: &Caller, me: &Identity) -> bool {
        self.stands_against(caller) && caller.user < me.user
    }

    /// True if `caller` is whom we are calling, and neither has answered.
    pub(crate) fn stands_against(&self, caller: &Caller) -> bool {
        caller.name == self.to && !matches!(self.state, State::Connected { .. } | State::Ended(..))
    }

    pub(crate) fn handle_found(&mut self, now: Instant, devices: &[DeviceKey]) {
        let State::LookingUp { .. } = self.state else { return };
        for device in devices.iter().take(DEVICES_MAX) {
            self.devices.insert(*device, Device::Invited);
            self.effects.push_back(Effect::Invite { call: self.call, device: *device });
        }
        if self.devices.is_empty() {
            self.end(EndReason::Unreachable);
            return;
        }
        let calling = Event::Calling { call: self.call, to: self.to.clone(), devices: self.devices.len() };
        self.effects.push_front(Effect::Event(calling));
        self.state = State::Inviting { until: now + INVITE_TIME };
    }

    pub(crate) fn handle_ringing(&mut self, now: Instant, device: DeviceKey, relay: Option<NodeKey>) {
        let (State::Inviting { .. } | State::Ringing { .. }) = self.state else { return };
        let Some(state @ Device::Invited) = self.devices.get_mut(&device) else { return };
        let Some(relay) = relay else {
            self.handle_refusal(device, EndReason::Unreachable);
            return;
        };
        *state = Device::Ringing { is_connected: false };
        self.effects.push_back(Effect::Event(Event::Ringing { call: self.call, device }));
        self.effects.push_back(Effect::ConnectCallee { call: self.call, device, relay });
        if let State::Inviting { .. } = self.state {
            self.state = State::Ringing { until: now + RING_TIME };
        }
    }

    pub(crate) fn handle_connected(&mut self, device: DeviceKey) {
        if let Some(Device::Ringing { is_connected }) = self.devices.get_mut(&device) {
            *is_connected = true;
        }
    }

    pub(crate) fn handle_answer(&mut self, now: Instant, device: DeviceKey) {
        let (State::Inviting { .. } | State::Ringing { .. }) = self.state else {
            // A later answer than the first is refused.
            if !matches!(self.state, State::Connected { device: winner, .. } if winner == device) {
                self.dismiss(device, EndReason::AnsweredElsewhere);
            }
            return;
        };
        if !matches!(self.devices.get(&device), Some(Device::Ringing { .. })) {
            return;
        }
        let call = self.call;
        self.effects.push_back(Effect::Tell { call, device, message: PeerMessage::Confirm });
        self.effects.push_back(Effect::StartMedia { call, device });
        self.effects.push_back(Effect::Event(Event::Connected { call, with: self.to.clone(), device }));
        self.state = State::Connected { device, since: now };
        self.dismiss_all_but(Some(device), EndReason::AnsweredElsewhere);
    }

    pub(crate) fn handle_refusal(&mut self, device: DeviceKey, reason: EndReason) {
        if let State::Connected { device: winner, .. } = self.state {
            if winner == device {
                self.end(reason);
            }
            return;
        }
        if let Some(state) = self.devices.get_mut(&device) {
            *state = Device::Gone(reason);
            self.effects.push_back(Effect::Close { call: self.call, device });
        } else {
            return;
        }
        // Who declines at one device declines at all; who is busy at one may answer at another.
        if reason == EndReason::Declined {
            self.end(EndReason::Declined);
        } else {
            self.end_if_nobody_is_left();
        }
    }

    pub(crate) fn handle_lost(&mut self, now: Instant, device: DeviceKey) {
        match self.state {
            State::Connected { device: winner, .. } if winner == device => self.end(EndReason::Lost),
            State::Inviting { .. } | State::Ringing { .. } => {
                if let Some(state @ Device::Ringing { .. }) = self.devices.get_mut(&device) {
                    *state = Device::Lost { until: now + LAST_WORD_TIME };
                }
            }
            State::LookingUp { .. } | State::Connected { .. } | State::Ended(..) => {}
        }
    }

    /// Gives up a device that was lost and has not said why.
    fn give_up(&mut self, device: DeviceKey) {
        // It need not ring on for nothing.
        let kind = SignalKind::Cancel(EndReason::Unreachable);
        self.effects.push_back(Effect::Signal { call: self.call, device, kind });
        self.handle_refusal(device, EndReason::Unreachable);
    }

    /// Devices that are lost, and until when they are waited for.
    fn lost(&self) -> impl Iterator<Item = (DeviceKey, Instant)> {
        self.devices.iter().filter_map(|(device, state)| match state {
            Device::Lost { until } => Some((*device, *until)),
            Device::Invited | Device::Ringing { .. } | Device::Gone(_) => None,
        })
    }

    /// The invitation reached nobody. A device that rings has got one all the same.
    pub(crate) fn handle_undelivered(&mut self, device: DeviceKey) {
        if let Some(Device::Invited) = self.devices.get(&device) {
            self.handle_refusal(device, EndReason::Unreachable);
        }
    }

    pub(crate) fn hang_up(&mut self) {
        let is_connected = matches!(self.state, State::Connected { .. });
        self.end(if is_connected { EndReason::HungUp } else { EndReason::Cancelled });
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let silent: Vec<DeviceKey> = self.lost().filter(|(_, until)| *until <= now).map(|(device, _)| device).collect();
        for device in silent {
            self.give_up(device);
        }
        match self.state {
            State::LookingUp { until } if until <= now => self.end(EndReason::Unreachable),
            State::Inviting { until } if until <= now => self.end_unanswered(EndReason::Unreachable),
            State::Ringing { until } if until <= now => self.end_unanswered(EndReason::Missed),
            State::LookingUp { .. } | State::Inviting { .. } | State::Ringing { .. } | State::Connected { .. } | State::Ended(..) => {}
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let lost = self.lost().map(|(_, until)| until).min();
        match self.state {
            State::LookingUp { until } | State::Inviting { until } | State::Ringing { until } => {
                Some(lost.map_or(until, |lost| lost.min(until)))
            }
            State::Connected { .. } | State::Ended(..) => None,
        }
    }

    /// Another call takes this one's place.
    pub(crate) fn give_way(&mut self) {
        self.is_reported = false;
        self.end(EndReason::Cancelled);
    }

    pub(crate) fn end(&mut self, reason: EndReason) {
        let connected_since = match self.state {
            State::Connected { since, .. } => Some(since),
            State::Ended(..) => return,
            State::LookingUp { .. } | State::Inviting { .. } | State::Ringing { .. } => None,
        };
        self.dismiss_all_but(None, reason);
        if connected_since.is_some() {
            self.effects.push_back(Effect::StopMedia { call: self.call });
        }
        self.state = State::Ended(reason, connected_since);
    }

    /// Hands over what is to be done. True once the call has ended.
    pub(crate) fn settle(&mut self, now: Instant, effects: &mut Effects) -> bool {
        effects.append(&mut self.effects);
        let State::Ended(reason, since) = self.state else { return false };
        if self.is_reported {
            let connected_for = since.map(|since| now.saturating_duration_since(since));
            let ended = Event::Ended { call: self.call, with: self.to.clone(), reason, connected_for };
            effects.push_back(Effect::Event(ended));
        }
        true
    }

    /// Nobody answered in time: busy if every device that spoke was.
    fn end_unanswered(&mut self, reason: EndReason) {
        let is_busy = self.devices.values().any(|device| *device == Device::Gone(EndReason::Busy));
        let rings = self.devices.values().any(|device| matches!(device, Device::Ringing { .. }));
        self.end(if is_busy && !rings { EndReason::Busy } else { reason });
    }

    fn end_if_nobody_is_left(&mut self) {
        let mut best = None;
        for device in self.devices.values() {
            match device {
                Device::Invited | Device::Ringing { .. } | Device::Lost { .. } => return,
                Device::Gone(reason) if *reason == EndReason::Busy => best = Some(EndReason::Busy),
                Device::Gone(reason) => best = best.or(Some(*reason)),
            }
        }
        self.end(best.unwrap_or(EndReason::Unreachable));
    }

    fn dismiss_all_but(&mut self, kept: Option<DeviceKey>, reason: EndReason) {
        let others: Vec<DeviceKey> = self.devices.keys().copied().filter(|device| Some(*device) != kept).collect();
        for device in others {
            self.dismiss(device, reason);
        }
    }

    /// Tells a device that it is over, on the connection if there is one, else through the supernodes.
    fn dismiss(&mut self, device: DeviceKey, reason: EndReason) {
        let call = self.call;
        match self.devices.insert(device, Device::Gone(reason)) {
            Some(Device::Ringing { is_connected }) => {
                if is_connected {
                    self.effects.push_back(Effect::Tell { call, device, message: PeerMessage::End(reason) });
                } else {
                    self.effects.push_back(Effect::Signal { call, device, kind: SignalKind::Cancel(reason) });
                }
                self.effects.push_back(Effect::Close { call, device });
            }
            Some(Device::Invited | Device::Lost { .. }) => {
                self.effects.push_back(Effect::Signal { call, device, kind: SignalKind::Cancel(reason) });
            }
            Some(Device::Gone(_)) | None => {}
        }
    }
}
