//! What tunnels over TCP promise: the same as UDP to whoever is above them, with a proxy between or without.

use crate::proxies::{Language, TestProxy};
use crate::support::{
    ALPN, Client, Nat, Node, Note, PATIENCE, Talk, client, join, leg_key, node, node_on, node_with, note, observer, relay, stranger, until,
    until_path,
};
use ahoy_identity::SigningKey;
use ahoy_protocol::datagram::{Side, relay_frame};
use ahoy_transport::{
    Connection, DatagramHandler, NodeEndpoint, NodeLimits, NodePlace, PathKind, Proxy, ProxyError, Reach, Reached, TransportError, UdpUse,
    receive, send,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where a node is, for those who do not use UDP.
fn tcp_place(node: &Node) -> NodePlace {
    NodePlace { udp: Vec::new(), tcp: node.endpoint.local_tcp_addresses() }
}

/// Both ends of a connection from a client to a node through a tunnel.
async fn dig(client: &Client, node: &Node) -> (Connection, Connection) {
    let (place, key) = (tcp_place(node), node.node_key());
    let accept = async { node.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    (there.expect("connected"), here.expect("connected"))
}

/// Asks a question over `there` and answers it over `here`.
async fn speak(there: &Connection, here: &Connection) {
    let ask = async {
        let (mut sending, mut receiving) = there.open_bi().await.expect("open");
        send(&mut sending, &note("ahoy?")).await.expect("sent");
        receive::<Note>(&mut receiving).await.expect("received").expect("an answer")
    };
    let answer = async {
        let (mut sending, mut receiving) = here.accept_bi().await.expect("open");
        let question = receive::<Note>(&mut receiving).await.expect("received").expect("a question");
        send(&mut sending, &question).await.expect("sent");
        sending.finish().expect("open");
    };
    let (answered, ()) = timeout(PATIENCE, async { tokio::join!(ask, answer) }).await.expect("in time");
    assert_eq!(answered, note("ahoy?"));
}

fn through(proxy: &TestProxy, kind: &str) -> Reach {
    let proxy = Proxy::parse(&format!("{kind}{}", proxy.address)).expect("a proxy");
    Reach { proxy: Some(proxy), udp: UdpUse::Prefer }
}

#[tokio::test]
async fn a_client_and_a_node_meet_in_a_tunnel_and_know_each_other() {
    let (client, server) = (client(), node());
    let (there, here) = dig(&client, &server).await;
    assert_eq!((there.peer_key(), here.peer_key()), (server.key.public(), client.key.public()));
    assert!(there.is_tunnelled() && here.is_tunnelled());
    assert_eq!(here.client_ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    speak(&there, &here).await;
    let observation = client.endpoint.observe(there.remote_address(), PATIENCE).await.expect("an answer through the tunnel");
    assert_eq!((observation.address.ip(), observation.load_percent), (IpAddr::V4(Ipv4Addr::LOCALHOST), 33));
}

#[tokio::test]
async fn tcp_listens_on_the_ports_of_udp_and_on_its_own() {
    let key = SigningKey::generate();
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let endpoint = NodeEndpoint::bind(&[any], &[any], &key, &[ALPN], observer(), NodeLimits::default()).expect("loopback has room");
    let (udp, tcp) = (endpoint.local_addresses(), endpoint.local_tcp_addresses());
    assert_eq!((udp.len(), tcp.len(), udp[0]), (1, 2, tcp[0]));
    let server = Node { key, endpoint };
    let place = NodePlace { udp: Vec::new(), tcp: vec![tcp[1]] };
    let (client, node_key) = (client(), server.node_key());
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, _here) = tokio::join!(client.endpoint.connect_node(&place, &node_key, ALPN), accept);
    assert!(there.expect("connected").is_tunnelled());
}

#[tokio::test]
async fn a_tcp_port_that_is_taken_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has room");
    let address = taken.local_addr().expect("bound");
    let refused = NodeEndpoint::bind(&[address], &[], &SigningKey::generate(), &[ALPN], observer(), NodeLimits::default());
    assert_eq!(refused.expect_err("it is taken"), TransportError::TcpPortInUse { address });
}

#[tokio::test]
async fn where_udp_is_silent_the_tunnel_is_taken() {
    let (client, server, silent) = (client(), node(), stranger());
    let place = NodePlace { udp: vec![silent.local_addr().expect("bound")], ..tcp_place(&server) };
    let (key, accept) = (server.node_key(), async { server.endpoint.accept().await.expect("open").finish().await });
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    assert!(there.is_tunnelled());
    assert_eq!(client.endpoint.udp_gets_out(), Some(false));
    speak(&there, &here).await;
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_before_anything_is_said() {
    let (client, server) = (client(), node());
    let refused = client.endpoint.connect_node(&tcp_place(&server), &SigningKey::generate().node_key(), ALPN).await;
    assert_eq!(refused.expect_err("another key"), TransportError::WrongKey);
    assert_eq!(server.endpoint.connections(), 0);
}

#[tokio::test]
async fn nobody_at_the_port_is_an_error_that_says_so() {
    let (client, gone) = (client(), node_on(&["127.0.0.1:0"]));
    let (place, key) = (tcp_place(&gone), gone.node_key());
    drop(gone);
    let refused = client.endpoint.connect_node(&place, &key, ALPN).await.expect_err("nobody is there");
    assert!(matches!(refused, TransportError::Tcp { .. }), "{refused}");
}

#[tokio::test]
async fn strangers_who_talk_nonsense_to_the_tcp_port_cost_nobody_his_tunnel() {
    let (client, server) = (client(), node());
    let (there, here) = dig(&client, &server).await;
    let address = server.endpoint.local_tcp_addresses()[0];
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 5000], &[0x16, 3, 1, 0xff, 0xff, 1]] {
        let mut stranger = TcpStream::connect(address).await.expect("it listens");
        let _ = stranger.write_all(nonsense).await;
        let _ = stranger.shutdown().await;
        // An alert, an end or a reset: whatever it is, it comes.
        let _ = timeout(PATIENCE, stranger.read_to_end(&mut Vec::new())).await.expect("the node lets go");
    }
    until("the strangers' places are free", || server.endpoint.tunnels() == 1).await;
    speak(&there, &here).await;
}

