//! What strangers may send, and what somebody may find who has the database alone.

mod common;

use ahoy_identity::opaque::{OpaqueError, ServerSetup, SignInClient};
use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_protocol::Wire;
use ahoy_protocol::login::{RegisterStart, SignInFinish, SignInStart, paths};
use ahoy_protocol::{Blob, NetworkLink};
use common::{Network, PASSWORD, name, raw, register, sign_in};
use rcgen::{CertificateParams, KeyPair};
use sqlx::Row;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const POST_PATHS: [&str; 8] = [
    paths::REGISTER_START,
    paths::REGISTER_FINISH,
    paths::SIGN_IN_START,
    paths::SIGN_IN_FINISH,
    paths::ADD_DEVICE,
    paths::RENEW,
    paths::ENROL_NODE,
    paths::RENEW_NODE,
];
const BODIES_PER_PATH: usize = 1000;

/// A seeded source of bytes (xorshift64).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("fits")
    }

    fn body(&mut self, len_max: usize) -> Vec<u8> {
        let mut body: Vec<u8> = (0..self.below(len_max)).map(|_| self.next().to_le_bytes()[0]).collect();
        // Half of them get past the version.
        if let Some(first) = body.first_mut().filter(|first| **first % 2 == 0) {
            *first = 1;
        }
        body
    }

    /// `valid` with a byte changed, cut off, or added.
    fn mutated(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut body = valid.to_vec();
        let at = self.below(body.len());
        match self.below(3) {
            0 => body[at] ^= self.next().to_le_bytes()[0] | 1,
            1 => body.truncate(at),
            _ => body.insert(at, self.next().to_le_bytes()[0]),
        }
        body
    }
}

async fn post(network: &Network, stream: &mut tokio_rustls::client::TlsStream<TcpStream>, path: &str, body: &[u8]) -> u16 {
    if let Ok((status, _)) = raw::exchange(stream, "POST", path, body).await {
        return status;
    }
    // The server closes a connection whose request it did not read to its end.
    *stream = raw::connect(network).await;
    raw::exchange(stream, "POST", path, body).await.expect("answers").0
}

#[tokio::test]
async fn malformed_bodies_are_refused_and_the_server_goes_on() {
    let network = Network::start().await;
    let mut bytes = Bytes(0x0a40_7e57);
    let mut stream = raw::connect(&network).await;
    for path in POST_PATHS {
        for _ in 0..BODIES_PER_PATH {
            let body = bytes.body(512);
            let status = post(&network, &mut stream, path, &body).await;
            assert!((400..500).contains(&status), "{path} answered {status} to {body:?}");
        }
    }
    register(&network.client().await, "bob").await;
}

#[tokio::test]
async fn mutated_requests_are_answered_or_refused_and_the_server_goes_on() {
    let network = Network::start().await;
    let mut bytes = Bytes(0x5eed);
    let (_, opaque) = SignInClient::start(PASSWORD.as_bytes()).expect("starts");
    let valid = [
        (paths::REGISTER_START, RegisterStart { name: name("bob"), opaque: opaque.clone() }.encode().expect("fits")),
        (paths::SIGN_IN_START, SignInStart { name: name("bob"), opaque: opaque.clone() }.encode().expect("fits")),
        (paths::SIGN_IN_FINISH, SignInFinish { ticket: Blob::new(vec![7; 400]).expect("fits"), opaque }.encode().expect("fits")),
    ];
    let mut stream = raw::connect(&network).await;
    for (path, valid) in &valid {
        for _ in 0..BODIES_PER_PATH {
            let body = bytes.mutated(valid);
            let status = post(&network, &mut stream, path, &body).await;
            assert!(status < 500, "{path} answered {status} to {body:?}");
        }
    }
    register(&network.client().await, "carol").await;
}

#[tokio::test]
async fn oversized_bodies_are_refused() {
    let network = Network::start().await;
    for path in POST_PATHS {
        let mut stream = raw::connect(&network).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("writes");
        stream.write_all(&[1; 16 * 1024]).await.expect("writes");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("answers");
        assert_eq!(&answer, b"HTTP/1.1 413", "{path}");
    }
    register(&network.client().await, "bob").await;
}

