//! Settings: what the user wants otherwise than it is by default, kept in the home as one file of keys and values.
//!
//! A value is checked when it is set, and again when it is read, since a person may have written the file. What a later version of this
//! program has put there and this one does not know stays as it is.

use crate::devices::DEFAULT_DEVICE;
use crate::events::{Event, SettingsShown};
use crate::media::{VOLUME_DEFAULT, VOLUME_MAX};
use crate::reach::{BirthdayPolicy, ReachSettings, RelayPolicy};
use crate::sound::{Devices, NoiseSuppression, Processing, SoundSettings};
use ahoy_transport::{Proxy, ProxyError, UdpUse};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// Longest value. A proxy with a long name, user and password has half of it.
const VALUE_BYTES_MAX: usize = 1024;
/// Most keys that a file may have, known or not.
const KEYS_MAX: usize = 64;
/// What stands for no proxy at all.
const NO_PROXY: &str = "none";

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Key {
    /// What connections go through where they cannot go straight: http://HOST:PORT, socks5://HOST:PORT, or none.
    Proxy,
    /// Whether UDP is used: auto, or never.
    Udp,
    /// Whose calls stay on relays, so that they learn no address of yours: auto (nobody's), strangers, or always.
    Relay,
    /// Whether the router is asked to let calls through: on, or off.
    PortMapping,
    /// Whether a difficult router is crossed by trying many ports: auto (only while this computer is plugged in), on, or off.
    Birthday,
    /// What is heard by the other side: a microphone as `ahoy devices` lists it, or default.
    Microphone,
    /// What plays the other side: a speaker as `ahoy devices` lists it, or default.
    Speaker,
    /// What rings: a speaker as `ahoy devices` lists it, or default.
    Ringer,
    /// Whether the speaker's sound is taken out of the microphone's: on, or off.
    EchoCanceller,
    /// How much steady noise is taken out of the microphone's sound: off, moderate, or high.
    NoiseSuppression,
    /// Whether soft voices are made louder and loud ones softer: on, or off.
    GainControl,
    /// How loud the other side is played: 0 to 200 percent.
    Volume,
    /// How loud it rings: 0 to 200 percent.
    RingVolume,
    /// Whether the microphone is open only while a key is pressed: on, or off.
    PushToTalk,
    /// Whether calls spend as little as they can: on, or off.
    DataSaver,
}

impl Key {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 15] = [
        Self::Proxy,
        Self::Udp,
        Self::Relay,
        Self::PortMapping,
        Self::Birthday,
        Self::Microphone,
        Self::Speaker,
        Self::Ringer,
        Self::EchoCanceller,
        Self::NoiseSuppression,
        Self::GainControl,
        Self::Volume,
        Self::RingVolume,
        Self::PushToTalk,
        Self::DataSaver,
    ];

    /// Its name in the file and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Udp => "udp",
            Self::Relay => "relay",
            Self::PortMapping => "port-mapping",
            Self::Birthday => "birthday",
            Self::Microphone => "microphone",
            Self::Speaker => "speaker",
            Self::Ringer => "ringer",
            Self::EchoCanceller => "echo-canceller",
            Self::NoiseSuppression => "noise-suppression",
            Self::GainControl => "gain-control",
            Self::Volume => "volume",
            Self::RingVolume => "ring-volume",
            Self::PushToTalk => "push-to-talk",
            Self::DataSaver => "data-saver",
        }
    }

    /// What it is without being set.
    #[must_use]
    pub fn default_value(self) -> &'static str {
        match self {
            Self::Proxy => "as the environment says",
            Self::Udp | Self::Relay | Self::Birthday => "auto",
            Self::PortMapping | Self::EchoCanceller | Self::GainControl => "on",
            Self::Microphone | Self::Speaker | Self::Ringer => DEFAULT_DEVICE,
            Self::NoiseSuppression => "moderate",
            Self::Volume | Self::RingVolume => "100",
            Self::PushToTalk | Self::DataSaver => "off",
        }
    }

    /// What it may be, in words.
    fn allowed(self) -> &'static str {
        match self {
            Self::Proxy => "a proxy such as http://HOST:PORT or socks5://HOST:PORT, or none",
            Self::Udp => "auto or never",
            Self::Relay => "auto, strangers or always",
            Self::PortMapping | Self::EchoCanceller | Self::GainControl | Self::PushToTalk | Self::DataSaver => "on or off",
            Self::Microphone | Self::Speaker | Self::Ringer => "a device as `ahoy devices` lists it, or default",
            Self::NoiseSuppression => "off, moderate or high",
            Self::Volume | Self::RingVolume => "a number of percent from 0 to 200",
            Self::Birthday => "auto, on or off",
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why a setting is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// Another value than the key can have.
    #[error("{key} cannot be {value:?}; it is {}", .key.allowed())]
    Value {
        /// The key.
        key: Key,
        /// What it was to be.
        value: String,
    },
    /// It is longer than any value.
    #[error("the value for {0} is too long; it may have {VALUE_BYTES_MAX} bytes")]
    TooLong(Key),
    /// The proxy is none.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// What the user has set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// As they stand in the file, those of other versions included. A known key has a value that it can have.
    values: BTreeMap<String, String>,
}

