//! What clients see of a network of supernodes: records, signals, relays, and what strangers and forgers get.

mod common;

use ahoy_identity::SigningKey;
use ahoy_protocol::Name;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{ALPN, Push, Request, Response, SealedSignal};
use ahoy_protocol::record::Record;
use ahoy_supernode::Supernode;
use ahoy_transport::{ClientEndpoint, NodePlace, receive};
use common::{Network, PATIENCE, ask, connected, endpoint, eventually, find, is_refused, loopback, now, publish, pushed, seqs, signal};
use futures::future::join_all;
use std::time::Duration;

#[tokio::test]
async fn a_user_published_at_one_supernode_is_found_at_all() {
    let network = Network::new().await;
    let supernodes = network.supernodes(3).await;
    let bob = network.user("bob").await;
    let alice = network.user("alice").await;
    let there = bob.at(&supernodes[0]).await;
    // A majority is waited for; on a busy machine the third may be later.
    assert!(publish(&there, bob.user_record(1)).await >= 2);
    assert!(publish(&there, bob.presence(1, &[supernodes[0].key()])).await >= 2);
    for supernode in &supernodes {
        let found = find(&alice.at(supernode).await, &bob.name).await;
        assert_eq!(seqs(&found), (vec![1], vec![1]));
        assert!(found.supernodes_asked >= 2, "{}", found.supernodes_asked);
    }
    let nobody = find(&there, &Name::parse("nobody").expect("a name")).await;
    assert!(nobody.users.is_empty() && nobody.presence.is_empty());
}

#[tokio::test]
async fn a_clients_one_port_finds_signals_and_is_observed() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let bob = network.user("bob").await;
    let client = ClientEndpoint::bind(None, &bob.key).expect("binds");
    client.allow_loopback(true);
    let address = supernode.addresses()[0];
    let there = client.connect_node(&NodePlace::udp(&supernode.addresses()), &supernode.key(), ALPN).await.expect("connects");
    assert_eq!(ask(&there, &bob.registration()).await, Response::Done);
    publish(&there, bob.user_record(1)).await;
    assert_eq!(seqs(&find(&there, &bob.name).await).0, [1]);
    let (answer, push) = tokio::join!(async { ask(&there, &signal(&bob, &[], b"hello")).await }, pushed(&there));
    assert_eq!(answer, Response::Delivered { devices: 1 });
    assert!(matches!(push, Push::Deliver(sealed) if *sealed == *b"hello"));
    let observed = client.observe(address, PATIENCE).await.expect("is answered");
    assert_eq!((observed.address.port(), observed.load_percent), (client.port(), 0));
    let other = endpoint(&SigningKey::generate());
    assert!(
        client.connect_node(&NodePlace::udp(&other.local_addresses()), &supernode.key(), ALPN).await.is_err(),
        "another key at that address"
    );
}

#[tokio::test]
async fn where_udp_is_blocked_a_client_is_at_home_through_tcp() {
    let network = Network::new().await;
    let mut args = network.args("one").await;
    args.serve.tcp = vec![loopback()];
    let supernode = Supernode::start(&args).await.expect("the supernode starts");
    let roster = network.login_client().await.roster(0, 0).await.expect("answers").expect("there is one").claims().expect("valid");
    let listed = roster.node(NodeRole::Supernode, &supernode.key()).expect("it is listed").clone();
    let tcp = supernode.tcp_addresses();
    assert_eq!(listed.tcp[..], [tcp[1], tcp[0]], "its own TCP port first, then the one beside UDP");
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let client = ClientEndpoint::bind(None, &bob.key).expect("binds");
    let place = NodePlace { udp: Vec::new(), tcp: listed.tcp.to_vec() };
    let there = client.connect_node(&place, &supernode.key(), ALPN).await.expect("connects");
    assert!(there.is_tunnelled());
    assert_eq!(ask(&there, &bob.registration()).await, Response::Done);
    publish(&there, bob.user_record(1)).await;
    let elsewhere = alice.at(&supernode).await;
    assert_eq!(seqs(&find(&elsewhere, &bob.name).await).0, [1]);
    let (answer, push) = tokio::join!(async { ask(&elsewhere, &signal(&bob, &[], b"hello")).await }, pushed(&there));
    assert_eq!(answer, Response::Delivered { devices: 1 });
    assert!(matches!(push, Push::Deliver(sealed) if *sealed == *b"hello"));
}

