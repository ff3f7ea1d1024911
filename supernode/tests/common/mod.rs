//! A network on loopback for the tests: a login server, supernodes, and devices that speak to them.

#![allow(dead_code, reason = "each test binary uses a part")]

use ahoy_identity::{SealSecret, SigningKey};
use ahoy_login::admin::Admin;
use ahoy_login::{Clock, Config, Server};
use ahoy_login_client::{LoginClient, NewDevice};
use ahoy_node::ServeArgs;
use ahoy_protocol::certificate::{DeviceCertificate, NodeRole, UserCertificate};
use ahoy_protocol::directory::{ALPN, Found, Push, Request, Response, SealedSignal};
use ahoy_protocol::login::NodeRequest;
use ahoy_protocol::record::{PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, USER_STATEMENT_LIFE, UserRecord, UserStatement};
use ahoy_protocol::{DeviceKey, List, Name, NodeKey, Signed, UnixMillis};
use ahoy_supernode::{Args, Supernode};
use ahoy_transport::{Connection, DatagramHandler, NodeEndpoint, NodeLimits, receive};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// Long enough for anything on loopback on a busy machine; only a failure takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "a horse that staples correct batteries";

pub(crate) fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) fn now() -> UnixMillis {
    SystemTime::now().into()
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("still not: {what}"));
}

pub(crate) struct Network {
    pub(crate) folder: TempDir,
    pub(crate) login: Option<Server>,
    pub(crate) link: String,
}

impl Network {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let login = Server::start(Config::new(folder.path().join("login"), loopback())).await.expect("the login server starts");
        let link = login.link().to_string();
        Self { folder, login: Some(login), link }
    }

    pub(crate) async fn token(&self) -> String {
        let admin = Admin::open(&self.folder.path().join("login"), Clock::default()).await.expect("opens");
        admin.node_token().await.expect("a token")
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn args(&self, name: &str) -> Args {
        let serve = ServeArgs {
            network: self.link.clone(),
            token: Some(self.token().await),
            data: self.data(name),
            listen: vec![loopback()],
            tcp: Vec::new(),
            public: None,
            metrics: None,
        };
        Args { serve, overlay: None }
    }

    pub(crate) async fn supernode(&self, name: &str) -> Supernode {
        Supernode::start(&self.args(name).await).await.expect("the supernode starts")
    }

    /// So many supernodes that are all connected with each other.
    pub(crate) async fn supernodes(&self, count: usize) -> Vec<Supernode> {
        let mut supernodes = Vec::new();
        for n in 0..count {
            supernodes.push(self.supernode(&format!("supernode-{n}")).await);
        }
        connected(&supernodes.iter().collect::<Vec<_>>()).await;
        supernodes
    }

    pub(crate) async fn login_client(&self) -> LoginClient {
        LoginClient::connect(&self.link.parse().expect("a link")).await.expect("connects")
    }

    /// The key of a node that the roster lists, where nothing serves.
    pub(crate) async fn enrolled(&self, role: NodeRole) -> SigningKey {
        let login = self.login_client().await;
        let key = SigningKey::generate();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let request = NodeRequest {
            network: login.network().id,
            role,
            node: key.node_key(),
            udp: List::first_of([nowhere]),
            tcp: List::default(),
            overlay: List::first_of((role == NodeRole::Supernode).then_some(nowhere)),
            issued: now(),
        };
        login.enrol(&self.token().await, key.sign(&request).expect("fits")).await.expect("enrols");
        key
    }

    pub(crate) async fn user(&self, name: &str) -> Device {
        let name = Name::parse(name).expect("a name");
        let key = SigningKey::generate();
        let new = NewDevice { device: key.device_key(), seal: SealSecret::generate().public(), label: "laptop".into() };
        let signed_in = self.login_client().await.register(&name, PASSWORD, &new).await.expect("registers");
        Device {
            endpoint: endpoint(&key),
            key,
            name,
            user_key: signed_in.user,
            epoch: signed_in.epoch,
            user: signed_in.credentials.user,
            device: signed_in.credentials.device,
        }
    }

    /// A further device of a user.
    pub(crate) async fn further_device(&self, of: &Device) -> Device {
        let key = SigningKey::generate();
        let new = NewDevice { device: key.device_key(), seal: SealSecret::generate().public(), label: "telephone".into() };
        let signed_in = self.login_client().await.sign_in(&of.name, PASSWORD, &new).await.expect("signs in");
        Device {
            endpoint: endpoint(&key),
            key,
            name: of.name.clone(),
            user_key: signed_in.user,
            epoch: signed_in.epoch,
            user: signed_in.credentials.user,
            device: signed_in.credentials.device,
        }
    }
}

