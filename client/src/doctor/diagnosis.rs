//! From facts to findings: what they mean for calls, and what to do. Pure: the same facts give the same findings.

use super::facts::{Facts, LoginAnswer, Membership, PortMapping, SoundDevice};
use crate::reach::RelayPolicy;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::invitation::SIGNAL_AGE_MAX;
use ahoy_protocol::peer::Mapping;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A clock so wrong, in seconds, will soon be too wrong.
const CLOCK_DOUBTFUL_S: u64 = 20;
/// Sound that takes so long to a relay and back is noticed: with the other side's way it is more than the 300 ms that people bear.
const FAR: Duration = Duration::from_millis(200);
/// A relay with so much of its limit in use may soon refuse.
const LOAD_HIGH_PERCENT: u8 = 90;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; calls connect.
    Note,
    /// Something is wrong.
    Problem,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// This computer's connection.
    Network,
    /// The account.
    Account,
    /// This computer's clock.
    Clock,
    /// The login server.
    Login,
    /// Supernodes.
    Supernodes,
    /// Relays.
    Relays,
    /// Whether UDP gets through.
    Udp,
    /// The router.
    Router,
    /// Asking the router.
    PortMapping,
    /// IPv6.
    Ipv6,
    /// The proxy.
    Proxy,
    /// Settings that change how calls go.
    Settings,
    /// Sound devices.
    Sound,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// About what.
    pub subject: Subject,
    /// How good it is.
    pub level: Level,
    /// What it is, in a sentence.
    pub text: String,
    /// What to do about it, in a sentence.
    pub advice: Option<String>,
}

/// How calls of this computer will go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calls {
    /// Straight, with whoever it may be.
    Direct,
    /// Straight with most people, through a relay with those behind difficult routers.
    MostlyDirect,
    /// Through a relay with many people.
    OftenRelayed,
    /// Through a relay always.
    Relayed,
    /// Through a relay over TCP: with delays where the connection loses packets.
    RelayedByTcp,
    /// Not at all.
    None,
}

impl Calls {
    /// What to expect, in a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Direct => "Calls connect, and go straight from this computer to the other.",
            Self::MostlyDirect => "Calls connect, and go straight to the other computer with most people, through a relay with the others.",
            Self::OftenRelayed => "Calls connect. They go straight with some people and through a relay with many.",
            Self::Relayed => "Calls connect, always through a relay.",
            Self::RelayedByTcp => "Calls connect, through a relay over TCP: the sound may come late now and then.",
            Self::None => "Calls cannot be made.",
        }
    }
}

/// What the facts mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// How calls will go.
    pub calls: Calls,
    /// All that was found, in the order in which it is told.
    pub findings: Vec<Finding>,
}

/// Draws the conclusions.
#[must_use]
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let mut found = Findings::default();
    account(facts, &mut found);
    let is_connected = network(facts, &mut found);
    if is_connected && facts.login.is_some() {
        login(facts, &mut found);
        supernodes(facts, &mut found);
        relays(facts, &mut found);
        udp(facts, &mut found);
        router(facts, &mut found);
    }
    proxy(facts, &mut found);
    settings(facts, &mut found);
    sound(facts, &mut found);
    Diagnosis { calls: calls(facts, is_connected), findings: found.0 }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, subject: Subject, text: impl Into<String>) {
        self.0.push(Finding { subject, level: Level::Ok, text: text.into(), advice: None });
    }

    fn note(&mut self, subject: Subject, text: impl Into<String>, advice: Option<&str>) {
        self.0.push(Finding { subject, level: Level::Note, text: text.into(), advice: advice.map(str::to_owned) });
    }

    fn problem(&mut self, subject: Subject, text: impl Into<String>, advice: &str) {
        self.0.push(Finding { subject, level: Level::Problem, text: text.into(), advice: Some(advice.to_owned()) });
    }
}