#[tokio::test]
async fn one_supernode_alone_is_a_network() {
    let network = Network::new().await;
    let supernode = network.supernode("alone").await;
    let bob = network.user("bob").await;
    let there = bob.at(&supernode).await;
    assert_eq!(publish(&there, bob.user_record(1)).await, 1);
    assert_eq!(publish(&there, bob.presence(1, &[supernode.key()])).await, 1);
    let found = find(&there, &bob.name).await;
    assert_eq!((seqs(&found), found.supernodes_asked), ((vec![1], vec![1]), 1));
    // A device may signal to itself; that is as good as to any other.
    let (answer, push) = tokio::join!(async { ask(&there, &signal(&bob, &[], b"hello")).await }, pushed(&there));
    assert_eq!(answer, Response::Delivered { devices: 1 });
    assert!(matches!(push, Push::Deliver(sealed) if *sealed == *b"hello"));
}

#[tokio::test]
async fn the_newer_record_stays_and_the_older_one_is_answered_with_it() {
    let network = Network::new().await;
    let supernodes = network.supernodes(2).await;
    let bob = network.user("bob").await;
    let (one, two) = (bob.at(&supernodes[0]).await, bob.at(&supernodes[1]).await);
    let newer = bob.user_record(5);
    publish(&one, newer.clone()).await;
    assert_eq!(ask(&two, &Request::Publish(bob.user_record(4))).await, Response::Superseded(newer.clone()));
    let other_of_the_same_number = bob.user_record(5);
    assert!(matches!(ask(&two, &Request::Publish(other_of_the_same_number)).await, Response::Superseded(held) if held == newer));
    assert_eq!(publish(&two, newer).await, 2, "storing the same again is no conflict");
    assert_eq!(publish(&two, bob.user_record(6)).await, 2);
    assert_eq!(seqs(&find(&one, &bob.name).await).0, [6]);
}

#[tokio::test]
async fn forged_records_are_refused() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let (bob, eve) = (network.user("bob").await, network.user("eve").await);
    let there = eve.at(&supernode).await;
    let Record::User(mut wrong_key) = bob.user_record(1) else { panic!("a user record") };
    wrong_key.statement = eve.user_key.sign(&bob.user_statement(1)).expect("fits");
    let Record::User(mut wrong_name) = eve.user_record(1) else { panic!("a user record") };
    let mut statement = eve.user_statement(1);
    statement.name = bob.name.clone();
    wrong_name.statement = eve.user_key.sign(&statement).expect("fits");
    let ahead = bob.user_record(now().0 + 600_000);
    for record in [Record::User(wrong_key), Record::User(wrong_name), ahead] {
        assert!(is_refused(&ask(&there, &Request::Publish(record)).await));
    }
    assert!(find(&there, &bob.name).await.users.is_empty());
    assert_eq!(supernode.records(), 0);
}

#[tokio::test]
async fn a_signal_reaches_its_device_at_any_supernode_and_only_there() {
    let network = Network::new().await;
    let supernodes = network.supernodes(3).await;
    let homes: Vec<_> = supernodes.iter().map(ahoy_supernode::Supernode::key).collect();
    let (bob, alice, eve) = (network.user("bob").await, network.user("alice").await, network.user("eve").await);
    let hers = alice.at(&supernodes[0]).await;
    let his = bob.at(&supernodes[2]).await;
    assert_eq!(ask(&hers, &signal(&bob, &homes, b"hello bob")).await, Response::Delivered { devices: 1 });
    assert!(matches!(pushed(&his).await, Push::Deliver(sealed) if *sealed == *b"hello bob"));
    assert_eq!(ask(&his, &signal(&alice, &homes[..1], b"hello alice")).await, Response::Delivered { devices: 1 });
    assert!(matches!(pushed(&hers).await, Push::Deliver(sealed) if *sealed == *b"hello alice"));
    assert_eq!(ask(&hers, &signal(&eve, &homes, b"anybody?")).await, Response::Delivered { devices: 0 });
    assert_eq!(ask(&hers, &signal(&bob, &homes[1..2], b"wrong home")).await, Response::Delivered { devices: 0 });
    // The device that registers by a new connection is reached by that one.
    let again = bob.at(&supernodes[2]).await;
    assert_eq!(ask(&hers, &signal(&bob, &homes, b"again")).await, Response::Delivered { devices: 1 });
    assert!(matches!(pushed(&again).await, Push::Deliver(sealed) if *sealed == *b"again"));
    again.close(0, "goes");
    eventually("bob has gone", async || ask(&hers, &signal(&bob, &homes[2..], b"gone?")).await == Response::Delivered { devices: 0 }).await;
}

