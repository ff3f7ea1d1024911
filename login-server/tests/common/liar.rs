//! A server that has the network's root key, and says whatever a test wants it to say.

use super::Network;
use ahoy_identity::SigningKey;
use ahoy_protocol::NetworkLink;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// Answers every request with `answer`, head and body, and returns the link under which a client finds it.
pub(crate) async fn serve(network: &Network, answer: Vec<u8>) -> NetworkLink {
    let acceptor = TlsAcceptor::from(Arc::new(config(network)));
    let listener = TcpListener::bind(super::LOOPBACK).await.expect("binds");
    let link = NetworkLink { port: listener.local_addr().expect("has one").port(), ..network.link().clone() };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 16 * 1024]).await;
            // The client may have hung up by now, which it should.
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    link
}

/// An answer with status 200.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn config(network: &Network) -> ServerConfig {
    let seed = std::fs::read(network.dir.path().join("data/root.key")).expect("reads");
    let pkcs8 = SigningKey::from_seed(seed.try_into().expect("is a seed")).to_pkcs8();
    let root_key =
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()), &rcgen::PKCS_ED25519).expect("is a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("makes a key");
    let leaf = CertificateParams::new(vec!["login.ahoy.internal".to_owned()]).expect("is a name");
    let leaf = leaf.signed_by(&key, &Issuer::from_params(&root, &root_key)).expect("signs");
    let chain = vec![leaf.der().clone(), root.self_signed(&root_key).expect("signs").der().clone()];
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a chain")
}
