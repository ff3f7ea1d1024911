//! The archive of a device: the entries of its conversations and what they amount to, full-text search over them, what is still to be sent,
//! the state of chats and ratchets, calls and drafts. One file, encrypted.
//!
//! All that one input of the program changes goes in as one [`Batch`]: [`Archive::commit`] keeps all of it or, whenever the program or the
//! system dies, none. When it returns, the batch is on the disk.
//!
//! What people see as messages follows from the entries that are shown, whatever the order in which they came: an edit or a reaction may
//! be there before its message. Only the user who wrote a message changes or deletes it, whatever an entry says.
//!
//! What this crate does not do: check hashes and gaps (`ahoy-chat` decides what is appended and shown), know what registers and
//! envelopes hold, or find the key (`ahoy-keyring`). It reads no clock. Its calls block for as long as the disk takes; the owner gives it a thread.

mod batch;
mod calls;
mod entries;
mod error;
mod messages;
mod open;
mod outbox;
mod projection;
mod registers;
mod schema;
mod search;
mod transfer;
mod writer;

pub use batch::{Append, Batch, LogRange};
pub use calls::{CALLS_MAX, Call};
pub use entries::{LogHead, StoredEntry};
pub use error::{ArchiveError, TransferError};
pub use messages::{Content, Conversation, Message, PAGE_MAX, Page, Place, Reaction, Window};
pub use open::Archive;
pub use outbox::Outgoing;
pub use projection::Delivery;
pub use search::{FOUND_MAX, QUERY_BYTES_MAX};
pub use transfer::{ExportHeader, Imported};

/// An unsigned number as SQLite keeps it, bit by bit. Real times and sequence numbers are far below the half where their order would break.
fn integer(value: u64) -> i64 {
    value.cast_signed()
}

/// The number that [`integer`] was given.
fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}
