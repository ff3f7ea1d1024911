//! The code with which a device tells its relay, from wherever it sends, that it is the device of a leg.

use ahoy_protocol::datagram::MAC_BYTES;
use ahoy_protocol::ids::LegKey;
use ring::hmac;

/// The code over `message` under the key of a leg: HMAC-SHA256, cut to its first 16 bytes.
#[must_use]
pub fn leg_code(key: &LegKey, message: &[u8]) -> [u8; MAC_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let mut code = [0; MAC_BYTES];
    code.copy_from_slice(&hmac::sign(&key, message).as_ref()[..MAC_BYTES]);
    code
}

/// Whether `sealed` ends with the code over all bytes before it.
///
/// The codes are compared by codes of their own, which tells nobody by its duration how much of a wrong one was right; ring compares whole
/// codes only, and these are cut.
#[must_use]
pub fn check_leg_code(key: &LegKey, sealed: &[u8]) -> bool {
    let Some((message, code)) = sealed.split_last_chunk::<MAC_BYTES>() else { return false };
    let expected = leg_code(key, message);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, code, hmac::sign(&key, &expected).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &LegKey, message: &[u8]) -> Vec<u8> {
        [message, &leg_code(key, message)].concat()
    }

    #[test]
    fn a_message_with_its_code_is_taken() {
        let key = LegKey([7; 32]);
        assert!(check_leg_code(&key, &sealed(&key, b"from here now")));
        assert!(check_leg_code(&key, &sealed(&key, b"")));
    }

    #[test]
    fn another_key_message_or_code_is_refused() {
        let key = LegKey([7; 32]);
        let good = sealed(&key, b"from here now");
        assert!(!check_leg_code(&LegKey([8; 32]), &good));
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(!check_leg_code(&key, &changed), "byte {at}");
        }
        assert!(!check_leg_code(&key, &good[1..]));
        assert!(!check_leg_code(&key, &good[..MAC_BYTES - 1]));
        assert!(!check_leg_code(&key, &[]));
    }
}
