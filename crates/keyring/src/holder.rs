//! What can keep a key while the program is away.

use crate::key::{KeyId, StoreKey};
use std::fmt::Debug;
use thiserror::Error;

/// Where a key lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The desktop's key ring.
    SecretService,
    /// The kernel's key ring of the user.
    KernelKeyRing,
    /// The account's folder, sealed under the password.
    Password,
    /// A file outside of the account's folder.
    KeyFile,
}

impl Slot {
    /// What the user should know about a key that lies there.
    #[must_use]
    pub fn caution(self) -> Option<&'static str> {
        match self {
            Self::SecretService | Self::KernelKeyRing | Self::Password => None,
            Self::KeyFile => Some(
                "there is no key ring here, so the key of the messages lies in a file: whoever can read all of your files can read your messages",
            ),
        }
    }
}

/// Why a key ring is of no use: a few words on it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct HolderError(pub String);

/// Something that keeps keys for this user of the system. Calls may block for seconds.
pub trait Holder: Debug + Send {
    /// Which of the slots it is.
    fn slot(&self) -> Slot;

    /// The key with this number; `None`: it is not there.
    ///
    /// # Errors
    /// If the key ring cannot be used.
    fn get(&self, id: &KeyId) -> Result<Option<StoreKey>, HolderError>;

    /// Keeps a key, in the place of one with the same number.
    ///
    /// # Errors
    /// If the key ring cannot be used.
    fn put(&self, id: &KeyId, key: &StoreKey) -> Result<(), HolderError>;

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// If the key ring cannot be used.
    fn remove(&self, id: &KeyId) -> Result<(), HolderError>;
}
