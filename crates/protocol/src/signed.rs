//! A value together with a signature over its exact bytes.
//!
//! The bytes that were signed are the bytes that are kept and sent on, so no canonical form is needed. The value is to
//! be had only by a check of the signature, which `ahoy-identity` does.

use crate::ids::Signature;
use crate::wire::Wire;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::marker::PhantomData;

/// A value that somebody signs.
pub trait Signable: Wire {
    /// Separates signatures over one type from those over another (`ahoy/user-certificate/1`, say).
    const CONTEXT: &'static str;
}

/// A `T`, as bytes, and a signature over them. Who signed is for the reader to know.
pub struct Signed<T> {
    body: Vec<u8>,
    signature: Signature,
    of: PhantomData<fn() -> T>,
}

impl<T: Signable> Signed<T> {
    /// Puts together what was signed and its signature. No check is made.
    #[must_use]
    pub fn from_parts(body: Vec<u8>, signature: Signature) -> Self {
        Self { body, signature, of: PhantomData }
    }

    /// The bytes that the signature covers after [`signing_input`].
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What the body claims, with no check of the signature: for finding out *whose* signature to check, never more.
    ///
    /// # Errors
    /// As [`Wire::decode`].
    pub fn claims(&self) -> Result<T, crate::WireError> {
        T::decode(&self.body)
    }
}

/// The bytes to sign for a body of type `T`: its context, a zero byte, the body.
#[must_use]
pub fn signing_input<T: Signable>(body: &[u8]) -> Vec<u8> {
    [T::CONTEXT.as_bytes(), &[0], body].concat()
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { body: self.body.clone(), signature: self.signature, of: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T: Signable> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed<{}>({} bytes)", T::NAME, self.body.len())
    }
}

impl<T: Signable> Serialize for Signed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.body, &self.signature).serialize(serializer)
    }
}

impl<'de, T: Signable> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (body, signature): (Vec<u8>, Signature) = Deserialize::deserialize(deserializer)?;
        if body.len() > T::BYTES_MAX {
            return Err(serde::de::Error::custom("signed body over its limit"));
        }
        Ok(Self { body, signature, of: PhantomData })
    }
}

/// Bytes that [`Signed`] adds to its body's: the signature and the length.
pub const SIGNED_OVERHEAD_BYTES: usize = 64 + 5;
