//! Keys and identifiers as types of their own, so that one is never taken for another.

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

/// Declares a fixed-size identifier that prints as lower-case hexadecimal.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The identifier that `text` (lower-case hexadecimal) stands for.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({}…)", stringify!($name), data_encoding::HEXLOWER.encode(&self.0[..4]))
            }
        }
    };
}

identifier!(
    /// Ed25519 public key of a user. It signs the user's devices and the user record, and is at rest nowhere but in the sealed backup.
    UserKey, 32
);
identifier!(
    /// Ed25519 public key of one device of a user; its TLS identity towards everybody.
    DeviceKey, 32
);
identifier!(
    /// X25519 public key to which invitations for one device are sealed.
    SealKey, 32
);
identifier!(
    /// Ed25519 public key of a supernode or relay.
    NodeKey, 32
);
identifier!(
    /// Ed25519 public key with which the login server signs certificates, rosters and grants.
    IssuingKey, 32
);
identifier!(
    /// Ed25519 public key at the root of a network. It signs the issuing key.
    RootKey, 32
);
identifier!(
    /// First 20 bytes of SHA-256 of the root key: what the network link carries. 160 bits leave no second preimage.
    NetworkId, 20
);
identifier!(
    /// One call, chosen at random by the caller.
    CallId, 16
);
identifier!(
    /// Secret of one call, inside the sealed invitation. Keys for path probes are derived from it.
    CallSecret, 32
);
identifier!(
    /// Where a record lies in the directory: SHA-256 over kind, salt and subject.
    RecordKey, 32
);
identifier!(
    /// The roster's daily salt of record keys.
    Salt, 16
);

identifier!(
    /// Secret of a user's mailboxes, shared with the supernodes that keep them: makes and checks passes.
    MailboxSecret, 32
);

identifier!(
    /// Key of one leg on a relay, with which its device says from where it sends now.
    LegKey, 32
);

identifier!(
    /// X25519 public key with which a device takes part in double ratchets: its identity key, a one-time key or its fallback key.
    RatchetKey, 32
);
identifier!(
    /// One envelope, chosen at random by its sender. Put again, it is the same envelope.
    EnvelopeId, 16
);
identifier!(
    /// SHA-256 of an entry of a log, by which the next one names it.
    EntryHash, 32
);
identifier!(
    /// One conversation: a hash over who takes part.
    ConversationId, 16
);
identifier!(
    /// Number of a pass, chosen at random by the owner of the mailbox. Two passes of one owner have nothing in common.
    PassId, 16
);
identifier!(
    /// What makes a pass genuine: the first half of HMAC-SHA-256 over its number, under the mailbox secret.
    PassTag, 16
);
identifier!(
    /// Where an item of a vault lies: a keyed hash of what it is about, so that the supernode learns nothing from it.
    VaultKey, 16
);
identifier!(
    /// BLAKE3 root of a file.
    FileHash, 32
);

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "BigArray")] pub [u8; 64]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({}…)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}
