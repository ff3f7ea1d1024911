//! What a relay tells the supernodes.

mod harness;

use ahoy_identity::SigningKey;
use ahoy_protocol::List;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Request, Response};
use ahoy_protocol::roster::RosterNode;
use ahoy_transport::{NodeEndpoint, NodeLimits, ObserveResponder, receive, send};
use harness::{Lab, PATIENCE, any_port};
use std::sync::Arc;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn the_supernodes_of_the_roster_hear_from_the_relay_under_its_own_key() {
    let key = SigningKey::generate();
    let handler = Arc::new(ObserveResponder::new(Arc::default()));
    let supernode = NodeEndpoint::bind(&[any_port()], &[], &key, &[ALPN], handler, NodeLimits::default()).expect("a free port");
    let listed = RosterNode {
        role: NodeRole::Supernode,
        node: key.node_key(),
        udp: List::first_of(supernode.local_addresses()),
        tcp: List::default(),
        overlay: List::default(),
    };
    let lab = Lab::with_supernodes(vec![listed]).await;
    let heard = async {
        let connection = supernode.accept().await.expect("the relay comes").finish().await.expect("a handshake");
        let (mut sending, mut receiving) = connection.accept_bi().await.expect("a stream");
        let request = receive::<Request>(&mut receiving).await.expect("a request").expect("a request");
        send(&mut sending, &Response::Done).await.expect("the relay reads");
        (connection.peer_key(), request)
    };
    let (peer, request) = timeout(PATIENCE, heard).await.expect("in time");
    assert_eq!(peer, lab.key.public());
    assert_eq!(request, Request::RelayStatus { load_percent: 0 });
}
