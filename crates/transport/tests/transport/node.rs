//! What a node's endpoint promises.

use crate::support::{ALPN, Note, PATIENCE, hear, meet, node, node_on, node_with, noise, note, observer, stranger};
use ahoy_identity::SigningKey;
use ahoy_protocol::datagram::{Observe, Observed, parse_relay_frame, relay_frame};
use ahoy_protocol::wire::Text;
use ahoy_protocol::{Wire, WireError};
use ahoy_transport::{DatagramHandler, NodeEndpoint, NodeLimits, TransportError, receive, send};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

#[tokio::test]
async fn both_sides_learn_the_key_the_other_proved() {
    let (client, server) = (node(), node());
    let (there, here) = meet(&client, &server).await;
    assert_eq!(there.peer_key(), server.key.public());
    assert_eq!(here.peer_key(), client.key.public());
    assert_eq!((there.alpn(), here.alpn()), (ALPN, ALPN));
    assert_eq!(there.remote_address(), server.address());
    assert_eq!(here.remote_address(), client.address());
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_and_the_error_says_so() {
    let (client, server) = (node(), node());
    let other = SigningKey::generate().node_key();
    let (refused, _) = tokio::join!(client.endpoint.connect(server.address(), &other, ALPN), async {
        server.endpoint.accept().await.expect("open").finish().await.map(|_| ())
    });
    assert_eq!(refused.expect_err("another key"), TransportError::WrongKey);
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (client, server) = (node(), node());
    let key = server.node_key();
    let refused = tokio::select! {
        refused = client.endpoint.connect(server.address(), &key, b"other/1") => refused,
        _ = server.endpoint.accept() => panic!("it was admitted"),
    };
    assert!(matches!(refused, Err(TransportError::Lost(_))), "{refused:?}");
}

#[tokio::test]
async fn questions_are_answered_on_streams_of_their_own() {
    let (client, server) = (node(), node());
    let (there, here) = meet(&client, &server).await;
    let answering = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut sending, mut receiving) = here.accept_bi().await.expect("open");
            let Note { text } = receive(&mut receiving).await.expect("a note").expect("not the end");
            assert_eq!(receive::<Note>(&mut receiving).await.expect("a clean end"), None);
            send(&mut sending, &Note { text: Text::fitting(&format!("{} back", &*text)) }).await.expect("open");
            sending.finish().expect("open");
        }
        here.accept_bi().await.map(drop)
    });
    let (one, two) = (note("one"), note("two"));
    let (one, two) = tokio::join!(there.request::<_, Note>(&one, PATIENCE), there.request::<_, Note>(&two, PATIENCE));
    assert_eq!((one.expect("an answer"), two.expect("an answer")), (note("one back"), note("two back")));
    there.close(7, "done");
    assert_eq!(answering.await.expect("no panic"), Err(TransportError::Closed { code: 7, reason: "done".into() }));
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_anything_of_it_comes() {
    let (client, server) = (node(), node());
    let (there, here) = meet(&client, &server).await;
    let (mut sending, _) = there.open_bi().await.expect("open");
    sending.write_all(&u32::MAX.to_be_bytes()).await.expect("open");
    let (_, mut receiving) = here.accept_bi().await.expect("open");
    let too_long = WireError::TooLong { name: "note", len: u32::MAX as usize, max: Note::BYTES_MAX };
    assert_eq!(receive::<Note>(&mut receiving).await, Err(TransportError::Wire(too_long)));
}

#[tokio::test]
async fn a_message_that_breaks_off_is_an_error_and_not_an_end() {
    let (client, server) = (node(), node());
    let (there, here) = meet(&client, &server).await;
    for broken in [&[0, 0][..], &[0, 0, 0, 9, 1, 1]] {
        let (mut sending, _) = there.open_bi().await.expect("open");
        sending.write_all(broken).await.expect("open");
        sending.finish().expect("open");
        let (_, mut receiving) = here.accept_bi().await.expect("open");
        assert_eq!(receive::<Note>(&mut receiving).await, Err(TransportError::StreamEnded));
    }
}

#[tokio::test]
async fn no_answer_is_told_from_a_late_one() {
    let (client, server) = (node(), node());
    let (there, here) = meet(&client, &server).await;
    let question = note("?");
    let (_kept, refused) = tokio::join!(here.accept_bi(), there.request::<_, Note>(&question, Duration::from_millis(50)));
    assert_eq!(refused, Err(TransportError::TimedOut { what: "note" }));
    let answering = async {
        let (mut sending, _receiving) = here.accept_bi().await.expect("open");
        sending.finish().expect("open");
        sending.stopped().await
    };
    let (_, refused) = tokio::join!(answering, there.request::<_, Note>(&question, PATIENCE));
    assert_eq!(refused, Err(TransportError::NoAnswer));
}