pub(crate) async fn connected(supernodes: &[&Supernode]) {
    eventually("all supernodes are connected", async || supernodes.iter().all(|one| one.connected() == supernodes.len() - 1)).await;
}

#[derive(Debug)]
struct Deaf;

impl DatagramHandler for Deaf {
    fn handle(&self, _: SocketAddr, _: &[u8], _: &mut dyn FnMut(SocketAddr, &[u8])) {}
}

/// An endpoint that shows `key` to whomever it connects.
pub(crate) fn endpoint(key: &SigningKey) -> NodeEndpoint {
    NodeEndpoint::bind(&[loopback()], &[], key, &[ALPN], Arc::new(Deaf), NodeLimits::default()).expect("binds")
}

pub(crate) struct Device {
    pub(crate) endpoint: NodeEndpoint,
    pub(crate) key: SigningKey,
    pub(crate) name: Name,
    pub(crate) user_key: SigningKey,
    pub(crate) epoch: u32,
    pub(crate) user: Signed<UserCertificate>,
    pub(crate) device: Signed<DeviceCertificate>,
}

impl Device {
    pub(crate) fn device_key(&self) -> DeviceKey {
        self.key.device_key()
    }

    pub(crate) async fn connect(&self, address: SocketAddr, node: &NodeKey) -> Connection {
        self.endpoint.connect(address, node, ALPN).await.expect("connects")
    }

    /// Connects to a supernode and registers there.
    pub(crate) async fn at(&self, supernode: &Supernode) -> Connection {
        self.at_address(supernode.addresses()[0], &supernode.key()).await
    }

    pub(crate) async fn at_address(&self, address: SocketAddr, node: &NodeKey) -> Connection {
        let connection = self.connect(address, node).await;
        assert_eq!(ask(&connection, &self.registration()).await, Response::Done);
        connection
    }

    pub(crate) fn registration(&self) -> Request {
        Request::Register { user: self.user.clone(), device: self.device.clone() }
    }

    pub(crate) fn user_statement(&self, seq: u64) -> UserStatement {
        let now = now();
        UserStatement {
            name: self.name.clone(),
            epoch: self.epoch,
            seq,
            devices: List::first_of([self.device_key()]),
            mailboxes: List::default(),
            issued: now,
            not_after: now.plus(USER_STATEMENT_LIFE),
        }
    }

    pub(crate) fn user_record(&self, seq: u64) -> Record {
        Record::User(UserRecord {
            certificate: self.user.clone(),
            statement: self.user_key.sign(&self.user_statement(seq)).expect("fits"),
            devices: List::first_of([self.device.clone()]),
        })
    }

    pub(crate) fn presence(&self, seq: u64, homes: &[NodeKey]) -> Record {
        let now = now();
        let statement = PresenceStatement {
            device: self.device_key(),
            seq,
            homes: List::first_of(homes.iter().copied()),
            issued: now,
            not_after: now.plus(PRESENCE_LIFE),
        };
        Record::Presence(PresenceRecord { statement: self.key.sign(&statement).expect("fits"), certificate: self.device.clone() })
    }
}

pub(crate) async fn ask(connection: &Connection, request: &Request) -> Response {
    connection.request(request, PATIENCE).await.expect("an answer")
}

pub(crate) async fn publish(connection: &Connection, record: Record) -> u16 {
    match ask(connection, &Request::Publish(record)).await {
        Response::Published { stored } => stored,
        other => panic!("not published: {other:?}"),
    }
}

pub(crate) async fn find(connection: &Connection, name: &Name) -> Found {
    match ask(connection, &Request::Find(name.clone())).await {
        Response::Found(found) => found,
        other => panic!("not found: {other:?}"),
    }
}

pub(crate) fn seqs(found: &Found) -> (Vec<u64>, Vec<u64>) {
    let users = found.users.iter().map(|record| record.statement.claims().expect("readable").seq).collect();
    let presence = found.presence.iter().map(|record| record.statement.claims().expect("readable").seq).collect();
    (users, presence)
}

pub(crate) fn signal(to: &Device, homes: &[NodeKey], text: &[u8]) -> Request {
    let sealed = SealedSignal::new(text.to_vec()).expect("fits");
    Request::Signal { to: to.device_key(), homes: List::first_of(homes.iter().copied()), sealed }
}

pub(crate) async fn pushed(connection: &Connection) -> Push {
    let receiving = async {
        let mut stream = connection.accept_uni().await.expect("a stream");
        receive(&mut stream).await.expect("readable").expect("a push")
    };
    tokio::time::timeout(PATIENCE, receiving).await.expect("is pushed in time")
}

pub(crate) fn is_refused(response: &Response) -> bool {
    matches!(response, Response::Refused(_))
}
