//! People register, sign in on other devices, and come back.

mod common;

use ahoy_identity::SigningKey;
use ahoy_login::admin::CoolDown;
use ahoy_login_client::{LoginClient, LoginClientError, SignedIn};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::login::LoginError;
use ahoy_protocol::record::DEVICES_MAX;
use ahoy_protocol::time::DAY;
use common::{Device, Network, PASSWORD, WRONG_PASSWORD, name, refusal, register, sign_in};

#[tokio::test]
async fn a_second_device_signs_in_with_name_and_password_alone_and_gets_the_user_key() {
    let network = Network::start().await;
    let client = network.client().await;
    let (first, registered) = register(&client, "bob").await;
    assert_eq!(registered.epoch, 1);
    assert_eq!(registered.credentials.devices.len(), 1);

    let second = Device::generate();
    let signed_in = client.sign_in(&name("bob"), PASSWORD, &second.new_device()).await.expect("signs in");
    assert_eq!(signed_in.user.user_key(), registered.user.user_key());
    assert_eq!(signed_in.credentials.devices.len(), 2);

    let renewed = client.renew(&first.key).await.expect("renews");
    assert_eq!(renewed.devices.len(), 2, "the first device does not hear of the second");
    let own = client.network().verify_device(&renewed.device, network.clock.now()).expect("holds");
    assert_eq!(own.device(), first.key.device_key());
    assert_eq!(own.seal(), first.seal.public());
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_give_the_same_error() {
    let network = Network::start().await;
    let client = network.client().await;
    register(&client, "bob").await;
    let wrong = sign_in(&client, "bob", WRONG_PASSWORD).await.expect_err("is refused");
    let unknown = sign_in(&client, "nobody", PASSWORD).await.expect_err("is refused");
    assert_eq!(wrong, LoginClientError::Refused(LoginError::Credentials));
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.to_string(), "wrong name or password");
}

#[tokio::test]
async fn guesses_are_slowed_down_until_time_has_passed() {
    let network = Network::start().await;
    let client = network.client().await;
    register(&client, "bob").await;
    for _ in 0..5 {
        assert_eq!(refusal(sign_in(&client, "bob", WRONG_PASSWORD).await), LoginError::Credentials);
    }
    let LoginError::SlowDown { retry_after_s } = refusal(sign_in(&client, "bob", PASSWORD).await) else { panic!("is let in") };
    assert!((1..=30).contains(&retry_after_s), "{retry_after_s} seconds");
    network.clock.advance(std::time::Duration::from_secs(retry_after_s.into()));
    sign_in(&client, "bob", PASSWORD).await.expect("the right password is let in");
}

#[tokio::test]
async fn unknown_names_are_slowed_down_like_known_ones() {
    let network = Network::start().await;
    let client = network.client().await;
    for _ in 0..5 {
        assert_eq!(refusal(sign_in(&client, "nobody", PASSWORD).await), LoginError::Credentials);
    }
    assert!(matches!(refusal(sign_in(&client, "nobody", PASSWORD).await), LoginError::SlowDown { .. }));
}

#[tokio::test]
async fn a_name_is_somebodys_once() {
    let network = Network::start().await;
    let client = network.client().await;
    register(&client, "bob").await;
    let second = client.register(&name("bob"), PASSWORD, &Device::generate().new_device()).await;
    assert_eq!(refusal(second), LoginError::NameTaken(name("bob")));
}

#[tokio::test]
async fn of_two_who_register_a_name_at_once_one_gets_it() {
    let network = Network::start().await;
    let client = network.client().await;
    let (one, other) = (Device::generate(), Device::generate());
    let (name, one, other) = (name("bob"), one.new_device(), other.new_device());
    let results = tokio::join!(client.register(&name, PASSWORD, &one), client.register(&name, PASSWORD, &other));
    assert_eq!(u8::from(results.0.is_ok()) + u8::from(results.1.is_ok()), 1);
}

#[tokio::test]
async fn a_weak_password_is_refused_before_anything_is_sent() {
    let network = Network::start().await;
    let client = network.client().await;
    network.server.stop().await;
    let result = client.register(&name("bob"), "password1", &Device::generate().new_device()).await;
    assert!(matches!(result, Err(LoginClientError::WeakPassword(_))));
}

#[tokio::test]
async fn a_disabled_account_is_refused_and_revoked_until_it_is_enabled() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, registered) = register(&client, "bob").await;
    let serial = registered.credentials.user.claims().expect("reads").serial;
    network.admin().await.disable(&name("bob")).await.expect("disables");
    assert_eq!(refusal(client.renew(&device.key).await), LoginError::Disabled);
    assert_eq!(refusal(sign_in(&client, "bob", PASSWORD).await), LoginError::Disabled);
    assert_eq!(refusal(sign_in(&client, "bob", WRONG_PASSWORD).await), LoginError::Credentials, "it tells who does not know the password");
    let before = registered.credentials.roster.claims().expect("reads").version;
    let roster = client.roster(before, 30).await.expect("answers").expect("a newer one comes");
    let roster = client.network().verify_roster(&roster, network.clock.now()).expect("holds");
    assert!(roster.is_revoked(serial));

    network.admin().await.enable(&name("bob")).await.expect("enables");
    client.renew(&device.key).await.expect("renews");
    let roster = client.roster(roster.version, 30).await.expect("answers").expect("a newer one comes");
    let roster = client.network().verify_roster(&roster, network.clock.now()).expect("holds");
    assert!(!roster.is_revoked(serial));
    sign_in(&client, "bob", PASSWORD).await.expect("signs in");
}

