//! What strangers and broken clients can send, and that the relay serves afterwards.

mod harness;

use ahoy_identity::random;
use ahoy_protocol::datagram::{OBSERVE_BYTES, Observe, Observed, PING_BYTES, relay_frame};
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_protocol::{CallId, Wire};
use harness::{Lab, PATIENCE, any_port, packet};
use std::net::SocketAddr;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How many datagrams the flood has.
const DATAGRAMS: u32 = 100_000;
/// After so many the flood waits for an answer, so that they are read and not lost in the kernel.
const BETWEEN_BREATHS: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn observe_is_answered_with_the_askers_address_and_never_more_bytes() {
    let lab = Lab::new().await;
    let socket = UdpSocket::bind(any_port()).await.expect("a free port");
    let (answer, length) = observe(&socket, lab.address()).await;
    assert_eq!(answer.address, socket.local_addr().expect("it is bound"));
    assert_eq!(answer.load_percent, 0);
    assert!(length <= OBSERVE_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_hundred_thousand_random_and_mutated_datagrams_the_relay_serves() {
    let lab = Lab::new().await;
    let (alice, for_alice, bob, for_bob) = lab.call().await;
    let socket = UdpSocket::bind(any_port()).await.expect("a free port");
    let mut noise = Noise(0x5eed);
    for number in 0..DATAGRAMS {
        let datagram = noise.datagram(for_alice.channel);
        socket.send_to(&datagram, lab.address()).await.expect("sent");
        if number % BETWEEN_BREATHS == 0 {
            observe(&socket, lab.address()).await;
        }
    }
    alice.send_frame(for_alice.channel, &packet("what a storm"));
    assert_eq!(bob.next_frame().await, (for_bob.channel, packet("what a storm")));
    assert_eq!(lab.relay.counters().forwarded_frames, 1, "nothing of the flood was forwarded");
    lab.call().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_holds_no_join_costs_the_connection_and_nobody_elses() {
    let lab = Lab::new().await;
    let (alice, for_alice, bob, for_bob) = lab.call().await;
    let mut noise = Noise(7);
    let join = Join { call: CallId(random()), peer: alice.device(), grant: lab.authority.grant(bob.device()) };
    let join = join.encode().expect("fits");
    for number in 0..40 {
        let eve = lab.client().await;
        let (mut sending, mut receiving) = eve.connection.open_bi().await.expect("a stream");
        let bytes = match number % 4 {
            0 => noise.bytes(400),
            1 => u32::MAX.to_be_bytes().to_vec(),
            2 => [&(join.len() as u32).to_be_bytes()[..], &noise.mutated(join.clone())].concat(),
            _ => [&(join.len() as u32).to_be_bytes()[..], &join[..join.len() / 2]].concat(),
        };
        let _ = sending.write_all(&bytes).await;
        let _ = sending.finish();
        match timeout(PATIENCE, ahoy_transport::receive::<LegEvent>(&mut receiving)).await.expect("the relay reacts") {
            Ok(Some(LegEvent::Refused(_))) | Ok(None) | Err(_) => {}
            Ok(Some(other)) => panic!("noise was answered with {other:?}"),
        }
    }
    alice.send_frame(for_alice.channel, &packet("undisturbed"));
    assert_eq!(bob.next_frame().await, (for_bob.channel, packet("undisturbed")));
    assert_eq!(lab.relay.legs(), 2);
}

async fn observe(socket: &UdpSocket, relay: SocketAddr) -> (Observed, usize) {
    let ask = Observe { nonce: random() };
    let mut answer = [0; 2048];
    let exchange = async {
        loop {
            socket.send_to(&ask.encode(), relay).await.expect("sent");
            // QUIC may answer noise with version negotiation; and the question may be lost in the flood.
            while let Ok(Ok(length)) = timeout(std::time::Duration::from_millis(500), socket.recv(&mut answer)).await {
                match Observed::decode(&answer[..length]) {
                    Ok(told) if told.nonce == ask.nonce => return (told, length),
                    _ => {}
                }
            }
        }
    };
    timeout(PATIENCE, exchange).await.expect("the relay answers")
}

/// Seeded noise (xorshift), so that a finding can be had again.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// `bytes` with a few of them changed, and now and then cut.
    fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        if self.below(4) == 0 {
            bytes.truncate(self.below(bytes.len()));
        }
        bytes
    }

    fn datagram(&mut self, channel: u32) -> Vec<u8> {
        match self.below(6) {
            0 => self.bytes(1500),
            1 => relay_frame(channel, &self.bytes(1500)),
            2 => self.mutated(relay_frame(channel, &packet("stolen"))),
            3 => self.mutated(Observe { nonce: [9; 8] }.encode().to_vec()),
            4 => [&[0x12], &vec![1; PING_BYTES - 1][..]].concat(),
            // A long header of QUIC version 1 with an eight-byte connection identifier, and noise after it.
            _ => [&[0xc0, 0, 0, 0, 1, 8], &self.bytes(1300)[..]].concat(),
        }
    }
}
