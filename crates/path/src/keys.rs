//! Keys of a call's probes: a tag that says which call a probe is for, and a key for its authentication code.
//!
//! Both come from the call's secret by HKDF-SHA256 (RFC 5869), bound to the call and to both devices, so that a caller who rings several
//! devices of one user with one secret has different keys with each of them. The code is HMAC-SHA256 over all bytes before it, cut to its
//! first 16 bytes.

use ahoy_protocol::datagram::MAC_BYTES;
use ahoy_protocol::ids::{CallId, CallSecret, DeviceKey};
use ring::{hkdf, hmac};

/// Domain of the derivation.
const SALT: &[u8] = b"ahoy path probes v1";
/// Length of the tag.
const TAG_BYTES: usize = 8;

/// What both devices of a call authenticate their probes with.
#[derive(Clone)]
pub struct ProbeKeys {
    tag: [u8; TAG_BYTES],
    code: hmac::Key,
    /// Key of the second round of a constant-time comparison.
    compare: hmac::Key,
}

impl ProbeKeys {
    /// Derives the keys; both sides name caller and callee in the same order and get the same keys.
    #[must_use]
    pub fn derive(secret: &CallSecret, call: &CallId, caller: &DeviceKey, callee: &DeviceKey) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret.as_bytes());
        let info = |label: &'static [u8]| [label, &call.as_bytes()[..], &caller.as_bytes()[..], &callee.as_bytes()[..]];
        let mut tag = [0; TAG_BYTES];
        extracted
            .expand(&info(b"tag"), TagLength)
            .and_then(|output| output.fill(&mut tag))
            .expect("eight bytes are within what HKDF gives");
        let key = |label| {
            let info = info(label);
            let output = extracted.expand(&info, hmac::HMAC_SHA256).expect("one hash length is within what HKDF gives");
            hmac::Key::from(output)
        };
        let (code, compare) = (key(b"code"), key(b"compare"));
        Self { tag, code, compare }
    }

    /// Which call a probe is for: the eight bytes after the first of every PING and PONG, by which a socket that serves several calls finds
    /// the right agent.
    #[must_use]
    pub fn tag(&self) -> [u8; TAG_BYTES] {
        self.tag
    }

    /// `message` followed by its code.
    pub(crate) fn seal(&self, message: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(message.len() + MAC_BYTES);
        sealed.extend_from_slice(message);
        sealed.extend_from_slice(&self.code_of(message));
        sealed
    }

    /// Whether `sealed` ends in the code of what is before it.
    pub(crate) fn check(&self, sealed: &[u8]) -> bool {
        let Some((message, code)) = sealed.split_last_chunk::<MAC_BYTES>() else { return false };
        // ring compares whole HMACs in constant time, and this code is a part of one. Comparing the HMACs of both codes under a key that
        // the sender does not see tells nothing about where two codes differ.
        let expected = hmac::sign(&self.compare, &self.code_of(message));
        hmac::verify(&self.compare, code, expected.as_ref()).is_ok()
    }

    fn code_of(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        let whole = hmac::sign(&self.code, message);
        *whole.as_ref().first_chunk().expect("an HMAC-SHA256 is longer than its cut")
    }
}

impl std::fmt::Debug for ProbeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeKeys").finish_non_exhaustive()
    }
}

/// Length of the tag, as HKDF asks for it.
struct TagLength;

impl hkdf::KeyType for TagLength {
    fn len(&self) -> usize {
        TAG_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: u8, call: u8, callee: u8) -> ProbeKeys {
        ProbeKeys::derive(&CallSecret([secret; 32]), &CallId([call; 16]), &DeviceKey([1; 32]), &DeviceKey([callee; 32]))
    }

    #[test]
    fn both_sides_derive_the_same_keys() {
        assert_eq!(keys(1, 2, 3).tag(), keys(1, 2, 3).tag());
        assert!(keys(1, 2, 3).check(&keys(1, 2, 3).seal(b"probe")));
    }

    #[test]
    fn another_secret_call_or_device_has_other_keys() {
        let mine = keys(1, 2, 3);
        for other in [keys(9, 2, 3), keys(1, 9, 3), keys(1, 2, 9)] {
            assert_ne!(mine.tag(), other.tag());
            assert!(!mine.check(&other.seal(b"probe")));
        }
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let sealed = keys(1, 2, 3).seal(b"probe");
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys(1, 2, 3).check(&changed), "bit {bit}");
        }
        assert!(!keys(1, 2, 3).check(&sealed[..MAC_BYTES - 1]));
    }

    #[test]
    fn debug_output_shows_no_key() {
        assert_eq!(format!("{:?}", keys(1, 2, 3)), "ProbeKeys { .. }");
    }
}
