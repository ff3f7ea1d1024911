//! A node whose login server is away: what it goes on with, and when it says that it cannot.

use ahoy_identity::{SigningKey, network_id};
use ahoy_node::{Addresses, Node, NodeError, Offered, RosterRefused, ServeArgs, testing};
use ahoy_protocol::certificate::{NetworkDocument, NetworkStatement, NodeCertificate, NodeRole};
use ahoy_protocol::login::NodeCredentials;
use ahoy_protocol::roster::Roster;
use ahoy_protocol::time::{DAY, HOUR};
use ahoy_protocol::{List, NetworkLink, Signed, UnixMillis};
use ahoy_store::StoreError;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const PROGRAM: &str = "ahoy-relay";

#[tokio::test]
async fn it_goes_on_with_certificate_and_roster_from_its_folder() {
    let home = Home::with_certificate_until(now().plus(DAY));
    let node = home.join().await.expect("everything is in the folder");
    assert_eq!(node.roster().borrow().roster.version, 5);
    assert_eq!(node.key().node_key(), home.key.node_key());
    assert_eq!(node.network().id, network_id(&home.root.root_key()));
}

#[tokio::test]
async fn it_goes_on_for_seven_days_after_the_certificates_end_and_not_longer() {
    let home = Home::with_certificate_until(now().minus(6 * DAY));
    home.join().await.expect("an absent login server does not end the network");
    let home = Home::with_certificate_until(now().minus(7 * DAY + HOUR));
    let refused = home.join().await.expect_err("enough is enough");
    assert!(matches!(refused, NodeError::Lapsed { .. }), "{refused}");
}

#[tokio::test]
async fn without_a_certificate_it_says_that_the_login_server_is_away() {
    let home = Home::empty();
    let refused = home.join().await.expect_err("there is nothing to go on with");
    assert!(matches!(refused, NodeError::Login(_)), "{refused}");
}

#[tokio::test]
async fn the_credentials_of_another_network_do_not_count() {
    let mut home = Home::with_certificate_until(now().plus(DAY));
    home.root = SigningKey::generate();
    assert!(matches!(home.join().await, Err(NodeError::Login(_))));
}

#[tokio::test]
async fn the_credentials_of_another_key_do_not_count() {
    let home = Home::empty();
    let other = SigningKey::generate();
    let credentials = NodeCredentials { certificate: home.certificate(&other, now().plus(DAY)), roster: home.roster(5) };
    testing::leave_behind(home.folder.path(), PROGRAM, &home.key, &home.document(), &credentials).expect("a fresh folder");
    assert!(matches!(home.join().await, Err(NodeError::Login(_))));
}

#[tokio::test]
async fn a_newer_roster_is_taken_told_and_kept() {
    let home = Home::with_certificate_until(now().plus(DAY));
    let node = home.join().await.expect("everything is in the folder");
    let mut told = node.roster();
    assert_eq!(node.offer_roster(home.roster(6)), Ok(Offered::Taken));
    told.changed().await.expect("the node is there");
    assert_eq!(told.borrow_and_update().roster.version, 6);
    drop(node);
    let node = home.join().await.expect("a second start is like the first");
    assert_eq!(node.roster().borrow().roster.version, 6);
}

#[tokio::test]
async fn an_older_or_forged_roster_is_refused() {
    let home = Home::with_certificate_until(now().plus(DAY));
    let node = home.join().await.expect("everything is in the folder");
    assert_eq!(node.offer_roster(home.roster(5)), Ok(Offered::Known));
    assert_eq!(node.offer_roster(home.roster(4)), Err(RosterRefused::Older { offered: 4, held: 5 }));
    let forged = Home::empty().roster(9);
    assert!(matches!(node.offer_roster(forged), Err(RosterRefused::Chain(_))));
    assert_eq!(node.roster().borrow().roster.version, 5);
}

#[tokio::test]
async fn a_text_that_is_no_link_is_explained() {
    let mut args = Home::empty().args();
    args.network = "http://login.example".to_owned();
    let refused = Node::prepare(&args, NodeRole::Relay, PROGRAM).await.expect_err("no link");
    assert!(refused.to_string().contains("ahoy://"), "{refused}");
}

#[tokio::test]
async fn a_folder_serves_one_node_at_a_time() {
    let home = Home::empty();
    let first = Node::prepare(&home.args(), NodeRole::Relay, PROGRAM).await.expect("a fresh folder");
    let refused = Node::prepare(&home.args(), NodeRole::Relay, PROGRAM).await.expect_err("it is in use");
    assert!(matches!(refused, NodeError::Store(StoreError::InUse { .. })), "{refused}");
    drop(first);
    Node::prepare(&home.args(), NodeRole::Relay, PROGRAM).await.expect("it is free again");
}

#[tokio::test]
async fn the_key_is_made_once() {
    let home = Home::empty();
    let first = Node::prepare(&home.args(), NodeRole::Relay, PROGRAM).await.expect("a fresh folder").key().node_key();
    let second = Node::prepare(&home.args(), NodeRole::Relay, PROGRAM).await.expect("the same folder").key().node_key();
    assert_eq!(first, second);
}

/// A network, a node of it, and the node's folder.
struct Home {
    root: SigningKey,
    issuing: SigningKey,
    key: SigningKey,
    folder: TempDir,
    closed_port: u16,
}

impl Home {
    fn empty() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let closed_port = listener.local_addr().expect("it is bound").port();
        let folder = tempfile::tempdir().expect("a folder");
        Self { root: SigningKey::generate(), issuing: SigningKey::generate(), key: SigningKey::generate(), folder, closed_port }
    }

    fn with_certificate_until(not_after: UnixMillis) -> Self {
        let home = Self::empty();
        let credentials = NodeCredentials { certificate: home.certificate(&home.key, not_after), roster: home.roster(5) };
        testing::leave_behind(home.folder.path(), PROGRAM, &home.key, &home.document(), &credentials).expect("a fresh folder");
        home
    }

    fn args(&self) -> ServeArgs {
        let link = NetworkLink { host: "127.0.0.1".to_owned(), port: self.closed_port, network: network_id(&self.root.root_key()) };
        ServeArgs {
            network: link.to_string(),
            token: None,
            data: self.folder.path().to_owned(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            tcp: Vec::new(),
            public: None,
            metrics: None,
        }
    }

    async fn join(&self) -> Result<Node, NodeError> {
        Node::prepare(&self.args(), NodeRole::Relay, PROGRAM).await?.join(Addresses::default()).await
    }

    fn document(&self) -> NetworkDocument {
        let statement = NetworkStatement { issuing: List::first_of([self.issuing.issuing_key()]), issued: now() };
        NetworkDocument { root: self.root.root_key(), statement: self.root.sign(&statement).expect("fits") }
    }

    fn certificate(&self, key: &SigningKey, not_after: UnixMillis) -> Signed<NodeCertificate> {
        let issued = not_after.minus(DAY);
        let certificate = NodeCertificate { role: NodeRole::Relay, node: key.node_key(), serial: 1, issued, not_after };
        self.issuing.sign(&certificate).expect("fits")
    }

    fn roster(&self, version: u64) -> Signed<Roster> {
        let roster = Roster {
            version,
            issued: now(),
            not_after: now().plus(Duration::from_secs(3600)),
            salts: List::default(),
            nodes: List::default(),
            revoked: List::default(),
        };
        self.issuing.sign(&roster).expect("fits")
    }
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