#[tokio::test]
async fn who_floods_is_told_to_wait() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let (bob, eve) = (network.user("bob").await, network.user("eve").await);
    let there = eve.at(&supernode).await;
    let flood = join_all((0..60).map(|_| async { ask(&there, &signal(&bob, &[], b"!")).await })).await;
    let refused = flood.iter().filter(|answer| matches!(answer, Response::Busy { retry_after_ms: 1000.., .. })).count();
    assert!((30..60).contains(&refused), "{refused}");
}

#[tokio::test]
async fn strangers_are_refused() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let (bob, eve) = (network.user("bob").await, network.user("eve").await);
    let stranger = endpoint(&SigningKey::generate());
    let connection = stranger.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects");
    assert!(is_refused(&ask(&connection, &bob.registration()).await), "another device's certificate");
    assert!(is_refused(&ask(&connection, &Request::Find(bob.name.clone())).await));
    assert!(is_refused(&ask(&connection, &Request::Publish(bob.user_record(1))).await));
    assert!(is_refused(&ask(&connection, &signal(&bob, &[], b"!")).await));
    assert!(is_refused(&ask(&connection, &Request::Relays).await));
    assert!(matches!(ask(&connection, &Request::Roster { since: 0 }).await, Response::Roster(Some(_))));
    let mixed = Request::Register { user: bob.user.clone(), device: eve.device.clone() };
    let hers = eve.connect(supernode.addresses()[0], &supernode.key()).await;
    assert!(is_refused(&ask(&hers, &mixed).await), "another user's certificate");
    let hers = eve.at(&supernode).await;
    let sealed = SealedSignal::default();
    assert!(is_refused(&ask(&hers, &Request::Forward { to: bob.device_key(), sealed }).await));
    assert!(is_refused(&ask(&hers, &Request::RelayStatus { load_percent: 1 }).await));
}

#[tokio::test]
async fn a_stranger_who_asks_for_the_roster_all_the_time_is_told_to_wait() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let stranger = endpoint(&SigningKey::generate());
    let connection = stranger.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects");
    let answers = join_all((0..200).map(|_| ask(&connection, &Request::Roster { since: 0 }))).await;
    let given = answers.iter().filter(|answer| matches!(answer, Response::Roster(Some(_)))).count();
    assert!((60..200).contains(&given), "{given}");
}

#[tokio::test]
async fn who_opens_streams_and_asks_nothing_does_not_take_the_room_of_others() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let bob = network.user("bob").await;
    let there = bob.at(&supernode).await;
    let stranger = endpoint(&SigningKey::generate());
    let mut silent = Vec::new();
    for _ in 0..130 {
        let connection = stranger.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects");
        for _ in 0..8 {
            let (mut sending, receiving) = connection.open_bi().await.expect("opens");
            sending.write_all(&[0]).await.expect("is taken");
            silent.push((sending, receiving));
        }
    }
    assert!(find(&there, &bob.name).await.users.is_empty());
    publish(&there, bob.user_record(1)).await;
}

#[tokio::test]
async fn a_supernode_may_ask_more_at_a_time_than_a_device() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let key = network.enrolled(NodeRole::Supernode).await;
    let other = endpoint(&key);
    let connection = other.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects");
    let forward = || Request::Forward { to: SigningKey::generate().device_key(), sealed: SealedSignal::default() };
    eventually("the supernode knows the other", async || ask(&connection, &forward()).await == Response::Delivered { devices: 0 }).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        let (mut sending, receiving) = connection.open_bi().await.expect("opens");
        sending.write_all(&[0]).await.expect("is taken");
        silent.push((sending, receiving));
    }
    assert_eq!(ask(&connection, &forward()).await, Response::Delivered { devices: 0 });
    let first = receive::<Response>(&mut silent[0].1);
    assert!(tokio::time::timeout(Duration::ZERO, first).await.is_err(), "none of them had to end before");
}

