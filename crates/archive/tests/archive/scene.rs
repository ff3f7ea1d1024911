//! Two people who write to each other, and an archive in a folder of its own.

use ahoy_archive::{Append, Archive, Batch, LogRange, Message, PAGE_MAX, Window};
use ahoy_protocol::ids::{ConversationId, DeviceKey, EntryHash};
use ahoy_protocol::message::{Body, Entry, EntryRef};
use ahoy_protocol::{Name, Prose, Text, UnixMillis};
use tempfile::TempDir;

pub(crate) const KEY: [u8; 32] = [7; 32];
pub(crate) const CONVERSATION: ConversationId = ConversationId([9; 16]);
pub(crate) const ALICE: DeviceKey = DeviceKey([1; 32]);
/// Alice's other device.
pub(crate) const ALICE_2: DeviceKey = DeviceKey([2; 32]);
pub(crate) const BOB: DeviceKey = DeviceKey([3; 32]);

/// An archive that is gone when the test ends.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) archive: Archive,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path(), &KEY).unwrap();
        Self { dir, archive }
    }

    /// The archive after the program was started again.
    pub(crate) fn reopened(self) -> Self {
        drop(self.archive);
        let archive = Archive::open(self.dir.path(), &KEY).unwrap();
        Self { dir: self.dir, archive }
    }

    /// Keeps what `fill` puts in a batch.
    pub(crate) fn commit(&mut self, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        fill(&mut batch);
        self.archive.commit(&batch).unwrap();
    }

    /// Entries that count at once.
    pub(crate) fn write(&mut self, entries: impl IntoIterator<Item = Append>) {
        self.commit(|batch| entries.into_iter().for_each(|entry| batch.append(entry)));
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.archive.page(&CONVERSATION, Window::Newest, PAGE_MAX).unwrap().messages
    }

    /// What the messages say, one after the other.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.messages().iter().map(said).collect()
    }

    pub(crate) fn found(&self, query: &str) -> Vec<String> {
        self.archive.search(query, None, 100).unwrap().iter().map(said).collect()
    }
}

/// What a message says, in a word.
pub(crate) fn said(message: &Message) -> String {
    match &message.content {
        ahoy_archive::Content::Text(text) => text.clone(),
        ahoy_archive::Content::File(file) => format!("file {}", &*file.name),
        ahoy_archive::Content::Voice { duration_ms, .. } => format!("voice {duration_ms}"),
        ahoy_archive::Content::Deleted => "deleted".into(),
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// The name of the user of a device.
pub(crate) fn user(device: DeviceKey) -> Name {
    name(if device == BOB { "bob" } else { "alice" })
}

pub(crate) fn entry_ref(author: DeviceKey, seq: u64) -> EntryRef {
    EntryRef { author, seq }
}

pub(crate) fn range(author: DeviceKey, first: u64, last: u64) -> LogRange {
    LogRange { conversation: CONVERSATION, author, first, last }
}

/// Entry `seq` of a log, written at `at` and received then.
pub(crate) fn entry(author: DeviceKey, seq: u64, at: u64, body: Body) -> Append {
    let entry = Entry { conversation: CONVERSATION, seq, prev: hash(author, seq - 1), written: UnixMillis(at), body };
    Append { with: name("bob"), entry, author, user: user(author), hash: hash(author, seq), received: UnixMillis(at), is_shown: true }
}

pub(crate) fn text(author: DeviceKey, seq: u64, at: u64, text: &str) -> Append {
    entry(author, seq, at, Body::Text { text: prose(text), reply_to: None })
}

pub(crate) fn edit(author: DeviceKey, seq: u64, at: u64, of: EntryRef, text: &str) -> Append {
    entry(author, seq, at, Body::Edit { of, text: prose(text) })
}

pub(crate) fn delete(author: DeviceKey, seq: u64, at: u64, of: EntryRef) -> Append {
    entry(author, seq, at, Body::Delete { of })
}

pub(crate) fn react(author: DeviceKey, seq: u64, at: u64, to: EntryRef, emoji: &str, on: bool) -> Append {
    entry(author, seq, at, Body::Reaction { to, emoji: Text::fitting(emoji), on })
}

pub(crate) fn prose<const N: usize>(text: &str) -> Prose<N> {
    Prose::new(text.to_owned()).unwrap()
}

/// A hash as good as any: the archive does not check them.
pub(crate) fn hash(author: DeviceKey, seq: u64) -> EntryHash {
    let mut hash = author.0;
    hash[..8].copy_from_slice(&seq.to_be_bytes());
    EntryHash(hash)
}
