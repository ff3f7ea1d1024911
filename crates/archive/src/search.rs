//! Full-text search.
//!
//! A query is words and "quoted phrases"; a message is found if it has all of them. Where there are not enough messages with the very words,
//! the last one also finds longer ones that begin with it, for it may not be finished. Case and accents do not matter. The index tells words
//! apart by Unicode's letters and digits, so emoji are not found, nor is the middle of a word, which in scripts without spaces is a whole
//! clause.

use crate::error::ArchiveError;
use crate::integer;
use crate::messages::{MESSAGE_COLUMNS, MESSAGE_TABLES, Message};
use crate::open::Archive;
use crate::projection::{conversation_row, scope};
use ahoy_protocol::ids::ConversationId;
use rusqlite::params;

/// Longest query, in bytes; the rest is ignored. Nobody types more, and what is pasted still finds what it begins with.
pub const QUERY_BYTES_MAX: usize = 256;
/// Most messages that a search finds: the last that came. It bounds the time that a word takes which is in every message.
pub const FOUND_MAX: usize = 500;

impl Archive {
    /// At most `count` messages that match `query`, in one conversation or in all, the newest first. Deleted messages are not found.
    ///
    /// # Errors
    /// If the archive cannot be read.
    pub fn search(&self, query: &str, within: Option<&ConversationId>, count: usize) -> Result<Vec<Message>, ArchiveError> {
        self.find(query, within, count).map_err(|error| self.failed(error))
    }

    fn find(&self, query: &str, within: Option<&ConversationId>, count: usize) -> rusqlite::Result<Vec<Message>> {
        let scope = match within.map(|conversation| conversation_row(&self.connection, conversation)).transpose()? {
            Some(None) => return Ok(Vec::new()),
            Some(Some(row)) => format!("scope : \"{}\" AND ", scope(row)),
            None => String::new(),
        };
        // The list of a word is read from its end and only as far as is needed; lists of all words with one beginning are merged first,
        // which for a word that is in every message takes longer than everything else.
        let mut found = Vec::new();
        for ending in [Ending::Whole, Ending::Open] {
            let Some(expression) = expression(query, ending) else { break };
            found = self.newest(&format!("{scope}text : ({expression})"), count)?;
            if found.len() >= count {
                break;
            }
        }
        Ok(found)
    }

    fn newest(&self, expression: &str, count: usize) -> rusqlite::Result<Vec<Message>> {
        // The index gives rows in the order in which they came without sorting; of these the newest by their place are taken.
        let sql = format!(
            "SELECT {MESSAGE_COLUMNS} FROM {MESSAGE_TABLES}
             WHERE m.id IN (SELECT id FROM messages
                 WHERE id IN (SELECT rowid FROM search WHERE search MATCH ?1 ORDER BY rowid DESC LIMIT ?2)
                 ORDER BY placed DESC, rank DESC, seq DESC LIMIT ?3)
             ORDER BY m.placed DESC, m.rank DESC, m.seq DESC"
        );
        self.read_messages(&sql, params![expression, integer(FOUND_MAX as u64), integer(count as u64)])
    }
}

/// What may follow the last word that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Nothing.
    Whole,
    /// More of the word.
    Open,
}

/// The query in the words of FTS5; `None` if there is nothing to look for. Everything typed is quoted, so nothing of it is an operator.
fn expression(query: &str, ending: Ending) -> Option<String> {
    let query = query[..query.floor_char_boundary(QUERY_BYTES_MAX)].replace(char::is_control, " ");
    let (mut terms, mut is_open) = (Vec::new(), false);
    // Every second piece stands in quotation marks.
    for (index, piece) in query.split('"').enumerate() {
        if index % 2 == 1 {
            terms.extend(has_word(piece).then(|| format!("\"{piece}\"")));
            is_open &= !has_word(piece);
        } else {
            terms.extend(piece.split_whitespace().filter(|word| has_word(word)).map(|word| format!("\"{word}\"")));
            is_open |= has_word(piece);
        }
    }
    let star = if is_open && ending == Ending::Open { "*" } else { "" };
    (!terms.is_empty()).then(|| terms.join(" AND ") + star)
}

/// Whether the index can know any of it.
fn has_word(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::{Ending, expression};

    fn open(query: &str) -> Option<String> {
        expression(query, Ending::Open)
    }

    #[test]
    fn words_are_whole_or_beginnings_and_phrases_are_whole() {
        assert_eq!(expression("hello wor", Ending::Whole).as_deref(), Some("\"hello\" AND \"wor\""));
        assert_eq!(open("hello wor").as_deref(), Some("\"hello\" AND \"wor\"*"));
        assert_eq!(open("say \"good night\" now").as_deref(), Some("\"say\" AND \"good night\" AND \"now\"*"));
        assert_eq!(open("\"unfinished phr").as_deref(), Some("\"unfinished phr\""));
        assert_eq!(open("say \"good night\"").as_deref(), Some("\"say\" AND \"good night\""));
    }

    #[test]
    fn operators_are_words_and_signs_alone_are_nothing() {
        assert_eq!(open("NOT x*").as_deref(), Some("\"NOT\" AND \"x*\"*"));
        for nothing in ["", "  ", "\"\"", "*", "!? -", "\"*\""] {
            assert_eq!(open(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_long_query_is_cut_at_a_character() {
        assert_eq!(open(&"ü".repeat(1_000)).map(|found| found.chars().filter(|c| *c == 'ü').count()), Some(128));
    }
}
