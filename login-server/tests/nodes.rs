//! Supernodes and relays join, stay and leave.

mod common;

use ahoy_identity::SigningKey;
use ahoy_login_client::LoginClient;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::{LoginError, RenewNode, paths};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::time::DAY;
use ahoy_protocol::{NodeKey, Wire};
use common::{Network, node_request, node_request_at, refusal};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.1:4000";
const OTHER_ADDRESS: &str = "127.0.0.1:4001";

async fn roster(client: &LoginClient) -> Roster {
    client.roster(0, 0).await.expect("answers").expect("is there").claims().expect("reads")
}

async fn enrol(network: &Network, client: &LoginClient, key: &SigningKey, role: NodeRole) -> String {
    let token = network.admin().await.node_token().await.expect("gives a token");
    client.enrol(&token, node_request(network.link().network, key, role, ADDRESS)).await.expect("enrols");
    token
}

fn is_listed(roster: &Roster, node: NodeKey) -> bool {
    roster.nodes.iter().any(|listed| listed.node == node)
}

#[tokio::test]
async fn a_node_joins_with_a_token_and_stays_without_it() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    enrol(&network, &client, &key, NodeRole::Supernode).await;
    assert!(roster(&client).await.node(NodeRole::Supernode, &key.node_key()).is_some());
    let request = node_request(network.link().network, &key, NodeRole::Supernode, OTHER_ADDRESS);
    let renewed = client.renew_node(request).await.expect("renews");
    let roster = renewed.roster.claims().expect("reads");
    assert_eq!(roster.nodes[0].udp[0], OTHER_ADDRESS.parse().expect("is an address"));
}

#[tokio::test]
async fn a_token_is_good_for_one_node_which_may_use_it_again() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    let token = enrol(&network, &client, &key, NodeRole::Relay).await;
    let again = node_request(network.link().network, &key, NodeRole::Relay, ADDRESS);
    client.enrol(&token, again).await.expect("the same node may");
    let other = node_request(network.link().network, &SigningKey::generate(), NodeRole::Relay, ADDRESS);
    assert_eq!(refusal(client.enrol(&token, other.clone()).await), LoginError::Token);
    assert_eq!(refusal(client.enrol("no-such-token", other.clone()).await), LoginError::Token);
    assert_eq!(refusal(client.enrol(&"x".repeat(100), other).await), LoginError::Token);
}

#[tokio::test]
async fn a_node_that_was_removed_comes_back_with_a_new_token_only() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    let token = enrol(&network, &client, &key, NodeRole::Relay).await;
    network.admin().await.remove_node(&key.node_key().to_string()).await.expect("removes");
    let request = node_request(network.link().network, &key, NodeRole::Relay, ADDRESS);
    assert_eq!(refusal(client.renew_node(request.clone()).await), LoginError::UnknownNode);
    assert_eq!(refusal(client.enrol(&token, request).await), LoginError::Token);
    enrol(&network, &client, &key, NodeRole::Relay).await;
    assert!(is_listed(&roster(&client).await, key.node_key()));
}

#[tokio::test]
async fn a_node_that_never_enrolled_does_not_renew() {
    let network = Network::start().await;
    let client = network.client().await;
    let request = node_request(network.link().network, &SigningKey::generate(), NodeRole::Relay, ADDRESS);
    assert_eq!(refusal(client.renew_node(request).await), LoginError::UnknownNode);
}

#[tokio::test]
async fn a_node_does_not_change_its_role() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    enrol(&network, &client, &key, NodeRole::Relay).await;
    let request = node_request(network.link().network, &key, NodeRole::Supernode, ADDRESS);
    assert!(matches!(refusal(client.renew_node(request).await), LoginError::Refused(_)));
}

#[tokio::test]
async fn addresses_that_nobody_can_reach_are_refused_with_advice() {
    let network = Network::start().await;
    let client = network.client().await;
    let token = network.admin().await.node_token().await.expect("gives a token");
    for address in ["0.0.0.0:4000", "127.0.0.1:0", "224.0.0.1:4000", "[::]:4000"] {
        let request = node_request(network.link().network, &SigningKey::generate(), NodeRole::Relay, address);
        let error = refusal(client.enrol(&token, request).await).to_string();
        assert!(error.contains("--public"), "{error}");
    }
}

