//! A batch: all that one input changes, kept whole or not at all.

use crate::calls::Call;
use crate::error::ArchiveError;
use crate::open::Archive;
use crate::outbox::Outgoing;
use crate::projection::Delivery;
use crate::writer::Writer;
use ahoy_protocol::ids::{ConversationId, DeviceKey, EntryHash, EnvelopeId};
use ahoy_protocol::message::Entry;
use ahoy_protocol::{Name, UnixMillis};
use rusqlite::TransactionBehavior;

/// An entry that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// With whom the conversation is.
    pub with: Name,
    /// The entry.
    pub entry: Entry,
    /// The device whose log it is in.
    pub author: DeviceKey,
    /// The user of that device.
    pub user: Name,
    /// The entry's hash.
    pub hash: EntryHash,
    /// When it came; for an own entry, when it was written.
    pub received: UnixMillis,
    /// Whether it counts at once, or waits for entries before it.
    pub is_shown: bool,
}

/// Entries of a log that stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The conversation it is in.
    pub conversation: ConversationId,
    /// Whose log.
    pub author: DeviceKey,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Changes that are kept together, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Batch(Vec<Change>);

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    Append(Box<Append>),
    Show { log: LogRange },
    State { log: LogRange, state: Delivery },
    Read { conversation: ConversationId, author: DeviceKey, up_to: u64 },
    Draft { conversation: ConversationId, text: String },
    Save { key: String, bytes: Vec<u8> },
    Post(Outgoing),
    Retry { id: EnvelopeId, next_try: UnixMillis },
    Posted { id: EnvelopeId },
    Seen { id: EnvelopeId, until: UnixMillis },
    ForgetSeen { now: UnixMillis },
    Call(Call),
}

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps an entry. One that is there already stays as it is, but counts from now on if either does.
    pub fn append(&mut self, append: Append) {
        self.0.push(Change::Append(Box::new(append)));
    }

    /// Entries that waited count from now on, those of the range that are there.
    pub fn show(&mut self, log: LogRange) {
        self.0.push(Change::Show { log });
    }

    /// How far own messages got. A state never goes back.
    pub fn set_state(&mut self, log: LogRange, state: Delivery) {
        self.0.push(Change::State { log, state });
    }

    /// The user has read the log of `author` up to this number.
    pub fn mark_read(&mut self, conversation: ConversationId, author: DeviceKey, up_to: u64) {
        self.0.push(Change::Read { conversation, author, up_to });
    }

    /// What the user has typed and not sent; empty: nothing.
    pub fn set_draft(&mut self, conversation: ConversationId, text: impl Into<String>) {
        self.0.push(Change::Draft { conversation, text: text.into() });
    }

    /// Makes `bytes` the whole of a register; empty: removes it.
    pub fn save(&mut self, key: impl Into<String>, bytes: Vec<u8>) {
        self.0.push(Change::Save { key: key.into(), bytes });
    }

    /// Puts an envelope in the outbox. One that is there already stays as it is.
    pub fn post(&mut self, outgoing: Outgoing) {
        self.0.push(Change::Post(outgoing));
    }

    /// Counts one more try of an envelope, and says when the next is due.
    pub fn retry(&mut self, id: EnvelopeId, next_try: UnixMillis) {
        self.0.push(Change::Retry { id, next_try });
    }

    /// Takes an envelope out of the outbox.
    pub fn posted(&mut self, id: EnvelopeId) {
        self.0.push(Change::Posted { id });
    }

    /// An envelope came; it can come again until then.
    pub fn seen(&mut self, id: EnvelopeId, until: UnixMillis) {
        self.0.push(Change::Seen { id, until });
    }

    /// Forgets the envelopes that cannot come again after `now`.
    pub fn forget_seen(&mut self, now: UnixMillis) {
        self.0.push(Change::ForgetSeen { now });
    }

    /// Keeps a call, or what is known of it by now.
    pub fn call(&mut self, call: Call) {
        self.0.push(Change::Call(call));
    }
}

impl Archive {
    /// Keeps all of the batch. When this returns, it is on the disk.
    ///
    /// # Errors
    /// If that failed; then nothing of it is kept.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), ArchiveError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch).map_err(|error| self.failed(error))
    }

    fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        // Immediate: a transaction that began by reading could not become one that writes while another process writes.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let writer = Writer(&transaction);
        for change in &batch.0 {
            writer.apply(change)?;
        }
        transaction.commit()
    }
}
