//! What the program tells its user, as events: one JSON object a line with `--json`, else a sentence.

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
    /// Each second of a call.
    Stats(Stats),
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
    Settings {
        /// The proxy; null: the one that the environment names, if any.
        proxy: Option<String>,
        /// `auto` or `never`.
        udp: String,
        /// `auto`, `strangers` or `always`.
        relay: String,
        /// `on` or `off`.
        port_mapping: String,
        /// `auto`, `on` or `off`.
        birthday: String,
    },
    /// What this computer's network lets through, and what that means for calls.
    Doctor(Box<Report>),
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

/// Figures of a call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// The call.
    pub call: String,
    /// Voice packets sent.
    pub sent: u64,
    /// Voice packets received.
    pub received: u64,
    /// Voice packets of which neither the packet nor a copy came in time.
    pub lost: u64,
    /// Voice packets that came too late to be played.
    pub late: u64,
    /// Sound made up because nothing was there to play.
    pub concealed_ms: u64,
    /// What the jitter buffer aims at.
    pub target_ms: u64,
    /// What is in the jitter buffer.
    pub buffered_ms: u64,
    /// Round-trip time, once it is known.
    pub rtt_ms: Option<f64>,
    /// The way the packets go.
    pub path: String,
    /// The longest time without a voice packet since the last figures.
    #[serde(default)]
    pub gap_ms: u64,
    /// What this device's NAT does with addresses: `open` (there is none), `endpoint-independent`, `endpoint-dependent` or `unknown`.
    #[serde(default)]
    pub mapping: String,
    /// How the router was asked to let this device's port through: `pcp`, `nat-pmp` or `upnp-igd`; `none` if it does not.
    #[serde(default)]
    pub port_mapping: String,
    /// Addresses of this device that the other side was told.
    #[serde(default)]
    pub candidates: usize,
    /// Addresses of the other side that it told.
    #[serde(default)]
    pub peer_candidates: usize,
    /// The relays in use, the one that was joined first at first.
    #[serde(default)]
    pub relays: Vec<RelayFigures>,
}

/// A relay that a call uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RelayFigures {
    /// Where it is.
    pub address: String,
    /// Round-trip time between the two devices through it, once it is known.
    pub rtt_ms: Option<f64>,
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
        let line = if self.json { json_line(event) } else { sentence(event) };
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

/// The event as a person wants to read it; `None` for what only measures.
fn sentence(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered { name } => format!("The account {name} is made."),
        Event::SignedIn { name, .. } => format!("This device is signed in as {name}."),
        Event::Online { name, supernodes, .. } => {
            format!("Online as {name}, at {} supernode{}.", supernodes.len(), if supernodes.len() == 1 { "" } else { "s" })
        }
        Event::Incoming { from, .. } => format!("{from} is calling."),
        Event::Calling { to, devices, .. } => {
            format!("Calling {to} ({devices} device{}) …", if *devices == 1 { "" } else { "s" })
        }
        Event::Ringing { .. } => "It rings.".to_owned(),
        Event::Connected { with, path, .. } => format!("Connected with {with} ({}).", path_words(path)),
        Event::Path { kind, rtt_ms, .. } => match rtt_ms {
            Some(rtt_ms) => format!("The call goes {}, {rtt_ms:.0} ms there and back.", path_words(kind)),
            None => format!("The call goes {}.", path_words(kind)),
        },
        Event::Reconnecting { .. } => "Nothing comes from the other side; reconnecting …".to_owned(),
        Event::Ended { with, reason, seconds, recording, .. } => {
            let recording = recording.as_ref().map(|path| format!(" The recording is {path}.")).unwrap_or_default();
            format!("The call with {with} is over: {}.{recording}", end_words(reason, *seconds))
        }
        Event::Warning { text } => format!("Warning: {text}"),
        Event::Doctor(report) => report.text(),
        Event::Settings { proxy, udp, relay, port_mapping, birthday } => {
            let proxy = proxy.as_deref().unwrap_or("as the environment says");
            format!(
                "proxy         {proxy}\nudp           {udp}\nrelay         {relay}\nport-mapping  {port_mapping}\nbirthday      {birthday}"
            )
        }
        Event::Media { .. } | Event::FirstSound { .. } | Event::Stats(_) | Event::Summary { .. } => return None,
    })
}

fn path_words(kind: &str) -> &str {
    match kind {
        "lan" => "directly, on this network",
        "direct" => "directly",
        "relay" => "through a relay",
        "relay-tcp" => "through a relay, over TCP",
        other => other,
    }
}

fn end_words(reason: &str, seconds: f64) -> String {
    match reason {
        "hung-up" => format!("hung up after {seconds:.0} s"),
        "declined" => "declined".to_owned(),
        "busy" => "the other side is in another call; try again later".to_owned(),
        "missed" => "nobody answered".to_owned(),
        "unreachable" => "no device of theirs can be reached now".to_owned(),
        "cancelled" => "cancelled".to_owned(),
        "answered-elsewhere" => "answered on another device".to_owned(),
        "lost" => format!("the connection was lost after {seconds:.0} s"),
        other => other.to_owned(),
    }
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
        let line = json_line(&Event::Stats(Stats { lost: 3, ..Stats::default() })).expect("serialises");
        let stamped: Stamped = serde_json::from_str(&line).expect("reads back");
        assert!(matches!(stamped.event, Event::Stats(Stats { lost: 3, .. })));
        assert!(line.contains("\"event\":\"stats\""), "{line}");
    }
}
