//! Reading conversations as people see them.

use crate::error::ArchiveError;
use crate::open::Archive;
use crate::projection::{Delivery, conversation_row, read_entry, wrong};
use crate::{integer, unsigned};
use ahoy_protocol::ids::{ConversationId, DeviceKey};
use ahoy_protocol::message::{Body, EntryRef, FileOffer};
use ahoy_protocol::{Name, UnixMillis};
use rusqlite::{OptionalExtension, Row, ToSql, params};
use std::collections::BTreeMap;

/// Most messages in a page: many screens.
pub const PAGE_MAX: usize = 500;

/// A message as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The conversation it is in.
    pub conversation: ConversationId,
    /// The entry it comes from.
    pub entry: EntryRef,
    /// Who wrote it.
    pub user: Name,
    /// Where it stands in the conversation.
    pub place: Place,
    /// When it was written, by its author's clock.
    pub written: UnixMillis,
    /// What it says.
    pub content: Content,
    /// What it answers.
    pub reply_to: Option<EntryRef>,
    /// When its author last changed or deleted it.
    pub edited: Option<UnixMillis>,
    /// Reactions to it, by emoji.
    pub reactions: Vec<Reaction>,
    /// How far it got; it means something for own messages.
    pub state: Delivery,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text.
    Text(String),
    /// A file.
    File(FileOffer),
    /// A spoken message.
    Voice {
        /// The recording.
        file: FileOffer,
        /// Its length.
        duration_ms: u32,
        /// How loud it is over time.
        waveform: Vec<u8>,
        /// Whether it was left because a call was missed.
        is_voicemail: bool,
    },
    /// Nothing: its author took it back.
    Deleted,
}

/// A reaction, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// The users, by name.
    pub users: Vec<Name>,
}

/// Where a message stands in its conversation. Places compare as the messages stand, the same way on all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    at: UnixMillis,
    rank: i64,
    seq: u64,
}

impl Place {
    /// No message stands before it.
    const BEGIN: Self = Self { at: UnixMillis(i64::MIN.cast_unsigned()), rank: i64::MIN, seq: i64::MIN.cast_unsigned() };
    /// No message stands after it.
    const END: Self = Self { at: UnixMillis(i64::MAX.cast_unsigned()), rank: i64::MAX, seq: i64::MAX.cast_unsigned() };

    /// When it stands there: when it was written, or came if the author's clock is ahead.
    #[must_use]
    pub fn at(&self) -> UnixMillis {
        self.at
    }
}

/// Which messages of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The newest.
    Newest,
    /// The oldest.
    Oldest,
    /// Those next before this place.
    Before(Place),
    /// Those next after this place.
    After(Place),
}

/// Messages that stand one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The messages, the oldest first.
    pub messages: Vec<Message>,
    /// Whether there are more, on the far side of the page.
    pub has_more: bool,
}

/// A conversation in the list of conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The conversation.
    pub id: ConversationId,
    /// What it is called: the name of the other user; empty while nothing was written.
    pub title: String,
    /// What the user has typed and not sent.
    pub draft: String,
    /// Its newest message.
    pub last: Option<Message>,
    /// Messages of others that the user has not read.
    pub unread: u64,
}

/// What [`read_message`] reads.
pub(crate) const MESSAGE_COLUMNS: &str =
    "c.conversation, l.author, l.user, m.seq, m.placed, m.rank, m.text, m.edited, m.deleted, m.state, e.bytes, m.log";
/// Where it reads it from.
pub(crate) const MESSAGE_TABLES: &str = "messages m JOIN conversations c ON c.id = m.conversation JOIN logs l ON l.id = m.log
    JOIN entries e ON e.log = m.log AND e.seq = m.seq";

impl Archive {
    /// At most `count` messages, and at most [`PAGE_MAX`].
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn page(&self, conversation: &ConversationId, window: Window, count: usize) -> Result<Page, ArchiveError> {
        self.read_page(conversation, window, count.min(PAGE_MAX)).map_err(|error| self.failed(error))
    }

