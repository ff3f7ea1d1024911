//! An internet of network namespaces: hosts with public addresses on one switch, and clients in networks of their own behind routers (see
//! `router.rs`).
//!
//! ```text
//!  client ── router ───────────┐
//!  client ── router ── router ─┤ switch, 11.0.1.0/24 and 2001:db8::/64
//!  login, supernodes, relays ──┘
//! ```
//!
//! The switch is a bridge of the kernel, or, where the links shall have a delay, `ahoy-link`. All names begin with `ahoy-` and the id of the test's
//! process. Nothing outside of these namespaces is touched, and all of them are deleted when the laboratory is dropped.

use crate::network::Spot;
use crate::process::Process;
use crate::programs::program;
use crate::system::{enter, inside, installed, run, try_run};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use thiserror::Error;

/// The first three numbers of public addresses. None of the blocks for documentation: the port-mapping router, like others, takes those for private
/// ones and gives nothing away.
const PUBLIC: [u8; 3] = [11, 0, 1];
/// Public addresses end with 1 to 254.
const HOSTS_MAX: u8 = 254;
/// The switch program says that it works at once.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(20);
/// What every laboratory is made with.
const TOOLS: [&str; 4] = ["ip", "nft", "tcpdump", "sysctl"];

/// Why there is no laboratory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Skipped(String);

/// The namespaces of one test.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<String>,
    hosts: u8,
    pub(crate) networks: u8,
    pub(crate) has_equal_networks: bool,
    /// Namespaces with an IPv6 address on the switch.
    on_switch_v6: Vec<String>,
    /// Networks behind routers, and the router's address.
    routes_v6: Vec<(String, String)>,
    /// How long the way takes from any host to any other, beside their own links; `None`: a bridge without delays.
    delay_ms: Option<f64>,
    /// What the link of the next host adds to the way, in either direction.
    link_delay_ms: f64,
    /// The same of those that are there.
    link_delays_ms: Vec<f64>,
    switch: Option<Process>,
}

/// A laboratory, or `None` after saying that the test is skipped because it cannot be had here.
///
/// # Panics
/// In CI, where no test may be skipped.
#[must_use]
pub fn lab_or_skip() -> Option<Lab> {
    lab_or_skip_with(&[])
}

/// The same for a test that also starts `programs` of the system.
///
/// # Panics
/// In CI, where no test may be skipped.
#[must_use]
pub fn lab_or_skip_with(programs: &[&str]) -> Option<Lab> {
    match check(programs).and_then(|()| Lab::new()) {
        Ok(lab) => Some(lab),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test may not be skipped in CI: {reason}");
            println!("skipped: {reason}");
            None
        }
    }
}

fn check(programs: &[&str]) -> Result<(), Skipped> {
    // SAFETY: geteuid only reads.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Skipped("network namespaces need root".to_owned()));
    }
    match programs.iter().find(|program| installed(program).is_none()) {
        Some(missing) => Err(Skipped(format!("the program {missing} is not installed"))),
        None => Ok(()),
    }
}

impl Lab {
    /// An internet without delay.
    ///
    /// # Errors
    /// [`Skipped`] where the process may not make namespaces, or a tool is missing.
    pub fn new() -> Result<Self, Skipped> {
        Self::build(None)
    }

    /// An internet on which every packet takes `one_way_ms` from any host to any other.
    ///
    /// # Errors
    /// [`Skipped`] where the process may not make namespaces, or a tool is missing.
    pub fn with_delay(one_way_ms: f64) -> Result<Self, Skipped> {
        Self::build(Some(one_way_ms))
    }

    /// An internet on which each host's own link has the delay that [`set_link_delay`](Self::set_link_delay) gives it, and nothing else takes time.
    ///
    /// # Errors
    /// [`Skipped`] where the process may not make namespaces, or a tool is missing.
    pub fn with_delays() -> Result<Self, Skipped> {
        Self::build(Some(0.0))
    }

    /// The links of hosts and routers that are made from here on add `one_way_ms` to what goes in and to what comes out.
    ///
    /// # Panics
    /// In a laboratory without delays.
    pub fn set_link_delay(&mut self, one_way_ms: f64) {
        assert!(self.delay_ms.is_some(), "the kernel's bridge has no delays");
        self.link_delay_ms = one_way_ms;
    }

