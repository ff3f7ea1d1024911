//! A network of Ahoy: a login server, supernodes and relays as processes, and people who use it.

use crate::process::{Finished, Process};
use crate::programs::program;
use crate::system::enter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Everybody's password: long enough not to be refused.
pub const PASSWORD: &str = "gravel-otter-94-lantern-quince";

/// Starting and signing in take a second; a machine under load takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a process runs: a namespace, and its address in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Name of the network namespace; `None` is the one the test runs in.
    pub namespace: Option<String>,
    /// Address that a server listens at.
    pub ip: IpAddr,
    /// Variables that programs find there, beside those of the tests.
    pub environment: Vec<(String, String)>,
}

impl Spot {
    /// This machine's loopback.
    #[must_use]
    pub fn loopback() -> Self {
        Self { namespace: None, ip: Ipv4Addr::LOCALHOST.into(), environment: Vec::new() }
    }

    /// A place in a namespace.
    #[must_use]
    pub fn within(namespace: &str, ip: IpAddr) -> Self {
        Self { namespace: Some(namespace.to_owned()), ip, environment: Vec::new() }
    }

    /// A command that will run here.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(namespace) = &self.namespace {
            enter(&mut command, namespace);
        }
        // No terminal colours and no log level of the person who runs the tests.
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("AHOY_LOG");
        for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"] {
            command.env_remove(proxy).env_remove(proxy.to_lowercase());
        }
        // Whoever runs the tests is neither listened to nor has to listen: a machine without sound devices.
        command.env("PULSE_SERVER", "unix:/nonexistent").env("ALSA_CONFIG_PATH", "/dev/null");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Where the parts of a network run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The login server.
    pub login: Spot,
    /// The supernodes.
    pub supernodes: Vec<Spot>,
    /// The relays.
    pub relays: Vec<Spot>,
}

/// A supernode or a relay.
#[derive(Debug)]
pub struct Node {
    /// It.
    pub process: Process,
    /// The address that it printed.
    pub address: SocketAddr,
}

/// A running network. Dropping it ends all of its processes and removes its folder.
#[derive(Debug)]
pub struct Network {
    /// The network link.
    pub link: String,
    /// The login server, while it runs.
    pub login: Option<Process>,
    /// The supernodes.
    pub supernodes: Vec<Node>,
    /// The relays.
    pub relays: Vec<Node>,
    plan: Plan,
    folder: TempDir,
}

impl Network {
    /// Starts a network on loopback.
    ///
    /// # Panics
    /// If one of its programs does not come up.
    #[must_use]
    pub fn start(supernodes: usize, relays: usize) -> Self {
        let at = |count| vec![Spot::loopback(); count];
        Self::start_at(Plan { login: Spot::loopback(), supernodes: at(supernodes), relays: at(relays) })
    }

    /// Starts a network with each process at the place that `plan` gives it.
    ///
    /// # Panics
    /// If one of its programs does not come up.
    #[must_use]
    pub fn start_at(plan: Plan) -> Self {
        let folder = tempfile::Builder::new().prefix("ahoy-lab-").tempdir().expect("the system's temporary folder can be written");
        let (login, link) = serve_login(&plan.login, folder.path(), 0);
        let mut network = Self { link, login: Some(login), supernodes: Vec::new(), relays: Vec::new(), plan, folder };
        let plan = network.plan.clone();
        // All are started before the first is waited for.
        let supernodes: Vec<_> =
            plan.supernodes.iter().enumerate().map(|(i, spot)| network.spawn_node("supernode", i, spot, &[])).collect();
        let relays: Vec<_> = plan.relays.iter().enumerate().map(|(i, spot)| network.spawn_node("relay", i, spot, &[])).collect();
        network.supernodes = supernodes.into_iter().map(Node::serving).collect();
        network.relays = relays.into_iter().map(Node::serving).collect();
        network
    }

    /// The folder that all of the network's files are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its parts run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The login server's data folder.
    #[must_use]
    pub fn login_data(&self) -> PathBuf {
        self.folder.path().join("login")
    }

    /// The data folder of a node: `supernode` 0, `relay` 1, and so on.
    #[must_use]
    pub fn node_data(&self, role: &str, index: usize) -> PathBuf {
        self.folder.path().join(format!("{role}-{index}"))
    }

    /// A token for one more node.
    #[must_use]
    pub fn node_token(&self) -> String {
        let mut command = self.plan.login.command(&program("ahoy-login"));
        command.arg("node-token").arg("--data").arg(self.login_data());
        let finished = Process::start("node-token", command).finish(START_TIMEOUT).succeeded();
        finished.stdout.last().expect("the token is on the last line").trim().to_owned()
    }

