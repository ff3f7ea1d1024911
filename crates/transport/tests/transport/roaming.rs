//! What becomes of connections and calls when a relay dies, and when this machine is somewhere else.

use crate::support::{
    ALPN, Client, Gate, Nat, Node, PATIENCE, Talk, ToyRelay, call, client, join, leg_key, node, relay, until, until_path,
};
use ahoy_protocol::datagram::Side;
use ahoy_protocol::peer::{Candidate, CandidateKind, Mapping};
use ahoy_transport::{ClientEndpoint, Connection, LegTrouble, NodePlace, PathKind, Peer, TransportError};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long both sides talk before the next thing happens.
const A_WHILE: Duration = Duration::from_millis(500);
/// Shorter than the time between two keep-alives of a connection to a node.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Two clients in a call with a leg on each of two relays.
struct TwoLegs {
    relays: [(Arc<ToyRelay>, Node); 2],
    caller: Peer,
    _callee: Peer,
    there: Connection,
    here: Connection,
    _clients: [Client; 2],
}

async fn two_legs() -> TwoLegs {
    let relays = [relay(), relay()];
    let (alice, bob) = (client(), client());
    let (caller, callee) = (alice.peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    for (leg, (relay, node)) in (0..).zip(&relays) {
        relay.join(&alice, &bob, 1);
        assert!(caller.set_leg(leg, node.address(), 1, leg_key(1)));
        assert!(callee.set_leg(leg, node.address(), 101, leg_key(101)));
    }
    let (there, here) = tokio::join!(caller.connect(), callee.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    TwoLegs { relays, caller, _callee: callee, there, here, _clients: [alice, bob] }
}

#[tokio::test]
async fn the_second_leg_takes_over_when_the_first_relay_dies() {
    let call = two_legs().await;
    let mut troubles = call.caller.leg_events();
    let (forth, back) = (Talk::begin(&call.there, &call.here), Talk::begin(&call.here, &call.there));
    tokio::time::sleep(A_WHILE).await;
    call.relays[0].0.dead.store(true, Ordering::Relaxed);
    let dead = async { while troubles.recv().await.expect("the call lasts") != LegTrouble::Dead(0) {} };
    tokio::time::timeout(PATIENCE, dead).await.expect("it is noticed");
    let carried = call.relays[1].0.forwarded.load(Ordering::Relaxed);
    assert!(carried > 0, "the other relay carries nothing");
    // What was under way when the relay died is sent again.
    assert_eq!((forth.missing().await, back.missing().await), (vec![], vec![]));
}

#[tokio::test]
async fn a_relay_that_was_replaced_carries_nothing_more() {
    let call = call().await;
    let (other, place) = relay();
    other.join(&call.alice, &call.bob, 7);
    join(&call.caller, &place, 7);
    join(&call.callee, &place, 107);
    let talk = Talk::begin(&call.there, &call.here);
    tokio::time::sleep(A_WHILE).await;
    let before = call.relay.forwarded.load(Ordering::Relaxed);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(talk.missing().await, vec![]);
    assert!(other.forwarded.load(Ordering::Relaxed) > 0);
    assert_eq!(call.relay.forwarded.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn a_relay_follows_a_client_whose_address_changes() {
    let (relay, node) = relay();
    let (alice, bob) = (client(), client());
    let nat = Nat::new(&alice, node.address()).await;
    relay.join_at(nat.outside(), bob.address(), 1);
    let (caller, callee) = (alice.peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    assert!(caller.set_leg(0, nat.address, 1, leg_key(1)));
    assert!(callee.set_leg(0, node.address(), 101, leg_key(101)));
    let (there, here) = tokio::join!(caller.connect(), callee.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    until("the leg to prove itself", || caller.leg_rtt(0).is_some()).await;

    let talk = Talk::begin(&here, &there);
    tokio::time::sleep(A_WHILE).await;
    nat.forget().await;
    until("a move", || relay.moved(1) > 0).await;
    tokio::time::sleep(A_WHILE).await;

    let first = relay.moved(1);
    nat.forget().await;
    alice.endpoint.handle_network_change();
    until("another move", || relay.moved(1) > first).await;
    tokio::time::sleep(A_WHILE).await;
    let missing = talk.missing().await;
    // Twice, what was said until the silence was noticed.
    assert!(missing.len() < 50, "{missing:?}");
}

#[tokio::test]
async fn nodes_see_at_once_where_a_client_went() {
    let (client, server) = (client(), node());
    let nat = Nat::new(&client, server.address()).await;
    let place = NodePlace::udp(&[nat.address]);
    let key = server.node_key();
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    assert_eq!(here.remote_address(), nat.outside());
    nat.forget().await;
    client.endpoint.handle_network_change();
    let followed = until("the node to follow", || here.remote_address() == nat.outside());
    tokio::time::timeout(AT_ONCE, followed).await.expect("sooner than by a keep-alive");
    assert!(!there.is_closed());
}

#[tokio::test]
async fn every_change_of_network_is_told() {
    let client = client();
    let mut network = client.endpoint.network();
    let before = network.borrow_and_update().generation;
    client.endpoint.handle_network_change();
    network.changed().await.expect("open");
    assert_eq!(network.borrow().generation, before + 1);
}

#[tokio::test]
async fn legs_are_news_to_one_listener() {
    let call = call().await;
    let first = call.caller.leg_events();
    assert_eq!(call.caller.leg_events().recv().await, None);
    drop(first);
}

#[tokio::test]
async fn nobody_else_gets_the_port_while_calls_have_lines_of_their_own() {
    let call = call().await;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, call.alice.endpoint.port()));
    let refused = ClientEndpoint::bind(Some(address.port()), &call.alice.key);
    assert_eq!(refused.expect_err("taken"), TransportError::PortInUse { address });
    let pushy = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    pushy.set_reuse_address(true).expect("an option");
    pushy.bind(&address.into()).expect_err("taken");
}

#[tokio::test]
async fn a_call_goes_by_an_extra_socket_where_the_port_is_shut_out() {
    let (relay, node) = relay();
    let (alice, bob) = (client(), client());
    relay.join(&alice, &bob, 1);
    let gate = Gate::new(bob.address(), alice.address()).await;
    let (caller, callee) = (alice.eager_peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    join(&caller, &node, 1);
    join(&callee, &node, 101);
    let (there, here) = tokio::join!(caller.connect(), callee.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    caller.set_own_mapping(Mapping::EndpointDependent);
    let seen = Candidate { address: gate.address, kind: CandidateKind::ServerReflexive };
    caller.set_peer_network(&[seen], Mapping::EndpointIndependent);
    caller.start_probing();
    callee.start_probing();
    until_path(&caller, &[PathKind::Lan, PathKind::Direct]).await;
    until_path(&callee, &[PathKind::Lan, PathKind::Direct]).await;
    relay.dead.store(true, Ordering::Relaxed);
    let (forth, back) = (Talk::begin(&there, &here), Talk::begin(&here, &there));
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((forth.missing().await, back.missing().await), (vec![], vec![]));
    assert!(caller.stats().attempts > 0);
}