impl Settings {
    /// Checks what a file holds.
    ///
    /// # Errors
    /// [`SettingError`] says which value is none.
    pub fn from_values(values: BTreeMap<String, String>) -> Result<Self, SettingError> {
        for key in Key::ALL {
            if let Some(value) = values.get(key.as_str()) {
                check(key, value)?;
            }
        }
        Ok(Self { values: values.into_iter().take(KEYS_MAX).collect() })
    }

    /// What the file is to hold.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`SettingError`] if it cannot have that value.
    pub fn set(&mut self, key: Key, value: &str) -> Result<(), SettingError> {
        let value = value.trim();
        check(key, value)?;
        self.values.insert(key.as_str().to_owned(), value.to_owned());
        Ok(())
    }

    /// Lets a key be what it is by default.
    pub fn unset(&mut self, key: Key) {
        self.values.remove(key.as_str());
    }

    /// The value of a key to be shown, without any password; `None` if it is not set.
    #[must_use]
    pub fn shown(&self, key: Key) -> Option<String> {
        let value = self.get(key)?;
        Some(match (key, Proxy::parse(value)) {
            (Key::Proxy, Ok(proxy)) if value != NO_PROXY => proxy.to_string(),
            _ => value.to_owned(),
        })
    }

    /// What they mean for reaching and being reached; `environment` is the proxy that the environment names.
    #[must_use]
    pub fn reach(&self, environment: Option<Proxy>) -> ReachSettings {
        ReachSettings {
            proxy: match self.get(Key::Proxy) {
                None => environment,
                Some(NO_PROXY) => None,
                // It was parsed when it came in.
                Some(url) => Proxy::parse(url).ok(),
            },
            udp: if self.get(Key::Udp) == Some("never") { UdpUse::Never } else { UdpUse::Prefer },
            relay: match self.get(Key::Relay) {
                Some("strangers") => RelayPolicy::Strangers,
                Some("always") => RelayPolicy::Always,
                _ => RelayPolicy::Auto,
            },
            port_mapping: self.get(Key::PortMapping) != Some("off"),
            birthday: match self.get(Key::Birthday) {
                Some("on") => BirthdayPolicy::On,
                Some("off") => BirthdayPolicy::Off,
                _ => BirthdayPolicy::Auto,
            },
        }
    }

    /// The same with the environment of this process, and what is wrong with the proxy that it names.
    #[must_use]
    pub fn reach_here(&self) -> (ReachSettings, Option<ProxyError>) {
        match Proxy::from_environment() {
            Ok(environment) => (self.reach(environment), None),
            Err(_) if self.get(Key::Proxy).is_some() => (self.reach(None), None),
            Err(error) => (self.reach(None), Some(error)),
        }
    }

