//! An internet of network namespaces: hosts with public addresses on one switch, and clients in networks of their own behind routers that translate
//! addresses with nftables.
//!
//! ```text
//!  client ── router (masquerade) ──┐
//!  client ── router (masquerade) ──┤ switch, 198.51.100.0/24
//!  login, supernodes, relays ──────┘
//! ```
//!
//! The switch is a bridge of the kernel, or, where the links shall have a delay, `ahoy-link`. All names begin with `ahoy-` and the id of the test's
//! process. Nothing outside of these namespaces is touched, and all of them are deleted when the laboratory is dropped.

use crate::network::Spot;
use crate::process::Process;
use crate::programs::program;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use thiserror::Error;

/// Public addresses are 198.51.100.1 to .254.
const HOSTS_MAX: u8 = 254;
/// The switch program says that it works at once.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no laboratory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Skipped(String);

/// How a router translates addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Keeps the client's port where it can, whoever the packet goes to: the mapping is the same for all.
    PortPreserving,
    /// A random port for each destination: nobody can tell the port from what another one saw.
    RandomPorts,
}

/// A router between clients' network and the internet.
#[derive(Debug)]
pub struct Router {
    namespace: String,
    /// Its public address.
    pub ip: Ipv4Addr,
    /// The first three numbers of the addresses behind it.
    subnet: String,
    clients: u8,
}

/// The namespaces of one test.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<String>,
    hosts: u8,
    networks: u8,
    has_equal_networks: bool,
    /// What each host's own link adds to the way, in milliseconds; `None`: a bridge without a delay.
    delay_ms: Option<f64>,
    switch: Option<Process>,
}

