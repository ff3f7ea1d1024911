//! What the client does not believe, even of a server that has the network's TLS key.

mod common;

use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_protocol::Wire;
use ahoy_protocol::login::RosterReply;
use common::{Device, Network, liar, register};

/// A client of `network` whose every request is answered with `answer`.
async fn lied_to(network: &Network, answer: Vec<u8>) -> LoginClient {
    let document = network.client().await.document().clone();
    LoginClient::with_network(&liar::serve(network, answer).await, document).expect("is of the network")
}

#[tokio::test]
async fn credentials_of_another_device_are_refused() {
    let network = Network::start().await;
    let (_, signed_in) = register(&network.client().await, "bob").await;
    let client = lied_to(&network, liar::ok(&signed_in.credentials.encode().expect("fits"))).await;
    let error = client.renew(&Device::generate().key).await.expect_err("is refused");
    assert!(matches!(error, LoginClientError::Untrusted { what: "device certificate", .. }), "{error:?}");
}

#[tokio::test]
async fn credentials_with_anothers_certificate_are_refused() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, bob) = register(&client, "bob").await;
    let (_, eve) = register(&client, "eve").await;
    let mut credentials = bob.credentials;
    credentials.user = eve.credentials.user;
    let client = lied_to(&network, liar::ok(&credentials.encode().expect("fits"))).await;
    let error = client.renew(&device.key).await.expect_err("is refused");
    assert!(matches!(error, LoginClientError::Untrusted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_roster_of_another_network_is_refused() {
    let network = Network::start().await;
    let other = Network::start().await;
    let roster = other.client().await.roster(0, 0).await.expect("answers");
    let client = lied_to(&network, liar::ok(&RosterReply { roster }.encode().expect("fits"))).await;
    let error = client.roster(0, 0).await.expect_err("is refused");
    assert!(matches!(error, LoginClientError::Untrusted { what: "roster", .. }), "{error:?}");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_named_as_such() {
    let network = Network::start().await;
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    for answer in [liar::ok(b""), liar::ok(&[1; 100]), liar::ok(&vec![1; 1024 * 1024]), redirect] {
        let client = lied_to(&network, answer).await;
        let error = client.renew(&Device::generate().key).await.expect_err("is refused");
        assert!(matches!(error, LoginClientError::Answer { .. }), "{error:?}");
        assert!(error.to_string().contains("gave an answer that makes no sense"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_or_cut_short_is_no_answer() {
    let network = Network::start().await;
    for answer in [b"".to_vec(), b"SSH-2.0-x\r\n\r\n".to_vec(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx".to_vec()] {
        let client = lied_to(&network, answer).await;
        let error = client.renew(&Device::generate().key).await.expect_err("is refused");
        assert!(matches!(error, LoginClientError::Unreachable { .. }), "{error:?}");
    }
}
