//! The vault: what a user's devices share, kept at his mailboxes and sealed under the account secret.
//!
//! It is a map of registers. The supernode sees neither what an item is about nor what it says; it keeps, of two items with the same key, the
//! one with the higher version, so that devices need not agree on anything before they write.

use crate::ids::VaultKey;
use crate::wire::Blob;
use serde::{Deserialize, Serialize};

/// Longest sealed item, in bytes.
pub const VAULT_ITEM_BYTES_MAX: usize = 1024;
/// Most items of a user.
pub const VAULT_ITEMS_MAX: usize = 8192;
/// Most items in one message.
pub const VAULT_ITEMS_SENT_MAX: usize = 128;

/// One register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultItem {
    /// Where it lies.
    pub key: VaultKey,
    /// Counts up with every change: Unix milliseconds, or one more than the last. Two devices that wrote the same version wrote at once;
    /// then the greater sealed bytes stay, everywhere alike.
    pub version: u64,
    /// What it says.
    pub sealed: Blob<VAULT_ITEM_BYTES_MAX>,
}

impl VaultItem {
    /// Whether this one stays where `other`, with the same key, is met.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.version, &self.sealed) > (other.version, &other.sealed)
    }
}