    /// What they mean for sound.
    #[must_use]
    pub fn sound(&self) -> SoundSettings {
        let device = |key| self.get(key).filter(|name| *name != DEFAULT_DEVICE).map(str::to_owned);
        let percent = |key| self.get(key).and_then(percent).unwrap_or(VOLUME_DEFAULT);
        SoundSettings {
            devices: Devices { microphone: device(Key::Microphone), speaker: device(Key::Speaker), ringer: device(Key::Ringer) },
            processing: Processing {
                echo_canceller: self.get(Key::EchoCanceller) != Some("off"),
                noise_suppression: match self.get(Key::NoiseSuppression) {
                    Some("off") => NoiseSuppression::Off,
                    Some("high") => NoiseSuppression::High,
                    _ => NoiseSuppression::Moderate,
                },
                gain_control: self.get(Key::GainControl) != Some("off"),
            },
            volume: percent(Key::Volume),
            ring_volume: percent(Key::RingVolume),
            push_to_talk: self.get(Key::PushToTalk) == Some("on"),
            data_saver: self.get(Key::DataSaver) == Some("on"),
        }
    }

    /// All of them, as an event.
    #[must_use]
    pub fn event(&self) -> Event {
        let value = |key: Key| self.shown(key).unwrap_or_else(|| key.default_value().to_owned());
        let sound = self.sound();
        Event::Settings(Box::new(SettingsShown {
            proxy: self.shown(Key::Proxy),
            udp: value(Key::Udp),
            relay: value(Key::Relay),
            port_mapping: value(Key::PortMapping),
            birthday: value(Key::Birthday),
            microphone: value(Key::Microphone),
            speaker: value(Key::Speaker),
            ringer: value(Key::Ringer),
            echo_canceller: value(Key::EchoCanceller),
            noise_suppression: value(Key::NoiseSuppression),
            gain_control: value(Key::GainControl),
            volume: sound.volume,
            ring_volume: sound.ring_volume,
            push_to_talk: value(Key::PushToTalk),
            data_saver: value(Key::DataSaver),
        }))
    }

    fn get(&self, key: Key) -> Option<&str> {
        self.values.get(key.as_str()).map(String::as_str)
    }
}

/// A share of the loudness that sound has by itself.
fn percent(value: &str) -> Option<u8> {
    value.parse().ok().filter(|percent| *percent <= VOLUME_MAX)
}