#[tokio::test]
async fn an_observe_request_is_answered_with_the_address_it_came_from() {
    let server = node();
    let asker = stranger();
    let ask = Observe { nonce: [5; 8] };
    asker.send_to(&ask.encode(), server.address()).expect("sent");
    let address = asker.local_addr().expect("bound");
    let (answer, from) = hear(asker).await;
    assert_eq!(Observed::decode(&answer), Ok(Observed { nonce: [5; 8], load_percent: 33, address }));
    assert_eq!(from, server.address());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = node();
    let key = SigningKey::generate();
    let refused = NodeEndpoint::bind(&[server.address()], &[], &key, &[ALPN], observer(), NodeLimits::default());
    assert_eq!(refused.expect_err("taken"), TransportError::PortInUse { address: server.address() });
}

#[tokio::test]
async fn one_node_serves_on_all_its_addresses_and_families() {
    let client = node_on(&["127.0.0.1:0", "[::1]:0"]);
    let server = node_on(&["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"]);
    let addresses = server.endpoint.local_addresses();
    for address in addresses {
        let key = server.node_key();
        let (there, here) = tokio::join!(client.endpoint.connect(address, &key, ALPN), async {
            server.endpoint.accept().await.expect("open").finish().await
        });
        assert_eq!(there.expect("connected").remote_address(), address);
        here.expect("connected");
    }
}

#[tokio::test]
async fn a_handler_answers_from_the_socket_that_knows_the_receiver() {
    let swap = Arc::new(Forward::default());
    let server = node_with(&["127.0.0.1:0", "127.0.0.1:0"], Arc::clone(&swap) as _, NodeLimits::default());
    let [first, second] = server.endpoint.local_addresses()[..] else { panic!("two addresses") };
    let (left, right) = (stranger(), stranger());
    left.send_to(&relay_frame(1, b""), first).expect("sent");
    swap.heard_somebody().await;
    right.send_to(&relay_frame(1, b"to the left"), second).expect("sent");
    let (frame, from) = hear(left).await;
    assert_eq!(frame, b"to the left");
    assert_eq!(from, first);
}

#[tokio::test]
async fn a_full_node_refuses_at_once() {
    let limits = NodeLimits { connections_max: 0, ..NodeLimits::default() };
    let (client, server) = (node(), node_with(&["127.0.0.1:0"], observer(), limits));
    let key = server.node_key();
    let refused = tokio::select! {
        refused = client.endpoint.connect(server.address(), &key, ALPN) => refused,
        _ = server.endpoint.accept() => panic!("it was admitted"),
    };
    assert_eq!(refused.expect_err("full"), TransportError::Refused);
}

#[tokio::test]
async fn a_busy_node_lets_clients_prove_their_address_first() {
    let limits = NodeLimits { handshakes_unproved_max: 0, ..NodeLimits::default() };
    let (client, server) = (node(), node_with(&["127.0.0.1:0"], observer(), limits));
    meet(&client, &server).await;
}

#[tokio::test]
async fn twenty_thousand_random_datagrams_leave_a_node_serving() {
    let server = node();
    let (address, key) = (server.address(), server.node_key());
    let accepting = tokio::spawn(async move {
        while let Some(handshaking) = server.endpoint.accept().await {
            tokio::spawn(async { handshaking.finish().await.expect("no random datagram is a handshake").closed().await });
        }
    });
    tokio::task::spawn_blocking(move || noise(address, 20_000)).await.expect("no panic");
    node().endpoint.connect(address, &key, ALPN).await.expect("it still serves");
    accepting.abort();
}

/// Forwards the payload of each frame to whoever was heard first.
#[derive(Debug, Default)]
struct Forward {
    first: Mutex<Option<SocketAddr>>,
    heard: Notify,
}

impl Forward {
    async fn heard_somebody(&self) {
        self.heard.notified().await;
    }
}

impl DatagramHandler for Forward {
    fn handle(&self, from: SocketAddr, datagram: &[u8], out: &mut dyn FnMut(SocketAddr, &[u8])) {
        let (_, payload) = parse_relay_frame(datagram).expect("only frames are sent here");
        let first = *self.first.lock().expect("no panic").get_or_insert(from);
        if first != from {
            out(first, payload);
        }
        self.heard.notify_one();
    }
}
