//! What is to be done, and what the user is told.

use crate::vault::{Contact, Record, Subject};
use ahoy_protocol::ids::{ConversationId, EntryHash, PassId};
use ahoy_protocol::letter::REQUEST_TEXT_BYTES_MAX;
use ahoy_protocol::mail::{Pass, Permit};
use ahoy_protocol::message::{Entry, EntryRef, Parcel, Status};
use ahoy_protocol::{DeviceKey, Name, Prose, UnixMillis};
use serde::{Deserialize, Serialize};

/// What is to be done. All effects of one input are one transaction: what is to be kept is kept, what is to be sent or asked is put into an outbox
/// that outlives the program, and so is what [`ChatEvent::State`] says, if it is kept at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Keep an entry.
    Append(Box<Appended>),
    /// Entries of a log that were kept back count from here on, those among them that are there.
    Show {
        /// The conversation.
        conversation: ConversationId,
        /// Whose log.
        author: DeviceKey,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Keep a register in the place of what was under its key. All of them go into [`Chat::restore`](crate::Chat::restore).
    Save {
        /// Its key.
        key: String,
        /// What it says; empty: remove it.
        bytes: Vec<u8>,
    },
    /// The user has read the entries of a log up to this one.
    MarkRead {
        /// The conversation.
        conversation: ConversationId,
        /// Whose log.
        author: DeviceKey,
        /// The last that was read.
        last: u64,
    },
    /// Send something to a device.
    Send(Box<Outgoing>),
    /// Take these entries from the archive for [`Chat::handle_entries`](crate::Chat::handle_entries), also those that do not count yet.
    NeedEntries(Need),
    /// Look up the devices of somebody for [`Chat::set_devices`](crate::Chat::set_devices).
    NeedDevices(Name),
    /// Ask somebody to become a contact. He writes back with this pass.
    Ask {
        /// Whom.
        to: Name,
        /// The right to answer.
        pass: Pass,
        /// A few words.
        text: Prose<REQUEST_TEXT_BYTES_MAX>,
    },
    /// Let this pass count no more at the mailboxes.
    Revoke(PassId),
    /// Put a record into the vault, then [`Chat::handle_vault_kept`](crate::Chat::handle_vault_kept).
    Vault {
        /// What it is about.
        subject: Subject,
        /// Its version there.
        version: u64,
        /// What it says.
        record: Box<Record>,
    },
    /// Tell the user.
    Tell(ChatEvent),
}

/// An entry to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// With whom the conversation is.
    pub with: Name,
    /// Whose log.
    pub author: DeviceKey,
    /// The author's user.
    pub user: Name,
    /// Whether that is me.
    pub side: Side,
    /// The entry.
    pub entry: Entry,
    /// Its hash.
    pub hash: EntryHash,
    /// When it came.
    pub received: UnixMillis,
    /// Where it stands among the entries of all logs, before author and number: when it was written, as far as that can be believed.
    pub position: UnixMillis,
    /// Whether it counts, or is kept back behind a gap.
    pub is_shown: bool,
    /// Whether it is old, and came from another device of mine.
    pub is_history: bool,
}

/// On which side of a conversation a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// It is one of my devices.
    Mine,
    /// It is one of the other person's.
    Theirs,
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The device.
    pub to: DeviceKey,
    /// Its user.
    pub user: Name,
    /// Why his mailboxes should take it.
    pub permit: Permit,
    /// What to send.
    pub parcel: Parcel,
    /// Whether mailboxes keep it.
    pub keep: bool,
    /// Entries of mine that are in it, for [`Chat::handle_posted`](crate::Chat::handle_posted).
    pub carries: Vec<Carried>,
}

/// Entries of this device's log that an envelope carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The conversation.
    pub conversation: ConversationId,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Entries that are needed from the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whose log.
    pub author: DeviceKey,
    /// The first.
    pub first: u64,
    /// The last: at most [`ENTRIES_NEEDED_MAX`](crate::ENTRIES_NEEDED_MAX) in all.
    pub last: u64,
    /// For whom.
    pub to: DeviceKey,
    /// What for.
    pub purpose: Purpose,
}

/// What entries are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// They are this device's own, for somebody who is owed them.
    Deliver,
    /// They are handed on to somebody who lacks them.
    HandOn,
}

/// How far entries of the user's have got. Each state includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryState {
    /// They are here.
    Waiting,
    /// Mailboxes keep them.
    InNetwork,
    /// A device of the recipient has them.
    Delivered,
    /// The recipient has read them.
    Read,
}

/// What an entry does to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Another text.
    Edited,
    /// It is taken back.
    Deleted,
    /// A reaction came, or went.
    Reacted,
}

/// How a contact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub name: Name,
    /// How; the best of his devices.
    pub status: Status,
}

/// What the user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatEvent {
    /// Entries of a log count now: those from `first` to `last` that are there.
    Shown {
        /// With whom the conversation is.
        with: Name,
        /// Whose log.
        author: DeviceKey,
        /// Whose device that is.
        side: Side,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// Whether they are old, from another device of the user.
        is_history: bool,
    },
    /// An entry changed a message.
    Changed {
        /// With whom the conversation is.
        with: Name,
        /// The message.
        message: EntryRef,
        /// The entry that changed it.
        by: EntryRef,
        /// How.
        change: Change,
    },
    /// Entries of the user's own have got further.
    State {
        /// With whom the conversation is.
        with: Name,
        /// Which device of the user wrote them.
        author: DeviceKey,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// How far.
        state: DeliveryState,
    },
    /// The user has read what the other wrote up to this entry, here or elsewhere.
    Read {
        /// With whom the conversation is.
        with: Name,
        /// The last entry of this log that was read.
        upto: EntryRef,
    },
    /// Entries are missing; what is behind them is shown nevertheless. They appear in their place if they ever come.
    Gap {
        /// With whom the conversation is.
        with: Name,
        /// Whose log.
        author: DeviceKey,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A device contradicts what it said before: this entry was refused. Where the device is this one, its data were put back to an older state,
    /// and it should be signed in anew.
    Fork {
        /// With whom the conversation is.
        with: Name,
        /// The entry that was refused, or is unknown here.
        entry: EntryRef,
    },
    /// Somebody types, or stopped.
    Typing {
        /// Who.
        with: Name,
        /// Whether.
        on: bool,
    },
    /// A contact came, went, or is otherwise.
    Presence(Seen),
    /// Somebody asks to become a contact.
    Request {
        /// Who.
        from: Name,
        /// A few words.
        text: Prose<REQUEST_TEXT_BYTES_MAX>,
    },
    /// Somebody accepted, and is a contact.
    Accepted(Name),
    /// Somebody declined.
    Declined(Name),
    /// Somebody removed the user from his contacts.
    Removed(Name),
    /// What is known of a contact changed, here or on another device of the user.
    Contact(Box<Contact>),
    /// Somebody shows another key than the one that is known, and the old one has not signed for it. Where he is a contact, nothing is sent to him, and
    /// nothing that comes under the new key is taken, until the user trusts it.
    KeyChanged(Name),
    /// A setting that follows the account changed on another device.
    Setting {
        /// Its name.
        name: String,
        /// What it says.
        value: Vec<u8>,
    },
}
