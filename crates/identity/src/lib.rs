//! Keys, signatures, sealing, passwords and the chains of certificates.
//!
//! Everything here is a function of its arguments and of the system's randomness; time is an argument. `ring` signs,
//! hashes and encrypts; `hpke` seals to long-term X25519 keys, which `ring` has no interface for; `opaque-ke` keeps the
//! password on the client.
//!
//! What this crate does not do: store keys, speak with servers, or decide which of two records wins.

pub mod aead;
pub mod backup;
mod chain;
mod hash;
mod keys;
mod leg;
pub mod opaque;
mod pass;
pub mod password;
pub mod recovery;
mod safety;
mod seal;
mod vault;

pub use chain::{ChainError, Network, VerifiedDevice};
pub use hash::{network_id, record_key, sha256};
pub use keys::{SigningKey, VerifyError, public_from_spki, spki, verify};
pub use leg::{check_leg_code, leg_code};
pub use pass::{check_pass, pass};
pub use safety::{FINGERPRINT_WORDS, SafetyNumber};
pub use seal::{SealSecret, seal};
pub use vault::AccountSecret;

use ring::rand::SecureRandom;

/// Bytes from the system's random source.
///
/// # Panics
/// If the system has no randomness, with which no key could be made either.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system's random source works");
    bytes
}