    fn build(delay_ms: Option<f64>) -> Result<Self, Skipped> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        check(&TOOLS)?;
        sweep();
        let prefix = format!("ahoy-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self {
            prefix,
            namespaces: Vec::new(),
            hosts: 0,
            networks: 0,
            has_equal_networks: false,
            on_switch_v6: Vec::new(),
            routes_v6: Vec::new(),
            delay_ms,
            link_delay_ms: 0.0,
            link_delays_ms: Vec::new(),
            switch: None,
        };
        lab.try_namespace("inet").map_err(Skipped)?;
        if lab.delay_ms.is_none() {
            let inet = lab.inet();
            try_run("ip", &["-n", &inet, "link", "add", "switch", "type", "bridge"]).map_err(Skipped)?;
            run("ip", &["-n", &inet, "link", "set", "switch", "up"]);
        }
        Ok(lab)
    }

    /// A host with a public address.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn host(&mut self, name: &str) -> Spot {
        let namespace = self.namespace(name);
        let ip = self.plug_in(&namespace, "eth0");
        Spot::within(&namespace, ip.into())
    }

    /// A host that has an IPv6 address and no other.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn host_v6(&mut self, name: &str) -> Spot {
        let namespace = self.namespace(name);
        let ip = self.plug_in_v6(&namespace, "eth0");
        Spot::within(&namespace, ip.into())
    }

    /// Gives all networks behind routers the same private addresses from here on, as so many homes have them.
    pub fn make_networks_equal(&mut self) {
        self.has_equal_networks = true;
    }

    /// With a delay: starts the switch, once all hosts are there. Without one the kernel's bridge works already.
    ///
    /// # Panics
    /// If it does not start.
    pub fn switch_on(&mut self) {
        let Some(delay_ms) = self.delay_ms else { return };
        let mut command = Command::new(program("ahoy-link"));
        enter(&mut command, &self.inet());
        let links = self.link_delays_ms.iter().enumerate().map(|(i, delay_ms)| format!("port{}@{delay_ms}", i + 1));
        command.args(["--delay-ms", &delay_ms.to_string()]).args(links);
        let switch = Process::start("switch", command);
        switch.wait_line(SWITCH_TIMEOUT, "`forwarding`", |line| line.starts_with("forwarding").then_some(()));
        self.switch = Some(switch);
    }

    /// The switch, for a test that gives it orders while it runs. Dropping it ends it.
    ///
    /// # Panics
    /// In a laboratory without delays, or before the switch is on.
    #[must_use]
    pub fn take_switch(&mut self) -> Process {
        self.switch.take().expect("the switch is on")
    }

    fn inet(&self) -> String {
        format!("{}-inet", self.prefix)
    }

    /// Connects an interface of a namespace with the switch and gives it the next public address.
    pub(crate) fn plug_in(&mut self, namespace: &str, interface: &str) -> Ipv4Addr {
        let number = self.connect(namespace, interface);
        let [a, b, c] = PUBLIC;
        let ip = Ipv4Addr::new(a, b, c, number);
        run("ip", &["-n", namespace, "address", "add", &format!("{ip}/24"), "dev", interface]);
        ip
    }

    /// The same with an IPv6 address, and with routes to all IPv6 networks behind routers.
    pub(crate) fn plug_in_v6(&mut self, namespace: &str, interface: &str) -> Ipv6Addr {
        let number = self.connect(namespace, interface);
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
        run("ip", &["-n", namespace, "address", "add", &format!("{ip}/64"), "dev", interface, "nodad"]);
        for (network, via) in &self.routes_v6 {
            run("ip", &["-n", namespace, "route", "add", network, "via", via]);
        }
        self.on_switch_v6.push(namespace.to_owned());
        ip
    }

    /// Lets everybody on the switch know the way to an IPv6 network behind the router `via`, whose namespace knows it by itself.
    pub(crate) fn announce_v6(&mut self, network: &str, via: Ipv6Addr, router: &str) {
        let via = via.to_string();
        for namespace in self.on_switch_v6.iter().filter(|namespace| *namespace != router) {
            run("ip", &["-n", namespace, "route", "add", network, "via", &via]);
        }
        self.routes_v6.push((network.to_owned(), via));
    }

    /// A cable between the switch and an interface of a namespace. Returns its number.
    fn connect(&mut self, namespace: &str, interface: &str) -> u8 {
        assert!(self.hosts < HOSTS_MAX, "no more public addresses");
        assert!(self.switch.is_none(), "all hosts are made before the switch is on");
        self.hosts += 1;
        self.link_delays_ms.push(self.link_delay_ms);
        let (inet, port) = (self.inet(), format!("port{}", self.hosts));
        run("ip", &["-n", &inet, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", namespace]);
        if self.delay_ms.is_none() {
            run("ip", &["-n", &inet, "link", "set", &port, "master", "switch"]);
        }
        run("ip", &["-n", &inet, "link", "set", &port, "up"]);
        run("ip", &["-n", namespace, "link", "set", interface, "up"]);
        self.hosts
    }

    pub(crate) fn namespace(&mut self, name: &str) -> String {
        self.try_namespace(name).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_namespace(&mut self, name: &str) -> Result<String, String> {
        let name = format!("{}-{name}", self.prefix);
        try_run("ip", &["netns", "add", &name])?;
        self.namespaces.push(name.clone());
        try_run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.switch = None;
        for namespace in &self.namespaces {
            if let Err(error) = try_run("ip", &["netns", "delete", namespace]) {
                eprintln!("{error}");
            }
        }
    }
}

/// Deletes the namespaces of test processes that were killed and could not do it themselves.
fn sweep() {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| {
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let owner = name.strip_prefix("ahoy-").and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
            if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
                // Another process may have been quicker.
                let _ = try_run("ip", &["netns", "delete", &name]);
            }
        }
    });
}

/// Runs `work` on a thread inside the namespace of `spot`, so that the sockets it opens are there.
///
/// # Panics
/// If the namespace cannot be entered, or `work` panics.
pub fn in_namespace<T: Send>(spot: &Spot, work: impl FnOnce() -> T + Send) -> T {
    inside(spot.namespace.as_deref(), work)
}