    fn read_page(&self, conversation: &ConversationId, window: Window, count: usize) -> rusqlite::Result<Page> {
        let Some(row) = conversation_row(&self.connection, conversation)? else {
            return Ok(Page { messages: Vec::new(), has_more: false });
        };
        let (comparison, direction, place) = match window {
            Window::Newest => ("<=", "DESC", Place::END),
            Window::Oldest => (">=", "ASC", Place::BEGIN),
            Window::Before(place) => ("<", "DESC", place),
            Window::After(place) => (">", "ASC", place),
        };
        let sql = format!(
            "SELECT {MESSAGE_COLUMNS} FROM {MESSAGE_TABLES} WHERE m.conversation = ?1 AND (m.placed, m.rank, m.seq) {comparison} (?2, ?3, ?4)
             ORDER BY m.placed {direction}, m.rank {direction}, m.seq {direction} LIMIT ?5"
        );
        // One more than asked for tells whether there are more.
        let limit = i64::try_from(count + 1).expect("a page is small");
        let params = params![row, integer(place.at.0), place.rank, integer(place.seq), limit];
        let mut messages = self.read_messages(&sql, params)?;
        let has_more = messages.len() > count;
        messages.truncate(count);
        if direction == "DESC" {
            messages.reverse();
        }
        Ok(Page { messages, has_more })
    }

    /// The message that an entry became, if it is here and shown.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn message(&self, conversation: &ConversationId, entry: &EntryRef) -> Result<Option<Message>, ArchiveError> {
        let sql = format!("SELECT {MESSAGE_COLUMNS} FROM {MESSAGE_TABLES} WHERE c.conversation = ?1 AND l.author = ?2 AND m.seq = ?3");
        let found = self.read_messages(&sql, params![conversation.as_bytes(), entry.author.as_bytes(), integer(entry.seq)]);
        Ok(found.map_err(|error| self.failed(error))?.pop())
    }

    /// How many messages there are in a conversation, deleted ones among them.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn count(&self, conversation: &ConversationId) -> Result<u64, ArchiveError> {
        let count = || {
            let Some(row) = conversation_row(&self.connection, conversation)? else { return Ok(0) };
            let sql = "SELECT count(*) FROM messages WHERE conversation = ?1";
            self.connection.prepare_cached(sql)?.query_row([row], |row| row.get(0)).map(unsigned)
        };
        count().map_err(|error| self.failed(error))
    }

    /// All conversations, those with the newest messages first, as they are to the user `me`.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn conversations(&self, me: &Name) -> Result<Vec<Conversation>, ArchiveError> {
        self.read_conversations(me).map_err(|error| self.failed(error))
    }

    fn read_conversations(&self, me: &Name) -> rusqlite::Result<Vec<Conversation>> {
        let unread = self.read_unread(me)?;
        let mut statement = self.connection.prepare_cached("SELECT conversation, title, draft FROM conversations")?;
        let rows = statement.query_map([], |row| Ok((ConversationId(row.get(0)?), row.get(1)?, row.get(2)?)))?;
        let mut conversations = Vec::new();
        for row in rows {
            let (id, title, draft) = row?;
            let last = self.read_page(&id, Window::Newest, 1)?.messages.pop();
            conversations.push(Conversation { id, title, draft, last, unread: unread.get(&id).copied().unwrap_or_default() });
        }
        conversations.sort_by_key(|conversation| std::cmp::Reverse(conversation.last.as_ref().map(|last| last.place)));
        Ok(conversations)
    }

    /// How many messages of others the user `me` has not read, in each conversation that has such.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn unread(&self, me: &Name) -> Result<BTreeMap<ConversationId, u64>, ArchiveError> {
        self.read_unread(me).map_err(|error| self.failed(error))
    }

    fn read_unread(&self, me: &Name) -> rusqlite::Result<BTreeMap<ConversationId, u64>> {
        // The logs come first: what is read of each is skipped by the index, however long it is.
        let sql = "SELECT c.conversation, count(*)
                   FROM logs l CROSS JOIN messages m ON m.log = l.id AND m.seq > l.read JOIN conversations c ON c.id = l.conversation
                   WHERE l.user <> ?1 AND NOT m.deleted GROUP BY c.id";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map([me.as_str()], |row| Ok((ConversationId(row.get(0)?), unsigned(row.get(1)?))))?;
        rows.collect()
    }

    /// The messages that a query for [`MESSAGE_COLUMNS`] gives.
    pub(crate) fn read_messages(&self, sql: &str, params: &[&dyn ToSql]) -> rusqlite::Result<Vec<Message>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let mut message = read_message(row)?;
            message.reactions = self.reactions(row.get(11)?, message.entry.seq)?;
            messages.push(message);
        }
        Ok(messages)
    }

    fn reactions(&self, log: i64, seq: u64) -> rusqlite::Result<Vec<Reaction>> {
        let sql = "SELECT emoji, user FROM reactions WHERE log = ?1 AND seq = ?2 AND is_on ORDER BY emoji, user";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![log, integer(seq)])?;
        let mut reactions: Vec<Reaction> = Vec::new();
        while let Some(row) = rows.next()? {
            let (emoji, user): (String, Name) = (row.get(0)?, read_name(row, 1)?);
            match reactions.last_mut() {
                Some(reaction) if reaction.emoji == emoji => reaction.users.push(user),
                _ => reactions.push(Reaction { emoji, users: vec![user] }),
            }
        }
        Ok(reactions)
    }

    /// Runs a query that gives one row, or none.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, ArchiveError> {
        let find = || self.connection.prepare_cached(sql)?.query_row(params, read).optional();
        find().map_err(|error| self.failed(error))
    }

    /// Runs a query that gives rows.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ArchiveError> {
        let find = || self.connection.prepare_cached(sql)?.query_map(params, read)?.collect::<rusqlite::Result<Vec<T>>>();
        find().map_err(|error| self.failed(error))
    }
}

