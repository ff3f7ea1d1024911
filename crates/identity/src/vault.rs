//! The account secret, which all devices of a user share and nobody else has, and the vault's items sealed under it.

use crate::{SigningKey, aead, sha256};
use ahoy_protocol::Blob;
use ahoy_protocol::ids::VaultKey;
use ahoy_protocol::vault::VaultItem;
use ring::hmac;
use zeroize::Zeroizing;

/// Derived from the user key while that is at hand: when a device signs in. Devices keep it; a new user key makes a new one.
#[derive(Clone)]
pub struct AccountSecret(Zeroizing<[u8; 32]>);

impl AccountSecret {
    /// The secret of whoever has this user key.
    #[must_use]
    pub fn of(user: &SigningKey) -> Self {
        Self(Zeroizing::new(sha256(&[b"ahoy/account-secret/1\0", user.seed()])))
    }

    /// The secret with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Where what is about `subject` lies in the vault.
    #[must_use]
    pub fn vault_key(&self, subject: &[u8]) -> VaultKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key(b"ahoy/vault-keys/1\0").as_slice());
        let mut bytes = [0; VaultKey::LEN];
        bytes.copy_from_slice(&hmac::sign(&key, subject).as_ref()[..VaultKey::LEN]);
        VaultKey(bytes)
    }

    /// An item that says `plain`. `None` if it is too long.
    #[must_use]
    pub fn seal_item(&self, key: VaultKey, version: u64, plain: &[u8]) -> Option<VaultItem> {
        let sealed = aead::seal(&self.key(b"ahoy/vault-items/1\0"), &context(key, version), plain);
        Some(VaultItem { key, version, sealed: Blob::new(sealed)? })
    }

    /// What an item says; `None` if another secret sealed it, or it was moved or changed.
    #[must_use]
    pub fn open_item(&self, item: &VaultItem) -> Option<Vec<u8>> {
        aead::open(&self.key(b"ahoy/vault-items/1\0"), &context(item.key, item.version), &item.sealed)
    }

    fn key(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(sha256(&[label, self.0.as_slice()]))
    }
}

impl std::fmt::Debug for AccountSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountSecret(…)")
    }
}

fn context(key: VaultKey, version: u64) -> Vec<u8> {
    [b"ahoy/vault-item/1\0".as_slice(), key.as_bytes(), &version.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_opens_where_it_lies_under_its_secret_and_version() {
        let secret = AccountSecret::of(&SigningKey::from_seed([1; 32]));
        let key = secret.vault_key(b"contact bob");
        let item = secret.seal_item(key, 7, b"a friend").expect("short");
        assert_eq!(secret.open_item(&item).as_deref(), Some(b"a friend".as_slice()));
        assert_eq!(secret.open_item(&VaultItem { version: 8, ..item.clone() }), None);
        assert_eq!(secret.open_item(&VaultItem { key: secret.vault_key(b"contact eve"), ..item.clone() }), None);
        assert_eq!(AccountSecret::of(&SigningKey::from_seed([2; 32])).open_item(&item), None);
    }

    #[test]
    fn an_item_that_is_too_long_is_not_made() {
        let secret = AccountSecret::from_bytes([1; 32]);
        assert!(secret.seal_item(VaultKey([0; 16]), 1, &[0; ahoy_protocol::vault::VAULT_ITEM_BYTES_MAX]).is_none());
    }
}
