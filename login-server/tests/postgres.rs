//! The same accounts in PostgreSQL. Runs where `AHOY_TEST_POSTGRES` names an empty database, and is skipped elsewhere.

mod common;

use ahoy_identity::SigningKey;
use ahoy_login::admin::{Admin, CoolDown};
use ahoy_login::{Clock, Config, Server};
use ahoy_login_client::LoginClient;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::LoginError;
use common::{LOOPBACK, PASSWORD, name, node_request, refusal, register, sign_in};

#[tokio::test]
async fn a_network_keeps_its_accounts_in_postgresql() {
    let Ok(database) = std::env::var("AHOY_TEST_POSTGRES") else {
        eprintln!("skipped: AHOY_TEST_POSTGRES names no database");
        return;
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let config = Config { database: Some(database), ..Config::new(dir.path().to_owned(), LOOPBACK) };
    let server = Server::start(config).await.expect("starts");
    let client = LoginClient::connect(server.link()).await.expect("connects");
    let (device, registered) = register(&client, "bob").await;
    assert_eq!(sign_in(&client, "bob", PASSWORD).await.expect("signs in").user.user_key(), registered.user.user_key());
    assert_eq!(client.renew(&device.key).await.expect("renews").devices.len(), 2);
    let serial = registered.credentials.device.claims().expect("reads").serial;
    let again = client.sign_in(&name("bob"), PASSWORD, &device.new_device()).await.expect("signs in again");
    assert_eq!(again.credentials.device.claims().expect("reads").serial, serial);

    let admin = Admin::open(dir.path(), Clock::default()).await.expect("opens");
    let key = SigningKey::generate();
    let request = node_request(server.link().network, &key, NodeRole::Relay, "127.0.0.1:4000");
    let token = admin.node_token().await.expect("gives a token");
    let credentials = client.enrol(&token, request.clone()).await.expect("enrols");
    assert_eq!(credentials.roster.claims().expect("reads").nodes.len(), 1);
    client.enrol(&token, request.clone()).await.expect("the same node may");
    let other = node_request(server.link().network, &SigningKey::generate(), NodeRole::Relay, "127.0.0.1:4000");
    assert_eq!(refusal(client.enrol(&token, other).await), LoginError::Token);
    admin.remove_node(&key.node_key().to_string()).await.expect("removes");
    assert_eq!(refusal(client.enrol(&token, request).await), LoginError::Token);

    admin.disable(&name("bob")).await.expect("disables");
    assert_eq!(refusal(client.renew(&device.key).await), LoginError::Disabled);
    admin.enable(&name("bob")).await.expect("enables");
    client.renew(&device.key).await.expect("renews");
    admin.reset(&name("bob"), CoolDown::Skipped).await.expect("resets");
    assert_eq!(refusal(client.renew(&device.key).await), LoginError::UnknownDevice);
    assert_eq!(register(&client, "bob").await.1.epoch, 2);
    assert_eq!(admin.users().await.expect("lists").len(), 1);

    server.stop().await;
    let server = Server::start(Config::new(dir.path().to_owned(), LOOPBACK)).await.expect("remembers its database");
    sign_in(&LoginClient::connect(server.link()).await.expect("connects"), "bob", PASSWORD).await.expect("signs in");
    server.stop().await;
}