fn read_message(row: &Row<'_>) -> rusqlite::Result<Message> {
    let entry = read_entry(row, 10)?;
    let is_deleted: bool = row.get(8)?;
    let (content, reply_to) = if is_deleted { (Content::Deleted, None) } else { content(entry.body, row)? };
    Ok(Message {
        conversation: ConversationId(row.get(0)?),
        entry: EntryRef { author: DeviceKey(row.get(1)?), seq: unsigned(row.get(3)?) },
        user: read_name(row, 2)?,
        place: Place { at: UnixMillis(unsigned(row.get(4)?)), rank: row.get(5)?, seq: unsigned(row.get(3)?) },
        written: entry.written,
        content,
        reply_to,
        edited: row.get::<_, Option<i64>>(7)?.map(|at| UnixMillis(unsigned(at))),
        reactions: Vec::new(),
        state: Delivery::from_number(row.get(9)?).ok_or_else(|| wrong(9))?,
    })
}

/// What the entry says, with the present text in the place of its own.
fn content(body: Body, row: &Row<'_>) -> rusqlite::Result<(Content, Option<EntryRef>)> {
    match body {
        Body::Text { reply_to, .. } => Ok((Content::Text(row.get(6)?), reply_to)),
        Body::File(file) => Ok((Content::File(file), None)),
        Body::Voice { file, duration_ms, waveform, is_voicemail } => {
            Ok((Content::Voice { file, duration_ms, waveform: waveform.into_vec(), is_voicemail }, None))
        }
        Body::Edit { .. } | Body::Delete { .. } | Body::Reaction { .. } => Err(wrong(10)),
    }
}

/// The name in column `column`.
pub(crate) fn read_name(row: &Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Name::try_from(row.get::<_, String>(column)?).map_err(|_| wrong(column))
}
