//! The backup of the user key, which only the password opens: sealed under OPAQUE's export key, kept by the login server.

use crate::opaque::ExportKey;
use crate::{SigningKey, aead, sha256};
use ahoy_protocol::login::Backup;
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"ahoy/backup/1";

/// Seals the user key.
///
/// # Panics
/// Never: a sealed key is far below the limit of a backup.
#[must_use]
pub fn seal(export: &ExportKey, user: &SigningKey) -> Backup {
    Backup::new(aead::seal(&key(export), CONTEXT, user.seed())).expect("a sealed key fits")
}

/// The user key; `None` if the backup was not sealed under this export key.
#[must_use]
pub fn open(export: &ExportKey, backup: &[u8]) -> Option<SigningKey> {
    let seed = Zeroizing::new(aead::open(&key(export), CONTEXT, backup)?);
    Some(SigningKey::from_seed(seed.as_slice().try_into().ok()?))
}

fn key(export: &ExportKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(sha256(&[b"ahoy/backup-key/1\0", export.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_export_key_opens() {
        let user = SigningKey::generate();
        let (right, wrong) = (ExportKey::from_bytes([1; 64]), ExportKey::from_bytes([2; 64]));
        let backup = seal(&right, &user);
        assert_eq!(open(&right, &backup).map(|key| key.public()), Some(user.public()));
        assert!(open(&wrong, &backup).is_none());
    }
}
