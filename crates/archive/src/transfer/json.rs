//! The export as JSON: one object, in which each entry and each call is a line of its own.
//!
//! ```json
//! {"format": "ahoy-export", "version": 1, "account": "alice", "exported_ms": 1700000000000, "contacts": [],
//!  "conversations": [{"id": "…", "title": "bob", "draft": ""}],
//!  "logs": [{"conversation": "…", "author": "…", "read": 3}],
//!  "entries": [{"conversation": "…", "author": "…", "user": "bob", "seq": 1, "body": {"kind": "text", "text": "ahoy"}, …}],
//!  "calls": [{"id": "…", "began_ms": 1700000000000, "record": {}}]}
//! ```
//! Keys and hashes are hexadecimal, other bytes base64.

use super::ExportHeader;
use crate::calls::Call;
use crate::error::TransferError;
use crate::messages::read_name;
use crate::open::Archive;
use crate::projection::{Delivery, read_entry};
use crate::unsigned;
use ahoy_protocol::ids::{ConversationId, DeviceKey, EntryHash, FileHash};
use ahoy_protocol::message::{Body, Entry, EntryRef, FileOffer};
use ahoy_protocol::{Blob, CallId, Prose, Text, UnixMillis};
use data_encoding::BASE64;
use rusqlite::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufWriter, Write};

/// Value of the member `format`.
pub(super) const FORMAT: &str = "ahoy-export";
/// Value of the member `version`. It changes when the meaning of the rest does.
pub(super) const VERSION: u32 = 1;

/// A conversation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonConversation {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) draft: String,
}

/// What the user has read of a log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonLog {
    pub(super) conversation: String,
    pub(super) author: String,
    pub(super) read: u64,
}

/// An entry.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonEntry {
    pub(super) conversation: String,
    pub(super) author: String,
    pub(super) user: String,
    pub(super) seq: u64,
    prev: String,
    pub(super) hash: String,
    written_ms: u64,
    pub(super) received_ms: u64,
    pub(super) shown: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<JsonDelivery>,
    body: JsonBody,
}

