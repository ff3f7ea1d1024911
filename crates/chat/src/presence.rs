//! Who is online, and who types. None of it outlives the program.

use crate::effect::{ChatEvent, Seen};
use crate::{ONLINE_MAX, PRESENCE_EVERY, PRESENCE_LIFE, TYPING_EVERY, TYPING_LIFE};
use ahoy_protocol::message::Status;
use ahoy_protocol::{DeviceKey, Name, UnixMillis};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Heard {
    name: Name,
    status: Status,
    until: UnixMillis,
}

#[derive(Debug)]
struct Typing {
    device: DeviceKey,
    until: UnixMillis,
}

#[derive(Debug)]
pub(crate) struct Presence {
    /// How I am; offline: not to be seen.
    pub(crate) status: Status,
    is_connected: bool,
    beat_at: UnixMillis,
    online: BTreeMap<DeviceKey, Heard>,
    typing: BTreeMap<Name, Typing>,
    /// When each was last told that I type.
    said: BTreeMap<Name, UnixMillis>,
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            status: Status::Online,
            is_connected: false,
            beat_at: UnixMillis(0),
            online: BTreeMap::new(),
            typing: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    pub(crate) fn is_visible(&self) -> bool {
        self.is_connected && self.status != Status::Offline
    }

    pub(crate) fn handle_connected(&mut self, now: UnixMillis) {
        self.is_connected = true;
        self.beat_at = now.plus(PRESENCE_EVERY);
    }

    /// The network is gone: nobody can be seen.
    pub(crate) fn handle_disconnected(&mut self, events: &mut Vec<ChatEvent>) {
        self.is_connected = false;
        let devices: Vec<DeviceKey> = self.online.keys().copied().collect();
        for device in devices {
            self.remove(device, events);
        }
        events.extend(std::mem::take(&mut self.typing).into_keys().map(|with| ChatEvent::Typing { with, on: false }));
    }

    /// A contact's device says how its user is. True: it was not known to be online.
    pub(crate) fn hear(&mut self, now: UnixMillis, name: &Name, device: DeviceKey, status: Status, events: &mut Vec<ChatEvent>) -> bool {
        let is_new = !self.online.contains_key(&device);
        if status == Status::Offline {
            self.remove(device, events);
            return false;
        }
        if is_new && self.online.len() >= ONLINE_MAX {
            return false;
        }
        let before = self.status_of(name);
        self.online.insert(device, Heard { name: name.clone(), status, until: now.plus(PRESENCE_LIFE) });
        self.tell_if_changed(name, before, events);
        is_new
    }

    fn remove(&mut self, device: DeviceKey, events: &mut Vec<ChatEvent>) {
        let Some(name) = self.online.get(&device).map(|heard| heard.name.clone()) else { return };
        let before = self.status_of(&name);
        self.online.remove(&device);
        self.tell_if_changed(&name, before, events);
    }

    /// Forgets all devices of somebody but these.
    pub(crate) fn retain(&mut self, name: &Name, devices: &[DeviceKey], events: &mut Vec<ChatEvent>) {
        for device in self.devices_of(name).into_iter().filter(|device| !devices.contains(device)) {
            self.remove(device, events);
        }
    }

    fn tell_if_changed(&self, name: &Name, before: Status, events: &mut Vec<ChatEvent>) {
        let status = self.status_of(name);
        if status != before {
            events.push(ChatEvent::Presence(Seen { name: name.clone(), status }));
        }
    }

    /// How somebody is, by the best of his devices.
    pub(crate) fn status_of(&self, name: &Name) -> Status {
        let rank = |status: &Status| match status {
            Status::Busy => 3,
            Status::Online => 2,
            Status::Away => 1,
            Status::Offline => 0,
        };
        let statuses = self.online.values().filter(|heard| heard.name == *name).map(|heard| heard.status);
        statuses.max_by_key(rank).unwrap_or(Status::Offline)
    }

    /// Devices of one contact that are online.
    pub(crate) fn devices_of(&self, name: &Name) -> Vec<DeviceKey> {
        self.online.iter().filter(|(_, heard)| heard.name == *name).map(|(device, _)| *device).collect()
    }

    pub(crate) fn online(&self) -> Vec<(DeviceKey, Name)> {
        self.online.iter().map(|(device, heard)| (*device, heard.name.clone())).collect()
    }

    /// I type, or stopped. True: it is to be said.
    pub(crate) fn poll_typing(&mut self, now: UnixMillis, with: &Name, on: bool) -> bool {
        if !self.is_visible() {
            return false;
        }
        if !on {
            return self.said.remove(with).is_some();
        }
        if self.said.get(with).is_some_and(|at| now < at.plus(TYPING_EVERY)) || self.said.len() >= ONLINE_MAX {
            return false;
        }
        self.said.insert(with.clone(), now);
        true
    }

    /// A contact types, or stopped.
    pub(crate) fn hear_typing(&mut self, now: UnixMillis, with: &Name, device: DeviceKey, on: bool, events: &mut Vec<ChatEvent>) {
        let was_on = match self.typing.get(with) {
            Some(typing) if !on && typing.device != device => return,
            other => other.is_some(),
        };
        if on && (was_on || self.typing.len() < ONLINE_MAX) {
            self.typing.insert(with.clone(), Typing { device, until: now.plus(TYPING_LIFE) });
        } else {
            self.typing.remove(with);
        }
        if self.typing.contains_key(with) != was_on {
            events.push(ChatEvent::Typing { with: with.clone(), on });
        }
    }

    /// Forgets who has not been heard of. True: those who are online are to hear of me.
    pub(crate) fn handle_timeout(&mut self, now: UnixMillis, events: &mut Vec<ChatEvent>) -> bool {
        let gone: Vec<_> = self.online.iter().filter(|(_, heard)| heard.until <= now).map(|(device, _)| *device).collect();
        for device in gone {
            self.remove(device, events);
        }
        let silent: Vec<_> = self.typing.extract_if(.., |_, typing| typing.until <= now).map(|(with, _)| with).collect();
        events.extend(silent.into_iter().map(|with| ChatEvent::Typing { with, on: false }));
        let beats = self.is_visible() && self.beat_at <= now;
        if self.beat_at <= now {
            self.beat_at = now.plus(PRESENCE_EVERY);
        }
        beats
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixMillis> {
        let online = self.online.values().map(|heard| heard.until);
        let typing = self.typing.values().map(|typing| typing.until);
        online.chain(typing).chain(self.is_visible().then_some(self.beat_at)).min()
    }
}
