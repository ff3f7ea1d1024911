//! The desk: where calls are placed and come in, one at a time.

use crate::incoming::Incoming;
use crate::outgoing::Outgoing;
use crate::seen::Seen;
use ahoy_protocol::invitation::SignalKind;
use ahoy_protocol::peer::{EndReason, PeerMessage};
use ahoy_protocol::{CallId, DeviceKey, Name, NodeKey, UserKey};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Who sits at the desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// My name.
    pub name: Name,
    /// My user key, which decides when two people call each other.
    pub user: UserKey,
    /// This device.
    pub device: DeviceKey,
}

/// Who calls, as the certificates in the invitation prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The caller's name.
    pub name: Name,
    /// The caller's user key.
    pub user: UserKey,
    /// The calling device.
    pub device: DeviceKey,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Find the devices of `name`, then [`Desk::handle_found`].
    LookUp {
        /// For this call.
        call: CallId,
        /// Whom to find.
        name: Name,
    },
    /// Send an invitation to this device.
    Invite {
        /// To this call.
        call: CallId,
        /// The device.
        device: DeviceKey,
    },
    /// Join the caller at a relay, tell his device that this one rings, and accept his connection.
    JoinCaller {
        /// For this call.
        call: CallId,
        /// The caller's device.
        device: DeviceKey,
    },
    /// Connect to a device that rings, through the relay that it named.
    ConnectCallee {
        /// For this call.
        call: CallId,
        /// The device.
        device: DeviceKey,
        /// The relay.
        relay: NodeKey,
    },
    /// Send a signal through the supernodes.
    Signal {
        /// About this call.
        call: CallId,
        /// To this device.
        device: DeviceKey,
        /// What to say: a [`SignalKind::Reject`] or a [`SignalKind::Cancel`].
        kind: SignalKind,
    },
    /// Send a message on the connection with this device.
    Tell {
        /// Of this call.
        call: CallId,
        /// The device.
        device: DeviceKey,
        /// What to say.
        message: PeerMessage,
    },
    /// Close what there is of a connection with this device, after what was told has been delivered.
    Close {
        /// Of this call.
        call: CallId,
        /// The device.
        device: DeviceKey,
    },
    /// Start to send and to play sound. Addresses may be exchanged from here on.
    StartMedia {
        /// Of this call.
        call: CallId,
        /// With this device.
        device: DeviceKey,
    },
    /// Stop sound.
    StopMedia {
        /// Of this call.
        call: CallId,
    },
    /// Tell the user.
    Event(Event),
}

/// What the user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A call was placed and its devices are being invited.
    Calling {
        /// The call.
        call: CallId,
        /// Whom.
        to: Name,
        /// How many devices are invited.
        devices: usize,
    },
    /// Somebody calls.
    Incoming {
        /// The call.
        call: CallId,
        /// Who.
        from: Name,
    },
    /// A device of the callee rings.
    Ringing {
        /// The call.
        call: CallId,
        /// The device.
        device: DeviceKey,
    },
    /// Both speak.
    Connected {
        /// The call.
        call: CallId,
        /// With whom.
        with: Name,
        /// At which device.
        device: DeviceKey,
    },
    /// It is over.
    Ended {
        /// The call.
        call: CallId,
        /// With whom, or who was called.
        with: Name,
        /// Why.
        reason: EndReason,
        /// How long it was connected; `None`: never.
        connected_for: Option<Duration>,
    },
}

/// Why a call cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// There is one.
    #[error("there is a call already; hang up first")]
    InCall,
    /// One's own name.
    #[error("that is your own name; whom do you want to call?")]
    Myself,
}

/// Most effects waiting: each input causes at most a few for each device.
pub(crate) type Effects = VecDeque<Effect>;

/// At most one call, and what is to be done about it.
#[derive(Debug)]
pub struct Desk {
    me: Identity,
    call: Option<Call>,
    seen: Seen,
    effects: Effects,
}

#[derive(Debug)]
enum Call {
    Outgoing(Outgoing),
    Incoming(Incoming),
}

impl Desk {
    /// An empty desk.
    #[must_use]
    pub fn new(me: Identity) -> Self {
        Self { me, call: None, seen: Seen::default(), effects: Effects::new() }
    }

