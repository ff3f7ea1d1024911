//! What the user turns while a call runs, and what rings.

use super::Engine;
use crate::events::{Event, call_word};
use crate::link::Order;
use crate::media::{DeviceRole, Ring};
use crate::sound::SoundSettings;
use ahoy_protocol::peer::PeerMessage;
use ahoy_protocol::{CallId, DeviceKey};

/// What the user can turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Whether the microphone is muted, until the call ends.
    Mute(bool),
    /// Whether the call is on hold.
    Hold(bool),
    /// How loud the other side is played, in percent.
    Volume(u8),
    /// Whether the microphone is open only while a key is pressed.
    PushToTalk(bool),
    /// Whether that key is pressed.
    Talk(bool),
    /// Another microphone; `None` is the system's default.
    Microphone(Option<String>),
    /// Another speaker.
    Speaker(Option<String>),
    /// Another device that rings.
    Ringer(Option<String>),
}

const NO_CALL: &str = "there is no call";

impl Engine {
    /// Turns it, and tells everybody how it is from here on.
    pub(super) fn turn(&mut self, turn: Turn) -> Result<(), String> {
        match turn {
            Turn::Hold(on) => return self.hold(on),
            Turn::Mute(on) => {
                self.talking().ok_or(NO_CALL)?;
                self.controls.mute(on);
            }
            Turn::Volume(percent) => self.controls.set_volume(percent),
            Turn::PushToTalk(on) => self.controls.push_to_talk(on),
            Turn::Talk(on) => self.controls.talk(on),
            Turn::Microphone(name) => return self.choose(DeviceRole::Microphone, name),
            Turn::Speaker(name) => return self.choose(DeviceRole::Speaker, name),
            Turn::Ringer(name) => {
                self.config.sound.devices.ringer = name;
                return Ok(());
            }
        }
        self.tell(self.controls.event());
        Ok(())
    }

    /// The call in which both speak, and the device on the other side.
    fn talking(&self) -> Option<(CallId, DeviceKey)> {
        let id = self.desk.current()?;
        let call = self.calls.get(&id)?;
        call.media.as_ref()?;
        Some((id, call.media_with?))
    }

    fn hold(&mut self, on: bool) -> Result<(), String> {
        let (id, device) = self.talking().ok_or(NO_CALL)?;
        if self.controls.is_held() == on {
            return Ok(());
        }
        self.controls.hold(on);
        if let Some(link) = self.calls.get(&id).and_then(|call| call.parties.get(&device)?.link.as_ref()) {
            link.order(Order::Tell(PeerMessage::Hold(on)));
        }
        self.tell(Event::Hold { call: call_word(id), by: "here".to_owned(), on });
        Ok(())
    }

    /// The other side holds the call, or goes on with it.
    pub(super) fn handle_hold(&mut self, id: CallId, device: DeviceKey, on: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.media_with != Some(device) || call.is_held_there == on {
            return;
        }
        call.is_held_there = on;
        self.tell(Event::Hold { call: call_word(id), by: "there".to_owned(), on });
    }

    /// From here on, in this call and in those to come.
    fn choose(&mut self, role: DeviceRole, name: Option<String>) -> Result<(), String> {
        let current = self.desk.current().and_then(|id| self.calls.get_mut(&id));
        if let Some(call) = current {
            match role {
                DeviceRole::Microphone => call.media_options.microphone.clone_from(&name),
                DeviceRole::Speaker => call.media_options.speaker.clone_from(&name),
            }
            if let Some(media) = &call.media {
                media.choose(role, name.as_deref());
            }
        }
        match role {
            DeviceRole::Microphone => self.config.sound.devices.microphone = name,
            DeviceRole::Speaker => self.config.sound.devices.speaker = name,
        }
        Ok(())
    }

    /// Follows changed settings, in a call that runs too.
    pub(super) fn set_sound(&mut self, sound: SoundSettings) {
        let before = std::mem::replace(&mut self.config.sound, sound);
        let sound = self.config.sound.clone();
        // What was turned by hand stays, unless the setting itself is another.
        if sound.volume != before.volume {
            self.controls.set_volume(sound.volume);
        }
        if sound.push_to_talk != before.push_to_talk {
            self.controls.push_to_talk(sound.push_to_talk);
        }
        if sound.devices.microphone != before.devices.microphone {
            let _ = self.choose(DeviceRole::Microphone, sound.devices.microphone.clone());
        }
        if sound.devices.speaker != before.devices.speaker {
            let _ = self.choose(DeviceRole::Speaker, sound.devices.speaker.clone());
        }
        if sound.processing != before.processing
            && let Some(media) = self.desk.current().and_then(|id| self.calls.get(&id)?.media.as_ref())
        {
            media.process(sound.processing);
        }
    }

    /// Rings for a call that came in, unless nobody is to hear it.
    pub(super) fn ring(&mut self, id: CallId) {
        if self.config.auto_answer || self.config.sound.ring_volume == 0 {
            return;
        }
        if let Some(call) = self.calls.get_mut(&id).filter(|call| call.media_options.uses_devices()) {
            let sound = &self.config.sound;
            call.ring = Ring::start(sound.devices.ringer.as_deref(), sound.ring_volume);
        }
    }
}
