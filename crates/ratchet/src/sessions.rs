//! The ratchets with one device. There is one as a rule; more where both began one at once, or one was begun anew.

use crate::RatchetError;
use crate::account::{FURTHER, OPENING};
use serde::{Deserialize, Serialize};
use vodozemac::olm::{OlmMessage, Session, SessionPickle};
use zeroize::Zeroizing;

/// Most ratchets with one device: the one used longest ago makes room. An older one is needed only for what is still under way.
pub const SESSIONS_MAX: usize = 4;
/// Keys of messages that have not come which a ratchet keeps, as Olm has it: what is further out of order than that is lost to the ratchet and
/// has to be sent again.
pub const UNREAD_KEYS_MAX: usize = 40;

#[derive(Debug, Default)]
pub(crate) struct Sessions(Vec<Used>);

#[derive(Debug)]
struct Used {
    session: Session,
    /// When something was last read with it, or else when it was made, as a count of uses: both sides come to use the same one by writing with
    /// the one that was last read with.
    read: u64,
    /// When it was last used at all.
    used: u64,
}

#[derive(Deserialize)]
struct Stored {
    session: SessionPickle,
    read: u64,
    used: u64,
}

#[derive(Serialize)]
struct Storing {
    session: SessionPickle,
    read: u64,
    used: u64,
}

impl Sessions {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn last_used(&self) -> u64 {
        self.0.iter().map(|used| used.used).max().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, session: Session, used: u64) {
        if self.0.len() >= SESSIONS_MAX
            && let Some(oldest) = (0..self.0.len()).min_by_key(|nth| self.0[*nth].read)
        {
            self.0.remove(oldest);
        }
        self.0.push(Used { session, read: used, used });
    }

    /// Whether the message opens the ratchet, and the message.
    pub(crate) fn encrypt(&mut self, plain: &[u8], used: u64) -> Option<(bool, Vec<u8>)> {
        let current = self.0.iter_mut().max_by_key(|used| used.read)?;
        current.used = used;
        let (kind, message) = current.session.encrypt(plain).ok()?.to_parts();
        Some((kind == OPENING, message))
    }

    /// The plain text of an opening of a ratchet that is known already.
    pub(crate) fn decrypt_opening(&mut self, message: &[u8], used: u64) -> Option<Zeroizing<Vec<u8>>> {
        let message = OlmMessage::from_parts(OPENING, message).ok()?;
        let OlmMessage::PreKey(opening) = &message else { return None };
        let known = self.0.iter_mut().find(|known| known.session.session_keys() == opening.session_keys())?;
        let plain = known.session.decrypt(&message).ok()?;
        (known.read, known.used) = (used, used);
        Some(Zeroizing::new(plain))
    }

    pub(crate) fn decrypt(&mut self, message: &[u8], used: u64) -> Result<Zeroizing<Vec<u8>>, RatchetError> {
        let message = OlmMessage::from_parts(FURTHER, message).map_err(|_| RatchetError::Malformed)?;
        // The one that was last read with first: it is the right one as a rule. A ratchet that does not open it is left as it was.
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_unstable_by_key(|nth| std::cmp::Reverse(self.0[*nth].read));
        for nth in order {
            if let Ok(plain) = self.0[nth].session.decrypt(&message) {
                (self.0[nth].read, self.0[nth].used) = (used, used);
                return Ok(Zeroizing::new(plain));
            }
        }
        Err(RatchetError::Undecryptable)
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let stored: Vec<Storing> =
            self.0.iter().map(|Used { session, read, used }| Storing { session: session.pickle(), read: *read, used: *used }).collect();
        Zeroizing::new(serde_json::to_vec(&stored).expect("keys are JSON"))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, RatchetError> {
        let stored: Vec<Stored> = serde_json::from_slice(bytes).map_err(|_| RatchetError::Stored)?;
        let used = |Stored { session, read, used }: Stored| Used { session: Session::from_pickle(session), read, used };
        Ok(Self(stored.into_iter().take(SESSIONS_MAX).map(used).collect()))
    }
}
