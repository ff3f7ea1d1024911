//! What the doctor has seen: facts without judgement.

use crate::reach::RelayPolicy;
use ahoy_portmap::Protocol;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::peer::Mapping;
use std::net::SocketAddr;
use std::time::Duration;

/// All that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose network was looked at.
    pub membership: Membership,
    /// Whether another ahoy runs on this home.
    pub is_running: bool,
    /// Addresses of this computer that lead out of it.
    pub addresses: Vec<OwnAddress>,
    /// The login server; `None` where no network is known.
    pub login: Option<Login>,
    /// The supernodes and relays that were tried.
    pub nodes: Vec<Node>,
    /// What the router does with addresses.
    pub nat: Nat,
    /// Whether the router lets the port through when asked.
    pub port_mapping: PortMapping,
    /// The proxy in use, without its password.
    pub proxy: Option<String>,
    /// Why the proxy that the environment or the settings name is not used.
    pub proxy_problem: Option<String>,
    /// Why the settings are not followed.
    pub settings_problem: Option<String>,
    /// UDP is switched off in the settings.
    pub is_udp_off: bool,
    /// Whose calls stay on relays.
    pub relay: RelayPolicy,
    /// The microphone and the loudspeaker.
    pub sound: Sound,
}

/// Whose network was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// That of the account in the home.
    SignedIn {
        /// The account's name.
        name: String,
    },
    /// One that a link names, without an account.
    Guest,
    /// None: nobody has signed in here.
    Nobody,
    /// None: the home cannot be read.
    Damaged(String),
}

/// An address of this computer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    /// It, with the port that was used.
    pub address: SocketAddr,
    /// It is that of a virtual private network.
    pub is_vpn: bool,
}

/// The login server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `HOST:PORT`.
    pub address: String,
    /// How it answered.
    pub answer: LoginAnswer,
}

/// How the login server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginAnswer {
    /// As it should.
    Fine {
        /// How long the connection and the answer took.
        took: Duration,
        /// How far this computer's clock is ahead of the server's, in seconds; `None` if the server does not tell.
        clock_ahead_s: Option<i64>,
    },
    /// Not at all.
    Silent(String),
    /// Somebody else answered.
    Stranger,
    /// In a way that makes no sense, or cannot be trusted.
    Strange(String),
}

/// A supernode or relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub role: NodeRole,
    /// Where it is: the address that answered, else the first.
    pub address: SocketAddr,
    /// The round trip over UDP; `None` if nothing came back.
    pub udp: Option<Duration>,
    /// How long a connection over TCP took; `None` if there was none.
    pub tcp: Option<Duration>,
    /// Whether it can be reached over TCP at all, by what the roster says.
    pub offers_tcp: bool,
    /// Share of its limit in use, in percent.
    pub load_percent: Option<u8>,
}

/// What the router does with addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Whether it gives the port one outer address or one for each destination.
    pub mapping: Mapping,
    /// Whether the port stays the same.
    pub preserves_port: bool,
    /// This computer as nodes see it.
    pub outside: Vec<SocketAddr>,
    /// Whether a node answered over IPv6.
    pub has_ipv6: bool,
}

/// Whether the router lets the port through when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMapping {
    /// The settings say not to ask.
    Off,
    /// There is nothing to ask: the whole network is on this machine, or there is none.
    NotAsked,
    /// It does.
    Mapped {
        /// How it was asked.
        protocol: Protocol,
        /// The addresses outside.
        addresses: Vec<SocketAddr>,
        /// The router is behind another.
        is_double_nat: bool,
    },
    /// It does not, and why.
    None(String),
}

/// Sound devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// The microphone.
    pub input: SoundDevice,
    /// The loudspeaker.
    pub output: SoundDevice,
}

/// What became of opening a sound device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SoundDevice {
    /// It runs, under this name.
    Works(String),
    /// There is none.
    Missing,
    /// There is one, and it does not work; why.
    Broken(String),
}

impl Facts {
    /// The nodes of a role.
    pub fn nodes_in(&self, role: NodeRole) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }
}

impl Node {
    /// True if it answered in some way.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.udp.is_some() || self.tcp.is_some()
    }
}
