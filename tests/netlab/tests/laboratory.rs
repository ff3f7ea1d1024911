//! The laboratory itself: what it emulates is what the other tests take it for.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Capture, Lab, Nat, Router, Spot, in_namespace, lab_or_skip};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(10);
/// What is blocked does not arrive, however long one waits; this is long enough to see.
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_client_appears_with_its_routers_address_and_strangers_do_not_reach_it() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let (client, router) = lab.behind_nat("client", Nat::PortPreserving);
    let (inside, outside) = (socket(&client), socket(&server));
    inside.send_to(b"hello", at(&server, &outside)).unwrap();
    let (_, from) = receive(&outside, LONG).expect("the way out is open");
    assert_eq!(from, SocketAddr::new(router.ip.into(), inside.local_addr().unwrap().port()), "the port is kept");
    outside.send_to(b"answer", from).unwrap();
    assert!(receive(&inside, LONG).is_some(), "the answer comes back");
    let stranger = socket(&server);
    stranger.send_to(b"let me in", from).unwrap();
    assert!(receive(&inside, SHORT).is_none(), "nobody else gets in");
}

#[test]
fn random_ports_differ_from_destination_to_destination() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let (client, _) = lab.behind_nat("client", Nat::RandomPorts);
    let inside = socket(&client);
    let ports: std::collections::BTreeSet<_> = (0..4)
        .map(|_| {
            let outside = socket(&server);
            inside.send_to(b"hello", at(&server, &outside)).unwrap();
            receive(&outside, LONG).expect("the way out is open").1.port()
        })
        .collect();
    assert_eq!(ports.len(), 4, "{ports:?}");
}

#[test]
fn two_clients_reach_each_other_once_both_have_sent_and_not_while_blocked() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let (a, a_router) = lab.behind_nat("a", Nat::PortPreserving);
    let (b, b_router) = lab.behind_nat("b", Nat::PortPreserving);
    let (a_socket, b_socket) = (socket(&a), socket(&b));
    let public = |router: &Router, socket: &UdpSocket| SocketAddr::new(router.ip.into(), socket.local_addr().unwrap().port());
    let (a_public, b_public) = (public(&a_router, &a_socket), public(&b_router, &b_socket));
    a_socket.send_to(b"opens my side", b_public).unwrap();
    assert!(receive(&b_socket, SHORT).is_none());
    b_socket.send_to(b"opens the other", a_public).unwrap();
    assert!(receive(&a_socket, LONG).is_some());
    lab.block_direct(&a_router, &b_router);
    a_socket.send_to(b"lost", b_public).unwrap();
    b_socket.send_to(b"lost", a_public).unwrap();
    assert!(receive(&b_socket, SHORT).is_none() && receive(&a_socket, SHORT).is_none());
    let outside = socket(&server);
    a_socket.send_to(b"others are not blocked", at(&server, &outside)).unwrap();
    assert!(receive(&outside, LONG).is_some());
    lab.unblock_direct(&a_router, &b_router);
    a_socket.send_to(b"through again", b_public).unwrap();
    assert!(receive(&b_socket, LONG).is_some());
}

#[test]
fn a_link_with_a_delay_delays_and_carries_tcp() {
    let Some(_) = lab_or_skip() else { return };
    let mut lab = Lab::with_delay(25.0).unwrap();
    let (a, b) = (lab.host("a"), lab.host("b"));
    lab.switch_on();
    let (a_socket, b_socket) = (socket(&a), socket(&b));
    // The first packet waits for the address resolution; it is not the one that is measured.
    a_socket.send_to(b"first", at(&b, &b_socket)).unwrap();
    assert!(receive(&b_socket, LONG).is_some());
    let sent = Instant::now();
    a_socket.send_to(b"second", at(&b, &b_socket)).unwrap();
    assert!(receive(&b_socket, LONG).is_some());
    assert!(sent.elapsed() >= Duration::from_millis(25), "{:?}", sent.elapsed());

    // Large segments pass too, with the checksums that the kernel left to the network card.
    let listener = in_namespace(&b, || std::net::TcpListener::bind((b.ip, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let received = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut bytes).unwrap();
        bytes
    });
    let text = vec![7u8; 1 << 20];
    let mut stream = in_namespace(&a, || std::net::TcpStream::connect(address).unwrap());
    std::io::Write::write_all(&mut stream, &text).unwrap();
    drop(stream);
    assert!(received.join().unwrap() == text);
}

#[test]
fn a_capture_holds_what_passed() {
    let Some(mut lab) = lab_or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (lab.host("a"), lab.host("b"));
    let capture = Capture::start(&b, &folder.path().join("b.pcap"));
    let (a_socket, b_socket) = (socket(&a), socket(&b));
    a_socket.send_to(b"a sentence to be found", at(&b, &b_socket)).unwrap();
    assert!(receive(&b_socket, LONG).is_some());
    let packets = capture.stop();
    assert!(packets.iter().any(|packet| packet.ends_with(b"a sentence to be found")));
}

/// A socket inside the namespace of `spot`.
fn socket(spot: &Spot) -> UdpSocket {
    in_namespace(spot, || UdpSocket::bind("0.0.0.0:0").unwrap())
}

fn at(spot: &Spot, socket: &UdpSocket) -> SocketAddr {
    SocketAddr::new(spot.ip, socket.local_addr().unwrap().port())
}

fn receive(socket: &UdpSocket, timeout: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(timeout)).unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}
