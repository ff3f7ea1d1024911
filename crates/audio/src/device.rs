//! Which devices there are, and which one is wanted.

use std::fmt;

use crate::backend;

/// Which way sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Input,
    Output,
}

/// What a device is called in settings: the same after it was unplugged and after a restart. As text it is for people who
/// look at settings; a [`DeviceInfo`] has a better name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(String);

impl DeviceId {
    /// The id with this text, which [`DeviceId::as_str`] gave once. Whether there is such a device will be seen.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// For settings.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(host: &str, name: &str) -> Self {
        Self(format!("{host}:{name}"))
    }

    /// The name that the host with this name knows it by.
    pub(crate) fn name_at(&self, host: &str) -> Option<&str> {
        self.0.strip_prefix(host)?.strip_prefix(':')
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.0.split_once(':').map_or(&*self.0, |(_, name)| name))
    }
}

/// Which device is to be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted {
    /// Whichever the system has as its default; when that changes, sound follows.
    #[default]
    Default,
    /// This one. While it is not there the default stands in, and it is used again as soon as it is back.
    Named(DeviceId),
}

/// A device that could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// For settings.
    pub id: DeviceId,
    /// For people.
    pub name: String,
    /// Whether it is the system's default.
    pub is_default: bool,
    /// Whether it records what a loudspeaker plays: good for tests, and a trap as a microphone.
    pub is_monitor: bool,
}

/// All devices that could be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceList {
    /// What can be recorded from; monitors come last.
    pub inputs: Vec<DeviceInfo>,
    /// What can be played on.
    pub outputs: Vec<DeviceInfo>,
}

/// Asks the system for its devices. This may take a moment: a sound server may have to be started.
#[must_use]
pub fn devices() -> DeviceList {
    let mut list = backend::devices();
    list.inputs.sort_by_key(|device| device.is_monitor);
    list
}

/// The names of the default devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceNames {
    /// What is recorded from, if there is anything.
    pub input: Option<String>,
    /// What is played on, if there is anything.
    pub output: Option<String>,
}

/// Asks the system for its default devices, as [`devices`] does.
#[must_use]
pub fn default_device_names() -> DeviceNames {
    let list = devices();
    let name = |devices: Vec<DeviceInfo>| devices.into_iter().find(|device| device.is_default).map(|device| device.name);
    DeviceNames { input: name(list.inputs), output: name(list.outputs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_after_it_was_kept_in_settings() {
        let id = DeviceId::of("pulseaudio", "alsa_input.usb:1");
        assert_eq!(DeviceId::new(id.as_str()), id);
        assert_eq!(id.to_string(), "alsa_input.usb:1");
        assert_eq!(id.name_at("pulseaudio"), Some("alsa_input.usb:1"));
        assert_eq!(id.name_at("alsa"), None);
    }
}
