//! What the program tells its user, as events: one JSON object a line with `--json`, else a sentence.

mod sentences;
mod stats;

pub use stats::{CallbackFigures, Callbacks, RelayFigures, Stats};

use crate::calls::CallRecord;
use crate::doctor::Report;
use ahoy_protocol::CallId;
use ahoy_protocol::peer::Mapping;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::SystemTime;

/// Something that happened. `docs/cli.md` lists every event and field; others script against them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// An account was made.
    Registered {
        /// Its name.
        name: String,
    },
    /// This device is part of an account.
    SignedIn {
        /// The account's name.
        name: String,
        /// The device's key.
        device: String,
    },
    /// The device is registered at supernodes and can be called.
    Online {
        /// The account's name.
        name: String,
        /// The device's key.
        device: String,
        /// Addresses of the supernodes, the home first.
        supernodes: Vec<String>,
    },
    /// Somebody calls.
    Incoming {
        /// The call.
        call: String,
        /// Who.
        from: String,
    },
    /// A call was placed, and its devices are being invited.
    Calling {
        /// The call.
        call: String,
        /// Whom.
        to: String,
        /// How many devices are invited.
        devices: usize,
        /// How many supernodes the look-up asked.
        supernodes_asked: u16,
        /// Addresses of the supernodes at which the devices are.
        found_at: Vec<String>,
        /// How long the look-up took.
        look_up_ms: u64,
    },
    /// A device of the callee rings.
    Ringing {
        /// The call.
        call: String,
        /// The device's key.
        device: String,
        /// Time since the call was placed.
        after_ms: u64,
    },
    /// Both speak.
    Connected {
        /// The call.
        call: String,
        /// With whom.
        with: String,
        /// The way the packets go.
        path: String,
        /// Time from placing the call, or from answering it, to here.
        setup_ms: u64,
    },
    /// When the first samples were captured and played, for measuring.
    Media {
        /// The call.
        call: String,
        /// When the first sample of the sound sent was captured, in Unix microseconds.
        play_started_us: u64,
        /// When the first sample of the recording was played, in Unix microseconds.
        record_started_us: u64,
    },
    /// The first sound of the other side was played.
    FirstSound {
        /// The call.
        call: String,
        /// Time since the call was answered here, or the answer arrived here.
        after_ms: u64,
    },
    /// The way the packets go: once after `connected`, and at each change.
    Path {
        /// The call.
        call: String,
        /// `lan`, `direct`, `relay` or `relay-tcp`.
        kind: String,
        /// Round-trip time, once it is known.
        rtt_ms: Option<f64>,
    },
    /// Nothing has come from the other side for two seconds, by any way. The call goes on, with `path`, once something does; otherwise it
    /// ends as `lost`.
    Reconnecting {
        /// The call.
        call: String,
    },
    /// A side holds the call, or goes on with it.
    Hold {
        /// The call.
        call: String,
        /// Which side: `here` or `there`.
        by: String,
        /// Whether it holds.
        on: bool,
    },
    /// What the user can turn while a call runs, after each change.
    Controls {
        /// Whether the microphone is muted.
        muted: bool,
        /// How loud the other side is played, in percent.
        volume: u8,
        /// Whether the microphone is open only while a key is pressed.
        push_to_talk: bool,
        /// Whether it is pressed.
        talking: bool,
    },
    /// A sound device of a call is there, or is not.
    Device {
        /// The call.
        call: String,
        /// `microphone` or `speaker`.
        role: String,
        /// `running`, `missing`, `busy` or `failed`.
        state: String,
        /// The device's name, if it runs.
        name: Option<String>,
    },
    /// Each second of a call.
    Stats(Box<Stats>),
    /// A call is over.
    Ended {
        /// The call.
        call: String,
        /// With whom, or who was called.
        with: String,
        /// Why.
        reason: String,
        /// How long it was connected.
        seconds: f64,
        /// Voice packets received.
        received: u64,
        /// Voice packets of which neither the packet nor a copy came in time.
        lost: u64,
        /// Where the recording is.
        recording: Option<String>,
    },
    /// Something the user should know that ends nothing.
    Warning {
        /// What.
        text: String,
    },
    /// What is set, by default or by the user.
    Settings(Box<SettingsShown>),
    /// What this computer's network lets through, and what that means for calls.
    Doctor(Box<Report>),
    /// The sound devices that there are.
    Devices {
        /// What can be heard by the other side.
        microphones: Vec<DeviceShown>,
        /// What can play the other side, and ring.
        speakers: Vec<DeviceShown>,
    },
    /// The end of a test of the sound devices.
    TestSound {
        /// The microphone.
        microphone: String,
        /// The speaker; null: there is none that works.
        speaker: Option<String>,
        /// How long was recorded.
        seconds: f64,
        /// How loud that was at its loudest, in dB of full scale.
        peak_dbfs: f32,
        /// And on the whole, as a root mean square.
        level_dbfs: f32,
    },
    /// How loud the microphone is, while it is tested.
    Level {
        /// Root mean square, in dB of full scale.
        level_dbfs: f32,
        /// At its loudest.
        peak_dbfs: f32,
    },
    /// A call of the past.
    PastCall(Box<CallRecord>),
    /// The summary of a demo.
    Summary {
        /// Quality of the received file against the sent one (ITU-T P.862.2), 1.0 to 4.6.
        pesq_wb: f64,
        /// From `call` to `connected`.
        setup_ms: u64,
        /// From a sample's capture on one side to its playing on the other.
        mouth_to_ear_ms: f64,
        /// Voice packets lost.
        lost: u64,
        /// The first way the packets went.
        first_path: String,
        /// The last way the packets went.
        last_path: String,
    },
}

