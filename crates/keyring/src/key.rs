//! The key, and the number by which it is found.

use data_encoding::HEXLOWER;
use std::fmt;
use zeroize::Zeroizing;

/// The key of an archive. It is wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct StoreKey(Zeroizing<[u8; 32]>);

impl StoreKey {
    /// A key that nobody else has.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(ahoy_identity::random()))
    }

    /// The key that these bytes are.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key that these bytes are, if they are as many as a key has.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// By which the key is known again. It gives nothing away: a random key cannot be guessed.
    pub(crate) fn check(&self) -> String {
        HEXLOWER.encode(&ahoy_identity::sha256(&[b"ahoy/store-key-check/1", self.as_bytes()]))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(…)")
    }
}

/// The number of a key, chosen at random: what the key lies under in key rings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId(String);

impl KeyId {
    /// Bytes of randomness in it.
    const BYTES: usize = 16;

    /// A number that no other key has.
    #[must_use]
    pub fn generate() -> Self {
        Self(HEXLOWER.encode(&ahoy_identity::random::<{ Self::BYTES }>()))
    }

    /// The number that `text` is, so that one from a file is never part of a path or a query.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        (bytes.len() == Self::BYTES).then(|| Self(text.to_owned()))
    }

    /// The number as text: lower-case hexadecimal.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
