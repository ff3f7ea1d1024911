//! Routers between a network of clients and the internet, or another router: the kinds of address translation that are met (RFC 4787), made with
//! nftables, and a stateful firewall for IPv6.

use crate::namespaces::Lab;
use crate::network::Spot;
use crate::system::{nft, run, sysctl};
use std::net::{IpAddr, Ipv6Addr};

/// How long a mapping of a router that lets others in lives without a packet from inside.
const MAPPING_SECONDS: u32 = 120;
/// Where a router with ports of its own begins with them, and how many it has.
const OWN_PORTS: (u32, u32) = (20_000, 20_000);

/// How a router translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Keeps the client's port where it can, whoever the packet goes to: the mapping is the same for all. Lets in what somebody was asked for.
    PortPreserving,
    /// Gives a port of its own, the same whoever the packet goes to; another one after a [`reboot`](Router::reboot). Lets in what was asked for.
    OwnPorts,
    /// Keeps the port, and lets in everything from an address that was sent to, whatever the port there.
    AddressRestricted,
    /// Keeps the port, and lets in everything: a full cone.
    FullCone,
    /// A random port for each destination: nobody can tell the port from what another one saw. Lets in what was asked for.
    RandomPorts,
    /// As a provider has it for many homes: ports of its own, lets everything in, and its clients reach one another by their outer addresses.
    Carrier,
}

/// A router.
#[derive(Debug)]
pub struct Router {
    pub(crate) namespace: String,
    /// Its address outside.
    pub ip: IpAddr,
    kind: Kind,
    /// The addresses behind it: all but the last number.
    subnet: String,
    clients: u8,
    /// How often it was started.
    starts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nat(Nat),
    FirewallV6,
}

impl Lab {
    /// A client in a network of its own, and the router that stands between it and the internet.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn behind_nat(&mut self, name: &str, nat: Nat) -> (Spot, Router) {
        let mut router = self.router(&format!("{name}-router"), nat);
        (self.neighbour(name, &mut router), router)
    }

    /// A client with nothing but IPv6, and the router whose firewall lets in only what was asked for.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn behind_firewall_v6(&mut self, name: &str) -> (Spot, Router) {
        let mut router = self.router_v6(&format!("{name}-router"));
        (self.neighbour(name, &mut router), router)
    }

    /// A router on the internet, with nobody behind it yet.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn router(&mut self, name: &str, nat: Nat) -> Router {
        let namespace = self.namespace(name);
        let ip = self.plug_in(&namespace, "wan");
        let subnet = self.next_subnet(nat);
        Router::start(namespace, ip.into(), Kind::Nat(nat), subnet)
    }

    /// A router whose internet is the network behind `outer`.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn router_behind(&mut self, name: &str, nat: Nat, outer: &mut Router) -> Router {
        let namespace = self.namespace(name);
        let ip = outer.attach(&namespace, "wan");
        let subnet = self.next_subnet(nat);
        Router::start(namespace, ip, Kind::Nat(nat), subnet)
    }

    /// A router on the IPv6 internet, with nobody behind it yet.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn router_v6(&mut self, name: &str) -> Router {
        let namespace = self.namespace(name);
        let ip: Ipv6Addr = self.plug_in_v6(&namespace, "wan");
        self.networks += 1;
        let subnet = format!("2001:db8:{:x}::", 0x10 + u16::from(self.networks));
        self.announce_v6(&format!("{subnet}/64"), ip, &namespace);
        Router::start(namespace, ip.into(), Kind::FirewallV6, subnet)
    }

    /// One more client in the network behind `router`.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn neighbour(&mut self, name: &str, router: &mut Router) -> Spot {
        let client = self.namespace(name);
        let ip = router.attach(&client, "eth0");
        Spot::within(&client, ip)
    }

    fn next_subnet(&mut self, nat: Nat) -> String {
        self.networks += 1;
        match nat {
            Nat::Carrier => format!("100.64.{}.", self.networks),
            _ if self.has_equal_networks => "192.168.1.".to_owned(),
            _ => format!("192.168.{}.", 10 + self.networks),
        }
    }
}

impl Router {
    fn start(namespace: String, ip: IpAddr, kind: Kind, subnet: String) -> Self {
        let mut router = Self { namespace, ip, kind, subnet, clients: 0, starts: 0 };
        run("ip", &["-n", &router.namespace, "link", "add", "lan", "type", "bridge"]);
        add_address(&router.namespace, "lan", &router.inner_ip().to_string(), router.is_v6());
        run("ip", &["-n", &router.namespace, "link", "set", "lan", "up"]);
        let forward = match kind {
            Kind::Nat(_) => "net.ipv4.ip_forward=1",
            Kind::FirewallV6 => "net.ipv6.conf.all.forwarding=1",
        };
        sysctl(&router.namespace, &[forward]);
        router.set_rules();
        router
    }

