//! Strangers send nonsense to every socket of every program, and the network goes on serving.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{LONG, full_size, wait_for_voice};
use ahoy_lab::{Network, Process, Socket, SocketKind, sockets_of, wait_until_read};
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

/// The sizes of the test: datagrams for each UDP socket, and connections to each TCP port.
const DATAGRAMS: usize = 10_000;
const DATAGRAMS_FULL: usize = 100_000;
const CONNECTIONS: usize = 100;
const CONNECTIONS_FULL: usize = 1_000;
/// After so many datagrams the receiver is given the time to read them, so that they are handled rather than lost in its queue.
const BURST: usize = 32;
/// Connections that are kept open and never say anything more.
const IDLE: usize = 20;
/// Far above what any of the programs needs, and far below what a leak for each packet would come to.
const MEMORY_MAX_KIB: u64 = 400 * 1024;

#[test]
fn after_nonsense_on_every_socket_a_call_goes_on_and_the_next_one_works() {
    let network = Network::start(2, 1);
    let (alice, bob, carol) = (network.person("alice"), network.person("bob"), network.person("carol"));
    let (at_bob, at_carol) = (bob.online(&["--auto-answer"]), carol.online(&["--auto-answer"]));
    let call = alice.call("bob", &[]);
    wait_for_voice(&call, 0);

    let mut programs = vec![("login server", network.login.as_ref().unwrap())];
    programs.extend(network.supernodes.iter().map(|node| ("supernode", &node.process)));
    programs.extend(network.relays.iter().map(|node| ("relay", &node.process)));
    programs.extend([("caller", &call), ("callee", &at_bob), ("bystander", &at_carol)]);
    let mut random = Random(0x5eed);
    let mut idle = Vec::new();
    for (name, process) in &programs {
        let sockets = sockets_of(process.pid());
        println!("{name}: {} sockets", sockets.len());
        assert!(!sockets.is_empty(), "{name} listens somewhere");
        for socket in sockets {
            match socket.kind {
                SocketKind::Udp => feed_datagrams(process, &socket, &mut random),
                SocketKind::Tcp => idle.extend(feed_connections(&socket, &mut random)),
            }
        }
    }

    let mark = call.mark();
    let heard = |event: &ahoy_lab::Event| event.number("received");
    let before = call.wait_event(mark, "stats", LONG, |_| true);
    let _ = call.wait_event(mark, "stats", LONG, |stats| heard(stats) > heard(&before) + 100.0);
    for (name, process) in &programs {
        let memory_kib = memory_kib(process.pid());
        println!("{name}: {memory_kib} KiB");
        assert!(memory_kib < MEMORY_MAX_KIB, "{name} takes {memory_kib} KiB");
    }
    let _ = call.stop().succeeded();
    let _ = at_bob.wait_for("ended", LONG);
    let dave = network.person("dave");
    let call = dave.call("carol", &[]);
    wait_for_voice(&call, 0);
    let _ = call.stop().succeeded();
}

fn feed_datagrams(process: &Process, target: &Socket, random: &mut Random) {
    let sender = UdpSocket::bind((target.address.ip(), 0)).unwrap();
    for i in 0..if full_size() { DATAGRAMS_FULL } else { DATAGRAMS } {
        // Whatever a socket does with it, sending does not fail for longer than the sender's own queue is full.
        let _ = sender.send_to(&datagram(random), target.address);
        if i % BURST == 0 {
            wait_until_read(process.pid(), target, Duration::from_secs(5));
        }
    }
}

/// Sends nonsense over many connections; some of them are handed back, open and idle.
fn feed_connections(target: &Socket, random: &mut Random) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for i in 0..if full_size() { CONNECTIONS_FULL } else { CONNECTIONS } {
        let Ok(mut stream) = TcpStream::connect_timeout(&target.address, Duration::from_secs(5)) else { continue };
        let _ = stream.set_write_timeout(Some(Duration::from_secs(2)));
        for _ in 0..=random.below(4) {
            if stream.write_all(&stream_bytes(random)).is_err() {
                break;
            }
        }
        if i < IDLE {
            idle.push(stream);
        }
    }
    idle
}

/// A datagram that looks like one of ours, or like QUIC, and often is broken somewhere.
fn datagram(random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(9) {
        0 => random.bytes_below(1_500),
        1 => quic_initial(random, [0, 0, 0, 1]),
        2 => {
            let version = [random.byte(), random.byte(), random.byte(), random.byte()];
            quic_initial(random, version)
        }
        3 => [vec![0x40 | random.byte() & 0x3f], random.bytes_below(1_300)].concat(),
        4 => [vec![0x0f, 0, 0, 0, random.byte()], random.bytes_below(1_300)].concat(),
        5 => [vec![0x10], random.bytes(8), vec![0; 55]].concat(),
        6 => [vec![0x11], random.bytes(28)].concat(),
        7 => [vec![0x12], random.bytes(33)].concat(),
        _ => [vec![0x13], random.bytes(52)].concat(),
    };
    if random.below(2) == 0 {
        mutate(&mut bytes, random);
    }
    bytes
}

/// A long header of QUIC with a length that fits, and nothing that decrypts.
fn quic_initial(random: &mut Random, version: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0xc0 | random.byte() & 0x0f];
    bytes.extend(version);
    bytes.push(8);
    bytes.extend(random.bytes(8));
    bytes.extend([0, 0, 0x44, 0x90]);
    bytes.extend(random.bytes(1_200 - bytes.len()));
    bytes
}

fn stream_bytes(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => random.bytes_below(4_096),
        // The beginning of a TLS handshake whose inside is nonsense.
        1 => [vec![0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], random.bytes(505)].concat(),
        2 => [b"POST /v1/register/start HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), random.bytes_below(2_000)]
            .concat(),
        // A length prefix that promises more than anybody should keep.
        3 => [vec![0xff; 4], random.bytes_below(64)].concat(),
        _ => vec![random.byte(); 64 * 1_024],
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    match random.below(4) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.extend(random.bytes_below(40)),
        2 => (0..=random.below(4)).for_each(|_| {
            if !bytes.is_empty() {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }),
        _ => {
            let by = random.below(bytes.len() + 1);
            bytes.rotate_left(by);
        }
    }
}

/// Memory of a process that is really there.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the process lives");
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// A small generator: the same nonsense each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 24) as u8
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn bytes_below(&mut self, limit: usize) -> Vec<u8> {
        let count = self.below(limit);
        self.bytes(count)
    }
}
