//! Passes: the right to write to somebody's mailboxes, which these check without a list of them.

use ahoy_protocol::ids::{MailboxSecret, PassId, PassTag};
use ahoy_protocol::mail::Pass;
use ring::hmac;

const CONTEXT: &[u8] = b"ahoy/pass/1\0";

/// The pass of this number under a user's mailbox secret: HMAC-SHA256, cut to its first half.
#[must_use]
pub fn pass(secret: &MailboxSecret, id: PassId) -> Pass {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let code = hmac::sign(&key, &[CONTEXT, id.as_bytes()].concat());
    let mut tag = [0; PassTag::LEN];
    tag.copy_from_slice(&code.as_ref()[..PassTag::LEN]);
    Pass { id, tag: PassTag(tag) }
}

/// Whether the pass is genuine. It is compared by a code over each, so that the time it takes tells nothing.
#[must_use]
pub fn check_pass(secret: &MailboxSecret, shown: &Pass) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let expected = pass(secret, shown.id);
    hmac::verify(&key, shown.tag.as_bytes(), hmac::sign(&key, expected.tag.as_bytes()).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_counts_under_its_secret_and_number_alone() {
        let secret = MailboxSecret([1; 32]);
        let good = pass(&secret, PassId([2; 16]));
        assert!(check_pass(&secret, &good));
        assert!(!check_pass(&MailboxSecret([3; 32]), &good));
        assert!(!check_pass(&secret, &Pass { id: PassId([4; 16]), ..good }));
        for at in 0..PassTag::LEN {
            let mut tag = good.tag;
            tag.0[at] ^= 0x80;
            assert!(!check_pass(&secret, &Pass { tag, ..good }), "byte {at}");
        }
    }
}