    /// Its address inside.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn inner_ip(&self) -> IpAddr {
        format!("{}1", self.subnet).parse().expect("the subnet is the beginning of an address")
    }

    /// The router itself, as a place to run something.
    #[must_use]
    pub fn spot(&self) -> Spot {
        Spot::within(&self.namespace, self.inner_ip())
    }

    /// From which addresses others see the clients.
    pub(crate) fn outside(&self) -> String {
        match self.kind {
            Kind::Nat(_) => self.ip.to_string(),
            Kind::FirewallV6 => format!("{}/64", self.subnet),
        }
    }

    /// Its rules as they are after it has started, with ports that are not those of the time before.
    pub(crate) fn set_rules(&mut self) {
        self.starts += 1;
        let rules = match self.kind {
            Kind::Nat(nat) => translation(nat, self.ip, self.starts),
            Kind::FirewallV6 => FIREWALL_V6.to_owned(),
        };
        nft(&self.namespace, &rules);
    }

    /// Connects an interface of a namespace with the network behind this router, and gives it the next address there and the way out.
    pub(crate) fn attach(&mut self, client: &str, interface: &str) -> IpAddr {
        let port = self.port_of(client);
        run("ip", &["-n", &self.namespace, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", client]);
        run("ip", &["-n", &self.namespace, "link", "set", &port, "master", "lan", "up"]);
        run("ip", &["-n", client, "link", "set", interface, "up"]);
        self.lease(client, interface)
    }

    /// The next address of the network behind this router, given to an interface that is connected with it.
    pub(crate) fn lease(&mut self, client: &str, interface: &str) -> IpAddr {
        self.clients += 1;
        let ip = format!("{}{}", self.subnet, 1 + self.clients);
        add_address(client, interface, &ip, self.is_v6());
        run("ip", &["-n", client, "route", "replace", "default", "via", &self.inner_ip().to_string(), "dev", interface]);
        ip.parse().expect("it is an address")
    }

    /// The router's end of the cable to a client: at most 15 letters, and the end of a namespace's name tells one from another.
    pub(crate) fn port_of(&self, client: &str) -> String {
        const LETTERS_MAX: usize = 14;
        let name = client.get(client.len().saturating_sub(LETTERS_MAX)..).unwrap_or(client);
        format!("l{name}")
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.kind == Kind::FirewallV6
    }
}

/// An IPv6 address is usable at once: nobody else in the laboratory has it.
fn add_address(namespace: &str, interface: &str, ip: &str, is_v6: bool) {
    let address = format!("{ip}/{}", if is_v6 { 64 } else { 24 });
    let args = ["-n", namespace, "address", "add", &address, "dev", interface];
    if is_v6 {
        run("ip", &[&args[..], &["nodad"]].concat());
    } else {
        run("ip", &args);
    }
}

const FIREWALL_V6: &str = "table ip6 filter {
    chain input {
        type filter hook input priority 0
        iifname \"wan\" meta l4proto { udp, tcp } ct state { new, invalid } drop
    }
    chain forward {
        type filter hook forward priority 0
        iifname \"wan\" ct state { new, invalid } drop
    }
}";

/// A router's rules. Like routers do, it drops what nobody inside asked for before a connection is made of it: otherwise the peer's first probe would
/// occupy the very port that the client's own probe is about to use.
fn translation(nat: Nat, ip: IpAddr, starts: u32) -> String {
    let (first, count) = OWN_PORTS;
    let own_port = format!("snat ip to {ip}:jhash ip saddr . udp sport mod {count} seed {starts} offset {first}");
    let translate = match nat {
        Nat::PortPreserving | Nat::AddressRestricted | Nat::FullCone => "oifname \"wan\" masquerade".to_owned(),
        Nat::RandomPorts => "oifname \"wan\" masquerade fully-random".to_owned(),
        Nat::OwnPorts => format!("oifname \"wan\" meta l4proto udp {own_port}\n oifname \"wan\" masquerade"),
        // Who comes back by the outer address, comes from his own outer address.
        Nat::Carrier => format!(
            "oifname \"wan\" meta l4proto udp {own_port}
             oifname \"lan\" ct status dnat meta l4proto udp {own_port}
             oifname \"wan\" masquerade"
        ),
    };
    // By which packets that nobody asked for a mapping may be used.
    let uninvited = match nat {
        Nat::PortPreserving | Nat::OwnPorts | Nat::RandomPorts => None,
        Nat::AddressRestricted => Some("iifname \"wan\" ip saddr . udp dport @asked"),
        Nat::FullCone => Some("iifname \"wan\""),
        Nat::Carrier => Some(""),
    };
    let to_owner = format!("ip daddr {ip} meta l4proto udp dnat ip addr . port to udp dport map @owners");
    let let_in = uninvited.map(|which| format!("{which} {to_owner}")).unwrap_or_default();
    format!(
        "table ip nat {{
             map owners {{
                 type inet_service : ipv4_addr . inet_service
                 flags dynamic, timeout
                 size 4096
             }}
             set asked {{
                 type ipv4_addr . inet_service
                 flags dynamic, timeout
                 size 65535
             }}
             chain prerouting {{
                 type nat hook prerouting priority -100
                 {let_in}
             }}
             chain postrouting {{
                 type nat hook postrouting priority 100
                 {translate}
             }}
             chain learn {{
                 type filter hook postrouting priority 200
                 oifname \"wan\" meta l4proto udp ct direction original update @owners {{ udp sport timeout {MAPPING_SECONDS}s : ct original ip saddr . ct original proto-src }}
                 oifname \"wan\" meta l4proto udp ct direction original update @asked {{ ip daddr . udp sport timeout {MAPPING_SECONDS}s }}
             }}
             chain input {{
                 type filter hook input priority 0
                 iifname \"wan\" meta l4proto {{ udp, tcp }} ct state {{ new, invalid }} drop
             }}
             chain forward {{
                 type filter hook forward priority 0
                 ct status dnat accept
                 iifname \"wan\" ct state {{ new, invalid }} drop
             }}
         }}"
    )
}