#[tokio::test]
async fn unknown_paths_methods_and_queries_are_refused() {
    let network = Network::start().await;
    let mut stream = raw::connect(&network).await;
    for (method, path, status) in [
        ("GET", "/", 404),
        ("POST", "/v2/network", 404),
        ("POST", paths::NETWORK, 405),
        ("GET", paths::RENEW, 405),
        ("GET", "/v1/roster?since=x", 400),
        ("GET", "/v1/roster?since=-1", 400),
        ("GET", "/v1/roster?wait=99999999999999999999999", 400),
        ("GET", "/v1/roster?since=&&=&wait", 400),
    ] {
        let (found, _) = raw::exchange(&mut stream, method, path, b"").await.expect("answers");
        assert_eq!(found, status, "{method} {path}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_dropped_and_the_server_goes_on() {
    let network = Network::start().await;
    let mut bytes = Bytes(0x7150);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(network.server.local_addr()).await.expect("connects");
        // The server may close before it has read all.
        let _ = stream.write_all(&bytes.body(2048)).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    register(&network.client().await, "bob").await;
}

#[tokio::test]
async fn a_stranger_who_shows_the_networks_root_without_its_signature_is_refused() {
    let network = Network::start().await;
    let genuine = raw::connect(&network).await;
    let root = genuine.get_ref().1.peer_certificates().expect("shows its chain")[1].clone().into_owned();
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("makes a key");
    let leaf = CertificateParams::new(vec!["login.ahoy.internal".to_owned()]).expect("is a name").self_signed(&key).expect("signs");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone(), root], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a chain");
    let listener = TcpListener::bind(common::LOOPBACK).await.expect("binds");
    let link = NetworkLink { port: listener.local_addr().expect("has one").port(), ..network.link().clone() };
    let stranger = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.map(drop)
    });
    let error = LoginClient::connect(&link).await.expect_err("is refused");
    assert!(matches!(error, LoginClientError::OtherServer { .. }), "{error:?}");
    stranger.await.expect("no panic").expect_err("the handshake fails");
}

#[tokio::test]
async fn the_database_alone_holds_nothing_with_which_a_password_can_be_tested() {
    let network = Network::start().await;
    let client = network.client().await;
    register(&client, "alice").await;
    register(&client, "bob").await;
    let data = network.dir.path().join("data");
    network.server.stop().await;

    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", data.join("accounts.db").display())).await.expect("opens");
    let rows = sqlx::query("SELECT record, backup FROM users ORDER BY name").fetch_all(&pool).await.expect("reads");
    let column = |row: usize, column: usize| rows[row].get::<Vec<u8>, _>(column);
    assert_ne!(column(0, 0), column(1, 0), "one password gave two records that are the same");
    assert_ne!(column(0, 1), column(1, 1));

    // Somebody with the database and the right guess, but with another OPRF seed, learns nothing.
    let (attacker, request) = SignInClient::start(PASSWORD.as_bytes()).expect("starts");
    let (response, _) = ServerSetup::generate().start_sign_in(&name("bob"), Some(&column(1, 0)), &request).expect("starts");
    assert_eq!(attacker.finish(PASSWORD.as_bytes(), &name("bob"), &response).map(drop), Err(OpaqueError::WrongPassword));
    pool.close().await;

    let mut dump = Vec::new();
    for entry in std::fs::read_dir(&data).expect("reads") {
        let entry = entry.expect("entry");
        if entry.file_name().to_string_lossy().starts_with("accounts.db") {
            dump.extend(std::fs::read(entry.path()).expect("reads"));
        }
    }
    let holds = |needle: &[u8]| dump.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"alice"), "the dump is not the database");
    assert!(!holds(PASSWORD.as_bytes()));
    for file in ["root.key", "issuing.key", "ticket.key", "opaque.setup"] {
        let key = std::fs::read(data.join(file)).expect("reads");
        assert!(!key.chunks(32).any(holds), "{file} is in the database");
    }
}

#[tokio::test]
async fn a_network_without_its_password_keys_does_not_start_with_others() {
    let network = Network::start().await;
    register(&network.client().await, "bob").await;
    let data = network.dir.path().join("data");
    network.server.stop().await;
    let kept = std::fs::read(data.join("opaque.setup")).expect("reads");
    std::fs::remove_file(data.join("opaque.setup")).expect("removes");
    let config = ahoy_login::Config::new(data.clone(), common::LOOPBACK);
    let error = ahoy_login::Server::start(config.clone()).await.expect_err("is refused").to_string();
    assert!(error.contains("opaque.setup is missing") && error.contains("restore it from a backup"), "{error}");
    std::fs::write(data.join("opaque.setup"), kept).expect("writes");
    let server = ahoy_login::Server::start(config).await.expect("starts");
    sign_in(&LoginClient::connect(server.link()).await.expect("connects"), "bob", PASSWORD).await.expect("signs in");
}