#[tokio::test]
async fn a_call_runs_between_a_tunnel_and_udp() {
    let (relay, server) = relay();
    let (alice, bob) = (client(), client());
    let (to_relay, at_relay) = dig(&alice, &server).await;
    relay.join_at(at_relay.remote_address(), bob.address(), 1);
    let (caller, callee) = (alice.peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    assert!(caller.set_leg(0, to_relay.remote_address(), 1, leg_key(1)));
    join(&callee, &server, 101);
    let (there, here) = tokio::join!(caller.connect(), callee.accept());
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    let (talk, answer) = (Talk::begin(&there, &here), Talk::begin(&here, &there));
    until("they have spoken", || relay.forwarded.load(Ordering::Relaxed) > 100).await;
    assert_eq!((talk.missing().await, answer.missing().await), (Vec::new(), Vec::new()));
    until_path(&caller, &[PathKind::RelayTcp]).await;
    until_path(&callee, &[PathKind::Relay]).await;
}

#[tokio::test]
async fn a_proxy_of_either_kind_leads_to_the_node() {
    for (language, kind) in [(Language::Http, "http://"), (Language::Socks5, "socks5://"), (Language::Socks5, "socks5h://")] {
        let (client, server, proxy) = (client(), node(), TestProxy::new(language, None).await);
        client.endpoint.set_reach(through(&proxy, kind));
        let (there, here) = dig(&client, &server).await;
        speak(&there, &here).await;
        assert_eq!(proxy.connections.load(Ordering::Relaxed), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_gets_it_and_refuses_another() {
    for (language, scheme) in [(Language::Http, "http"), (Language::Socks5, "socks5")] {
        let (client, server, proxy) = (client(), node(), TestProxy::new(language, Some(("alice", "p@ss"))).await);
        client.endpoint.set_reach(through(&proxy, &format!("{scheme}://alice:p%40ss@")));
        let (there, here) = dig(&client, &server).await;
        speak(&there, &here).await;
        for wrong in [format!("{scheme}://alice:pass@"), format!("{scheme}://")] {
            client.endpoint.set_reach(through(&proxy, &wrong));
            let refused = client.endpoint.connect_node(&tcp_place(&server), &server.node_key(), ALPN).await;
            let expected = ProxyError::Unauthorized { proxy: proxy.address.to_string() };
            assert_eq!(refused.expect_err("a wrong password"), TransportError::Proxy(expected), "{wrong}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_node_says_so() {
    let (client, gone) = (client(), node());
    let (place, key) = (tcp_place(&gone), gone.node_key());
    drop(gone);
    for (language, kind) in [(Language::Http, "http://"), (Language::Socks5, "socks5://")] {
        let proxy = TestProxy::new(language, None).await;
        client.endpoint.set_reach(through(&proxy, kind));
        let refused = client.endpoint.connect_node(&place, &key, ALPN).await.expect_err("nobody is there");
        assert!(matches!(refused, TransportError::Proxy(ProxyError::Refused { .. })), "{refused}");
    }
}

#[tokio::test]
async fn a_tunnel_that_breaks_ends_its_connection_at_both_ends() {
    let (client, server, proxy) = (client(), node(), TestProxy::new(Language::Http, None).await);
    client.endpoint.set_reach(through(&proxy, "http://"));
    let (there, here) = dig(&client, &server).await;
    let began = Instant::now();
    proxy.cut();
    timeout(PATIENCE, async { tokio::join!(there.closed(), here.closed()) }).await.expect("both notice");
    assert!(began.elapsed() < PATIENCE, "long before QUIC would have");
    until("the place is free", || server.endpoint.tunnels() == 0).await;
}

#[tokio::test]
async fn a_tunnel_outlives_a_change_of_network_that_leaves_it_its_address() {
    let (client, server) = (client(), node());
    let (there, here) = dig(&client, &server).await;
    client.endpoint.handle_network_change();
    // Longer than a tunnel may take to show that it still leads somewhere.
    assert!(timeout(Duration::from_secs(4), there.closed()).await.is_err(), "it was broken off");
    speak(&there, &here).await;
}

#[tokio::test]
async fn a_tunnel_that_leads_nowhere_after_a_change_of_network_is_given_up_soon() {
    let (client, server, proxy) = (client(), node(), TestProxy::new(Language::Http, None).await);
    client.endpoint.set_reach(through(&proxy, "http://"));
    let (there, _here) = dig(&client, &server).await;
    // The last acknowledgements of the handshakes are still under way, and would be taken for a sign of life.
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.hold_up();
    client.endpoint.handle_network_change();
    timeout(PATIENCE, there.closed()).await.expect("long before QUIC would have noticed");
}

/// Sends each datagram back to where it came from.
#[derive(Debug)]
struct Echo;

impl DatagramHandler for Echo {
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        out(from, datagram);
    }
}

#[tokio::test]
async fn who_does_not_read_loses_what_is_old_and_keeps_his_tunnel() {
    let server = node_with(&["127.0.0.1:0"], Arc::new(Echo), NodeLimits::default());
    let (client, proxy) = (client(), TestProxy::new(Language::Http, None).await);
    client.endpoint.set_reach(through(&proxy, "http://"));
    let (there, here) = dig(&client, &server).await;
    proxy.hold_up();
    let (sender, to) = (server.endpoint.sender(), here.remote_address());
    // Far more than queue and system hold.
    let began = Instant::now();
    for number in 0..20_000_u32 {
        sender.send(to, &relay_frame(number, &[0x40; 1200]));
    }
    assert!(began.elapsed() < PATIENCE, "nobody waits for the tunnel");
    until("what is old is dropped", || server.endpoint.dropped_by_tunnels() > 10_000).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.let_go();
    speak(&there, &here).await;
}

/// A client, a node that answers questions, and their connection over UDP; between them a router that may stop carrying it.
async fn behind_router() -> (Client, Node, Nat, Connection) {
    let client = client();
    let server = node_with(&["127.0.0.1:0"], observer(), NodeLimits::default());
    let nat = Nat::new(&client, server.address()).await;
    let (place, key) = (NodePlace::udp(&[nat.address]), server.node_key());
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    let _ = here.expect("connected");
    (client, server, nat, there.expect("connected"))
}

#[tokio::test]
async fn a_node_that_answers_over_udp_gets_no_tunnel() {
    let (client, server, _nat, connection) = behind_router().await;
    let (place, key) = (tcp_place(&server), server.node_key());
    let checking = client.endpoint.check_node(&connection, &place, &key, ALPN);
    let reached = timeout(PATIENCE, checking).await.expect("in time").expect("reached");
    assert!(matches!(reached, Reached::Udp));
    assert_eq!(client.endpoint.udp_gets_out(), Some(true));
}

#[tokio::test]
async fn a_node_that_answers_over_udp_no_more_gets_a_tunnel() {
    let (client, server, nat, connection) = behind_router().await;
    drop(nat);
    client.endpoint.handle_network_change();
    let place = tcp_place(&server);
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let key = server.node_key();
    let checking = client.endpoint.check_node(&connection, &place, &key, ALPN);
    let (reached, here) = timeout(PATIENCE, async { tokio::join!(checking, accept) }).await.expect("in time");
    let Ok(Reached::Tunnel(tunnel)) = reached else { panic!("{reached:?}") };
    assert!(tunnel.is_tunnelled());
    speak(&tunnel, &here.expect("connected")).await;
    assert_eq!(client.endpoint.udp_gets_out(), Some(false));
}

#[tokio::test]
async fn a_node_that_answers_neither_way_is_out_of_reach() {
    let (client, server, nat, connection) = behind_router().await;
    drop(nat);
    let (place, key) = (NodePlace::default(), server.node_key());
    let checking = client.endpoint.check_node(&connection, &place, &key, ALPN);
    assert!(timeout(PATIENCE, checking).await.expect("in time").is_err());
}