    /// The call that there is.
    #[must_use]
    pub fn current(&self) -> Option<CallId> {
        Some(match self.call.as_ref()? {
            Call::Outgoing(call) => call.id(),
            Call::Incoming(call) => call.id(),
        })
    }

    /// Calls somebody. `call` is a fresh random number.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn place(&mut self, now: Instant, call: CallId, to: Name) -> Result<(), PlaceError> {
        if self.call.is_some() {
            return Err(PlaceError::InCall);
        }
        if to == self.me.name {
            return Err(PlaceError::Myself);
        }
        self.call = Some(Call::Outgoing(Outgoing::new(now, call, to, &mut self.effects)));
        Ok(())
    }

    /// The look-up found these devices: none if nobody has the name, or none of his devices can be reached.
    pub fn handle_found(&mut self, now: Instant, call: CallId, devices: &[DeviceKey]) {
        if let Some(Call::Outgoing(outgoing)) = self.of(call) {
            outgoing.handle_found(now, devices);
        }
        self.settle(now);
    }

    /// An invitation came. Whether it is valid, fresh and for this device has been checked.
    pub fn handle_invite(&mut self, now: Instant, call: CallId, caller: Caller) {
        if !self.seen.is_first(now, call) {
            return;
        }
        if let Some(Call::Incoming(incoming)) = &mut self.call
            && incoming.is_superseded_by(&caller)
        {
            incoming.give_way();
            self.settle(now);
        }
        let answered = match &self.call {
            None => false,
            Some(Call::Outgoing(outgoing)) if outgoing.yields_to(&caller, &self.me) => {
                self.give_way(now);
                true
            }
            // The other side gives way: its desk sees our invitation.
            Some(Call::Outgoing(outgoing)) if outgoing.stands_against(&caller) => return,
            Some(Call::Outgoing(_) | Call::Incoming(_)) => {
                let kind = SignalKind::Reject(EndReason::Busy);
                self.effects.push_back(Effect::Signal { call, device: caller.device, kind });
                return;
            }
        };
        let mut incoming = Incoming::new(now, call, caller, &mut self.effects);
        if answered {
            incoming.answer(now, &mut self.effects);
        }
        self.call = Some(Call::Incoming(incoming));
        self.settle(now);
    }

    /// A signal about a call came from a device. Whether it is genuine has been checked.
    pub fn handle_signal(&mut self, now: Instant, call: CallId, device: DeviceKey, kind: &SignalKind) {
        match (self.of(call), kind) {
            (Some(Call::Outgoing(outgoing)), SignalKind::Ringing { relay }) => outgoing.handle_ringing(now, device, *relay),
            (Some(Call::Outgoing(outgoing)), SignalKind::Reject(reason)) => outgoing.handle_refusal(device, *reason),
            (Some(Call::Incoming(incoming)), SignalKind::Cancel(reason)) => incoming.handle_end(device, *reason),
            // An invitation that comes after it rings no more.
            (None, SignalKind::Cancel(_)) => {
                self.seen.is_first(now, call);
            }
            // An invitation has its own input; anything else is for the other side, or for a call that is over.
            _ => {}
        }
        self.settle(now);
    }

    /// The connection with a device stands, and it is who it should be.
    pub fn handle_peer_connected(&mut self, now: Instant, call: CallId, device: DeviceKey) {
        let effects = &mut self.effects;
        match self.call.as_mut().filter(|current| current.id() == call) {
            Some(Call::Outgoing(outgoing)) => outgoing.handle_connected(device),
            Some(Call::Incoming(incoming)) => incoming.handle_connected(now, device, effects),
            None => {}
        }
        self.settle(now);
    }

    /// A message came on the connection with a device.
    pub fn handle_peer_message(&mut self, now: Instant, call: CallId, device: DeviceKey, message: &PeerMessage) {
        match (self.of(call), message) {
            (Some(Call::Outgoing(outgoing)), PeerMessage::Answer) => outgoing.handle_answer(now, device),
            (Some(Call::Outgoing(outgoing)), PeerMessage::End(reason)) => outgoing.handle_refusal(device, *reason),
            (Some(Call::Incoming(incoming)), PeerMessage::Confirm) => incoming.handle_confirm(now, device),
            (Some(Call::Incoming(incoming)), PeerMessage::End(reason)) => incoming.handle_end(device, *reason),
            // Greeting and addresses are not the desk's; the rest does not fit the side.
            _ => {}
        }
        self.settle(now);
    }

    /// The connection with a device could not be made, or is lost and does not come back.
    pub fn handle_peer_lost(&mut self, now: Instant, call: CallId, device: DeviceKey) {
        match self.of(call) {
            Some(Call::Outgoing(outgoing)) => outgoing.handle_lost(now, device),
            Some(Call::Incoming(incoming)) => incoming.handle_lost(now, device),
            None => {}
        }
        self.settle(now);
    }

    /// An invitation could not be delivered to a device.
    pub fn handle_undelivered(&mut self, now: Instant, call: CallId, device: DeviceKey) {
        if let Some(Call::Outgoing(outgoing)) = self.of(call) {
            outgoing.handle_undelivered(device);
        }
        self.settle(now);
    }

    /// This device goes offline. A call that rings here goes on ringing at the user's other devices.
    pub fn leave(&mut self, now: Instant) {
        match &mut self.call {
            Some(Call::Outgoing(outgoing)) => outgoing.hang_up(),
            Some(Call::Incoming(incoming)) => incoming.leave(),
            None => {}
        }
        self.settle(now);
    }

    /// The user takes the call that rings. False if none does.
    pub fn answer(&mut self, now: Instant) -> bool {
        let effects = &mut self.effects;
        let answered = match &mut self.call {
            Some(Call::Incoming(incoming)) => incoming.answer(now, effects),
            Some(Call::Outgoing(_)) | None => false,
        };
        self.settle(now);
        answered
    }

    /// The user does not take the call that rings. False if none does.
    pub fn decline(&mut self, now: Instant) -> bool {
        let declined = match &mut self.call {
            Some(Call::Incoming(incoming)) => incoming.decline(),
            Some(Call::Outgoing(_)) | None => false,
        };
        self.settle(now);
        declined
    }

    /// The user ends the call, whatever its state. False if there is none.
    pub fn hang_up(&mut self, now: Instant) -> bool {
        match &mut self.call {
            Some(Call::Outgoing(outgoing)) => outgoing.hang_up(),
            Some(Call::Incoming(incoming)) => incoming.hang_up(),
            None => return false,
        }
        self.settle(now);
        true
    }

    /// Something failed in a way that the call cannot survive.
    pub fn fail(&mut self, now: Instant, call: CallId) {
        match self.of(call) {
            Some(Call::Outgoing(outgoing)) => outgoing.end(EndReason::Failed),
            Some(Call::Incoming(incoming)) => incoming.end(EndReason::Failed),
            None => {}
        }
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.call {
            Some(Call::Outgoing(outgoing)) => outgoing.handle_timeout(now),
            Some(Call::Incoming(incoming)) => incoming.handle_timeout(now),
            None => {}
        }
        self.settle(now);
    }

    /// When [`Desk::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.call.as_ref()? {
            Call::Outgoing(outgoing) => outgoing.poll_timeout(),
            Call::Incoming(incoming) => incoming.poll_timeout(),
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn of(&mut self, call: CallId) -> Option<&mut Call> {
        self.call.as_mut().filter(|current| current.id() == call)
    }

    /// Moves what a call wants done to the desk, and removes the call once it has ended.
    fn settle(&mut self, now: Instant) {
        let over = match &mut self.call {
            Some(Call::Outgoing(outgoing)) => outgoing.settle(now, &mut self.effects),
            Some(Call::Incoming(incoming)) => incoming.settle(now, &mut self.effects),
            None => false,
        };
        if over {
            self.call = None;
        }
    }

    /// Drops one's own call in favour of the one that the other side placed at the same time. To the user it is one call.
    fn give_way(&mut self, now: Instant) {
        if let Some(Call::Outgoing(mut outgoing)) = self.call.take() {
            outgoing.give_way();
            outgoing.settle(now, &mut self.effects);
        }
    }
}

impl Call {
    fn id(&self) -> CallId {
        match self {
            Self::Outgoing(call) => call.id(),
            Self::Incoming(call) => call.id(),
        }
    }
}
