//! What a supernode survives: the others killed without a word, and nonsense on its sockets.

mod common;

use ahoy_protocol::NodeKey;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Request, Response};
use common::{Device, Network, PATIENCE, ask, eventually, find, loopback, publish, pushed, seqs, signal};
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A supernode as a process of its own, which can be killed like one.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(network: &Network, name: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ahoy-supernode"))
            .args(["serve", "--listen", "127.0.0.1:0", "--network", &network.link, "--token", &network.token().await, "--data"])
            .arg(network.data(name))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("readable").expect("a line");
        let address = line.strip_prefix("serving ").expect("says that it serves").parse().expect("an address");
        Self { child, address }
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("is killed");
    }
}

/// The key of the supernode at an address, from the roster that the login server signs.
async fn key_at(network: &Network, address: SocketAddr) -> NodeKey {
    let client = network.login_client().await;
    let roster = client.roster(0, 0).await.expect("answers").expect("a roster");
    let roster = client.network().verify_roster(&roster, common::now()).expect("holds");
    roster.nodes_in(NodeRole::Supernode).find(|node| node.udp.contains(&address)).expect("is listed").node
}

#[tokio::test]
async fn two_of_three_supernodes_killed_and_the_third_goes_on() {
    let network = Network::new().await;
    let mut processes = Vec::new();
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        let process = Process::start(&network, name).await;
        keys.push(key_at(&network, process.address).await);
        processes.push(process);
    }
    let (bob, alice) = (network.user("bob").await, network.user("alice").await);
    let at = async |device: &Device, n: usize| device.at_address(processes[n].address, &keys[n]).await;
    let there = at(&bob, 2).await;
    let record = Request::Publish(bob.user_record(1));
    eventually("all three are connected", async || ask(&there, &record).await == Response::Published { stored: 3 }).await;
    publish(&there, bob.presence(1, &keys)).await;
    let hers = at(&alice, 2).await;
    let third = keys[2];
    for process in processes.drain(..2) {
        process.kill().await;
    }
    let found = find(&hers, &bob.name).await;
    assert_eq!(seqs(&found), (vec![1], vec![1]));
    publish(&there, bob.presence(2, &[third])).await;
    publish(&hers, alice.user_record(1)).await;
    assert_eq!(seqs(&find(&there, &alice.name).await).0, [1]);
    assert_eq!(seqs(&find(&hers, &bob.name).await).1, [2]);
    let nobody = find(&hers, &ahoy_protocol::Name::parse("nobody").expect("a name")).await;
    assert!(nobody.users.is_empty());
    assert_eq!(ask(&hers, &signal(&bob, &keys, b"still there?")).await, Response::Delivered { devices: 1 });
    pushed(&there).await;
    // A device that was at the dead ones alone: the answer is that it is not there, and it comes.
    let eve = network.user("eve").await;
    assert_eq!(ask(&hers, &signal(&eve, &keys[..2], b"anybody?")).await, Response::Delivered { devices: 0 });
}

#[tokio::test]
async fn a_supernode_ends_with_one_sentence_where_it_cannot_join() {
    let output = Command::new(env!("CARGO_BIN_EXE_ahoy-supernode"))
        .args(["serve", "--listen", "127.0.0.1:0", "--network", "ahoy://nonsense", "--token", "x", "--data"])
        .arg(tempfile::tempdir().expect("a folder").path())
        .output()
        .await
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.starts_with("ahoy-supernode: ") && said.lines().count() == 1, "{said}");
    let usage = Command::new(env!("CARGO_BIN_EXE_ahoy-supernode")).arg("serve").output().await.expect("runs");
    assert_eq!(usage.status.code(), Some(2));
}

/// Deterministic bytes, so that a failure can be seen again.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
}

#[tokio::test]
async fn nonsense_on_its_sockets_does_not_stop_it() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let bob = network.user("bob").await;
    let there = bob.at(&supernode).await;
    publish(&there, bob.user_record(1)).await;
    let (udp, tcp) = (supernode.addresses()[0], supernode.overlay_address());
    tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind(loopback()).expect("binds");
        for n in 0..20_000_u64 {
            let mut datagram: Vec<u8> = noise(n).take(usize::try_from(n % 1400).expect("small")).collect();
            // Every other one looks like QUIC at first sight.
            if let Some(first) = datagram.first_mut().filter(|_| n % 2 == 0) {
                *first |= 0xc0;
            }
            // A full buffer loses some, which is no failure of the test.
            let _ = socket.send_to(&datagram, udp);
        }
        for n in 0..200 {
            let mut stream = TcpStream::connect(tcp).expect("connects");
            let greeting: &[u8] = if n % 2 == 0 { b"\x13/multistream/1.0.0\n\x07/noise\n" } else { b"" };
            let bytes: Vec<u8> = greeting.iter().copied().chain(noise(n).take(2000)).collect();
            // It may hang up in the middle.
            let _ = stream.write_all(&bytes);
        }
    })
    .await
    .expect("sends");
    assert_eq!(seqs(&find(&there, &bob.name).await).0, [1]);
    assert_eq!(seqs(&find(&bob.at(&supernode).await, &bob.name).await).0, [1]);
}

#[tokio::test]
async fn nonsense_on_streams_is_refused_and_the_connection_goes_on() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let bob = network.user("bob").await;
    let there = bob.at(&supernode).await;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small").to_be_bytes().to_vec();
    let request = ahoy_protocol::Wire::encode(&bob.registration()).expect("fits");
    for n in 0..200_u64 {
        let mut mutated = request.clone();
        let at = usize::try_from(n).expect("small") * 7 % mutated.len();
        mutated[at] ^= noise(n).next().expect("endless") | 1;
        let message = match n % 4 {
            0 => [length(&mutated), mutated].concat(),
            1 => noise(n).take(300).collect(),
            2 => vec![0xff; 8],
            _ => [length(&mutated), mutated[..at].to_vec()].concat(),
        };
        let (mut sending, mut receiving) = there.open_bi().await.expect("opens");
        // It may be refused before it is all there.
        let _ = sending.write_all(&message).await;
        let _ = sending.finish();
        let _ = ahoy_transport::receive::<Response>(&mut receiving).await;
    }
    eventually("it answers again", async || !matches!(ask(&there, &Request::Relays).await, Response::Busy { .. })).await;
    assert!(bob.endpoint.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.is_ok());
}
