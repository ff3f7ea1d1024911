//! The stage of all calls: a network of Ahoy in namespaces, pairs of people behind routers of their own, and the emulated link between them.

use ahoy_lab::{Lab, Nat, Network, Person, Plan, Process, Router, Spot};
use ahoy_netlab::link::{Reply, ShapeSettings, Summary};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// An order is carried out at once; a machine under load takes its time.
const ORDER_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Stage {
    // In this order: processes end before the namespaces that they are in.
    _network: Network,
    link: Mutex<Process>,
    orders: AtomicU64,
    pub(crate) pairs: Vec<Pair>,
    /// Where programs of others call one another.
    pub(crate) rivals: [Host; 2],
    _lab: Lab,
}

/// Two people.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Who calls.
    pub(crate) caller: End,
    /// Who is called.
    pub(crate) callee: End,
}

/// Somebody, and where he is plugged in.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) person: Person,
    /// The interface of the link.
    pub(crate) port: String,
}

/// A place without a router.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) spot: Spot,
    /// The interface of the link.
    pub(crate) port: String,
}

impl Stage {
    /// A network with so many pairs.
    pub(crate) fn build(pairs: usize) -> Result<Self, String> {
        let mut lab = Lab::with_delays().map_err(|skipped| skipped.to_string())?;
        let login = lab.host("login");
        let supernodes: Vec<Spot> = (1..=2).map(|i| lab.host(&format!("supernode-{i}"))).collect();
        let relay = lab.host("relay");
        let places: Vec<_> = (1..=pairs)
            .map(|i| {
                [lab.behind_nat(&format!("caller{i}"), Nat::PortPreserving), lab.behind_nat(&format!("callee{i}"), Nat::PortPreserving)]
            })
            .collect();
        let rivals = ["rival-caller", "rival-callee"].map(|name| {
            let spot = lab.host(name);
            Host { port: port_of(spot.ip), spot }
        });
        lab.switch_on();
        let link = Mutex::new(lab.take_switch());
        let relays = vec![relay];
        let network = Network::start_at(Plan { login, supernodes, relays });
        let pairs = (1..).zip(places);
        let pairs = pairs
            .map(|(i, [caller, callee])| {
                let end = |name: &str, (spot, router): (Spot, Router)| End {
                    person: network.person_at(&format!("{name}{i}"), spot),
                    port: port_of(router.ip),
                };
                Pair { caller: end("caller", caller), callee: end("callee", callee) }
            })
            .collect();
        Ok(Self { _network: network, link, orders: AtomicU64::new(0), pairs, rivals, _lab: lab })
    }

    /// What comes out of somebody's home is treated so from here on.
    pub(crate) fn shape(&self, end: &End, shape: &ShapeSettings) {
        self.shape_port(&end.port, shape);
    }

    /// What comes in at an interface is treated so from here on.
    pub(crate) fn shape_port(&self, port: &str, shape: &ShapeSettings) {
        let shape = serde_json::json!({
            "delay_ms": shape.delay_ms, "jitter": shape.jitter, "jitter_step_ms": shape.jitter_step_ms, "loss": shape.loss,
            "loss_bytes_min": shape.loss_bytes_min, "rate_kbps": shape.rate_kbps, "queue_ms_max": shape.queue_ms_max,
        });
        let _ = self.order(serde_json::json!({"do": "shape", "port": port, "shape": shape}));
    }

    /// Counts from here on, packet by packet, what comes out of somebody's home, whichever way it goes.
    pub(crate) fn count(&self, end: &End) {
        let _ = self.order(serde_json::json!({"do": "count", "port": end.port, "each": true}));
    }

    /// What was counted.
    pub(crate) fn figures(&self, end: &End) -> Summary {
        self.order(serde_json::json!({"do": "figures", "port": end.port})).unwrap_or_default()
    }

    fn order(&self, mut order: serde_json::Value) -> Option<Summary> {
        let id = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
        order["id"] = id.into();
        // A call that broke off leaves no order half said.
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.send(&order.to_string());
        let reply = link.wait_line(ORDER_TIMEOUT, "an answer", |line| Reply::parse(line).filter(|reply| reply.id == id));
        assert_eq!(reply.error, None, "the link carries out {order}");
        reply.figures
    }
}

/// Ports of the switch are numbered as the public addresses.
fn port_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("port{}", ip.octets()[3]),
        IpAddr::V6(ip) => panic!("{ip} is no address of the bench"),
    }
}
