//! What names a conversation, and what names an entry.

use ahoy_identity::sha256;
use ahoy_protocol::ids::{ConversationId, EntryHash};
use ahoy_protocol::message::Entry;
use ahoy_protocol::{DeviceKey, Name, NetworkId, Wire, WireError};

/// What the first entry of a log names as the one before.
pub(crate) const NO_ENTRY: EntryHash = EntryHash([0; EntryHash::LEN]);

/// The conversation of two people, or of one with himself. Names make it and not keys, since keys change.
#[must_use]
pub fn conversation_id(network: &NetworkId, one: &Name, other: &Name) -> ConversationId {
    let (lower, higher) = if one <= other { (one, other) } else { (other, one) };
    // No name has a zero byte.
    let hash = sha256(&[b"ahoy/conversation/1\0", network.as_bytes(), lower.as_str().as_bytes(), b"\0", higher.as_str().as_bytes(), b"\0"]);
    let mut id = [0; ConversationId::LEN];
    id.copy_from_slice(&hash[..ConversationId::LEN]);
    ConversationId(id)
}

/// The hash of an entry, by which the next one in its author's log names it.
///
/// # Errors
/// [`WireError`] if the entry is over its size limit, which bounded bodies keep.
pub fn entry_hash(author: &DeviceKey, entry: &Entry) -> Result<EntryHash, WireError> {
    Ok(EntryHash(sha256(&[b"ahoy/entry/1\0", author.as_bytes(), &entry.encode()?])))
}