fn account(facts: &Facts, found: &mut Findings) {
    match &facts.membership {
        Membership::SignedIn { name } if facts.is_running => {
            found.ok(Subject::Account, format!("Signed in as {name}; another ahoy is running with this account."));
        }
        Membership::SignedIn { name } => found.ok(Subject::Account, format!("Signed in as {name}.")),
        Membership::Guest => {
            found.note(Subject::Account, "Nobody is signed in here; the network of the link was looked at.", Some("Sign in to make calls."));
        }
        Membership::Nobody => found.problem(
            Subject::Account,
            "Nobody is signed in here, so no network is known that could be looked at.",
            "Use `ahoy register NAME --network LINK` or `ahoy sign-in NAME --network LINK`; `ahoy doctor --network LINK` looks at a network before that.",
        ),
        Membership::Damaged(reason) => found.problem(Subject::Account, format!("The account here cannot be used: {reason}"), "Sign in again."),
    }
}

/// False where this computer is connected to nothing.
fn network(facts: &Facts, found: &mut Findings) -> bool {
    let is_somewhere = !facts.addresses.is_empty() || facts.nodes.iter().any(super::facts::Node::is_reached);
    if !is_somewhere {
        found.problem(
            Subject::Network,
            "This computer is not connected to any network.",
            "Plug the cable in, or connect to a Wi-Fi; then look again.",
        );
        return false;
    }
    let kinds = |is_v4: bool| facts.addresses.iter().filter(|own| own.address.is_ipv4() == is_v4 && !own.is_vpn).count();
    let text = match (kinds(true), kinds(false)) {
        (0, 0) => "This computer is connected through a virtual private network.".to_owned(),
        (_, 0) => "This computer has an IPv4 address.".to_owned(),
        (0, _) => "This computer has IPv6 addresses alone.".to_owned(),
        (_, _) => "This computer has IPv4 and IPv6 addresses.".to_owned(),
    };
    found.ok(Subject::Network, if facts.addresses.is_empty() { "The whole network is on this computer.".to_owned() } else { text });
    if facts.addresses.iter().any(|own| own.is_vpn) {
        let advice = "If calls are slow, try without it.";
        found.note(Subject::Network, "A virtual private network is active; calls may take the way through it.", Some(advice));
    }
    true
}

fn login(facts: &Facts, found: &mut Findings) {
    let Some(login) = &facts.login else { return };
    let reaches_nodes = facts.nodes.iter().any(super::facts::Node::is_reached);
    match &login.answer {
        LoginAnswer::Fine { took, clock_ahead_s } => {
            found.ok(Subject::Login, format!("The login server answers within {} ms.", took.as_millis()));
            clock(*clock_ahead_s, found);
        }
        LoginAnswer::Silent(reason) if reaches_nodes => found.note(
            Subject::Login,
            format!("The login server at {} does not answer ({reason}). Calls work without it for days.", login.address),
            Some("If it stays so, tell whoever runs the network. Signing in needs it."),
        ),
        LoginAnswer::Silent(reason) => {
            let advice = "Check that this computer is connected to the internet: open a page in a browser. A Wi-Fi may want you to log in there first. \
                 Where only a proxy leads out, `ahoy settings set proxy http://HOST:PORT`.";
            found.problem(Subject::Login, format!("The login server at {} does not answer ({reason}).", login.address), advice);
        }
        LoginAnswer::Stranger if reaches_nodes => found.problem(
            Subject::Login,
            format!("Somebody else answers at {} in the login server's place.", login.address),
            "Do not type your password. Ask whoever runs the network; a company's proxy may look into connections.",
        ),
        LoginAnswer::Stranger => found.problem(
            Subject::Login,
            format!("Somebody else answers at {} in the login server's place.", login.address),
            "Open a page in a browser: this Wi-Fi may want you to log in there first. Do not type your password of Ahoy there.",
        ),
        LoginAnswer::Strange(reason) => found.problem(
            Subject::Login,
            format!("The login server at {} gives an answer that cannot be used: {reason}.", login.address),
            "Set this computer's clock right, and install the newest version; if that does not help, tell whoever runs the network.",
        ),
    }
}

