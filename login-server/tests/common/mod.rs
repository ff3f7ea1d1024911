//! A login server in a temporary folder, and people and nodes that use it.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod liar;
pub(crate) mod raw;

use ahoy_identity::{SealSecret, SigningKey};
use ahoy_login::admin::Admin;
use ahoy_login::{Clock, Config, Server};
use ahoy_login_client::{LoginClient, LoginClientError, NewDevice, SignedIn};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::{LoginError, NodeRequest};
use ahoy_protocol::{List, Name, NetworkId, NetworkLink, Signed, UnixMillis};
use std::net::{Ipv4Addr, SocketAddr};
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "seven quiet harbours at dawn";
pub(crate) const WRONG_PASSWORD: &str = "eight noisy harbours at dusk";
pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) struct Network {
    pub(crate) server: Server,
    pub(crate) clock: Clock,
    pub(crate) dir: TempDir,
}

impl Network {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let clock = Clock::default();
        let server = Server::start(Config { clock: clock.clone(), ..Config::new(dir.path().join("data"), LOOPBACK) }).await;
        Self { server: server.expect("starts"), clock, dir }
    }

    /// The same data folder and address, with a server of its own.
    pub(crate) async fn restart(self) -> Self {
        let address = self.server.local_addr();
        self.server.stop().await;
        let config = Config { clock: self.clock.clone(), ..Config::new(self.dir.path().join("data"), address) };
        Self { server: Server::start(config).await.expect("starts again"), ..self }
    }

    pub(crate) fn link(&self) -> &NetworkLink {
        self.server.link()
    }

    pub(crate) async fn client(&self) -> LoginClient {
        LoginClient::connect(self.link()).await.expect("connects")
    }

    pub(crate) async fn admin(&self) -> Admin {
        Admin::open(&self.dir.path().join("data"), self.clock.clone()).await.expect("opens")
    }
}

/// A device with its keys.
pub(crate) struct Device {
    pub(crate) key: SigningKey,
    pub(crate) seal: SealSecret,
}

impl Device {
    pub(crate) fn generate() -> Self {
        Self { key: SigningKey::generate(), seal: SealSecret::generate() }
    }

    pub(crate) fn new_device(&self) -> NewDevice {
        NewDevice { device: self.key.device_key(), seal: self.seal.public(), label: "a test".into() }
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("is a name")
}

pub(crate) async fn register(client: &LoginClient, text: &str) -> (Device, SignedIn) {
    let device = Device::generate();
    let signed_in = client.register(&name(text), PASSWORD, &device.new_device()).await.expect("registers");
    (device, signed_in)
}

pub(crate) async fn sign_in(client: &LoginClient, text: &str, password: &str) -> Result<SignedIn, LoginClientError> {
    client.sign_in(&name(text), password, &Device::generate().new_device()).await
}

pub(crate) fn node_request(network: NetworkId, key: &SigningKey, role: NodeRole, address: &str) -> Signed<NodeRequest> {
    node_request_at(UnixMillis::from(std::time::SystemTime::now()), network, key, role, address)
}

pub(crate) fn node_request_at(
    issued: UnixMillis,
    network: NetworkId,
    key: &SigningKey,
    role: NodeRole,
    address: &str,
) -> Signed<NodeRequest> {
    let request = NodeRequest {
        network,
        role,
        node: key.node_key(),
        udp: List::first_of([address.parse().expect("is an address")]),
        tcp: List::default(),
        overlay: List::default(),
        issued,
    };
    key.sign(&request).expect("fits")
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, LoginClientError>) -> LoginError {
    match result.expect_err("is refused") {
        LoginClientError::Refused(error) => error,
        other => panic!("not refused by the server: {other}"),
    }
}