    /// The command that runs a node of the network.
    #[must_use]
    pub fn node_command(&self, role: &str, index: usize, spot: &Spot) -> Command {
        let mut command = spot.command(&program(&format!("ahoy-{role}")));
        command.args([
            "serve",
            "--network",
            &self.link,
            "--token",
            &self.node_token(),
            "--listen",
            &SocketAddr::new(spot.ip, 0).to_string(),
        ]);
        command.arg("--data").arg(self.node_data(role, index));
        command
    }

    fn spawn_node(&self, role: &str, index: usize, spot: &Spot, extra: &[&str]) -> Process {
        let mut command = self.node_command(role, index, spot);
        command.args(extra);
        Process::start(&format!("{role} {index}"), command)
    }

    /// Stops the login server, as its administrator would.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop_login(&mut self) {
        let _ = self.login.take().expect("the login server runs").stop();
    }

    /// Starts the login server again, at the same address.
    ///
    /// # Panics
    /// If it does not come up, or has become another network.
    pub fn start_login(&mut self) {
        let port = self.link.rsplit_once('#').and_then(|(address, _)| address.rsplit_once(':')?.1.parse().ok());
        let (login, link) = serve_login(&self.plan.login, self.folder.path(), port.expect("the link has a port"));
        assert_eq!(link, self.link, "the same network as before");
        self.login = Some(login);
    }

    /// A new user with a first device on loopback.
    ///
    /// # Panics
    /// If the name cannot be registered.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        self.person_at(name, Spot::loopback())
    }

    /// A new user with a first device at `spot`.
    ///
    /// # Panics
    /// If the name cannot be registered.
    #[must_use]
    pub fn person_at(&self, name: &str, spot: Spot) -> Person {
        let person = self.stranger(name, "first", spot);
        let _ = person.run(&["register", name, "--network", &self.link]).succeeded();
        person
    }

    /// Another device of a user, signed in with name and password alone.
    ///
    /// # Panics
    /// If it cannot sign in.
    #[must_use]
    pub fn further_device(&self, name: &str, label: &str, spot: Spot) -> Person {
        let person = self.stranger(name, label, spot);
        let _ = person.run(&["sign-in", name, "--network", &self.link]).succeeded();
        person
    }

    /// Somebody with an empty home, of whom the network knows nothing.
    #[must_use]
    pub fn stranger(&self, name: &str, label: &str, spot: Spot) -> Person {
        Person { name: name.to_owned(), home: self.folder.path().join(format!("home-{name}-{label}")), spot }
    }
}

impl Node {
    /// The node that has just been started, once it serves.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn serving(process: Process) -> Self {
        let address = process.wait_line(START_TIMEOUT, "`serving IP:PORT`", |line| line.strip_prefix("serving ")?.trim().parse().ok());
        Self { process, address }
    }
}

fn serve_login(spot: &Spot, folder: &Path, port: u16) -> (Process, String) {
    let mut command = spot.command(&program("ahoy-login"));
    command.arg("serve").arg("--data").arg(folder.join("login")).arg("--listen").arg(SocketAddr::new(spot.ip, port).to_string());
    let process = Process::start("login server", command);
    let link = process.wait_line(START_TIMEOUT, "`network LINK`", |line| line.strip_prefix("network ").map(|link| link.trim().to_owned()));
    (process, link)
}

/// A device of a user: a home folder, and the place it is used from.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user's name.
    pub name: String,
    /// The home folder.
    pub home: PathBuf,
    /// Where the device is.
    pub spot: Spot,
}

impl Person {
    /// The command `ahoy --home HOME` with `args`, with the password in its environment.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.spot.command(&program("ahoy"));
        command.arg("--home").arg(&self.home).args(args).env("AHOY_PASSWORD", PASSWORD);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.start(args).finish(START_TIMEOUT)
    }

    /// Starts a command.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Process {
        Process::start(&format!("{} {}", self.name, args.first().unwrap_or(&"")), self.command(args))
    }

    /// Goes online and waits until the network can reach the device.
    ///
    /// # Panics
    /// If it does not come online.
    #[must_use]
    pub fn online(&self, args: &[&str]) -> Process {
        let process = self.start(&[&["online", "--json"], args].concat());
        let _ = process.wait_for("online", START_TIMEOUT);
        process
    }

    /// Calls somebody.
    #[must_use]
    pub fn call(&self, name: &str, args: &[&str]) -> Process {
        self.start(&[&["call", name, "--json"], args].concat())
    }
}