fn clock(ahead_s: Option<i64>, found: &mut Findings) {
    let Some(ahead_s) = ahead_s else { return };
    let off_s = ahead_s.unsigned_abs();
    let text = || format!("This computer's clock is {} {}.", length(off_s), if ahead_s > 0 { "ahead" } else { "behind" });
    let advice = "Let the system set its clock by itself (date and time in the system's settings).";
    if is_clock_wrong(ahead_s) {
        found.problem(Subject::Clock, format!("{} Others take its calls for old ones and drop them.", text()), advice);
    } else if off_s > CLOCK_DOUBTFUL_S {
        found.note(Subject::Clock, text(), Some(advice));
    } else {
        found.ok(Subject::Clock, "This computer's clock is right.");
    }
}

/// True if signals would count as too old: those of this computer at others, or others' here.
fn is_clock_wrong(ahead_s: i64) -> bool {
    ahead_s.unsigned_abs() >= SIGNAL_AGE_MAX.as_secs()
}

fn length(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn supernodes(facts: &Facts, found: &mut Findings) {
    let all = facts.nodes_in(NodeRole::Supernode).count();
    let reached = facts.nodes_in(NodeRole::Supernode).filter(|node| node.is_reached()).count();
    match (reached, all) {
        (_, 0) => found.problem(Subject::Supernodes, "The network lists no supernode.", "Tell whoever runs the network."),
        (0, _) => found.problem(
            Subject::Supernodes,
            format!("{}, over UDP or TCP.", none_of(all, "supernode")),
            "This network may block everything but the web: try another one, such as a telephone's, or set the proxy that it has.",
        ),
        (reached, all) if reached < all => {
            found.note(Subject::Supernodes, format!("{} can be reached.", some_of(reached, all, "supernode")), None);
        }
        (_, all) => found.ok(Subject::Supernodes, format!("{} can be reached.", some_of(all, all, "supernode"))),
    }
}

fn relays(facts: &Facts, found: &mut Findings) {
    let all = facts.nodes_in(NodeRole::Relay).count();
    let reached: Vec<_> = facts.nodes_in(NodeRole::Relay).filter(|node| node.is_reached()).collect();
    if all == 0 {
        return found.problem(
            Subject::Relays,
            "The network lists no relay, and every call begins on one.",
            "Tell whoever runs the network.",
        );
    }
    if !facts.nodes.iter().any(super::facts::Node::is_reached) {
        // Said of the supernodes already, and the cause is the same.
        return;
    }
    let nearest = reached.iter().filter_map(|node| node.udp).min();
    match (reached.is_empty(), nearest) {
        (true, _) => found.problem(
            Subject::Relays,
            format!("{}, and every call begins on one.", none_of(all, "relay")),
            "Try again in a minute; if it stays so, tell whoever runs the network.",
        ),
        (false, Some(nearest)) if nearest > FAR => found.note(
            Subject::Relays,
            format!("The nearest relay is {} ms away: relayed calls will have a noticeable delay.", nearest.as_millis()),
            Some("Ask whoever runs the network for a relay near you."),
        ),
        (false, Some(nearest)) => found.ok(
            Subject::Relays,
            format!("{} can be reached; the nearest is {} ms away.", some_of(reached.len(), all, "relay"), nearest.as_millis()),
        ),
        (false, None) => {
            found.ok(Subject::Relays, format!("{} can be reached, over TCP.", some_of(reached.len(), all, "relay")));
        }
    }
    let is_full = |load: Option<u8>| load.is_some_and(|load| load >= LOAD_HIGH_PERCENT);
    if !reached.is_empty() && reached.iter().all(|node| is_full(node.load_percent)) {
        found.note(Subject::Relays, "All relays are nearly full.", Some("Tell whoever runs the network."));
    }
}

fn some_of(reached: usize, all: usize, what: &str) -> String {
    match (reached, all) {
        (1, 1) => format!("The {what}"),
        (reached, all) if reached == all => format!("All {all} {what}s"),
        (reached, all) => format!("{reached} of {all} {what}s"),
    }
}

fn none_of(all: usize, what: &str) -> String {
    if all == 1 { format!("The {what} cannot be reached") } else { format!("None of the {all} {what}s can be reached") }
}

fn udp(facts: &Facts, found: &mut Findings) {
    match udp_state(facts) {
        Udp::Through => found.ok(Subject::Udp, "UDP gets through."),
        Udp::Off => found.note(
            Subject::Udp,
            "UDP is switched off in the settings, so calls go over TCP.",
            Some("`ahoy settings unset udp` lets calls take the better way."),
        ),
        Udp::Blocked => found.problem(
            Subject::Udp,
            "UDP does not get through: calls go over TCP, where a lost packet delays those behind it.",
            "Ask whoever runs this network to let UDP out, or use another network where you can.",
        ),
        Udp::Unknown => {}
    }
}

#[derive(PartialEq, Eq)]
enum Udp {
    Through,
    Blocked,
    Off,
    Unknown,
}

fn udp_state(facts: &Facts) -> Udp {
    match () {
        () if facts.is_udp_off => Udp::Off,
        () if facts.nodes.iter().any(|node| node.udp.is_some()) => Udp::Through,
        () if facts.nodes.iter().any(|node| node.tcp.is_some()) => Udp::Blocked,
        () => Udp::Unknown,
    }
}

fn router(facts: &Facts, found: &mut Findings) {
    if udp_state(facts) != Udp::Through {
        return;
    }
    match facts.nat.mapping {
        Mapping::Open => found.ok(Subject::Router, "This computer has an address of its own on the internet."),
        Mapping::EndpointIndependent => {
            let port = if facts.nat.preserves_port { ", and keeps the port" } else { "" };
            found.ok(Subject::Router, format!("The router is an easy one: it shows this computer to everybody at the same address{port}."));
        }
        Mapping::EndpointDependent if has_open_way(facts) => {
            found.note(Subject::Router, "The router shows this computer to each other one at a different address; there is another way past it.", None);
        }
        Mapping::EndpointDependent => found.note(
            Subject::Router,
            "The router is a difficult one: it shows this computer to each other one at a different address.",
            Some("Switch UPnP, NAT-PMP or PCP on in the router's settings, or IPv6. Until then calls with people behind strict routers take a relay."),
        ),
        Mapping::Unknown => {
            found.note(Subject::Router, "What kind of router this is cannot be told: fewer than two nodes answered.", None);
        }
    }
    port_mapping(facts, found);
    if facts.nat.has_ipv6 {
        found.ok(Subject::Ipv6, "IPv6 works.");
    } else if facts.nat.mapping == Mapping::EndpointDependent {
        found.note(Subject::Ipv6, "There is no IPv6 to the network's nodes.", None);
    }
}

fn port_mapping(facts: &Facts, found: &mut Findings) {
    match &facts.port_mapping {
        PortMapping::Mapped { protocol, is_double_nat: false, .. } => {
            found.ok(Subject::PortMapping, format!("The router lets calls through when asked ({protocol})."));
        }
        PortMapping::Mapped { protocol, is_double_nat: true, .. } => found.note(
            Subject::PortMapping,
            format!("The router lets calls through when asked ({protocol}), but is itself behind another router."),
            Some("If both are yours, let one of them be a bridge; if the other one is your provider's, ask for a public address or IPv6."),
        ),
        PortMapping::None(reason) if facts.nat.mapping != Mapping::Open => {
            let advice = "Switching UPnP, NAT-PMP or PCP on in the router's settings lets more calls go straight.";
            found.note(Subject::PortMapping, format!("The router cannot be asked to let calls through: {reason}."), Some(advice));
        }
        PortMapping::Off => {
            let advice = "`ahoy settings unset port-mapping` lets more calls go straight.";
            found.note(Subject::PortMapping, "Asking the router to let calls through is switched off in the settings.", Some(advice));
        }
        PortMapping::None(_) | PortMapping::NotAsked => {}
    }
}

/// True if anybody can send to this computer without luck.
fn has_open_way(facts: &Facts) -> bool {
    matches!(facts.port_mapping, PortMapping::Mapped { is_double_nat: false, .. })
}

fn proxy(facts: &Facts, found: &mut Findings) {
    if let Some(reason) = &facts.proxy_problem {
        let advice = "Set the right one with `ahoy settings set proxy http://HOST:PORT`, or `none`.";
        found.problem(Subject::Proxy, format!("The proxy that the environment names cannot be used: {reason}."), advice);
    }
    let Some(proxy) = &facts.proxy else { return };
    let leads_out = facts.nodes.iter().any(|node| node.tcp.is_some());
    if leads_out || facts.login.is_none() {
        found.ok(Subject::Proxy, format!("Connections over TCP go through the proxy {proxy}."));
    } else {
        let advice = "Check the address of the proxy, its user name and password, and whether it lets through what is no web page; \
             `ahoy settings set proxy none` does without it.";
        found.problem(Subject::Proxy, format!("Nothing can be reached through the proxy {proxy}."), advice);
    }
}

fn settings(facts: &Facts, found: &mut Findings) {
    if let Some(reason) = &facts.settings_problem {
        found.problem(
            Subject::Settings,
            format!("The settings cannot be read: {reason}."),
            "Until then everything is as by default here, and nothing else starts.",
        );
    }
    let text = match facts.relay {
        RelayPolicy::Auto => return,
        RelayPolicy::Strangers => "Calls with people this computer does not know stay on a relay, as set.",
        RelayPolicy::Always => "All calls stay on a relay, as set.",
    };
    found.note(
        Subject::Settings,
        text,
        Some("`ahoy settings unset relay` lets them go straight; the others then learn this computer's address."),
    );
}

fn sound(facts: &Facts, found: &mut Findings) {
    if let (SoundDevice::Works(input), SoundDevice::Works(output)) = (&facts.sound.input, &facts.sound.output) {
        return found.ok(Subject::Sound, format!("Sound works: microphone \u{201c}{input}\u{201d}, loudspeaker \u{201c}{output}\u{201d}."));
    }
    let mut bad = |device: &SoundDevice, what: &str, then: &str| match device {
        SoundDevice::Works(_) => {}
        SoundDevice::Missing => found.problem(Subject::Sound, format!("There is no {what}: {then}."), "Connect one, or a headset."),
        SoundDevice::Broken(reason) => found.problem(
            Subject::Sound,
            format!("The {what} does not work: {then} ({reason})."),
            "Check its connection, the system's sound settings, and that no other program holds it.",
        ),
    };
    bad(&facts.sound.input, "microphone", "others will hear nothing");
    bad(&facts.sound.output, "loudspeaker", "you will hear nothing");
}

fn calls(facts: &Facts, is_connected: bool) -> Calls {
    let reaches = |role| facts.nodes_in(role).any(super::facts::Node::is_reached);
    let is_late = facts
        .login
        .as_ref()
        .is_some_and(|login| matches!(login.answer, LoginAnswer::Fine { clock_ahead_s: Some(ahead_s), .. } if is_clock_wrong(ahead_s)));
    let has_network = matches!(facts.membership, Membership::SignedIn { .. } | Membership::Guest);
    if !is_connected || !has_network || is_late || !reaches(NodeRole::Supernode) || !reaches(NodeRole::Relay) {
        return Calls::None;
    }
    if udp_state(facts) != Udp::Through {
        return Calls::RelayedByTcp;
    }
    match facts.nat.mapping {
        _ if facts.relay == RelayPolicy::Always => Calls::Relayed,
        Mapping::Open => Calls::Direct,
        _ if has_open_way(facts) => Calls::Direct,
        Mapping::EndpointIndependent => Calls::MostlyDirect,
        _ if facts.nat.has_ipv6 => Calls::MostlyDirect,
        Mapping::EndpointDependent | Mapping::Unknown => Calls::OftenRelayed,
    }
}

#[cfg(test)]
#[path = "diagnosis_tests.rs"]
mod tests;
