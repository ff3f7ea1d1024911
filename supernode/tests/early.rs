//! Questions that come before the registration of whoever asks them.

mod common;

use ahoy_identity::SigningKey;
use ahoy_protocol::directory::{ALPN, Request, Response};
use common::{Network, PATIENCE, ask, endpoint, find, is_refused, publish, seqs};
use futures::future::join_all;

#[tokio::test]
async fn what_is_asked_with_the_registration_is_answered_after_it() {
    let network = Network::new().await;
    let supernodes = network.supernodes(2).await;
    let (alice, bob) = (network.user("alice").await, network.user("bob").await);
    let his = bob.at(&supernodes[1]).await;
    publish(&his, bob.user_record(1)).await;
    publish(&his, bob.presence(1, &[supernodes[1].key()])).await;
    let connection = alice.connect(supernodes[0].addresses()[0], &supernodes[0].key()).await;
    let registration = alice.registration();
    // The question goes out first.
    let (found, relays, registered) =
        tokio::join!(biased; find(&connection, &bob.name), ask(&connection, &Request::Relays), ask(&connection, &registration));
    assert_eq!(seqs(&found), (vec![1], vec![1]));
    assert!(matches!(relays, Response::Relays(_)));
    assert_eq!(registered, Response::Done);
}

#[tokio::test]
async fn what_waits_for_a_registration_that_fails_is_answered_as_that_was() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let (bob, eve) = (network.user("bob").await, network.user("eve").await);
    let connection = eve.connect(supernode.addresses()[0], &supernode.key()).await;
    let (question, others_certificates) = (Request::Find(bob.name.clone()), bob.registration());
    let (found, registered) = tokio::join!(biased; ask(&connection, &question), ask(&connection, &others_certificates));
    assert!(is_refused(&registered));
    assert_eq!(found, registered);
    assert_eq!(ask(&connection, &question).await, registered, "what comes later does not wait");
    assert_eq!(ask(&connection, &eve.registration()).await, Response::Done);
    assert!(find(&connection, &bob.name).await.users.is_empty(), "a second attempt may succeed");
}

#[tokio::test]
async fn who_never_registers_is_refused_and_takes_nobodys_room() {
    let network = Network::new().await;
    let supernode = network.supernode("one").await;
    let bob = network.user("bob").await;
    let there = bob.at(&supernode).await;
    publish(&there, bob.user_record(1)).await;
    let stranger = endpoint(&SigningKey::generate());
    let mut connections = Vec::new();
    for _ in 0..140 {
        connections.push(stranger.connect(supernode.addresses()[0], &supernode.key(), ALPN).await.expect("connects"));
    }
    let question = Request::Find(bob.name.clone());
    let waiting = connections.iter().flat_map(|connection| (0..8).map(|_| connection.request::<_, Response>(&question, PATIENCE)));
    let (answers, ()) = tokio::join!(biased; join_all(waiting), async {
        for _ in 0..10 {
            assert_eq!(seqs(&find(&there, &bob.name).await).0, [1]);
        }
    });
    let refused = answers.iter().filter(|answer| answer.as_ref().is_ok_and(is_refused)).count();
    assert!(refused >= 1);
    // So many at once are not all waited for, nor all answered.
    assert!(!answers.iter().any(|answer| matches!(answer, Ok(Response::Found(_)))));
}