#[tokio::test]
async fn another_networks_users_are_refused() {
    let (ours, theirs) = (Network::new().await, Network::new().await);
    let supernode = ours.supernode("one").await;
    let bob = theirs.user("bob").await;
    let connection = bob.connect(supernode.addresses()[0], &supernode.key()).await;
    assert!(is_refused(&ask(&connection, &bob.registration()).await));
}

#[tokio::test]
async fn relays_that_speak_up_are_named_with_their_load() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let key = network.enrolled(NodeRole::Relay).await;
    let relay = endpoint(&key);
    let connection = relay.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects");
    eventually("the supernode has the roster with the relay", async || {
        ask(&connection, &Request::RelayStatus { load_percent: 42 }).await == Response::Done
    })
    .await;
    let bob = network.user("bob").await;
    let Response::Relays(named) = ask(&bob.at(&supernode).await, &Request::Relays).await else { panic!("relays") };
    assert_eq!(named.iter().map(|relay| (relay.node, relay.load_percent)).collect::<Vec<_>>(), [(key.node_key(), 42)]);
    assert!(is_refused(&ask(&connection, &Request::Find(bob.name.clone())).await), "a relay looks nobody up");
}

#[tokio::test]
async fn a_supernode_that_joins_later_gets_the_records_and_clients_hear_of_it() {
    let network = Network::new().await;
    let first = network.supernode("first").await;
    let bob = network.user("bob").await;
    let there = bob.at(&first).await;
    publish(&there, bob.user_record(1)).await;
    publish(&there, bob.presence(1, &[first.key()])).await;
    let before = first.roster_version();
    let second = network.supernode("second").await;
    assert!(matches!(pushed(&there).await, Push::RosterVersion(version) if version > before));
    connected(&[&first, &second]).await;
    eventually("the records have been handed over", async || second.records() == 2).await;
    first.stop().await;
    let found = find(&bob.at(&second).await, &bob.name).await;
    assert_eq!(seqs(&found), (vec![1], vec![1]));
}

#[tokio::test]
async fn a_supernode_comes_back_with_its_key_and_without_a_token() {
    let network = Network::new().await;
    let first = network.supernode("first").await;
    let mut args = network.args("second").await;
    let second = ahoy_supernode::Supernode::start(&args).await.expect("starts");
    let (key, overlay) = (second.key(), second.overlay_address());
    let bob = network.user("bob").await;
    connected(&[&first, &second]).await;
    assert_eq!(publish(&bob.at(&first).await, bob.user_record(1)).await, 2);
    second.stop().await;
    args.serve.token = None;
    let second = ahoy_supernode::Supernode::start(&args).await.expect("starts again");
    assert_eq!((second.key(), second.overlay_address()), (key, overlay));
    connected(&[&first, &second]).await;
    eventually("the records have come back", async || second.records() == 1).await;
}

#[tokio::test]
async fn the_login_server_may_be_away() {
    let mut network = Network::new().await;
    let supernodes = network.supernodes(2).await;
    let bob = network.user("bob").await;
    network.login.take().expect("runs").stop().await;
    let there = bob.at(&supernodes[0]).await;
    assert_eq!(publish(&there, bob.user_record(1)).await, 2);
    assert_eq!(seqs(&find(&bob.at(&supernodes[1]).await, &bob.name).await).0, [1]);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let network = Network::new().await;
    let taken = std::net::UdpSocket::bind(loopback()).expect("binds");
    let mut args = network.args("one").await;
    args.serve.listen = vec![taken.local_addr().expect("bound")];
    let error = ahoy_supernode::Supernode::start(&args).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&taken.local_addr().expect("bound").port().to_string()), "{error}");
    let taken = std::net::TcpListener::bind(loopback()).expect("binds");
    let mut args = network.args("two").await;
    args.overlay = Some(taken.local_addr().expect("bound"));
    let error = ahoy_supernode::Supernode::start(&args).await.expect_err("the port is taken").to_string();
    assert!(error.contains("--overlay"), "{error}");
    let mut args = network.args("three").await;
    args.serve.metrics = Some(taken.local_addr().expect("bound"));
    let error = ahoy_supernode::Supernode::start(&args).await.expect_err("the port is taken").to_string();
    assert!(error.contains("--metrics"), "{error}");
    args.serve.metrics = None;
    ahoy_supernode::Supernode::start(&args).await.expect("the token is still good");
}
