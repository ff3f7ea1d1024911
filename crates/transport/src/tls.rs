//! TLS with raw public keys (RFC 7250): both sides prove an Ed25519 key, and there are no certificates to parse.
//!
//! The client demands exactly one key of the server. The server demands that the client proves some key and leaves it
//! to the caller, who knows whom it expects, to look at it. TLS 1.3 only, `ring` only, no resumption: a resumed
//! session would not prove the key again.

use crate::TransportError;
use ahoy_identity::{SigningKey, public_from_spki, spki};
use ahoy_protocol::tunnel;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use quinn::rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use quinn::rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use quinn::rustls::server::AlwaysResolvesServerRawPublicKeys;
use quinn::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use quinn::rustls::sign::CertifiedKey;
use quinn::rustls::version::TLS13;
use quinn::rustls::{
    self, CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, PeerMisbehaved, SignatureScheme,
};
use std::io;
use std::sync::Arc;

/// The name every client asks for. Initial packets can be read on the wire, so it says nothing.
pub(crate) const SERVER_NAME: &str = "peer.invalid";

/// QUIC's TLS for one who connects to the holder of `peer`.
pub(crate) fn client(key: &SigningKey, peer: &[u8; 32], alpn: &[u8]) -> Result<Arc<QuicClientConfig>, TransportError> {
    let provider = provider();
    let identity = Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity(key, &provider)?));
    let verifier = Arc::new(ExactServerKey { spki: spki(peer), provider: Arc::clone(&provider) });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(setup)?))
}

/// QUIC's TLS for one who is connected to, by anybody who proves a key and speaks one of `alpns`.
pub(crate) fn server(key: &SigningKey, alpns: &[&[u8]]) -> Result<Arc<QuicServerConfig>, TransportError> {
    let provider = provider();
    let identity = Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity(key, &provider)?));
    let verifier = Arc::new(AnyClientKey { provider: Arc::clone(&provider) });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity);
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(setup)?))
}

/// TLS of a tunnel, for one who connects to the holder of `peer`. The client proves its key inside the tunnel, so it needs none here.
pub(crate) fn tunnel_client(peer: &[u8; 32]) -> Result<Arc<rustls::ClientConfig>, TransportError> {
    let provider = provider();
    let verifier = Arc::new(ExactServerKey { spki: spki(peer), provider: Arc::clone(&provider) });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![tunnel::ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // A name that exists nowhere would only make a watchful firewall suspicious.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// TLS of a tunnel, for one who is connected to.
pub(crate) fn tunnel_server(key: &SigningKey) -> Result<Arc<rustls::ServerConfig>, TransportError> {
    let provider = provider();
    let identity = Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity(key, &provider)?));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(setup)?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![tunnel::ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What [`SERVER_NAME`] is to TLS over TCP.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("it is a name")
}

/// Whether a handshake over TCP failed because the other side proved another key than the one demanded, or has none.
pub(crate) fn is_wrong_key(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    tls.is_some_and(|tls| *tls == wrong_key())
}

/// The key that the other side of a finished handshake proved.
pub(crate) fn peer_key(connection: &quinn::Connection) -> Option<[u8; 32]> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match identity.as_slice() {
        [key] => public_from_spki(key),
        _ => None,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn identity(key: &SigningKey, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TransportError> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()));
    let signer = provider.key_provider.load_private_key(private).map_err(setup)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(&key.public()).to_vec())], signer)))
}

fn setup(error: impl std::fmt::Display) -> TransportError {
    TransportError::Setup(error.to_string())
}

/// The error whose alert [`TransportError::WrongKey`] is known by.
fn wrong_key() -> Error {
    CertificateError::ApplicationVerificationFailure.into()
}

/// Checks that the handshake was signed by the raw key in `key`, with Ed25519 and nothing else.
fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    let key = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(message, &key, signature, &provider.signature_verification_algorithms)
}

/// Accepts a server that proves one certain key.
#[derive(Debug)]
struct ExactServerKey {
    spki: [u8; 44],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactServerKey {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if more.is_empty() && key.as_ref() == self.spki { Ok(ServerCertVerified::assertion()) } else { Err(wrong_key()) }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts a client that proves any key.
#[derive(Debug)]
struct AnyClientKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClientKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if more.is_empty() && public_from_spki(key).is_some() { Ok(ClientCertVerified::assertion()) } else { Err(wrong_key()) }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