fn check(key: Key, value: &str) -> Result<(), SettingError> {
    let is_one_of = |allowed: &[&str]| allowed.contains(&value);
    if value.len() > VALUE_BYTES_MAX {
        return Err(SettingError::TooLong(key));
    }
    let is_allowed = match key {
        Key::Proxy if value == NO_PROXY => true,
        Key::Proxy => Proxy::parse(value).map(|_| true)?,
        Key::Udp => is_one_of(&["auto", "never"]),
        Key::Relay => is_one_of(&["auto", "strangers", "always"]),
        Key::PortMapping | Key::EchoCanceller | Key::GainControl | Key::PushToTalk | Key::DataSaver => is_one_of(&["on", "off"]),
        Key::NoiseSuppression => is_one_of(&["off", "moderate", "high"]),
        Key::Volume | Key::RingVolume => percent(value).is_some(),
        // It may be plugged in later.
        Key::Microphone | Key::Speaker | Key::Ringer => !value.is_empty() && !value.chars().any(char::is_control),
        Key::Birthday => is_one_of(&["auto", "on", "off"]),
    };
    if is_allowed { Ok(()) } else { Err(SettingError::Value { key, value: value.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_counts_and_what_is_unset_is_the_default_again() {
        let mut settings = Settings::default();
        assert_eq!(settings.reach(None), ReachSettings::default());
        for (key, value) in [(Key::Udp, "never"), (Key::Relay, "always"), (Key::PortMapping, "off"), (Key::Birthday, "off")] {
            settings.set(key, value).expect("it can be that");
        }
        let reach = settings.reach(None);
        assert_eq!((reach.udp, reach.relay), (UdpUse::Never, RelayPolicy::Always));
        assert_eq!((reach.port_mapping, reach.birthday), (false, BirthdayPolicy::Off));
        for key in Key::ALL {
            settings.unset(key);
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn sound_is_processed_unless_the_user_says_otherwise() {
        let mut settings = Settings::default();
        assert_eq!(settings.sound(), SoundSettings::default());
        for (key, value) in [
            (Key::EchoCanceller, "off"),
            (Key::NoiseSuppression, "high"),
            (Key::GainControl, "off"),
            (Key::Microphone, "Desk (USB)"),
            (Key::Speaker, "default"),
            (Key::Volume, "70"),
            (Key::PushToTalk, "on"),
        ] {
            settings.set(key, value).expect("it can be that");
        }
        let sound = settings.sound();
        let processing = Processing { echo_canceller: false, noise_suppression: NoiseSuppression::High, gain_control: false };
        assert_eq!(sound.processing, processing);
        assert_eq!(sound.devices, Devices { microphone: Some("Desk (USB)".into()), ..Devices::default() });
        assert_eq!((sound.volume, sound.ring_volume, sound.push_to_talk), (70, 100, true));
    }

    #[test]
    fn a_proxy_that_is_set_counts_before_the_environments_and_none_before_both() {
        let environment = Proxy::parse("http://192.0.2.1:3128").ok();
        let mut settings = Settings::default();
        assert_eq!(settings.reach(environment.clone()).proxy, environment);
        settings.set(Key::Proxy, "socks5://192.0.2.2:1080").expect("a proxy");
        assert_eq!(settings.reach(environment.clone()).proxy, Proxy::parse("socks5://192.0.2.2:1080").ok());
        settings.set(Key::Proxy, "none").expect("no proxy");
        assert_eq!(settings.reach(environment).proxy, None);
    }

    #[test]
    fn values_that_are_none_are_refused_in_one_sentence_that_says_what_would_be() {
        let mut settings = Settings::default();
        for (key, value) in [
            (Key::Proxy, "gopher://192.0.2.1:70"),
            (Key::Proxy, ""),
            (Key::Proxy, "http://192.0.2.1:99999"),
            (Key::Udp, "maybe"),
            (Key::Relay, "Always"),
            (Key::PortMapping, "yes"),
            (Key::Birthday, "\u{0}"),
            (Key::Microphone, ""),
            (Key::NoiseSuppression, "on"),
            (Key::Volume, "201"),
            (Key::Volume, "loud"),
        ] {
            let error = settings.set(key, value).expect_err(value).to_string();
            assert!(error.lines().count() == 1 && error.len() > 20, "{error}");
        }
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        assert_eq!(settings.set(Key::Udp, &long), Err(SettingError::TooLong(Key::Udp)));
        assert_eq!(settings, Settings::default(), "nothing of it is kept");
    }

    #[test]
    fn a_password_is_not_shown() {
        let mut settings = Settings::default();
        settings.set(Key::Proxy, "http://bob:gravel@192.0.2.1:3128").expect("a proxy");
        let shown = settings.shown(Key::Proxy).expect("it is set");
        assert!(shown.contains("192.0.2.1:3128") && !shown.contains("gravel"), "{shown}");
    }

    #[test]
    fn keys_of_another_version_stay_and_damaged_values_are_found() {
        let values = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let mut settings = Settings::from_values(values("ring-tone", "marimba")).expect("not ours to judge");
        settings.set(Key::Udp, "auto").expect("it can be that");
        assert_eq!(settings.values().get("ring-tone").map(String::as_str), Some("marimba"));
        assert!(Settings::from_values(values("udp", "loud")).is_err());
    }
}
