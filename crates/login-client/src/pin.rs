//! Accepts one TLS server: the one whose certificate the network's root key signed.
//!
//! The server presents its certificate and, after it, a root certificate. The root is known by the hash of its key, which
//! is in the network link; it alone is then the trust anchor under which the server's certificate is checked.

use ahoy_identity::{network_id, public_from_spki};
use ahoy_protocol::NetworkId;
use ahoy_protocol::ids::RootKey;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The name that every login server's certificate has, wherever it is.
const SERVER_NAME: &str = "login.ahoy.internal";
/// Most certificates that are looked at to find the root.
const CHAIN_LEN_MAX: usize = 4;

/// TLS that accepts the login server of `network` alone.
pub(crate) fn client_config(network: NetworkId) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned { network, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    network: NetworkId,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// The certificate of the root key as the only trust anchor, if it is in the chain.
    fn anchor(&self, chain: &[CertificateDer<'_>]) -> Option<RootCertStore> {
        chain.iter().take(CHAIN_LEN_MAX).find_map(|certificate| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone().into_owned()).ok()?;
            let key = anchor_key(&roots.roots.first()?.subject_public_key_info)?;
            (network_id(&RootKey(key)) == self.network).then_some(roots)
        })
    }
}

/// The Ed25519 key in the contents of a SubjectPublicKeyInfo, whose outer header a trust anchor leaves out.
fn anchor_key(contents: &[u8]) -> Option<[u8; 32]> {
    let header = [0x30, u8::try_from(contents.len()).ok()?];
    public_from_spki(&[&header, contents].concat())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.anchor(intermediates).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| Error::General(error.to_string()))?;
        // The root itself is not needed on the way to it.
        verifier.verify_server_cert(end_entity, &[], &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
