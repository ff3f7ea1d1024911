//! Legs of a real relay: who is joined with whom, who is refused, and where frames go.

mod harness;

use ahoy_identity::{SigningKey, leg_code, random};
use ahoy_protocol::CallId;
use ahoy_protocol::datagram::{MAC_BYTES, Move, relay_frame};
use ahoy_protocol::relay::{Join, LegEvent};
use ahoy_protocol::time::HOUR;
use harness::{Authority, Client, Lab, any_port, now, packet};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn two_legs_join_and_frames_pass_both_ways() {
    let lab = Lab::new().await;
    let (alice, for_alice, bob, for_bob) = lab.call().await;
    alice.send_frame(for_alice.channel, &packet("ahoy, bob"));
    assert_eq!(bob.next_frame().await, (for_bob.channel, packet("ahoy, bob")));
    bob.send_frame(for_bob.channel, &packet("ahoy, alice"));
    assert_eq!(alice.next_frame().await, (for_alice.channel, packet("ahoy, alice")));
    lab.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_packet_passes_and_a_larger_one_does_not() {
    let lab = Lab::new().await;
    let (alice, for_alice, bob, for_bob) = lab.call().await;
    alice.send_frame(for_alice.channel, &vec![0x40; 1401]);
    alice.send_frame(for_alice.channel, &vec![0x40; 1400]);
    assert_eq!(bob.next_frame().await, (for_bob.channel, vec![0x40; 1400]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_needs_a_grant_of_its_own_that_counts() {
    let lab = Lab::new().await;
    let (alice, bob) = (lab.client().await, lab.client().await);
    let grants = [
        ("of nobody", Authority::new().grant(alice.device())),
        ("of another device", lab.authority.grant(bob.device())),
        ("that has lapsed", lab.authority.grant_until(alice.device(), now().minus(HOUR))),
    ];
    for (which, grant) in grants {
        let (answer, ..) = alice.ask(&Join { call: CallId(random()), peer: bob.device(), grant }).await;
        assert!(matches!(answer, LegEvent::Refused(_)), "a grant {which} was answered with {answer:?}");
    }
    assert_eq!(lab.relay.legs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_again_and_again_loses_the_connection() {
    let lab = Lab::new().await;
    let alice = lab.client().await;
    let join = Join { call: CallId(random()), peer: SigningKey::generate().device_key(), grant: Authority::new().grant(alice.device()) };
    let asking = async {
        while let Ok((mut sending, mut receiving)) = alice.connection.open_bi().await {
            let _ = ahoy_transport::send(&mut sending, &join).await;
            let _ = ahoy_transport::receive::<LegEvent>(&mut receiving).await;
        }
    };
    tokio::time::timeout(harness::PATIENCE, asking).await.expect("the relay has enough some time");
    lab.call().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_ask_for_nothing_do_not_keep_a_connection() {
    let lab = Lab::new().await;
    let alice = lab.client().await;
    let asking = async {
        while let Ok((mut sending, mut receiving)) = alice.connection.open_bi().await {
            let _ = sending.finish();
            let _ = ahoy_transport::receive::<LegEvent>(&mut receiving).await;
        }
    };
    tokio::time::timeout(harness::PATIENCE, asking).await.expect("the relay has enough some time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_names_somebody_else_is_not_joined() {
    let lab = Lab::new().await;
    let (alice, bob, eve) = (lab.client().await, lab.client().await, lab.client().await);
    let call = CallId(random());
    let for_alice = alice.join(&lab.authority, call, bob.device()).await;
    let for_eve = eve.join(&lab.authority, call, alice.device()).await;
    assert!(!for_eve.peer_present);
    eve.send_frame(for_eve.channel, &packet("let me in"));
    alice.send_frame(for_alice.channel, &packet("is it you, bob?"));
    lab.until(|counters| counters.not_joined == 2).await;
    assert_eq!(lab.relay.counters().forwarded_frames, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_channel_is_worth_nothing_at_another_address() {
    let lab = Lab::new().await;
    let (alice, for_alice, bob, for_bob) = lab.call().await;
    let stranger = UdpSocket::bind(any_port()).await.expect("a free port");
    for _ in 0..10 {
        stranger.send_to(&relay_frame(for_alice.channel, &packet("forged")), lab.address()).await.expect("sent");
    }
    lab.until(|counters| counters.other_address == 10).await;
    alice.send_frame(for_alice.channel, &packet("real"));
    assert_eq!(bob.next_frame().await, (for_bob.channel, packet("real")), "the forged frames went nowhere");
    assert_eq!(lab.relay.counters().forwarded_frames, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_moved_says_so_and_is_sent_to_at_once() {
    let lab = Lab::new().await;
    let (_alice, for_alice, bob, for_bob) = lab.call().await;
    let elsewhere = UdpSocket::bind(any_port()).await.expect("a free port");
    let moved = Move { channel: for_alice.channel, counter: 1 }.encode();
    let forged = [&moved[..], &[7; MAC_BYTES]].concat();
    elsewhere.send_to(&forged, lab.address()).await.expect("sent");
    lab.until(|counters| counters.not_proved == 1).await;
    let sealed = [&moved[..], &leg_code(&for_alice.key, &moved)].concat();
    elsewhere.send_to(&sealed, lab.address()).await.expect("sent");
    lab.until(|counters| counters.moved == 1).await;
    bob.send_frame(for_bob.channel, &packet("where are you?"));
    let mut buffer = [0; 100];
    let (length, _) = elsewhere.recv_from(&mut buffer).await.expect("it comes");
    assert_eq!(buffer[..length], relay_frame(for_alice.channel, &packet("where are you?")));
    elsewhere.send_to(&relay_frame(for_alice.channel, &packet("here")), lab.address()).await.expect("sent");
    assert_eq!(bob.next_frame().await, (for_bob.channel, packet("here")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_before_the_join_goes_nowhere() {
    let lab = Lab::new().await;
    let alice = lab.client().await;
    alice.send_frame(0, &packet("anybody?"));
    lab.until(|counters| counters.unknown_channel == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_leg_hears_when_one_leaves_and_when_it_comes_back() {
    let lab = Lab::new().await;
    let (alice, bob) = (lab.client().await, lab.client().await);
    let call = CallId(random());
    let mut for_alice = alice.join(&lab.authority, call, bob.device()).await;
    let for_bob = bob.join(&lab.authority, call, alice.device()).await;
    assert_eq!(for_alice.event().await, LegEvent::PeerJoined);
    for_bob.leave();
    assert_eq!(for_alice.event().await, LegEvent::PeerLeft);
    let _again = bob.join(&lab.authority, call, alice.device()).await;
    assert_eq!(for_alice.event().await, LegEvent::PeerJoined);
    bob.endpoint.close();
    assert_eq!(for_alice.event().await, LegEvent::PeerLeft);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_leg_of_the_same_device_takes_over() {
    let lab = Lab::new().await;
    let (alice, bob) = (lab.client().await, lab.client().await);
    let call = CallId(random());
    let mut older = alice.join(&lab.authority, call, bob.device()).await;
    let for_bob = bob.join(&lab.authority, call, alice.device()).await;
    assert_eq!(older.event().await, LegEvent::PeerJoined);
    let later = alice.join(&lab.authority, call, bob.device()).await;
    assert!(later.peer_present);
    assert!(matches!(older.event().await, LegEvent::Refused(_)));
    bob.send_frame(for_bob.channel, &packet("still there?"));
    assert_eq!(alice.next_frame().await, (later.channel, packet("still there?")));
    assert_eq!(lab.relay.legs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_a_bounded_number_of_legs() {
    let lab = Lab::new().await;
    let key = SigningKey::generate();
    let peer = SigningKey::generate().device_key();
    let mut legs = Vec::new();
    let mut clients = Vec::new();
    // A connection carries eight streams at most, so the same device comes with three.
    for _ in 0..3 {
        clients.push(Client::connect_as(SigningKey::from_seed(*key.seed()), lab.address(), lab.key.node_key()).await);
    }
    for number in 0..ahoy_relay::limits::LEGS_PER_DEVICE_MAX {
        legs.push(clients[number / 8].join(&lab.authority, CallId(random()), peer).await);
    }
    let join = Join { call: CallId(random()), peer, grant: lab.authority.grant(key.device_key()) };
    let (answer, ..) = clients[2].ask(&join).await;
    assert!(matches!(answer, LegEvent::Refused(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_follows_its_client_to_the_nats_new_mapping() {
    let lab = Lab::new().await;
    let nat = Nat::before(lab.address()).await;
    let (alice, bob) = (Client::connect(nat.inside, lab.key.node_key()).await, lab.client().await);
    let call = CallId(random());
    let mut for_alice = alice.join(&lab.authority, call, bob.device()).await;
    let for_bob = bob.join(&lab.authority, call, alice.device()).await;
    assert_eq!(for_alice.event().await, LegEvent::PeerJoined);
    bob.send_frame(for_bob.channel, &packet("before"));
    assert_eq!(alice.next_frame().await, (for_alice.channel, packet("before")));

    nat.forget().await;
    // QUIC moves with the first packet that it sends from the new mapping; until the relay has looked, frames are dropped.
    let _other_leg = alice.join(&lab.authority, CallId(random()), bob.device()).await;
    let heard = async {
        loop {
            alice.send_frame(for_alice.channel, &packet("after"));
            if tokio::time::timeout(Duration::from_millis(50), bob.next_frame()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(harness::PATIENCE, heard).await.expect("frames pass again");
    bob.send_frame(for_bob.channel, &packet("and back"));
    assert_eq!(alice.next_frame().await, (for_alice.channel, packet("and back")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_listens_is_followed_too() {
    let lab = Lab::new().await;
    let nat = Nat::before(lab.address()).await;
    let (alice, bob) = (Client::connect(nat.inside, lab.key.node_key()).await, lab.client().await);
    let call = CallId(random());
    let for_alice = alice.join(&lab.authority, call, bob.device()).await;
    let for_bob = bob.join(&lab.authority, call, alice.device()).await;
    nat.forget().await;
    let _other_leg = alice.join(&lab.authority, CallId(random()), bob.device()).await;
    let heard = async {
        loop {
            bob.send_frame(for_bob.channel, &packet("are you there?"));
            if let Ok(frame) = tokio::time::timeout(Duration::from_millis(50), alice.next_frame()).await {
                return frame;
            }
        }
    };
    let frame = tokio::time::timeout(harness::PATIENCE, heard).await.expect("frames pass again");
    assert_eq!(frame, (for_alice.channel, packet("are you there?")));
}

/// A NAT with one client behind it, whose mapping can be forgotten.
struct Nat {
    inside: std::net::SocketAddr,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    _running: JoinSet<()>,
}

impl Nat {
    async fn before(relay: std::net::SocketAddr) -> Self {
        let inside = UdpSocket::bind(any_port()).await.expect("a free port");
        let address = inside.local_addr().expect("it is bound");
        let outside = Arc::new(Mutex::new(Arc::new(UdpSocket::bind(any_port()).await.expect("a free port"))));
        let mut running = JoinSet::new();
        running.spawn(translate(inside, outside.clone(), relay));
        Self { inside: address, outside, _running: running }
    }

    async fn forget(&self) {
        *self.outside.lock().await = Arc::new(UdpSocket::bind(any_port()).await.expect("a free port"));
    }
}

async fn translate(inside: UdpSocket, outside: Arc<Mutex<Arc<UdpSocket>>>, relay: std::net::SocketAddr) {
    let (mut out, mut back) = ([0; 2048], [0; 2048]);
    let mut client = None;
    loop {
        let mapping = outside.lock().await.clone();
        tokio::select! {
            Ok((length, from)) = inside.recv_from(&mut out) => {
                client = Some(from);
                // The mapping may have changed since the wait began.
                let mapping = outside.lock().await.clone();
                let _ = mapping.send_to(&out[..length], relay).await;
            }
            Ok((length, _)) = mapping.recv_from(&mut back) => {
                if let Some(client) = client {
                    let _ = inside.send_to(&back[..length], client).await;
                }
            }
        }
    }
}
