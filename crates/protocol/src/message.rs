//! What devices say to each other through a double ratchet: entries of logs, and what is said about them.
//!
//! Each device writes a log of its own in each conversation. An [`Entry`] has a number and names the one before by its hash, so that order and
//! gaps are seen, and so that an entry fetched from somebody else is proven by a later one that came from its author.

use crate::ids::{ConversationId, DeviceKey, EntryHash, FileHash};
use crate::letter::RATCHET_BYTES_MAX;
use crate::mail::Pass;
use crate::name::Name;
use crate::time::UnixMillis;
use crate::wire::{Blob, List, Prose, Text, Wire};
use serde::{Deserialize, Serialize};

/// Longest text of a message, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Longest reaction, in bytes: one emoji, with all its joiners.
pub const REACTION_BYTES_MAX: usize = 40;
/// Longest name of a file, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Longest media type of a file, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 64;
/// Points of a voice message's picture.
pub const WAVEFORM_POINTS_MAX: usize = 96;
/// Longest preview of a picture, in bytes.
pub const PREVIEW_BYTES_MAX: usize = 8 * 1024;
/// Most items in one parcel.
pub const ITEMS_MAX: usize = 64;
/// Most receipts in one item.
pub const RECEIPTS_MAX: usize = 64;
/// Most ranges beyond the first in a receipt.
pub const RANGES_MAX: usize = 8;
/// Most entries handed on in one item.
pub const ENTRIES_HANDED_ON_MAX: usize = 64;

/// What one message of a ratchet carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel(pub List<Item, ITEMS_MAX>);

impl Wire for Parcel {
    const NAME: &'static str = "parcel";
    const BYTES_MAX: usize = RATCHET_BYTES_MAX - 512;
}

/// One thing said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// An entry of the sending device's own log.
    Entry {
        /// The first entry of this log that the receiving device is owed. Those before it were written before the device was there, and
        /// had by others of its user: it gets them from its own kind.
        first: u64,
        /// The entry.
        entry: Entry,
    },
    /// Entries of another device's log, one after the other: asked for, or history for a new device.
    HandedOn {
        /// Whose log.
        author: DeviceKey,
        /// The user whose device that is or was: directories forget devices that were revoked.
        user: Name,
        /// The entries.
        entries: List<Entry, ENTRIES_HANDED_ON_MAX>,
    },
    /// What the sending device has, and what its user has read.
    Receipts(List<Receipt, RECEIPTS_MAX>),
    /// The sending device lacks entries.
    Want(Gap),
    /// The user types, or stopped.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Whether.
        on: bool,
    },
    /// How the user is, for contacts.
    Presence {
        /// How.
        status: Status,
        /// Whether an answer is asked for.
        answer: bool,
    },
    /// The sender's user has a conversation with this one. Said to the user's other devices ahead of what is about it, since a
    /// [`ConversationId`] alone does not tell them with whom it is.
    Conversation(Name),
    /// About being contacts.
    Contact(ContactNews),
    /// The sending device left the account, or is told to.
    Farewell,
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The conversation.
    pub conversation: ConversationId,
    /// Counts from 1 in each log.
    pub seq: u64,
    /// Of the entry before; zeros in the first.
    pub prev: EntryHash,
    /// When it was written, by its author's clock.
    pub written: UnixMillis,
    /// What it says.
    pub body: Body,
}

impl Wire for Entry {
    const NAME: &'static str = "entry";
    const BYTES_MAX: usize = TEXT_BYTES_MAX + PREVIEW_BYTES_MAX + 1024;
}

/// Which entry of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryRef {
    /// Whose log.
    pub author: DeviceKey,
    /// Its number there.
    pub seq: u64,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A message.
    Text {
        /// The text.
        text: Prose<TEXT_BYTES_MAX>,
        /// What it answers.
        reply_to: Option<EntryRef>,
    },
    /// Another text in the place of an own message's.
    Edit {
        /// The message.
        of: EntryRef,
        /// The text.
        text: Prose<TEXT_BYTES_MAX>,
    },
    /// An own message is taken back, for all.
    Delete {
        /// The message.
        of: EntryRef,
    },
    /// A reaction to a message, or its taking back.
    Reaction {
        /// The message.
        to: EntryRef,
        /// An emoji.
        emoji: Text<REACTION_BYTES_MAX>,
        /// Whether it is there.
        on: bool,
    },
    /// A file is offered.
    File(FileOffer),
    /// A spoken message.
    Voice {
        /// The recording.
        file: FileOffer,
        /// Its length.
        duration_ms: u32,
        /// How loud it is over time, for its picture.
        waveform: Blob<WAVEFORM_POINTS_MAX>,
        /// Whether it was left because a call was missed.
        is_voicemail: bool,
    },
}

/// A file that can be fetched from its author's device, or from whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOffer {
    /// BLAKE3 of the content.
    pub hash: FileHash,
    /// Bytes.
    pub len: u64,
    /// What it is called there. To be cleaned before it is used.
    pub name: Text<FILE_NAME_BYTES_MAX>,
    /// What it is said to be.
    pub media_type: Text<MEDIA_TYPE_BYTES_MAX>,
    /// A small picture of it.
    pub preview: Blob<PREVIEW_BYTES_MAX>,
}

/// What a device has of another device's log, and what its user has read of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whose log.
    pub author: DeviceKey,
    /// All up to this number are there.
    pub have: u64,
    /// And these: first and last of each range, ascending.
    pub beyond: List<(u64, u64), RANGES_MAX>,
    /// All up to this number were read; 0 where the user does not tell.
    pub read: u64,
}

/// Entries that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whose log.
    pub author: DeviceKey,
    /// First missing number.
    pub first: u64,
    /// Last missing number.
    pub last: u64,
}

/// How a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// At the keyboard.
    Online,
    /// Not at the keyboard for a while.
    Away,
    /// Not to be disturbed.
    Busy,
    /// Gone, or not to be seen.
    Offline,
}

/// What is said about being contacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContactNews {
    /// The request is accepted; with this pass one writes to the sender.
    Accepted(Pass),
    /// From now on this pass.
    Pass(Pass),
    /// The request is declined.
    Declined,
    /// The sender is a contact no more.
    Removed,
}
