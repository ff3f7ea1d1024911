//! What a client's endpoint promises towards nodes and strangers.

use crate::support::{ALPN, Note, PATIENCE, Quality, Way, client, hear, node, node_on, noise, note, stranger, until};
use ahoy_identity::SigningKey;
use ahoy_transport::{ClientEndpoint, Connection, NodePlace, TransportError, receive, send};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Answers every question with itself.
async fn echo(connection: Connection) {
    while let Ok((mut sending, mut receiving)) = connection.accept_bi().await {
        if let Ok(Some(question)) = receive::<Note>(&mut receiving).await {
            let _ = send(&mut sending, &question).await;
            let _ = sending.finish();
        }
    }
}

#[tokio::test]
async fn a_client_and_a_node_learn_each_others_keys_and_real_addresses() {
    let (client, server) = (client(), node());
    let (place, key) = (NodePlace::udp(&[server.address()]), server.node_key());
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    let (there, here) = (there.expect("connected"), here.expect("connected"));
    assert_eq!((there.peer_key(), here.peer_key()), (server.key.public(), client.key.public()));
    assert_eq!((there.remote_address(), here.remote_address()), (server.address(), client.address()));
}

#[tokio::test]
async fn a_node_with_another_key_is_refused() {
    let (client, server) = (client(), node());
    let (place, other) = (NodePlace::udp(&[server.address()]), SigningKey::generate().node_key());
    let accept = async { server.endpoint.accept().await.expect("open").finish().await.map(drop) };
    let (refused, _) = tokio::join!(client.endpoint.connect_node(&place, &other, ALPN), accept);
    assert_eq!(refused.expect_err("another key"), TransportError::WrongKey);
}

#[tokio::test]
async fn the_next_address_of_a_node_is_tried_while_the_first_is_silent() {
    let (client, server, silent) = (client(), node_on(&["[::1]:0"]), stranger());
    let place = NodePlace::udp(&[silent.local_addr().expect("bound"), server.address()]);
    let key = server.node_key();
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    here.expect("connected");
    assert_eq!(there.expect("connected").remote_address(), server.address());
}

#[tokio::test]
async fn a_slow_link_that_loses_every_fourth_packet_still_connects() {
    let (client, server) = (client(), node());
    let quality = Quality { delay: Duration::from_millis(25), loss_percent: 25 };
    let link = Way::new([client.address(), server.address()], quality).await;
    let (place, key) = (NodePlace::udp(&[link.address]), server.node_key());
    let accept = async { server.endpoint.accept().await.expect("open").finish().await };
    let (there, here) = tokio::join!(client.endpoint.connect_node(&place, &key, ALPN), accept);
    let there = there.expect("connected");
    assert!(there.rtt() >= 2 * quality.delay);
    let serving = tokio::spawn(echo(here.expect("connected")));
    assert_eq!(there.request::<_, Note>(&note("ahoy"), PATIENCE).await, Ok(note("ahoy")));
    serving.abort();
}

#[tokio::test]
async fn two_connections_to_one_node_do_not_disturb_each_other() {
    let (client, server) = (client(), node());
    let (place, key) = (NodePlace::udp(&[server.address()]), server.node_key());
    let serving = tokio::spawn(async move {
        while let Some(handshaking) = server.endpoint.accept().await {
            tokio::spawn(async { echo(handshaking.finish().await.expect("connected")).await });
        }
    });
    let one = client.endpoint.connect_node(&place, &key, ALPN).await.expect("connected");
    let two = client.endpoint.connect_node(&place, &key, ALPN).await.expect("connected");
    for number in 0..50 {
        let (to_one, to_two) = (note(&format!("one {number}")), note(&format!("two {number}")));
        let answers = tokio::join!(one.request::<_, Note>(&to_one, PATIENCE), two.request::<_, Note>(&to_two, PATIENCE));
        assert_eq!(answers, (Ok(to_one), Ok(to_two)));
    }
    one.close(0, "");
    assert_eq!(two.request::<_, Note>(&note("still"), PATIENCE).await, Ok(note("still")));
    serving.abort();
}

#[tokio::test]
async fn a_node_tells_from_where_it_sees_a_client() {
    let (client, server, silent) = (client(), node(), stranger());
    let observation = client.endpoint.observe(server.address(), PATIENCE).await.expect("an answer");
    assert_eq!((observation.address, observation.load_percent), (client.address(), 33));
    let silence = client.endpoint.observe(silent.local_addr().expect("bound"), Duration::from_millis(50)).await;
    assert_eq!(silence, None);
}

#[tokio::test]
async fn a_stranger_cannot_begin_a_handshake_and_gets_no_answer() {
    let (client, other, decoy) = (client(), node(), stranger());
    let (address, key) = (decoy.local_addr().expect("bound"), SigningKey::generate().node_key());
    // A true first packet of QUIC, meant for somebody else.
    let initial = tokio::select! {
        _ = other.endpoint.connect(address, &key, ahoy_protocol::peer::ALPN) => panic!("nobody answers"),
        (initial, _) = hear(decoy) => initial,
    };
    let stranger = stranger();
    let mut unknown_version = initial.clone();
    unknown_version[1..5].copy_from_slice(&[0x1a; 4]);
    for packet in [initial, unknown_version, vec![0x40; 1200]] {
        stranger.send_to(&packet, client.address()).expect("sent");
    }
    until("the packets to be dropped", || client.endpoint.dropped() >= 3).await;
    assert_eq!(client.endpoint.handshakes_seen(), 0);
    stranger.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
    stranger.recv_from(&mut [0; 2048]).expect_err("no answer");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let client = client();
    let refused = ClientEndpoint::bind(Some(client.endpoint.port()), &SigningKey::generate());
    let address = (Ipv4Addr::UNSPECIFIED, client.endpoint.port()).into();
    assert_eq!(refused.expect_err("taken"), TransportError::PortInUse { address });
}

#[tokio::test]
async fn an_unreachable_kind_of_address_is_an_error_and_no_panic() {
    let client = client();
    let key = SigningKey::generate().node_key();
    let none = client.endpoint.connect_node(&NodePlace::default(), &key, ALPN).await;
    assert!(matches!(none, Err(TransportError::TimedOut { .. })));
    for bad in ["0.0.0.0:1", "127.0.0.1:0", "224.0.0.1:1"] {
        let address = bad.parse().expect("an address");
        let refused = client.endpoint.connect_node(&NodePlace::udp(&[address]), &key, ALPN).await;
        assert_eq!(refused.expect_err("no address to connect to"), TransportError::BadAddress { address });
    }
}

#[tokio::test]
async fn twenty_thousand_random_datagrams_leave_a_client_working() {
    let (client, server) = (client(), node());
    let address = client.address();
    tokio::task::spawn_blocking(move || noise(address, 20_000)).await.expect("no panic");
    until("the noise to be dropped", || client.endpoint.dropped() > 0).await;
    client.endpoint.observe(server.address(), PATIENCE).await.expect("an answer");
    assert_eq!(client.endpoint.handshakes_seen(), 0);
}
