//! Hashes that name things.

use ahoy_protocol::NetworkId;
use ahoy_protocol::ids::{RecordKey, RootKey, Salt};
use ahoy_protocol::record::Subject;
use ring::digest;

/// SHA-256 over the parts, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The hash of a root key that a network link carries.
#[must_use]
pub fn network_id(root: &RootKey) -> NetworkId {
    let hash = sha256(&[b"ahoy/network/1\0", root.as_bytes()]);
    let mut id = [0; NetworkId::LEN];
    id.copy_from_slice(&hash[..NetworkId::LEN]);
    NetworkId(id)
}

/// Where the record of `subject` lies in the directory while `salt` is in force.
#[must_use]
pub fn record_key(salt: &Salt, subject: &Subject) -> RecordKey {
    RecordKey(match subject {
        Subject::User(name) => sha256(&[b"ahoy/record/user/1\0", salt.as_bytes(), name.as_str().as_bytes()]),
        Subject::Device(device) => sha256(&[b"ahoy/record/device/1\0", salt.as_bytes(), device.as_bytes()]),
    })
}
