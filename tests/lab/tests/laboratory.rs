//! The laboratory itself: what it emulates is what the other tests take it for.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Capture, Lab, Nat, PortMapper, Proxy, Router, Spot, in_namespace, lab_or_skip, lab_or_skip_with};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
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
    assert_eq!(from, SocketAddr::new(router.ip, inside.local_addr().unwrap().port()), "the port is kept");
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
    let ports: BTreeSet<_> = (0..4)
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
    let public = |router: &Router, socket: &UdpSocket| SocketAddr::new(router.ip, socket.local_addr().unwrap().port());
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
fn a_router_with_ports_of_its_own_gives_all_the_same_and_another_after_it_restarted() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let (client, mut router) = lab.behind_nat("client", Nat::OwnPorts);
    let inside = socket(&client);
    let seen = || {
        let (first, second) = (socket(&server), socket(&server));
        let [first, second] = [&first, &second].map(|outside| {
            inside.send_to(b"hello", at(&server, outside)).unwrap();
            receive(outside, LONG).expect("the way out is open").1
        });
        assert_eq!(first, second, "the same for all");
        first
    };
    let before = seen();
    assert_ne!(before.port(), inside.local_addr().unwrap().port());
    let outside = socket(&server);
    inside.send_to(b"hello", at(&server, &outside)).unwrap();
    assert!(receive(&outside, LONG).is_some());
    router.reboot();
    outside.send_to(b"forgotten", before).unwrap();
    assert!(receive(&inside, SHORT).is_none(), "the old mapping is gone");
    assert_ne!(seen(), before);
}

#[test]
fn routers_let_in_whom_their_kind_lets_in() {
    let Some(mut lab) = lab_or_skip() else { return };
    let (known, unknown) = (lab.host("known"), lab.host("unknown"));
    for (nat, from_another_port, from_a_stranger) in [
        (Nat::PortPreserving, false, false),
        (Nat::OwnPorts, false, false),
        (Nat::RandomPorts, false, false),
        (Nat::AddressRestricted, true, false),
        (Nat::FullCone, true, true),
        (Nat::Carrier, true, true),
    ] {
        let (client, _) = lab.behind_nat(&format!("{nat:?}"), nat);
        let (inside, outside) = (socket(&client), socket(&known));
        inside.send_to(b"hello", at(&known, &outside)).unwrap();
        let (_, mapped) = receive(&outside, LONG).expect("the way out is open");
        outside.send_to(b"answer", mapped).unwrap();
        assert!(receive(&inside, LONG).is_some(), "{nat:?}");
        for (spot, is_let_in) in [(&known, from_another_port), (&unknown, from_a_stranger)] {
            let other = socket(spot);
            other.send_to(b"let me in", mapped).unwrap();
            let got = receive(&inside, if is_let_in { LONG } else { SHORT });
            assert_eq!(got.is_some(), is_let_in, "{nat:?} {spot:?}");
            let Some((_, from)) = got else { continue };
            inside.send_to(b"welcome", from).unwrap();
            assert_eq!(receive(&other, LONG).expect("the answer comes back").1, mapped, "{nat:?}");
        }
    }
}

#[test]
fn two_homes_of_one_provider_reach_each_other_by_their_outer_addresses() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let mut carrier = lab.router("carrier", Nat::Carrier);
    let sides = ["a", "b"].map(|name| {
        let mut home = lab.router_behind(&format!("{name}-home"), Nat::PortPreserving, &mut carrier);
        let client = lab.neighbour(name, &mut home);
        let (inside, outside) = (socket(&client), socket(&server));
        inside.send_to(b"who am I", at(&server, &outside)).unwrap();
        let (_, mapped) = receive(&outside, LONG).expect("the way out is open");
        assert_eq!(mapped.ip(), carrier.ip);
        (inside, mapped, home)
    });
    let [(a, a_mapped, _), (b, b_mapped, _)] = &sides;
    a.send_to(b"opens my home", b_mapped).unwrap();
    assert!(receive(b, SHORT).is_none(), "the other home is not open yet");
    b.send_to(b"opens the other", a_mapped).unwrap();
    assert_eq!(receive(a, LONG).expect("it turns back at the provider").1, *b_mapped);
    a.send_to(b"through", b_mapped).unwrap();
    assert_eq!(receive(b, LONG).expect("both are open").1, *a_mapped);
}

#[test]
fn a_firewall_for_ipv6_lets_in_what_was_asked_for() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host_v6("server");
    let (a, _a_router) = lab.behind_firewall_v6("a");
    let (b, _b_router) = lab.behind_firewall_v6("b");
    let (a_socket, b_socket, outside) = (socket(&a), socket(&b), socket(&server));
    a_socket.send_to(b"hello", at(&server, &outside)).unwrap();
    let (_, from) = receive(&outside, LONG).expect("the way out is open");
    assert_eq!(from, at(&a, &a_socket), "nothing is translated");
    outside.send_to(b"answer", from).unwrap();
    assert!(receive(&a_socket, LONG).is_some());
    a_socket.send_to(b"opens my side", at(&b, &b_socket)).unwrap();
    assert!(receive(&b_socket, SHORT).is_none());
    b_socket.send_to(b"opens the other", at(&a, &a_socket)).unwrap();
    assert!(receive(&a_socket, LONG).is_some());
}