/// How far an own message got.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum JsonDelivery {
    InNetwork,
    Delivered,
    Read,
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JsonCall {
    id: String,
    began_ms: u64,
    record: Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum JsonBody {
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<JsonRef>,
    },
    Edit {
        of: JsonRef,
        text: String,
    },
    Delete {
        of: JsonRef,
    },
    Reaction {
        to: JsonRef,
        emoji: String,
        on: bool,
    },
    File {
        file: JsonFile,
    },
    Voice {
        file: JsonFile,
        duration_ms: u32,
        waveform: String,
        is_voicemail: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct JsonRef {
    author: String,
    seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct JsonFile {
    hash: String,
    len: u64,
    name: String,
    media_type: String,
    preview: String,
}

impl Archive {
    /// Writes all that people have in the archive as JSON.
    ///
    /// # Errors
    /// If the archive cannot be read, or the export not be written.
    pub fn export_json(&self, header: &ExportHeader, writer: impl Write) -> Result<(), TransferError> {
        let mut writer = BufWriter::new(writer);
        // What is exported is the archive of one moment.
        let _moment = self.connection.unchecked_transaction().map_err(|error| self.failed(error))?;
        let (account, contacts) = (Value::from(header.account.as_str()), Value::from(header.contacts.clone()));
        let exported_ms = header.exported.0;
        writeln!(writer, "{{\"format\": \"{FORMAT}\", \"version\": {VERSION}, \"account\": {account}, \"exported_ms\": {exported_ms},")?;
        write!(writer, "\"contacts\": {contacts}")?;
        self.write_list(
            &mut writer,
            "conversations",
            "SELECT conversation, title, draft FROM conversations WHERE title <> '' ORDER BY id",
            |row| Ok(JsonConversation { id: ConversationId(row.get(0)?).to_string(), title: row.get(1)?, draft: row.get(2)? }),
        )?;
        let logs = "SELECT c.conversation, l.author, l.read FROM logs l JOIN conversations c ON c.id = l.conversation ORDER BY l.id";
        self.write_list(&mut writer, "logs", logs, |row| {
            let (conversation, author) = (ConversationId(row.get(0)?).to_string(), DeviceKey(row.get(1)?).to_string());
            Ok(JsonLog { conversation, author, read: unsigned(row.get(2)?) })
        })?;
        let entries = "SELECT l.author, l.user, e.hash, e.received, e.shown, m.state, e.bytes
                       FROM entries e JOIN logs l ON l.id = e.log LEFT JOIN messages m ON m.log = e.log AND m.seq = e.seq ORDER BY e.log, e.seq";
        self.write_list(&mut writer, "entries", entries, read_json_entry)?;
        self.write_list(&mut writer, "calls", "SELECT id, began, record FROM calls ORDER BY began", |row| {
            let record = serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default();
            Ok(JsonCall { id: CallId(row.get(0)?).to_string(), began_ms: unsigned(row.get(1)?), record })
        })?;
        writer.write_all(b"\n}\n")?;
        Ok(writer.flush()?)
    }

    /// Writes a member whose value is the list of what a query gives.
    fn write_list<T: Serialize>(
        &self,
        writer: &mut impl Write,
        name: &str,
        sql: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<(), TransferError> {
        write!(writer, ",\n\"{name}\": [")?;
        let failed = |error| self.failed(error);
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        let mut separator = "\n";
        while let Some(row) = rows.next().map_err(failed)? {
            writer.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut *writer, &read(row).map_err(failed)?).map_err(std::io::Error::from)?;
            separator = ",\n";
        }
        Ok(writer.write_all(b"]")?)
    }
}

fn read_json_entry(row: &Row<'_>) -> rusqlite::Result<JsonEntry> {
    let entry = read_entry(row, 6)?;
    Ok(JsonEntry {
        conversation: entry.conversation.to_string(),
        author: DeviceKey(row.get(0)?).to_string(),
        user: read_name(row, 1)?.into(),
        seq: entry.seq,
        prev: entry.prev.to_string(),
        hash: EntryHash(row.get(2)?).to_string(),
        written_ms: entry.written.0,
        received_ms: unsigned(row.get(3)?),
        shown: row.get(4)?,
        state: row.get::<_, Option<i64>>(5)?.and_then(Delivery::from_number).and_then(JsonDelivery::of),
        body: entry.body.into(),
    })
}

impl JsonDelivery {
    /// The state in an export; one that only waits has none.
    fn of(state: Delivery) -> Option<Self> {
        match state {
            Delivery::Waiting => None,
            Delivery::InNetwork => Some(Self::InNetwork),
            Delivery::Delivered => Some(Self::Delivered),
            Delivery::Read => Some(Self::Read),
        }
    }

    /// The state.
    pub(super) fn state(self) -> Delivery {
        match self {
            Self::InNetwork => Delivery::InNetwork,
            Self::Delivered => Delivery::Delivered,
            Self::Read => Delivery::Read,
        }
    }
}

impl JsonEntry {
    /// The entry, if it is one.
    pub(super) fn entry(self) -> Option<Entry> {
        Some(Entry {
            conversation: ConversationId::from_hex(&self.conversation)?,
            seq: self.seq,
            prev: EntryHash::from_hex(&self.prev)?,
            written: UnixMillis(self.written_ms),
            body: self.body.body()?,
        })
    }
}

impl JsonCall {
    /// The call, if it is one.
    pub(super) fn call(self) -> Option<Call> {
        Some(Call { id: CallId::from_hex(&self.id)?, began: UnixMillis(self.began_ms), record: self.record })
    }
}

impl From<Body> for JsonBody {
    fn from(body: Body) -> Self {
        match body {
            Body::Text { text, reply_to } => Self::Text { text: text.to_string(), reply_to: reply_to.map(Into::into) },
            Body::Edit { of, text } => Self::Edit { of: of.into(), text: text.to_string() },
            Body::Delete { of } => Self::Delete { of: of.into() },
            Body::Reaction { to, emoji, on } => Self::Reaction { to: to.into(), emoji: emoji.to_string(), on },
            Body::File(file) => Self::File { file: file.into() },
            Body::Voice { file, duration_ms, waveform, is_voicemail } => {
                Self::Voice { file: file.into(), duration_ms, waveform: BASE64.encode(&waveform), is_voicemail }
            }
        }
    }
}

impl JsonBody {
    fn body(self) -> Option<Body> {
        Some(match self {
            Self::Text { text, reply_to: None } => Body::Text { text: Prose::new(text)?, reply_to: None },
            Self::Text { text, reply_to: Some(to) } => Body::Text { text: Prose::new(text)?, reply_to: Some(to.entry_ref()?) },
            Self::Edit { of, text } => Body::Edit { of: of.entry_ref()?, text: Prose::new(text)? },
            Self::Delete { of } => Body::Delete { of: of.entry_ref()? },
            Self::Reaction { to, emoji, on } => Body::Reaction { to: to.entry_ref()?, emoji: Text::new(emoji)?, on },
            Self::File { file } => Body::File(file.offer()?),
            Self::Voice { file, duration_ms, waveform, is_voicemail } => {
                Body::Voice { file: file.offer()?, duration_ms, waveform: blob(&waveform)?, is_voicemail }
            }
        })
    }
}

impl From<EntryRef> for JsonRef {
    fn from(entry: EntryRef) -> Self {
        Self { author: entry.author.to_string(), seq: entry.seq }
    }
}

impl JsonRef {
    fn entry_ref(&self) -> Option<EntryRef> {
        Some(EntryRef { author: DeviceKey::from_hex(&self.author)?, seq: self.seq })
    }
}

impl From<FileOffer> for JsonFile {
    fn from(file: FileOffer) -> Self {
        let (name, media_type) = (file.name.to_string(), file.media_type.to_string());
        Self { hash: file.hash.to_string(), len: file.len, name, media_type, preview: BASE64.encode(&file.preview) }
    }
}

impl JsonFile {
    fn offer(self) -> Option<FileOffer> {
        let (name, media_type) = (Text::new(self.name)?, Text::new(self.media_type)?);
        Some(FileOffer { hash: FileHash::from_hex(&self.hash)?, len: self.len, name, media_type, preview: blob(&self.preview)? })
    }
}

fn blob<const N: usize>(base64: &str) -> Option<Blob<N>> {
    Blob::new(BASE64.decode(base64.as_bytes()).ok()?)
}
