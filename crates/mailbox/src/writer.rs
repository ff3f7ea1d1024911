//! Who writes to a mailbox, as far as its rules go: whose share of the room an envelope takes.

use ahoy_identity::check_pass;
use ahoy_protocol::ids::{PassId, UserKey};
use ahoy_protocol::mail::{MailboxTerms, Permit};

/// Whose share of a mailbox an envelope takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    Own,
    Pass(PassId),
    Stranger(UserKey),
}

/// First bytes of writers in the store, and the byte after the last of them.
const OWN: u8 = 0;
const PASS: u8 = 1;
const STRANGER: u8 = 2;
pub(crate) const STRANGERS_FROM: [u8; 1] = [STRANGER];
pub(crate) const STRANGERS_BEFORE: [u8; 1] = [STRANGER + 1];

impl Writer {
    /// Whom `permit` lets in under these terms, `None` if nobody.
    pub(crate) fn admitted(terms: &MailboxTerms, from: &UserKey, permit: &Permit) -> Option<Self> {
        match permit {
            Permit::Own => (*from == terms.user).then_some(Self::Own),
            Permit::Pass(pass) => (!terms.revoked.contains(&pass.id) && check_pass(&terms.secret, pass)).then_some(Self::Pass(pass.id)),
            Permit::Stranger => terms.strangers.then_some(Self::Stranger(*from)),
        }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let (kind, who): (u8, &[u8]) = match &self {
            Self::Own => (OWN, &[]),
            Self::Pass(id) => (PASS, id.as_bytes()),
            Self::Stranger(user) => (STRANGER, user.as_bytes()),
        };
        [&[kind], who].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&OWN, []) => Some(Self::Own),
            (&PASS, id) => Some(Self::Pass(PassId(id.try_into().ok()?))),
            (&STRANGER, user) => Some(Self::Stranger(UserKey(user.try_into().ok()?))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_come_back_from_the_store_as_they_went() {
        for writer in [Writer::Own, Writer::Pass(PassId([3; 16])), Writer::Stranger(UserKey([4; 32]))] {
            assert_eq!(Writer::from_bytes(&writer.to_bytes()), Some(writer));
        }
        for nonsense in [&[][..], &[OWN, 1], &[PASS, 1], &[9]] {
            assert_eq!(Writer::from_bytes(nonsense), None);
        }
    }
}
