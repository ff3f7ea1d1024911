//! Ed25519 keys and what they sign.

use ahoy_protocol::ids::{IssuingKey, RootKey};
use ahoy_protocol::signed::signing_input;
use ahoy_protocol::{DeviceKey, NodeKey, Signable, Signature, Signed, UserKey, WireError};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

/// A private Ed25519 key. Its seed is wiped when it is dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

/// Why a signed value is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The signature does not fit body and key.
    #[error("the signature does not hold")]
    Signature,
    /// What was signed cannot be read.
    #[error(transparent)]
    Body(#[from] WireError),
}

impl SigningKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(crate::random())
    }

    /// The key that grows from `seed` (RFC 8032's private key).
    ///
    /// # Panics
    /// Never: every 32 bytes are a seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed");
        Self { seed: Zeroizing::new(seed), pair }
    }

    /// The seed, to be stored or sealed.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// The public half, as a user's key.
    #[must_use]
    pub fn user_key(&self) -> UserKey {
        UserKey(self.public())
    }

    /// The public half, as a device's key.
    #[must_use]
    pub fn device_key(&self) -> DeviceKey {
        DeviceKey(self.public())
    }

    /// The public half, as a node's key.
    #[must_use]
    pub fn node_key(&self) -> NodeKey {
        NodeKey(self.public())
    }

    /// The public half, as an issuing key.
    #[must_use]
    pub fn issuing_key(&self) -> IssuingKey {
        IssuingKey(self.public())
    }

    /// The public half, as a network's root key.
    #[must_use]
    pub fn root_key(&self) -> RootKey {
        RootKey(self.public())
    }

    /// Signs a value.
    ///
    /// # Errors
    /// If the value is over the limit of its type.
    pub fn sign<T: Signable>(&self, value: &T) -> Result<Signed<T>, WireError> {
        let body = value.encode()?;
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(&signing_input::<T>(&body)).as_ref());
        Ok(Signed::from_parts(body, Signature(signature)))
    }

    /// The key in PKCS #8 (RFC 8410), as TLS libraries take it.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&PKCS8_PREFIX[..], &self.seed[..]].concat())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(of {:?})", DeviceKey(self.public()))
    }
}

impl Clone for SigningKey {
    fn clone(&self) -> Self {
        Self::from_seed(*self.seed)
    }
}

/// DER of a PKCS #8 private key of type Ed25519, up to the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// DER of a SubjectPublicKeyInfo of type Ed25519, up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A public key as a raw public key of TLS (RFC 7250, RFC 8410).
#[must_use]
pub fn spki(public: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_PREFIX);
    spki[12..].copy_from_slice(public);
    spki
}

/// The Ed25519 key in a raw public key of TLS; `None` if it is of another type or malformed.
#[must_use]
pub fn public_from_spki(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// The value that `public` signed.
///
/// # Errors
/// See [`VerifyError`].
pub fn verify<T: Signable>(signed: &Signed<T>, public: &[u8; 32]) -> Result<T, VerifyError> {
    if signed.body().len() > T::BYTES_MAX {
        return Err(VerifyError::Body(WireError::Malformed { name: T::NAME }));
    }
    UnparsedPublicKey::new(&ED25519, public)
        .verify(&signing_input::<T>(signed.body()), &signed.signature().0)
        .map_err(|_| VerifyError::Signature)?;
    Ok(signed.claims()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::UnixMillis;
    use ahoy_protocol::certificate::{NetworkStatement, RelayGrant};

    fn grant(key: &SigningKey) -> RelayGrant {
        RelayGrant { device: key.device_key(), kbit_per_s: 100, issued: UnixMillis(1), not_after: UnixMillis(2) }
    }

    #[test]
    fn what_was_signed_verifies_under_that_key_only() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let signed = key.sign(&grant(&key)).expect("fits");
        assert_eq!(verify(&signed, &key.public()), Ok(grant(&key)));
        assert_eq!(verify(&signed, &other.public()), Err(VerifyError::Signature));
    }

    #[test]
    fn a_signature_over_one_type_is_none_over_another() {
        let key = SigningKey::generate();
        let signed = key.sign(&grant(&key)).expect("fits");
        let moved: Signed<NetworkStatement> = Signed::from_parts(signed.body().to_vec(), *signed.signature());
        assert_eq!(verify(&moved, &key.public()), Err(VerifyError::Signature));
    }

    #[test]
    fn keys_survive_their_encodings() {
        let key = SigningKey::generate();
        assert_eq!(SigningKey::from_seed(*key.seed()).public(), key.public());
        assert_eq!(public_from_spki(&spki(&key.public())), Some(key.public()));
        assert_eq!(public_from_spki(&[0; 44]), None);
        let parsed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.to_pkcs8()).expect("is PKCS #8");
        assert_eq!(parsed.public_key().as_ref(), key.public());
    }
}
