//! What the doctor found, for people to read and for scripts.

use super::diagnosis::{Calls, Diagnosis, Finding, Level};
use super::facts::{Facts, LoginAnswer, PortMapping, SoundDevice};
use crate::events::mapping_word;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::Duration;

/// The fields of the `doctor` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether calls can be made at all.
    pub can_call: bool,
    /// How they will go.
    pub calls: Calls,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Addresses of this computer that lead out of it.
    pub addresses: Vec<AddressFigures>,
    /// The login server; null where no network is known.
    pub login: Option<LoginFigures>,
    /// Supernodes and relays.
    pub nodes: Vec<NodeFigures>,
    /// What the router does with addresses: `open` (there is none), `endpoint-independent`, `endpoint-dependent` or `unknown`.
    pub mapping: String,
    /// Whether the port stays the same outside.
    pub preserves_port: bool,
    /// This computer as nodes see it.
    pub outside: Vec<String>,
    /// Whether a node answered over IPv6.
    pub ipv6: bool,
    /// Whether the router lets the port through when asked.
    pub port_mapping: PortMappingFigures,
    /// The proxy in use, without its password.
    pub proxy: Option<String>,
    /// The microphone; null if there is none that works.
    pub microphone: Option<String>,
    /// The loudspeaker; null if there is none that works.
    pub loudspeaker: Option<String>,
}

/// An address of this computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFigures {
    /// It.
    pub ip: String,
    /// Whether it is a virtual private network's.
    pub vpn: bool,
}

/// The login server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoginFigures {
    /// `HOST:PORT`.
    pub address: String,
    /// How long its answer took; null if there was none that can be used.
    pub ms: Option<f64>,
    /// How far this computer's clock is ahead of its, in seconds.
    pub clock_ahead_s: Option<i64>,
    /// Why there was no answer that can be used.
    pub problem: Option<String>,
}

/// A supernode or relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFigures {
    /// `supernode` or `relay`.
    pub role: String,
    /// Where it is.
    pub address: String,
    /// The round trip over UDP; null if nothing came back.
    pub udp_ms: Option<f64>,
    /// How long a connection over TCP took; null if there was none.
    pub tcp_ms: Option<f64>,
    /// Share of its limit in use.
    pub load_percent: Option<u8>,
}

/// Whether the router lets the port through when asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMappingFigures {
    /// `pcp`, `nat-pmp`, `upnp-igd`, or `none`.
    pub protocol: String,
    /// The addresses outside.
    pub addresses: Vec<String>,
    /// Whether the router is behind another.
    pub double_nat: bool,
    /// Why nothing is mapped.
    pub problem: Option<String>,
}

impl Report {
    /// Puts facts and conclusions together.
    #[must_use]
    pub(super) fn new(facts: &Facts, diagnosis: Diagnosis) -> Self {
        Self {
            can_call: diagnosis.calls != Calls::None,
            calls: diagnosis.calls,
            findings: diagnosis.findings,
            addresses: facts.addresses.iter().map(|own| AddressFigures { ip: own.address.ip().to_string(), vpn: own.is_vpn }).collect(),
            login: facts.login.as_ref().map(|login| login_figures(&login.address, &login.answer)),
            nodes: facts
                .nodes
                .iter()
                .map(|node| NodeFigures {
                    role: node.role.to_string(),
                    address: node.address.to_string(),
                    udp_ms: node.udp.map(in_ms),
                    tcp_ms: node.tcp.map(in_ms),
                    load_percent: node.load_percent,
                })
                .collect(),
            mapping: mapping_word(facts.nat.mapping).to_owned(),
            preserves_port: facts.nat.preserves_port,
            outside: facts.nat.outside.iter().map(ToString::to_string).collect(),
            ipv6: facts.nat.has_ipv6,
            port_mapping: port_mapping_figures(&facts.port_mapping),
            proxy: facts.proxy.clone(),
            microphone: device_name(&facts.sound.input),
            loudspeaker: device_name(&facts.sound.output),
        }
    }

    /// Why no call can be made, in a sentence; `None` if calls can be made.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let problem = || self.findings.iter().find(|finding| finding.level == Level::Problem).map(|finding| finding.text.clone());
        (!self.can_call).then(|| format!("calls cannot be made. {}", problem().unwrap_or_default()))
    }

    /// The findings as a list, the nodes as a table, and what it comes to.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Ok => "ok      ",
                Level::Note => "note    ",
                Level::Problem => "PROBLEM ",
            };
            let _ = writeln!(text, "{mark} {}", finding.text);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "         -> {advice}");
            }
        }
        if !self.nodes.is_empty() {
            text.push('\n');
        }
        for node in &self.nodes {
            let ms = |ms: Option<f64>| ms.map_or_else(|| "nothing".to_owned(), |ms| format!("{ms:.0} ms"));
            let load = node.load_percent.map(|load| format!("   {load} % in use")).unwrap_or_default();
            let _ = writeln!(text, "{:<10} {:<24} UDP {:<8} TCP {:<8}{load}", node.role, node.address, ms(node.udp_ms), ms(node.tcp_ms));
        }
        let _ = write!(text, "\n{}", self.calls.sentence());
        text
    }
}

fn login_figures(address: &str, answer: &LoginAnswer) -> LoginFigures {
    let (ms, clock_ahead_s, problem) = match answer {
        LoginAnswer::Fine { took, clock_ahead_s } => (Some(in_ms(*took)), *clock_ahead_s, None),
        LoginAnswer::Silent(reason) | LoginAnswer::Strange(reason) => (None, None, Some(reason.clone())),
        LoginAnswer::Stranger => (None, None, Some("somebody else answers in its place".to_owned())),
    };
    LoginFigures { address: address.to_owned(), ms, clock_ahead_s, problem }
}

fn port_mapping_figures(mapping: &PortMapping) -> PortMappingFigures {
    let none =
        |problem: Option<String>| PortMappingFigures { protocol: "none".to_owned(), addresses: Vec::new(), double_nat: false, problem };
    match mapping {
        PortMapping::Off => none(Some("it is switched off in the settings".to_owned())),
        PortMapping::NotAsked => none(None),
        PortMapping::None(reason) => none(Some(reason.clone())),
        PortMapping::Mapped { protocol, addresses, is_double_nat } => PortMappingFigures {
            protocol: protocol.as_str().to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            double_nat: *is_double_nat,
            problem: None,
        },
    }
}

fn device_name(device: &SoundDevice) -> Option<String> {
    match device {
        SoundDevice::Works(name) => Some(name.clone()),
        SoundDevice::Missing | SoundDevice::Broken(_) => None,
    }
}

fn in_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