/// A laboratory, or `None` after saying that the test is skipped because it cannot be had here.
///
/// # Panics
/// In CI, where no test may be skipped.
#[must_use]
pub fn lab_or_skip() -> Option<Lab> {
    match Lab::new() {
        Ok(lab) => Some(lab),
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test may not be skipped in CI: {reason}");
            println!("skipped: {reason}");
            None
        }
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

    fn build(delay_ms: Option<f64>) -> Result<Self, Skipped> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        // SAFETY: geteuid only reads.
        if unsafe { libc::geteuid() } != 0 {
            return Err(Skipped("network namespaces need root".to_owned()));
        }
        for tool in ["ip", "nft", "tcpdump", "sysctl"] {
            if Command::new(tool).arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                return Err(Skipped(format!("the program {tool} is not installed")));
            }
        }
        let prefix = format!("ahoy-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self { prefix, namespaces: Vec::new(), hosts: 0, networks: 0, has_equal_networks: false, delay_ms, switch: None };
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
        Spot { namespace: Some(namespace), ip: ip.into() }
    }

    /// Gives all networks behind routers the same private addresses from here on, as so many homes have them.
    pub fn make_networks_equal(&mut self) {
        self.has_equal_networks = true;
    }

    /// A client in a network of its own, and the router that stands between it and the internet.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn behind_nat(&mut self, name: &str, nat: Nat) -> (Spot, Router) {
        let namespace = self.namespace(&format!("{name}-router"));
        let ip = self.plug_in(&namespace, "wan");
        self.networks += 1;
        let subnet = if self.has_equal_networks { "192.168.1".to_owned() } else { format!("192.168.{}", 10 + self.networks) };
        run("ip", &["-n", &namespace, "link", "add", "lan", "type", "bridge"]);
        run("ip", &["-n", &namespace, "address", "add", &format!("{subnet}.1/24"), "dev", "lan"]);
        run("ip", &["-n", &namespace, "link", "set", "lan", "up"]);
        run("ip", &["netns", "exec", &namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        nft(&namespace, &translation(nat));
        let mut router = Router { namespace, ip, subnet, clients: 0 };
        (self.neighbour(name, &mut router), router)
    }

    /// One more client in the network behind `router`.
    ///
    /// # Panics
    /// If the system refuses.
    #[must_use]
    pub fn neighbour(&mut self, name: &str, router: &mut Router) -> Spot {
        let client = self.namespace(name);
        router.clients += 1;
        let port = format!("lan{}", router.clients);
        let ip = format!("{}.{}", router.subnet, 1 + router.clients);
        run("ip", &["-n", &router.namespace, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &client]);
        run("ip", &["-n", &router.namespace, "link", "set", &port, "master", "lan", "up"]);
        run("ip", &["-n", &client, "address", "add", &format!("{ip}/24"), "dev", "eth0"]);
        run("ip", &["-n", &client, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &client, "route", "add", "default", "via", &format!("{}.1", router.subnet)]);
        Spot { namespace: Some(client), ip: IpAddr::V4(ip.parse().expect("it is an address")) }
    }

    /// Lets no UDP pass between the networks behind two routers any more. Relays are not touched.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn block_direct(&self, a: &Router, b: &Router) {
        for (here, there) in [(a, b), (b, a)] {
            let rules = format!(
                "table ip block {{
                     chain forward {{
                         type filter hook forward priority -10
                         ip daddr {0} meta l4proto udp drop
                         ip saddr {0} meta l4proto udp drop
                     }}
                 }}",
                there.ip
            );
            nft(&here.namespace, &rules);
        }
    }

    /// Takes [`block_direct`](Self::block_direct) back.
    ///
    /// # Panics
    /// If it was not blocked.
    pub fn unblock_direct(&self, a: &Router, b: &Router) {
        for router in [a, b] {
            nft(&router.namespace, "delete table ip block");
        }
    }

    /// With a delay: starts the switch, once all hosts are there. Without one the kernel's bridge works already.
    ///
    /// # Panics
    /// If it does not start.
    pub fn switch_on(&mut self) {
        let Some(delay_ms) = self.delay_ms else { return };
        let mut command = Command::new(program("ahoy-link"));
        enter(&mut command, &self.inet());
        command.args(["--delay-ms", &delay_ms.to_string()]).args((1..=self.hosts).map(|port| format!("port{port}")));
        let switch = Process::start("switch", command);
        switch.wait_line(SWITCH_TIMEOUT, "`forwarding`", |line| line.starts_with("forwarding").then_some(()));
        self.switch = Some(switch);
    }

    fn inet(&self) -> String {
        format!("{}-inet", self.prefix)
    }

    /// Connects an interface of a namespace with the switch and gives it the next public address.
    fn plug_in(&mut self, namespace: &str, interface: &str) -> Ipv4Addr {
        assert!(self.hosts < HOSTS_MAX, "no more public addresses");
        assert!(self.switch.is_none(), "all hosts are made before the switch is on");
        self.hosts += 1;
        let (inet, port) = (self.inet(), format!("port{}", self.hosts));
        run("ip", &["-n", &inet, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", namespace]);
        if self.delay_ms.is_none() {
            run("ip", &["-n", &inet, "link", "set", &port, "master", "switch"]);
        }
        run("ip", &["-n", &inet, "link", "set", &port, "up"]);
        let ip = Ipv4Addr::new(198, 51, 100, self.hosts);
        run("ip", &["-n", namespace, "address", "add", &format!("{ip}/24"), "dev", interface]);
        run("ip", &["-n", namespace, "link", "set", interface, "up"]);
        ip
    }

    fn namespace(&mut self, name: &str) -> String {
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

/// A router's rules. Like routers do, it drops what nobody inside asked for before a connection is made of it: otherwise the peer's first probe would
/// occupy the very port that the client's own probe is about to use.
fn translation(nat: Nat) -> String {
    let masquerade = match nat {
        Nat::PortPreserving => "masquerade",
        Nat::RandomPorts => "masquerade fully-random",
    };
    format!(
        "table ip nat {{
             chain postrouting {{
                 type nat hook postrouting priority 100
                 oifname \"wan\" {masquerade}
             }}
             chain input {{
                 type filter hook input priority 0
                 iifname \"wan\" meta l4proto {{ udp, tcp }} drop
             }}
             chain forward {{
                 type filter hook forward priority 0
                 iifname \"wan\" ct state {{ new, invalid }} drop
             }}
         }}"
    )
}

/// Makes `command` start in a namespace.
pub(crate) fn enter(command: &mut Command, namespace: &str) {
    let path = CString::new(format!("/run/netns/{namespace}")).expect("names of namespaces have no zero bytes");
    // SAFETY: between fork and exec only open, setns and close are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            let handle = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if handle < 0 || libc::setns(handle, libc::CLONE_NEWNET) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            libc::close(handle);
            Ok(())
        });
    }
}

/// Runs `work` on a thread inside the namespace of `spot`, so that the sockets it opens are there.
///
/// # Panics
/// If the namespace cannot be entered, or `work` panics.
pub fn in_namespace<T: Send>(spot: &Spot, work: impl FnOnce() -> T + Send) -> T {
    let namespace = spot.namespace.as_ref().map(|name| File::open(format!("/run/netns/{name}")).expect("the namespace exists"));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if let Some(namespace) = namespace {
                // SAFETY: setns moves this thread alone, which ends with `work`.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "the namespace can be entered");
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn nft(namespace: &str, rules: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("ip can be started");
    let mut input = child.stdin.take().expect("piped");
    writeln!(input, "{rules}").expect("nft reads its input");
    drop(input);
    let output = child.wait_with_output().expect("our own child can be waited for");
    assert!(output.status.success(), "nft refused\n{rules}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn run(program: &str, args: &[&str]) {
    try_run(program, args).unwrap_or_else(|error| panic!("{error}"));
}

fn try_run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
