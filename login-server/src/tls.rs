//! The TLS identity of the server: a root certificate that is the network's root key, and a leaf under it.
//!
//! The client pins the root key by its hash, so neither certificate says anything but which key signed which. The leaf's
//! key is made at each start and lives in memory alone.

use crate::error::ServeError;
use ahoy_identity::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// The name in the leaf. It stands for "the login server" and is looked up nowhere.
const SERVER_NAME: &str = "login.ahoy.internal";

/// A TLS configuration with a fresh leaf.
pub(crate) fn server_config(root: &SigningKey) -> Result<Arc<ServerConfig>, ServeError> {
    let (chain, key) = chain(root).map_err(|error| ServeError::Setup(error.to_string()))?;
    let setup = |error: rustls::Error| ServeError::Setup(error.to_string());
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(setup)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Leaf and root, and the leaf's key.
fn chain(root: &SigningKey) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
    let pkcs8 = root.to_pkcs8();
    let root_key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()), &rcgen::PKCS_ED25519)?;
    let mut root_params = CertificateParams::default();
    root_params.distinguished_name = named("Ahoy network root");
    root_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root_params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // A fixed number keeps the certificate the same at every start; the period is rcgen's default, which is as good as for ever.
    root_params.serial_number = Some(1_u64.into());
    let root_certificate = root_params.self_signed(&root_key)?;

    let leaf_key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut leaf_params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    leaf_params.distinguished_name = named("Ahoy login server");
    leaf_params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf_params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf_certificate = leaf_params.signed_by(&leaf_key, &Issuer::from_params(&root_params, &root_key))?;

    let chain = vec![leaf_certificate.der().clone(), root_certificate.der().clone()];
    Ok((chain, PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into()))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
