//! A call that came in.

use crate::desk::{Caller, Effect, Effects, Event};
use crate::{CONFIRM_TIME, LAST_WORD_TIME, RING_TIME};
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::{EndReason, PeerMessage};
use ahoy_protocol::{CallId, DeviceKey};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Incoming {
    call: CallId,
    caller: Caller,
    state: State,
    is_connected: bool,
    /// What is to be done, until the desk takes it.
    effects: Effects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ringing {
        until: Instant,
    },
    /// The user has answered; the caller has not confirmed yet. Sound flows already once there is a connection.
    Answered {
        until: Instant,
    },
    Connected {
        since: Instant,
    },
    Ended(EndReason, Option<Instant>),
}

impl Incoming {
    pub(crate) fn new(now: Instant, call: CallId, caller: Caller, effects: &mut Effects) -> Self {
        effects.push_back(Effect::JoinCaller { call, device: caller.device });
        effects.push_back(Effect::Event(Event::Incoming { call, from: caller.name.clone() }));
        // A little longer than the caller waits, so that his word on why it ended comes first.
        let until = now + RING_TIME + CONFIRM_TIME;
        Self { call, caller, state: State::Ringing { until }, is_connected: false, effects: Effects::new() }
    }

    pub(crate) fn id(&self) -> CallId {
        self.call
    }

    pub(crate) fn answer(&mut self, now: Instant, effects: &mut Effects) -> bool {
        let State::Ringing { .. } = self.state else { return false };
        self.state = State::Answered { until: now + CONFIRM_TIME };
        if self.is_connected {
            self.say_answer(effects);
        }
        true
    }

    pub(crate) fn handle_connected(&mut self, now: Instant, device: DeviceKey, effects: &mut Effects) {
        if device != self.caller.device {
            return;
        }
        self.is_connected = true;
        if let State::Answered { until } = &mut self.state {
            *until = now + CONFIRM_TIME;
            self.say_answer(effects);
        }
    }

    pub(crate) fn handle_confirm(&mut self, now: Instant, device: DeviceKey) {
        if device != self.caller.device || !matches!(self.state, State::Answered { .. }) {
            return;
        }
        self.state = State::Connected { since: now };
        let connected = Event::Connected { call: self.call, with: self.caller.name.clone(), device };
        self.effects.push_back(Effect::Event(connected));
    }

    /// The caller says that it is over.
    pub(crate) fn handle_end(&mut self, device: DeviceKey, reason: EndReason) {
        if device == self.caller.device {
            // What the caller cancelled, the callee missed.
            let reason = if reason == EndReason::Cancelled { EndReason::Missed } else { reason };
            self.finish(reason, None);
        }
    }

    pub(crate) fn handle_lost(&mut self, now: Instant, device: DeviceKey) {
        if device != self.caller.device {
            return;
        }
        match &mut self.state {
            // The caller's word on why may be on its way through the supernodes.
            State::Ringing { until } => {
                *until = (*until).min(now + LAST_WORD_TIME);
                self.is_connected = false;
            }
            State::Answered { .. } | State::Connected { .. } => self.finish(EndReason::Lost, None),
            State::Ended(..) => {}
        }
    }

    /// True if this is a call from the device that calls again: it would not if it still had this one.
    pub(crate) fn is_superseded_by(&self, caller: &Caller) -> bool {
        self.caller.device == caller.device
    }

    /// The caller has begun anew.
    pub(crate) fn give_way(&mut self) {
        let rings = matches!(self.state, State::Ringing { .. });
        self.finish(if rings { EndReason::Missed } else { EndReason::Lost }, None);
    }

    /// This device goes offline: the call ends here, and may go on ringing elsewhere.
    pub(crate) fn leave(&mut self) {
        if let State::Ringing { .. } = self.state {
            self.finish(EndReason::Missed, Some(EndReason::Unreachable));
        } else {
            self.hang_up();
        }
    }

    pub(crate) fn decline(&mut self) -> bool {
        let State::Ringing { .. } = self.state else { return false };
        self.end(EndReason::Declined);
        true
    }

    pub(crate) fn hang_up(&mut self) {
        let rings = matches!(self.state, State::Ringing { .. });
        self.end(if rings { EndReason::Declined } else { EndReason::HungUp });
    }

    pub(crate) fn end(&mut self, reason: EndReason) {
        self.finish(reason, Some(reason));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Ringing { until } if until <= now => self.finish(EndReason::Missed, Some(EndReason::Missed)),
            State::Answered { until } if until <= now => self.finish(EndReason::Lost, Some(EndReason::Lost)),
            State::Ringing { .. } | State::Answered { .. } | State::Connected { .. } | State::Ended(..) => {}
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ringing { until } | State::Answered { until } => Some(until),
            State::Connected { .. } | State::Ended(..) => None,
        }
    }

    /// Hands over what is to be done. True once the call has ended.
    pub(crate) fn settle(&mut self, now: Instant, effects: &mut Effects) -> bool {
        effects.append(&mut self.effects);
        let State::Ended(reason, since) = self.state else { return false };
        let connected_for = since.map(|since| now.saturating_duration_since(since));
        let with = self.caller.name.clone();
        effects.push_back(Effect::Event(Event::Ended { call: self.call, with, reason, connected_for }));
        true
    }

    fn say_answer(&self, effects: &mut Effects) {
        let (call, device) = (self.call, self.caller.device);
        effects.push_back(Effect::Tell { call, device, message: PeerMessage::Answer });
        effects.push_back(Effect::StartMedia { call, device });
    }

    /// Ends the call, and tells the caller if there is something that he does not know.
    fn finish(&mut self, reason: EndReason, told: Option<EndReason>) {
        let (call, device) = (self.call, self.caller.device);
        let since = match self.state {
            State::Ended(..) => return,
            State::Connected { since } => Some(since),
            State::Ringing { .. } | State::Answered { .. } => None,
        };
        if let Some(reason) = told {
            self.effects.push_back(if self.is_connected {
                Effect::Tell { call, device, message: PeerMessage::End(reason) }
            } else {
                Effect::Signal { call, device, kind: SignalKind::Reject(reason) }
            });
        }
        self.effects.push_back(Effect::Close { call, device });
        if self.is_connected && !matches!(self.state, State::Ringing { .. }) {
            self.effects.push_back(Effect::StopMedia { call });
        }
        self.state = State::Ended(reason, since);
    }
}
