//! How a device may reach the network and be reached, as its user wants it.

use crate::power::is_on_mains;
use ahoy_protocol::NetworkLink;
use ahoy_transport::{Proxy, Reach, UdpUse};

/// What the user wants. The default is what connects most calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachSettings {
    /// What connections over TCP go through.
    pub proxy: Option<Proxy>,
    /// Whether UDP is used.
    pub udp: UdpUse,
    /// Whose calls stay on relays.
    pub relay: RelayPolicy,
    /// Whether the router is asked to let this device's port through.
    pub port_mapping: bool,
    /// Whether many ports may be tried to cross a difficult router, which costs thousands of packets.
    pub birthday: BirthdayPolicy,
}

/// Whose calls stay on relays, so that the other side learns no address of this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RelayPolicy {
    /// Nobody's, once they are answered.
    #[default]
    Auto,
    /// Those with people with whom this device had nothing to do before this call.
    Strangers,
    /// Everybody's.
    Always,
}

/// When many ports may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BirthdayPolicy {
    /// While the computer is plugged in.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl BirthdayPolicy {
    /// Whether they may be tried now.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        match self {
            Self::Auto => is_on_mains(),
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl Default for ReachSettings {
    fn default() -> Self {
        Self { proxy: None, udp: UdpUse::Prefer, relay: RelayPolicy::Auto, port_mapping: true, birthday: BirthdayPolicy::Auto }
    }
}

impl ReachSettings {
    /// The URL of the proxy through which the login server of `link` is reached, with its password.
    #[must_use]
    pub fn login_proxy(&self, link: &NetworkLink) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        proxy.is_for_host(&link.host).then(|| proxy.to_url())
    }

    /// The transport's part.
    #[must_use]
    pub fn of_transport(&self) -> Reach {
        Reach { proxy: self.proxy.clone(), udp: self.udp }
    }
}

impl RelayPolicy {
    /// True if a call stays on relays; `is_stranger`: this device has not had a call with the other side that was answered.
    #[must_use]
    pub fn keeps_on_relays(self, is_stranger: bool) -> bool {
        match self {
            Self::Auto => false,
            Self::Strangers => is_stranger,
            Self::Always => true,
        }
    }
}