#[tokio::test]
async fn a_request_for_another_network_is_refused() {
    let network = Network::start().await;
    let other = Network::start().await;
    let client = network.client().await;
    let token = network.admin().await.node_token().await.expect("gives a token");
    let request = node_request(other.link().network, &SigningKey::generate(), NodeRole::Relay, ADDRESS);
    assert!(matches!(refusal(client.enrol(&token, request).await), LoginError::Refused(_)));
}

#[tokio::test]
async fn who_waits_for_a_roster_hears_of_a_change_when_it_comes() {
    let network = Network::start().await;
    let client = network.client().await;
    let version = roster(&client).await.version;
    assert_eq!(client.roster(version, 0).await.expect("answers"), None);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.roster(version, 30).await }
    });
    let key = SigningKey::generate();
    enrol(&network, &client, &key, NodeRole::Relay).await;
    let woken = waiting.await.expect("no panic").expect("answers").expect("there is a newer one").claims().expect("reads");
    assert!(woken.version > version);
    assert!(is_listed(&woken, key.node_key()));
}

#[tokio::test]
async fn who_waits_hears_of_what_another_process_changed() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    enrol(&network, &client, &key, NodeRole::Relay).await;
    let version = roster(&client).await.version;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.roster(version, 30).await }
    });
    network.admin().await.remove_node(&key.node_key().to_string()).await.expect("removes");
    let woken = waiting.await.expect("no panic").expect("answers").expect("there is a newer one").claims().expect("reads");
    assert!(!is_listed(&woken, key.node_key()));
    let request = node_request(network.link().network, &key, NodeRole::Relay, ADDRESS);
    assert_eq!(refusal(client.renew_node(request).await), LoginError::UnknownNode);
}

#[tokio::test]
async fn stopping_the_server_does_not_wait_for_those_who_wait() {
    let network = Network::start().await;
    let client = network.client().await;
    let version = roster(&client).await.version;
    let waiting = tokio::spawn(async move { client.roster(version, 30).await });
    // However far the request has come, the server ends without waiting for its 30 seconds.
    network.server.stop().await;
    let _ = waiting.await.expect("no panic");
}

#[tokio::test]
async fn the_salt_changes_daily_and_the_one_before_is_kept() {
    let network = Network::start().await;
    let client = network.client().await;
    let first = roster(&client).await;
    assert_eq!(first.salts.len(), 1);
    network.clock.advance(DAY + Duration::from_secs(1));
    let network = network.restart().await;
    let second = network.server_roster().await;
    assert_eq!(second.salts.len(), 2);
    assert_eq!(second.salts[0], first.salts[0]);
    assert!(second.version > first.version);
    network.clock.advance(DAY + Duration::from_secs(1));
    let third = network.restart().await.server_roster().await;
    assert_eq!(third.salts.len(), 2);
    assert_eq!(third.salts[0], second.salts[1]);
}

#[tokio::test]
async fn a_node_stays_listed_for_a_week_after_its_certificate_lapsed_and_comes_back_by_renewal() {
    let network = Network::start().await;
    let client = network.client().await;
    let key = SigningKey::generate();
    enrol(&network, &client, &key, NodeRole::Relay).await;
    network.clock.advance(DAY * 8 - Duration::from_secs(60));
    let network = network.restart().await;
    assert!(is_listed(&network.server_roster().await, key.node_key()));
    network.clock.advance(Duration::from_secs(120));
    let network = network.restart().await;
    assert!(!is_listed(&network.server_roster().await, key.node_key()));

    let request = node_request_at(network.clock.now(), network.link().network, &key, NodeRole::Relay, ADDRESS);
    let body = RenewNode { request }.encode().expect("fits");
    let (status, _) =
        common::raw::exchange(&mut common::raw::connect(&network).await, "POST", paths::RENEW_NODE, &body).await.expect("answers");
    assert_eq!(status, 200);
    assert!(is_listed(&network.server_roster().await, key.node_key()));
}

impl Network {
    /// The roster by its content alone: the server's clock may be days ahead of the reader's, who would refuse it.
    async fn server_roster(&self) -> Roster {
        common::raw::roster(self).await
    }
}
