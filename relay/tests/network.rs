//! A relay in a network with a real login server: enrolment, renewal, roster, and a leg with a real grant.

mod harness;

use ahoy_identity::{SealSecret, SigningKey, random};
use ahoy_login::admin::Admin;
use ahoy_login::{Clock, Config, Server};
use ahoy_login_client::{LoginClient, NewDevice};
use ahoy_node::{Addresses, Node, ServeArgs};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{CallId, Name};
use ahoy_relay::{Relay, RelayError};
use ahoy_transport::TransportError;
use harness::{Client, PATIENCE, any_port};
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_relay_part_of_the_roster_and_the_next_start_needs_none() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    let (key, address) = (relay.node().key().node_key(), relay.local_addresses()[0]);
    let listed = network.roster().await.node(NodeRole::Relay, &key).expect("it is listed").clone();
    assert_eq!((&listed.udp[..], &listed.tcp[..]), (&[address][..], &[address][..]), "TCP is on the same port");
    relay.stop().await;

    let relay = network.relay(folder.path(), None).await.expect("its certificate is in the folder");
    assert_eq!(relay.node().key().node_key(), key);
    let moved = relay.local_addresses()[0];
    assert_eq!(network.roster().await.node(NodeRole::Relay, &key).expect("it is listed").udp[..], [moved]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_one_relay() {
    let network = Network::new().await;
    let token = network.token().await;
    let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let _relay = network.relay(first.path(), Some(&token)).await.expect("the token is good");
    let refused = network.relay(second.path(), Some(&token)).await.expect_err("another relay has used it");
    assert!(refused.to_string().contains("token"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_token_and_certificate_it_says_where_to_get_one() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let refused = network.relay(folder.path(), None).await.expect_err("nobody let it in");
    assert!(refused.to_string().contains("ahoy-login node-token"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_while_the_login_server_is_away() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    let known = relay.node().roster().borrow().roster.version;
    relay.stop().await;
    let args = network.args(folder.path(), None);
    network.server.stop().await;
    let relay = Relay::start(&args).await.expect("the folder has all it needs");
    assert_eq!(relay.node().roster().borrow().roster.version, known);
    Client::connect(relay.local_addresses()[0], relay.node().key().node_key()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_with_another_key_is_refused() {
    let (network, other) = (Network::new().await, Network::new().await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut args = network.args(folder.path(), Some("a-token"));
    let mut link = network.server.link().clone();
    link.network = other.server.link().network;
    args.network = link.to_string();
    let refused = Relay::start(&args).await.expect_err("that server has another key");
    assert!(refused.to_string().contains("not the one this network link names"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_certificate_is_renewed_without_a_token() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    let key = relay.node().key().node_key();
    relay.stop().await;
    let credentials = folder.path().join("credentials.bin");
    std::fs::write(&credentials, b"not credentials").expect("the file is there");
    network.relay(folder.path(), None).await.expect("the login server knows the key").stop().await;
    std::fs::remove_file(&credentials).expect("the file is there");
    let relay = network.relay(folder.path(), None).await.expect("the login server knows the key");
    assert_eq!(relay.node().key().node_key(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_networks_link_leaves_the_folder_as_it_is() {
    let (network, other) = (Network::new().await, Network::new().await);
    let folder = tempfile::tempdir().expect("a folder");
    network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good").stop().await;
    other.relay(folder.path(), Some("not-a-token")).await.expect_err("nobody let it in there");
    other.relay(folder.path(), None).await.expect_err("nobody let it in there");
    let args = network.args(folder.path(), None);
    network.server.stop().await;
    Relay::start(&args).await.expect("the folder still has all it needs of the first network");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_of_other_relays_and_of_its_own_removal() {
    let network = Network::new().await;
    let (first, second) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let relay = network.relay(first.path(), Some(&network.token().await)).await.expect("the token is good");
    let key = relay.node().key().node_key();
    let other = network.relay(second.path(), Some(&network.token().await)).await.expect("the token is good");
    let other_key = other.node().key().node_key();
    until_roster(&relay, |roster| roster.node(NodeRole::Relay, &other_key).is_some()).await;

    network.admin().await.remove_node(&key.to_string()).await.expect("it is listed");
    until_roster(&relay, |roster| roster.node(NodeRole::Relay, &key).is_none()).await;
    relay.stop().await;
    let refused = network.relay(first.path(), None).await.expect_err("it was removed");
    assert!(refused.to_string().contains("not enrolled"), "{refused}");
    network.relay(first.path(), Some(&network.token().await)).await.expect("a new token lets it in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_addresses_reach_the_roster() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    let elsewhere = SocketAddr::from(([192, 0, 2, 7], 4433));
    relay.node().announce(Addresses { udp: vec![elsewhere], ..Addresses::default() });
    let key = relay.node().key().node_key();
    until_roster(&relay, |roster| roster.node(NodeRole::Relay, &key).is_some_and(|listed| listed.udp[..] == [elsewhere])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_clients_that_it_stops_and_starts_again_on_the_same_port() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut args = network.args(folder.path(), Some(&network.token().await));
    for _ in 0..3 {
        let relay = restarted(&args).await;
        let client = Client::connect(relay.local_addresses()[0], relay.node().key().node_key()).await;
        args.listen = relay.local_addresses();
        relay.stop().await;
        timeout(PATIENCE, client.connection.closed()).await.expect("the client hears of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_counters_can_be_read() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut args = network.args(folder.path(), Some(&network.token().await));
    args.metrics = Some(any_port());
    let relay = Relay::start(&args).await.expect("the token is good");
    let mut stream = TcpStream::connect(relay.metrics_address().expect("it serves them")).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("it answers");
    assert!(page.contains("ahoy_relay_forwarded_frames_total 0"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_relay_is_no_folder_for_a_supernode() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    relay.stop().await;
    let refused = Node::prepare(&network.args(folder.path(), None), NodeRole::Supernode, "ahoy-supernode").await;
    assert!(refused.expect_err("another program's folder").to_string().contains("ahoy-relay"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_device_gets_a_leg() {
    let network = Network::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let relay = network.relay(folder.path(), Some(&network.token().await)).await.expect("the token is good");
    let login = LoginClient::connect(network.server.link()).await.expect("it serves");
    let key = SigningKey::generate();
    let device = NewDevice { device: key.device_key(), seal: SealSecret::generate().public(), label: "laptop".to_owned() };
    let name = Name::parse("alice").expect("a name");
    let account = login.register(&name, "nobody guesses 7 orange kites", &device).await.expect("a fresh name");

    let client = Client::connect_as(key, relay.local_addresses()[0], relay.node().key().node_key()).await;
    let join = Join { call: CallId(random()), peer: SigningKey::generate().device_key(), grant: account.credentials.grant };
    let (answer, ..) = client.ask(&join).await;
    assert!(matches!(answer, LegEvent::Joined { peer_present: false, .. }), "{answer:?}");
}

/// The port is free as soon as the endpoint's own task has ended, moments after the relay has.
async fn restarted(args: &ServeArgs) -> Relay {
    let starting = async {
        loop {
            match Relay::start(args).await {
                Err(RelayError::Transport(TransportError::PortInUse { .. })) => tokio::task::yield_now().await,
                started => return started.expect("the folder is free"),
            }
        }
    };
    timeout(PATIENCE, starting).await.expect("the port is free soon")
}

async fn until_roster(relay: &Relay, condition: impl Fn(&Roster) -> bool) {
    let mut roster = relay.node().roster();
    let waiting = async { roster.wait_for(|view| condition(&view.roster)).await.map(|_| ()) };
    timeout(PATIENCE, waiting).await.expect("the roster comes in time").expect("the relay is there");
}

/// A login server and its folder.
struct Network {
    server: Server,
    folder: TempDir,
}

impl Network {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(Config::new(folder.path().to_owned(), any_port())).await.expect("it starts");
        Self { server, folder }
    }

    async fn admin(&self) -> Admin {
        Admin::open(self.folder.path(), Clock::default()).await.expect("the folder is there")
    }

    async fn token(&self) -> String {
        self.admin().await.node_token().await.expect("a token")
    }

    async fn roster(&self) -> Roster {
        let login = LoginClient::connect(self.server.link()).await.expect("it serves");
        let signed = login.roster(0, 0).await.expect("it answers").expect("there is a roster");
        signed.claims().expect("it was checked")
    }

    fn args(&self, folder: &Path, token: Option<&str>) -> ServeArgs {
        ServeArgs {
            network: self.server.link().to_string(),
            token: token.map(str::to_owned),
            data: folder.to_owned(),
            listen: vec![any_port()],
            tcp: Vec::new(),
            public: None,
            metrics: None,
        }
    }

    async fn relay(&self, folder: &Path, token: Option<&str>) -> Result<Relay, RelayError> {
        Relay::start(&self.args(folder, token)).await
    }
}
