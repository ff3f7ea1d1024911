//! Sealing to a device: HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305, in base mode.
//!
//! Who sealed is not proven by the seal; a signature inside says so.

use ahoy_protocol::SealKey;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey;

/// Bytes of the encapsulated key in front of a sealed message.
const ENCAPSULATED_BYTES: usize = 32;

/// The private half of a [`SealKey`]. It is wiped when it is dropped.
#[derive(Clone)]
pub struct SealSecret(Zeroizing<[u8; 32]>);

impl SealSecret {
    /// A new secret.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_bytes(crate::random())
    }

    /// The secret with these bytes (RFC 7748's scalar, before clamping).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> SealKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&X25519HkdfSha256::sk_to_pk(&self.private()).to_bytes());
        SealKey(bytes)
    }

    /// What was sealed to the public half under the same `context`; `None` for anything else.
    #[must_use]
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(ENCAPSULATED_BYTES)?;
        let encapsulated = Encapsulated::from_bytes(encapsulated).ok()?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.private(),
            &encapsulated,
            context,
            ciphertext,
            &[],
        )
        .ok()
    }

    fn private(&self) -> Private {
        Private::from_bytes(&self.0[..]).expect("32 bytes are a scalar")
    }
}

impl std::fmt::Debug for SealSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealSecret(of {:?})", self.public())
    }
}

/// Seals `plain` to a device. `context` separates uses. `None` if `to` is no point to seal to.
#[must_use]
pub fn seal(to: &SealKey, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let to = Public::from_bytes(to.as_bytes()).ok()?;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(&OpModeS::Base, &to, context, plain, &[]).ok()?;
    Some([&encapsulated.to_bytes()[..], &ciphertext[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_device_sealed_to_opens() {
        let (bob, eve) = (SealSecret::generate(), SealSecret::generate());
        let sealed = seal(&bob.public(), b"test", b"ahoy").expect("seals");
        assert_eq!(bob.open(b"test", &sealed).as_deref(), Some(&b"ahoy"[..]));
        assert_eq!(bob.open(b"other", &sealed), None);
        assert_eq!(eve.open(b"test", &sealed), None);
        assert_eq!(SealSecret::from_bytes(*bob.as_bytes()).open(b"test", &sealed).as_deref(), Some(&b"ahoy"[..]));
    }

    #[test]
    fn mangled_messages_do_not_open() {
        let bob = SealSecret::generate();
        let sealed = seal(&bob.public(), b"test", b"ahoy").expect("seals");
        for len in 0..sealed.len() {
            assert_eq!(bob.open(b"test", &sealed[..len]), None);
        }
        for at in 0..sealed.len() {
            let mut mangled = sealed.clone();
            mangled[at] ^= 1;
            assert_eq!(bob.open(b"test", &mangled), None, "byte {at}");
        }
    }
}