/// What is set, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SettingsShown {
    /// The proxy; null: the one that the environment names, if any.
    pub proxy: Option<String>,
    /// `auto` or `never`.
    pub udp: String,
    /// `auto`, `strangers` or `always`.
    pub relay: String,
    /// `on` or `off`.
    pub port_mapping: String,
    /// `auto`, `on` or `off`.
    pub birthday: String,
    /// A device's name, or `default`.
    pub microphone: String,
    /// A device's name, or `default`.
    pub speaker: String,
    /// A device's name, or `default`.
    pub ringer: String,
    /// `on` or `off`.
    pub echo_canceller: String,
    /// `off`, `moderate` or `high`.
    pub noise_suppression: String,
    /// `on` or `off`.
    pub gain_control: String,
    /// In percent.
    pub volume: u8,
    /// In percent.
    pub ring_volume: u8,
    /// `on` or `off`.
    pub push_to_talk: String,
    /// `on` or `off`.
    pub data_saver: String,
}

/// A sound device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShown {
    /// By which it is chosen.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether the system prefers it.
    pub is_default: bool,
}

/// An event and the time at which it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Unix milliseconds.
    pub t_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The word for a kind of NAT in events.
#[must_use]
pub fn mapping_word(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::Unknown => "unknown",
        Mapping::Open => "open",
        Mapping::EndpointIndependent => "endpoint-independent",
        Mapping::EndpointDependent => "endpoint-dependent",
    }
}

/// The short form of a call's id in events.
#[must_use]
pub fn call_word(call: CallId) -> String {
    hex(&call.0[..6])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where events are written.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// As JSON, or as sentences.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Tells one event. A closed standard output is no reason to drop a call.
    pub fn tell(self, event: &Event) {
        let line = if self.json { json_line(event) } else { sentences::sentence(event) };
        if let Some(line) = line {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }
}

/// The event as a line of JSON, stamped with the time.
#[must_use]
pub fn json_line(event: &Event) -> Option<String> {
    let t_ms = ahoy_protocol::UnixMillis::from(SystemTime::now()).0;
    serde_json::to_string(&Stamped { t_ms, event: event.clone() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object_with_its_name_and_time() {
        let line = json_line(&Event::Warning { text: "no microphone".into() }).expect("serialises");
        let value: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        assert_eq!(value["event"], "warning");
        assert_eq!(value["text"], "no microphone");
        assert!(value["t_ms"].as_u64().is_some_and(|t| t > 1_600_000_000_000));
    }

    #[test]
    fn stats_are_flat_too() {
        let line = json_line(&Event::Stats(Box::new(Stats { lost: 3, ..Stats::default() }))).expect("serialises");
        let stamped: Stamped = serde_json::from_str(&line).expect("reads back");
        assert!(matches!(stamped.event, Event::Stats(stats) if stats.lost == 3));
        assert!(line.contains("\"event\":\"stats\""), "{line}");
    }
}
