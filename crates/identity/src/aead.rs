//! Sealing under a key one holds oneself: ChaCha20-Poly1305 with a random nonce in front.
//!
//! Random 96-bit nonces are safe for about 2^32 messages under one key, far above what one ticket key or backup key ever seals.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Seals `plain`; `context` must be the same when it is opened.
#[must_use]
pub fn seal(key: &[u8; 32], context: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = crate::random();
    let mut sealed = plain.to_vec();
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
        .expect("the message is far below the cipher's limit of 256 GiB");
    [&nonce[..], &sealed[..]].concat()
}

/// What was sealed under `key` with `context`; `None` for anything else.
#[must_use]
pub fn open(key: &[u8; 32], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut buffer = ciphertext.to_vec();
    let plain = cipher(key).open_in_place(nonce, Aad::from(context), &mut buffer).ok()?;
    Some(plain.to_vec())
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_under_the_same_key_and_context_only() {
        let sealed = seal(&[1; 32], b"a", b"ahoy");
        assert_eq!(open(&[1; 32], b"a", &sealed).as_deref(), Some(&b"ahoy"[..]));
        assert_eq!(open(&[2; 32], b"a", &sealed), None);
        assert_eq!(open(&[1; 32], b"b", &sealed), None);
        assert_eq!(open(&[1; 32], b"a", &sealed[1..]), None);
    }
}
