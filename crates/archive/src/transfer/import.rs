//! Reading an export into an archive.
//!
//! What is there already stays, so an import that was broken off is completed by importing again. The export is read piece by piece and
//! may be larger than memory.

use super::json::{FORMAT, JsonCall, JsonConversation, JsonEntry, JsonLog, VERSION};
use crate::batch::{Append, Batch, LogRange};
use crate::error::{ArchiveError, TransferError};
use crate::open::Archive;
use ahoy_protocol::ids::{ConversationId, DeviceKey, EntryHash};
use ahoy_protocol::{Name, UnixMillis};
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Read};
use std::marker::PhantomData;

/// Entries that go into the archive in one transaction: enough that the disk is not waited for at each, few enough to be in memory.
const ENTRIES_AT_ONCE: usize = 1_000;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Entries in the export, whether they were in the archive already or not.
    pub entries: u64,
    /// Calls.
    pub calls: u64,
    /// The contacts, as they were given to the export.
    pub contacts: Vec<Value>,
}

impl Archive {
    /// Takes in what [`Archive::export_json`] wrote. Drafts and calls of the export go before those of the archive.
    ///
    /// # Errors
    /// If it is no export, or the archive cannot be written. What came before the error is kept.
    pub fn import_json(&mut self, reader: impl Read) -> Result<Imported, TransferError> {
        let mut import = Import {
            archive: self,
            batch: Batch::new(),
            waiting: 0,
            titles: BTreeMap::new(),
            is_ours: false,
            newer: None,
            failed: None,
            done: Imported::default(),
        };
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(reader));
        match json.deserialize_map(Document(&mut import)).and_then(|()| json.end()) {
            Ok(()) => Ok(import.done),
            Err(error) => Err(import.why(&error)),
        }
    }
}

/// An import that runs.
struct Import<'a> {
    archive: &'a mut Archive,
    batch: Batch,
    /// With whom each conversation is.
    titles: BTreeMap<ConversationId, Name>,
    /// Entries in the batch.
    waiting: usize,
    /// Whether the format was seen.
    is_ours: bool,
    /// A later version that the export is of.
    newer: Option<u32>,
    /// Why the archive could not be written.
    failed: Option<ArchiveError>,
    done: Imported,
}

impl Import<'_> {
    /// Takes one member of the export.
    fn member<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        match name {
            "format" => self.is_ours = map.next_value::<String>()? == FORMAT,
            "version" => self.newer = Some(map.next_value()?).filter(|version| *version > VERSION),
            "contacts" => self.done.contacts = map.next_value()?,
            "conversations" => map.next_value_seed(Each::to(|row| self.conversation(row)))?,
            "logs" => map.next_value_seed(Each::to(|row| self.log(&row)))?,
            "entries" => map.next_value_seed(Each::to(|row| self.entry(row)))?,
            "calls" => map.next_value_seed(Each::to(|row| self.call(row)))?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        if self.is_ours && self.newer.is_none() { Ok(()) } else { Err(M::Error::custom("not an export that can be read")) }
    }

    fn conversation(&mut self, row: JsonConversation) -> Option<()> {
        let id = ConversationId::from_hex(&row.id)?;
        self.titles.insert(id, Name::try_from(row.title).ok()?);
        self.batch.set_draft(id, row.draft);
        self.flush_if_full()
    }

    fn log(&mut self, row: &JsonLog) -> Option<()> {
        self.batch.mark_read(ConversationId::from_hex(&row.conversation)?, DeviceKey::from_hex(&row.author)?, row.read);
        self.flush_if_full()
    }

    fn entry(&mut self, row: JsonEntry) -> Option<()> {
        let (author, user, hash) =
            (DeviceKey::from_hex(&row.author)?, Name::try_from(row.user.clone()).ok()?, EntryHash::from_hex(&row.hash)?);
        let (received, is_shown, state) = (UnixMillis(row.received_ms), row.shown, row.state);
        let entry = row.entry()?;
        let log = LogRange { conversation: entry.conversation, author, first: entry.seq, last: entry.seq };
        let with = self.titles.get(&entry.conversation)?.clone();
        self.batch.append(Append { with, entry, author, user, hash, received, is_shown });
        if let Some(state) = state {
            self.batch.set_state(log, state.state());
        }
        self.done.entries += 1;
        self.flush_if_full()
    }

    fn call(&mut self, row: JsonCall) -> Option<()> {
        self.batch.call(row.call()?);
        self.done.calls += 1;
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Option<()> {
        self.waiting += 1;
        if self.waiting < ENTRIES_AT_ONCE { Some(()) } else { self.flush() }
    }

    /// Why the reading ended with an error.
    fn why(self, error: &serde_json::Error) -> TransferError {
        match (self.failed, self.newer) {
            (Some(failed), _) => TransferError::Archive(failed),
            (None, Some(found)) => TransferError::Newer { found, readable: VERSION },
            // Where it is wrong is told, and not what is there.
            (None, None) if self.is_ours => TransferError::Read(format!("line {} is not as this program writes it", error.line())),
            (None, None) => TransferError::Read("it is not an export of this program".into()),
        }
    }

    /// Brings to the archive what waits; `None` if that failed.
    fn flush(&mut self) -> Option<()> {
        self.waiting = 0;
        self.archive.commit(&std::mem::take(&mut self.batch)).map_err(|error| self.failed = Some(error)).ok()
    }
}

/// The object that an export is.
struct Document<'a, 'b>(&'a mut Import<'b>);

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an export")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<String>()? {
            self.0.member(&name, &mut map)?;
        }
        let all = self.0.is_ours.then(|| self.0.flush()).flatten();
        all.ok_or_else(|| M::Error::custom("not kept"))
    }
}

/// A list whose elements are handed on one by one, until one is not taken.
struct Each<T, F>(F, PhantomData<T>);

impl<T, F: FnMut(T) -> Option<()>> Each<T, F> {
    fn to(take: F) -> Self {
        Self(take, PhantomData)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> Option<()>> DeserializeSeed<'de> for Each<T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> Option<()>> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element).ok_or_else(|| A::Error::custom("not taken"))?;
        }
        Ok(())
    }
}
