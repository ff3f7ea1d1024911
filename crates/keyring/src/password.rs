//! The key sealed under the account's password.

use crate::key::{KeyId, StoreKey};
use ahoy_identity::aead;
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Memory that a slot may ask for, in KiB: the folder may have been tampered with.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Passes that a slot may ask for.
const PASSES_MAX: u32 = 64;

/// What trying one password costs (Argon2id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    /// 64 MiB and 3 passes, as at the sign-in: a stolen folder is no better a place to guess than a stolen backup.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3 }
    }
}

/// The key, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PasswordSlot {
    #[serde(flatten)]
    cost: Cost,
    salt: String,
    sealed: String,
}

impl PasswordSlot {
    /// Seals the key.
    pub(crate) fn seal(id: &KeyId, key: &StoreKey, password: &str, cost: Cost) -> Option<Self> {
        let salt: [u8; 16] = ahoy_identity::random();
        let sealed = aead::seal(&*derive(password, &salt, cost)?, &context(id), key.as_bytes());
        Some(Self { cost, salt: HEXLOWER.encode(&salt), sealed: HEXLOWER.encode(&sealed) })
    }

    /// The key; `None` for another password, or if the slot was tampered with.
    pub(crate) fn open(&self, id: &KeyId, password: &str) -> Option<StoreKey> {
        let salt = HEXLOWER.decode(self.salt.as_bytes()).ok()?;
        let sealed = HEXLOWER.decode(self.sealed.as_bytes()).ok()?;
        let opened = Zeroizing::new(aead::open(&*derive(password, &salt, self.cost)?, &context(id), &sealed)?);
        StoreKey::from_slice(&opened)
    }
}

fn context(id: &KeyId) -> Vec<u8> {
    [b"ahoy/store-key/1 ", id.as_str().as_bytes()].concat()
}

fn derive(password: &str, salt: &[u8], cost: Cost) -> Option<Zeroizing<[u8; 32]>> {
    if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX {
        return None;
    }
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).ok()?;
    let mut derived = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password.as_bytes(), salt, &mut *derived).ok()?;
    Some(derived)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[test]
    fn opens_with_its_password_for_its_key_alone() {
        let (id, other, key) = (KeyId::generate(), KeyId::generate(), StoreKey::generate());
        let slot = PasswordSlot::seal(&id, &key, "correct horse", CHEAP).unwrap();
        assert_eq!(slot.open(&id, "correct horse").map(|key| *key.as_bytes()), Some(*key.as_bytes()));
        assert!(slot.open(&id, "correct house").is_none());
        assert!(slot.open(&other, "correct horse").is_none());
    }

    #[test]
    fn a_slot_cannot_ask_for_all_memory_or_time() {
        let (id, key) = (KeyId::generate(), StoreKey::generate());
        let slot = PasswordSlot::seal(&id, &key, "correct horse", CHEAP).unwrap();
        for cost in [Cost { memory_kib: u32::MAX, passes: 1 }, Cost { memory_kib: 64, passes: u32::MAX }, Cost { memory_kib: 0, passes: 0 }]
        {
            assert!(PasswordSlot { cost, ..slot.clone() }.open(&id, "correct horse").is_none());
        }
    }

    #[test]
    fn the_cost_of_a_guess_is_that_of_the_sign_in() {
        let (id, key) = (KeyId::generate(), StoreKey::generate());
        let slot = PasswordSlot::seal(&id, &key, "correct horse", Cost::default()).unwrap();
        assert!(slot.open(&id, "correct horse").is_some());
    }
}
