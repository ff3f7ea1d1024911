//! What runs on routers beside routing: proxies, and the daemon that maps ports for those who ask. They are the programs that Debian has.

use crate::network::Spot;
use crate::process::Process;
use crate::router::Router;
use crate::system::{inside, installed, nft};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const HTTP_PORT: u16 = 8888;
const SOCKS_PORT: u16 = 1080;
/// Where the port-mapping daemon describes itself.
const DESCRIPTION_PORT: u16 = 5000;

/// A proxy at the inner side of a router. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    /// Its address, as settings and the environment name it.
    pub url: String,
    _process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// A proxy for HTTP's CONNECT (tinyproxy).
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn http(router: &Router) -> Self {
        let (folder, spot) = (folder(), router.spot());
        let settings = format!("Listen {}\nPort {HTTP_PORT}\nTimeout 600\nMaxClients 100\nLogLevel Connect\n", spot.ip);
        let file = folder.path().join("tinyproxy.conf");
        fs::write(&file, settings).expect("the test's folder can be written");
        Self::start(&spot, "http", HTTP_PORT, folder, "tinyproxy", &["-d", "-c", path(&file)])
    }

    /// A SOCKS5 proxy (microsocks).
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn socks5(router: &Router) -> Self {
        let spot = router.spot();
        let (ip, port) = (spot.ip.to_string(), SOCKS_PORT.to_string());
        Self::start(&spot, "socks5", SOCKS_PORT, folder(), "microsocks", &["-i", &ip, "-p", &port])
    }

    fn start(spot: &Spot, scheme: &str, port: u16, folder: TempDir, program: &str, args: &[&str]) -> Self {
        let address = SocketAddr::new(spot.ip, port);
        let process = start(spot, address, program, args);
        Self { url: format!("{scheme}://{address}"), _process: process, _folder: folder }
    }
}

/// A daemon at a router that maps ports by UPnP, NAT-PMP and PCP (miniupnpd). Dropping it ends it.
#[derive(Debug)]
pub struct PortMapper {
    _process: Process,
    _folder: TempDir,
    namespace: String,
}

impl PortMapper {
    /// Starts it.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(router: &Router) -> Self {
        let (folder, spot) = (folder(), router.spot());
        // The daemon fills three chains; these lead there.
        let rules = "table inet mapper {
            chain arriving { type nat hook prerouting priority -101; jump prerouting_miniupnpd; }
            chain leaving { type nat hook postrouting priority 99; jump postrouting_miniupnpd; }
            chain passing { type filter hook forward priority -5; jump miniupnpd; }
            chain prerouting_miniupnpd { }
            chain postrouting_miniupnpd { }
            chain miniupnpd { }
        }";
        nft(&router.namespace, rules);
        let settings = format!(
            "ext_ifname=wan\nlistening_ip=lan\nport={DESCRIPTION_PORT}\nenable_upnp=yes\nenable_natpmp=yes\nsecure_mode=yes\nsystem_uptime=yes\n\
             min_lifetime=120\nmax_lifetime=86400\nuuid=00000000-0000-4000-8000-000000000001\nlease_file={}\n\
             upnp_table_name=mapper\nupnp_nat_table_name=mapper\nupnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
             upnp_nat_postrouting_chain=postrouting_miniupnpd\nallow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
            path(&folder.path().join("leases"))
        );
        let file = folder.path().join("miniupnpd.conf");
        fs::write(&file, settings).expect("the test's folder can be written");
        let pid = folder.path().join("miniupnpd.pid");
        let address = SocketAddr::new(spot.ip, DESCRIPTION_PORT);
        let process = start(&spot, address, "miniupnpd", &["-d", "-f", path(&file), "-P", path(&pid)]);
        // The last of its ports to open.
        process.wait_error_line(START_TIMEOUT, "`Listening for NAT-PMP`", |line| line.contains("Listening for NAT-PMP"));
        Self { _process: process, _folder: folder, namespace: router.namespace.clone() }
    }

    /// The mappings that it has made, as the firewall's rules name them.
    ///
    /// # Panics
    /// If the firewall cannot be asked.
    #[must_use]
    pub fn mappings(&self) -> Vec<String> {
        let arguments = ["netns", "exec", &self.namespace, "nft", "list", "chain", "inet", "mapper", "prerouting_miniupnpd"];
        let output = std::process::Command::new("ip").args(arguments).output().expect("the firewall answers");
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| line.contains("dnat")).map(|line| line.trim().to_owned()).collect()
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("ahoy-lab-").tempdir().expect("the system's temporary folder can be written")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the system's temporary folder has a name in UTF-8")
}

/// Starts a program of the system and waits until it takes connections.
fn start(spot: &Spot, address: SocketAddr, program: &str, args: &[&str]) -> Process {
    let file = installed(program).unwrap_or_else(|| panic!("{program} is not installed; scripts/install-packages test"));
    let mut command = spot.command(&file);
    command.args(args);
    let process = Process::start(program, command);
    let deadline = Instant::now() + START_TIMEOUT;
    while inside(spot.namespace.as_deref(), || TcpStream::connect_timeout(&address, START_TIMEOUT)).is_err() {
        assert!(Instant::now() < deadline, "{program} takes no connections\n{}", process.transcript());
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}