#[tokio::test]
async fn a_reset_name_is_free_after_a_day_with_the_next_epoch_and_without_the_old_devices() {
    let network = Network::start().await;
    let client = network.client().await;
    let (old_device, old) = register(&client, "bob").await;
    network.admin().await.reset(&name("bob"), CoolDown::Kept).await.expect("resets");
    assert_eq!(refusal(client.renew(&old_device.key).await), LoginError::UnknownDevice);
    assert_eq!(refusal(sign_in(&client, "bob", PASSWORD).await), LoginError::Credentials);
    let too_early = client.register(&name("bob"), PASSWORD, &Device::generate().new_device()).await.expect_err("is refused");
    assert!(too_early.to_string().contains("24 h"), "{too_early}");

    network.admin().await.reset(&name("bob"), CoolDown::Skipped).await.expect("resets");
    let (_, new) = register(&client, "bob").await;
    assert_eq!(new.epoch, old.epoch + 1);
    assert_ne!(new.user.user_key(), old.user.user_key());
    assert_eq!(new.credentials.devices.len(), 1);
    assert_eq!(refusal(client.renew(&old_device.key).await), LoginError::UnknownDevice);
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_devices() {
    let network = Network::start().await;
    let client = network.client().await;
    register(&client, "bob").await;
    for _ in 1..DEVICES_MAX {
        sign_in(&client, "bob", PASSWORD).await.expect("signs in");
    }
    assert_eq!(refusal(sign_in(&client, "bob", PASSWORD).await), LoginError::TooManyDevices);
}

#[tokio::test]
async fn a_restart_keeps_link_accounts_and_roster() {
    let network = Network::start().await;
    let link = network.link().clone();
    let client = network.client().await;
    let (device, registered) = register(&client, "bob").await;
    let before = registered.credentials.roster.claims().expect("reads");

    let network = network.restart().await;
    assert_eq!(*network.link(), link);
    let renewed = client.renew(&device.key).await.expect("a client goes on without noticing");
    let after = renewed.roster.claims().expect("reads");
    assert_eq!((after.version, &after.salts), (before.version, &before.salts));
    sign_in(&network.client().await, "bob", PASSWORD).await.expect("signs in");
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_and_named() {
    let network = Network::start().await;
    let other = Network::start().await;
    let mut link = network.link().clone();
    link.port = other.link().port;
    let error = LoginClient::connect(&link).await.expect_err("is refused");
    assert!(matches!(error, LoginClientError::OtherServer { .. }), "{error:?}");
    assert!(error.to_string().contains("is not the one this network link names"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_is_named() {
    let network = Network::start().await;
    let link = network.link().clone();
    network.server.stop().await;
    let error = LoginClient::connect(&link).await.expect_err("is down");
    assert!(matches!(error, LoginClientError::Unreachable { .. }), "{error:?}");
    let expected = format!("cannot reach the login server at {}: connection refused; check", link.authority());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_document_of_another_network_is_refused() {
    let network = Network::start().await;
    let other = Network::start().await;
    let document = other.client().await.document().clone();
    assert!(matches!(LoginClient::with_network(network.link(), document), Err(LoginClientError::Untrusted { .. })));
}

#[tokio::test]
async fn only_devices_of_accounts_renew() {
    let network = Network::start().await;
    let client = network.client().await;
    assert_eq!(refusal(client.renew(&SigningKey::generate()).await), LoginError::UnknownDevice);
}

#[tokio::test]
async fn a_device_that_signs_in_again_keeps_its_serial_until_it_is_revoked() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, registered) = register(&client, "bob").await;
    let serial = |signed_in: &SignedIn| signed_in.credentials.device.claims().expect("reads").serial;
    let again = client.sign_in(&name("bob"), PASSWORD, &device.new_device()).await.expect("signs in");
    assert_eq!(again.credentials.devices.len(), 1);
    assert_eq!(serial(&again), serial(&registered));

    network.admin().await.reset(&name("bob"), CoolDown::Skipped).await.expect("resets");
    let anew = client.register(&name("bob"), PASSWORD, &device.new_device()).await.expect("registers");
    assert_ne!(serial(&anew), serial(&registered), "its certificate is revoked from the start");
}

#[tokio::test]
async fn a_grant_holds_for_a_week_without_the_login_server() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, registered) = register(&client, "bob").await;
    let now = UnixMillis::from(std::time::SystemTime::now());
    let holds_at = |time| client.network().verify_grant(&registered.credentials.grant, &device.key.device_key(), time).is_ok();
    assert!(holds_at(now.plus(DAY * 7)));
    assert!(!holds_at(now.plus(DAY * 9)));
}

#[tokio::test]
async fn a_device_that_counts_no_more_is_nobody_elses() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, _) = register(&client, "bob").await;
    network.admin().await.reset(&name("bob"), CoolDown::Skipped).await.expect("resets");
    let result = client.register(&name("alice"), PASSWORD, &device.new_device()).await.expect_err("is refused");
    assert!(result.to_string().contains("belongs to another account"), "{result}");
}

#[tokio::test]
async fn a_device_belongs_to_one_account() {
    let network = Network::start().await;
    let client = network.client().await;
    let (device, _) = register(&client, "bob").await;
    let result = client.register(&name("alice"), PASSWORD, &device.new_device()).await.expect_err("is refused");
    assert!(result.to_string().contains("belongs to another account"), "{result}");
    register(&client, "alice").await;
}
