//! Who else is there, and who hears that I am.

use super::{Author, Chat};
use crate::ONLINE_MAX;
use ahoy_protocol::message::{Item, Status};
use ahoy_protocol::{DeviceKey, Name, UnixMillis};

impl Chat {
    /// This device is at its mailboxes.
    pub fn handle_connected(&mut self, now: UnixMillis) {
        self.presence.handle_connected(now);
        self.greet_all(true);
        self.settle(now);
    }

    /// This device is at no mailbox.
    pub fn handle_disconnected(&mut self, now: UnixMillis) {
        let mut events = Vec::new();
        self.presence.handle_disconnected(&mut events);
        events.into_iter().for_each(|event| self.out.tell(event));
        self.settle(now);
    }

    /// The user is so. [`Status::Offline`] while connected: invisible.
    pub fn set_status(&mut self, now: UnixMillis, status: Status) {
        let was_visible = self.presence.is_visible();
        if self.presence.status == status {
            return;
        }
        self.presence.status = status;
        if was_visible || self.presence.is_visible() {
            self.greet_contacts(false);
        }
        self.settle(now);
    }

    /// The user types to somebody, or stopped. To be called with every key.
    pub fn set_typing(&mut self, now: UnixMillis, with: &Name, on: bool) {
        if self.is_open(with) && self.presence.poll_typing(now, with, on) {
            let conversation = self.conversation(with);
            for device in self.presence.devices_of(with) {
                self.out.whisper(device, with, Item::Typing { conversation, on }, None);
            }
        }
        self.settle(now);
    }

    fn greet_all(&mut self, answer: bool) {
        let me = self.me.name.clone();
        for device in self.devices(&me).to_vec() {
            self.out.whisper(device, &me, Item::Presence { status: Status::Online, answer }, None);
        }
        if self.presence.is_visible() {
            self.greet_contacts(answer);
        }
    }

    /// Tells contacts how I am, the favourites first.
    fn greet_contacts(&mut self, answer: bool) {
        let mut names: Vec<_> = self.shelf.contacts().map(|contact| (!contact.is_favourite(), contact.name().clone())).collect();
        names.sort_unstable();
        let mut left = ONLINE_MAX;
        for (_, name) in names {
            let devices = self.devices(&name).len();
            if devices <= left && self.is_open(&name) {
                left -= devices;
                self.whisper_status(&name, answer);
            }
        }
    }

    pub(super) fn greet(&mut self, name: &Name, answer: bool) {
        if self.presence.is_visible() && self.is_open(name) {
            self.whisper_status(name, answer);
        }
    }

    fn whisper_status(&mut self, name: &Name, answer: bool) {
        let status = self.presence.status;
        for device in self.devices(name).to_vec() {
            self.out.whisper(device, name, Item::Presence { status, answer }, None);
        }
    }

    pub(super) fn handle_presence(&mut self, now: UnixMillis, from: &Author, status: Status, answer: bool) {
        let is_own = from.name == self.me.name;
        let mut events = Vec::new();
        // A device of mine says this only as it comes, or to one that has come.
        let has_come = is_own || self.presence.hear(now, &from.name, from.device, status, &mut events);
        events.into_iter().for_each(|event| self.out.tell(event));
        if has_come && status != Status::Offline {
            self.handle_peer_online(now, from.device);
        }
        if answer && (is_own || (self.presence.is_visible() && self.is_open(&from.name))) {
            let status = if is_own { Status::Online } else { self.presence.status };
            self.out.whisper(from.device, &from.name, Item::Presence { status, answer: false }, None);
        }
    }

    /// A device came online: what it lacks is sent again.
    fn handle_peer_online(&mut self, now: UnixMillis, device: DeviceKey) {
        for (id, thread) in &mut self.threads {
            if thread.handle_online(now, device) {
                self.dirty_threads.insert(*id);
            }
        }
    }
}
