//! What a call between two clients promises.

use crate::support::{Quality, Talk, Way, call, client, join, relay, until, until_path};
use ahoy_protocol::datagram::{Side, relay_frame};
use ahoy_protocol::peer::Mapping;
use ahoy_transport::{PathKind, TransportError};
use std::sync::atomic::Ordering;
use std::time::Duration;

const STRAIGHT: &[PathKind] = &[PathKind::Lan, PathKind::Direct];
const RELAYED: &[PathKind] = &[PathKind::Relay];
/// Probes of a leg that stands by which both sides send and answer in that time at most; of voice it would be fifty packets.
const PROBES_MAX: u64 = 8;
/// How long both sides talk on a path before the next thing happens.
const A_WHILE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_call_through_a_relay_proves_both_devices_keys() {
    let call = call().await;
    assert_eq!(call.there.peer_key(), call.bob.key.public());
    assert_eq!(call.here.peer_key(), call.alice.key.public());
    assert_eq!(call.there.alpn(), ahoy_protocol::peer::ALPN);
    assert_eq!(call.caller.path().borrow().kind, PathKind::Relay);
    assert!(call.relay.forwarded.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_caller_may_begin_before_either_side_is_at_the_relay() {
    let (relay, node) = relay();
    let (alice, bob) = (client(), client());
    relay.join(&alice, &bob, 1);
    let (caller, callee) = (alice.peer(1, Side::Caller, &bob), bob.peer(1, Side::Callee, &alice));
    let joining = async {
        tokio::task::yield_now().await;
        join(&caller, &node, 1);
        until("the first packet to be forwarded", || relay.forwarded.load(Ordering::Relaxed) > 0).await;
        join(&callee, &node, 101);
    };
    let (there, here, ()) = tokio::join!(caller.connect(), callee.accept(), joining);
    there.expect("connected");
    here.expect("connected");
}

#[tokio::test]
async fn a_callee_refuses_another_device_and_still_takes_the_right_one() {
    let (relay, node) = relay();
    let (alice, bob, mallory) = (client(), client(), client());
    let callee = bob.peer(1, Side::Callee, &alice);
    join(&callee, &node, 101);
    relay.join(&mallory, &bob, 1);
    let forger = mallory.peer(1, Side::Caller, &bob);
    join(&forger, &node, 1);
    let accepting = async { callee.accept().await };
    tokio::pin!(accepting);
    tokio::select! {
        _ = &mut accepting => panic!("another device was accepted"),
        closed = async { forger.connect().await.expect("the key is looked at after the handshake").closed().await } => {
            assert!(matches!(closed, TransportError::Closed { .. }), "{closed:?}");
        }
    }
    let (relay, node) = self::relay();
    relay.join(&alice, &bob, 1);
    join(&callee, &node, 101);
    let caller = alice.peer(1, Side::Caller, &bob);
    join(&caller, &node, 1);
    let (there, here) = tokio::join!(caller.connect(), accepting);
    there.expect("connected");
    assert_eq!(here.expect("connected").peer_key(), alice.key.public());
}

#[tokio::test]
async fn a_caller_refuses_another_device() {
    let (relay, node) = relay();
    let (alice, bob, mallory) = (client(), client(), client());
    relay.join(&alice, &mallory, 1);
    let (caller, forger) = (alice.peer(1, Side::Caller, &bob), mallory.peer(1, Side::Callee, &alice));
    join(&caller, &node, 1);
    join(&forger, &node, 101);
    let refused = tokio::select! {
        refused = caller.connect() => refused,
        _ = forger.accept() => panic!("it was taken for another"),
    };
    assert_eq!(refused.expect_err("another key"), TransportError::WrongKey);
}

#[tokio::test]
async fn two_calls_share_one_relay() {
    let (relay, node) = relay();
    let (alice, bob, carol) = (client(), client(), client());
    relay.join(&alice, &bob, 1);
    relay.join(&alice, &carol, 2);
    let mut calls = Vec::new();
    for (number, other) in [(1, &bob), (2, &carol)] {
        let (caller, callee) = (alice.peer(number, Side::Caller, other), other.peer(number, Side::Callee, &alice));
        join(&caller, &node, u32::from(number));
        join(&callee, &node, u32::from(number) + 100);
        let (there, here) = tokio::join!(caller.connect(), callee.accept());
        calls.push((caller, callee, there.expect("connected"), here.expect("connected")));
    }
    for (_, _, there, here) in &calls {
        there.send_datagram(b"to you"[..].into()).expect("open");
        assert_eq!(&here.read_datagram().await.expect("open")[..], b"to you");
    }
}

#[tokio::test]
async fn nothing_goes_straight_before_a_side_allows_it() {
    let call = call().await;
    let way = Way::between(&call.alice, &call.bob).await;
    call.caller.set_peer_network(&[way.candidate()], Mapping::Unknown);
    call.callee.set_peer_network(&[way.candidate()], Mapping::Unknown);
    call.caller.start_probing();
    until("alice's probes", || way.carried()[0] >= 2).await;
    assert_eq!(way.carried()[1], 0, "bob answered");
    assert_eq!(call.caller.path().borrow().kind, PathKind::Relay);
    assert!(call.bob.endpoint.dropped() > 0);
}

#[tokio::test]
async fn a_call_moves_to_the_direct_path_and_back_without_losing_a_datagram() {
    let call = call().await;
    let way = Way::between(&call.alice, &call.bob).await;
    let (forth, back) = (Talk::begin(&call.there, &call.here), Talk::begin(&call.here, &call.there));
    tokio::time::sleep(A_WHILE).await;
    for peer in [&call.caller, &call.callee] {
        peer.set_peer_network(&[way.candidate()], Mapping::Unknown);
        peer.start_probing();
    }
    until_path(&call.caller, STRAIGHT).await;
    until_path(&call.callee, STRAIGHT).await;
    let virtual_address = call.there.remote_address();
    tokio::time::sleep(A_WHILE).await;
    let relayed = call.relay.forwarded.load(Ordering::Relaxed);
    tokio::time::sleep(A_WHILE).await;
    let probes = call.relay.forwarded.load(Ordering::Relaxed) - relayed;
    assert!(probes <= PROBES_MAX, "the relay still carries {probes} packets");

    way.cut();
    until_path(&call.caller, RELAYED).await;
    until_path(&call.callee, RELAYED).await;
    tokio::time::sleep(A_WHILE).await;

    way.mend();
    until_path(&call.caller, STRAIGHT).await;
    until_path(&call.callee, STRAIGHT).await;
    tokio::time::sleep(A_WHILE).await;

    assert_eq!((forth.missing().await, back.missing().await), (vec![], vec![]));
    assert_eq!(call.there.remote_address(), virtual_address);
}

#[tokio::test]
async fn a_direct_call_does_not_need_its_relay() {
    let call = call().await;
    let way = Way::between(&call.alice, &call.bob).await;
    for peer in [&call.caller, &call.callee] {
        peer.set_peer_network(&[way.candidate()], Mapping::Unknown);
        peer.start_probing();
    }
    until_path(&call.caller, STRAIGHT).await;
    until_path(&call.callee, STRAIGHT).await;
    call.caller.clear_leg(0);
    call.callee.clear_leg(0);
    let talk = Talk::begin(&call.there, &call.here);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(talk.missing().await, vec![]);
}

#[tokio::test]
async fn loss_takes_what_it_takes_and_holds_back_nothing_else() {
    let call = call().await;
    let quality = Quality { delay: Duration::from_millis(25), loss_percent: 10 };
    let way = Way::new([call.alice.address(), call.bob.address()], quality).await;
    for peer in [&call.caller, &call.callee] {
        peer.set_peer_network(&[way.candidate()], Mapping::Unknown);
        peer.start_probing();
    }
    until_path(&call.caller, STRAIGHT).await;
    let talk = Talk::begin(&call.there, &call.here);
    tokio::time::sleep(4 * A_WHILE).await;
    let missing = talk.missing().await.len();
    // A hundred frames were sent; a window that shrank would have dropped most of them.
    assert!(missing <= 25, "{missing} frames are missing");
}

#[tokio::test]
async fn what_a_relay_makes_up_does_not_end_a_call() {
    let call = call().await;
    let sender = call.node.endpoint.sender();
    let mut state = 7u32;
    for number in 0..20_000u32 {
        let bytes: Vec<u8> = (0..number % 200)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        sender.send(call.bob.address(), &relay_frame(101, &bytes));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let talk = Talk::begin(&call.there, &call.here);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(talk.missing().await, vec![]);
}

#[tokio::test]
async fn a_call_that_was_dropped_leaves_no_route_behind() {
    let call = call().await;
    call.here.close(0, "over");
    drop(call.callee);
    assert_eq!(call.there.closed().await, TransportError::Closed { code: 0, reason: "over".into() });
    let before = call.bob.endpoint.dropped();
    let sender = call.node.endpoint.sender();
    until("frames of the call to be strangers' frames", || {
        sender.send(call.bob.address(), &relay_frame(101, &[0x40; 40]));
        call.bob.endpoint.dropped() > before
    })
    .await;
}