#[test]
fn a_way_may_be_cut_in_one_direction() {
    let Some(mut lab) = lab_or_skip() else { return };
    let (a, a_router) = lab.behind_nat("a", Nat::PortPreserving);
    let (b, b_router) = lab.behind_nat("b", Nat::PortPreserving);
    let (a_socket, b_socket) = (socket(&a), socket(&b));
    let public = |router: &Router, socket: &UdpSocket| SocketAddr::new(router.ip, socket.local_addr().unwrap().port());
    let (a_public, b_public) = (public(&a_router, &a_socket), public(&b_router, &b_socket));
    a_socket.send_to(b"opens my side", b_public).unwrap();
    b_socket.send_to(b"opens the other", a_public).unwrap();
    assert!(receive(&a_socket, LONG).is_some());
    lab.block_one_way(&a_router, &b_router);
    a_socket.send_to(b"lost", b_public).unwrap();
    assert!(receive(&b_socket, SHORT).is_none());
    b_socket.send_to(b"arrives", a_public).unwrap();
    assert!(receive(&a_socket, LONG).is_some());
}

#[test]
fn where_udp_is_blocked_tcp_passes_and_where_everything_is_the_proxies_remain() {
    let Some(mut lab) = lab_or_skip_with(&["tinyproxy", "microsocks"]) else { return };
    let server = lab.host("server");
    let (client, router) = lab.behind_nat("client", Nat::PortPreserving);
    let (inside, outside) = (socket(&client), socket(&server));
    let listener = in_namespace(&server, || TcpListener::bind((server.ip, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"welcome").unwrap();
        }
    });
    let connect = |to: SocketAddr| in_namespace(&client, || TcpStream::connect_timeout(&to, SHORT));

    router.block_udp();
    inside.send_to(b"lost", at(&server, &outside)).unwrap();
    assert!(receive(&outside, SHORT).is_none());
    assert!(connect(address).is_ok());

    router.block_everything();
    assert!(connect(address).is_err());
    let (http, socks) = (Proxy::http(&router), Proxy::socks5(&router));
    let at = |proxy: &Proxy| proxy.url.rsplit_once('/').unwrap().1.parse().unwrap();
    let mut stream = connect(at(&http)).unwrap();
    write!(stream, "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    assert!(answer(&mut stream).ends_with(b"welcome"));
    let mut stream = connect(at(&socks)).unwrap();
    // Version 5, one method: no authentication. Then: connect to an IPv4 address.
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    let SocketAddr::V4(to) = address else { panic!("{address}") };
    stream.write_all(&[&[5, 1, 0, 1], &to.ip().octets()[..], &to.port().to_be_bytes()].concat()).unwrap();
    assert!(answer(&mut stream).ends_with(b"welcome"));
}

#[test]
fn a_client_that_roams_gets_out_by_the_other_router_and_one_whose_cable_is_pulled_does_not() {
    let Some(mut lab) = lab_or_skip() else { return };
    let server = lab.host("server");
    let (mut client, mut home) = lab.behind_nat("client", Nat::PortPreserving);
    let mut office = lab.router("office", Nat::PortPreserving);
    let inside = socket(&client);
    let seen = || {
        let outside = socket(&server);
        let _ = inside.send_to(b"hello", at(&server, &outside));
        receive(&outside, SHORT).map(|(_, from)| from.ip())
    };
    assert_eq!(seen(), Some(home.ip));
    let before = client.ip;
    lab.renew_lease(&mut client, &mut home);
    assert_ne!(client.ip, before);
    assert_eq!(seen(), Some(home.ip));
    lab.unplug(&client, &home);
    assert_eq!(seen(), None);
    lab.plug(&client, &home);
    // The kernel takes its time to believe in a cable.
    let deadline = Instant::now() + LONG;
    while seen() != Some(home.ip) {
        assert!(Instant::now() < deadline, "the cable is plugged in again");
    }
    lab.roam(&mut client, &mut office);
    assert_eq!(seen(), Some(office.ip));
}

#[test]
fn a_router_with_a_mapping_daemon_maps_ports_even_if_its_own_are_random() {
    let Some(mut lab) = lab_or_skip_with(&["miniupnpd"]) else { return };
    let server = lab.host("server");
    let (client, router) = lab.behind_nat("client", Nat::RandomPorts);
    let mapper = PortMapper::start(&router);
    let inside = socket(&client);
    let port = inside.local_addr().unwrap().port();
    // NAT-PMP: version 0, map UDP, a reserved field, the port inside, the one wished for, a lifetime.
    let request = [&[0, 1, 0, 0], &port.to_be_bytes()[..], &port.to_be_bytes(), &3_600u32.to_be_bytes()].concat();
    let asking = socket(&client);
    asking.send_to(&request, (router.inner_ip(), 5351)).unwrap();
    let (answer, _) = receive(&asking, LONG).expect("the daemon answers");
    assert_eq!((answer[1], &answer[2..4]), (129, &[0, 0][..]), "it is mapped: {answer:?}");
    assert_eq!(mapper.mappings().len(), 1, "{:?}", mapper.mappings());
    let mapped = SocketAddr::new(router.ip, u16::from_be_bytes([answer[10], answer[11]]));
    let outside = socket(&server);
    outside.send_to(b"let me in", mapped).unwrap();
    let (_, from) = receive(&inside, LONG).expect("the mapping works");
    inside.send_to(b"welcome", from).unwrap();
    assert_eq!(receive(&outside, LONG).expect("the answer comes back").1, mapped);
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
    let listener = in_namespace(&b, || TcpListener::bind((b.ip, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let received = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let text = vec![7u8; 1 << 20];
    let mut stream = in_namespace(&a, || TcpStream::connect(address).unwrap());
    stream.write_all(&text).unwrap();
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
    let any: SocketAddr = if spot.ip.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    in_namespace(spot, || UdpSocket::bind(any).unwrap())
}

/// Everything until the other side ends the connection.
fn answer(stream: &mut TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
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
