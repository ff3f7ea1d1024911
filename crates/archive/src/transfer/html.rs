//! The export as a page that every browser shows, without scripts and without anything from elsewhere.

use super::{ExportHeader, readable};
use crate::calls::{CALLS_MAX, Call};
use crate::error::TransferError;
use crate::messages::{Content, Message, PAGE_MAX, Window};
use crate::open::Archive;
use ahoy_protocol::ids::ConversationId;
use ahoy_protocol::message::{EntryRef, FileOffer};
use ahoy_protocol::{Name, UnixMillis};
use serde_json::Value;
use std::fmt;
use std::io::{BufWriter, Write};

/// Characters of a message that an answer to it quotes.
const QUOTED_CHARS: usize = 80;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Ahoy</title><style>
body { font-family: system-ui, sans-serif; max-width: 48rem; margin: auto; padding: 1rem; line-height: 1.4 }
article { margin: .5rem 0; padding: .4rem .8rem; border-radius: .6rem; background: #eef1f4; max-width: 80% }
article.own { background: #d8ebff; margin-left: auto }
article p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
small, blockquote { color: #555 } blockquote { margin: 0; padding-left: .5rem; border-left: .2rem solid #aaa }
td { padding-right: 1rem }
</style></head><body>
"#;

impl Archive {
    /// Writes all that people have in the archive as a page to read.
    ///
    /// # Errors
    /// If the archive cannot be read, or the export not be written.
    pub fn export_html(&self, header: &ExportHeader, writer: impl Write) -> Result<(), TransferError> {
        let mut writer = BufWriter::new(writer);
        // What is exported is the archive of one moment.
        let _moment = self.connection.unchecked_transaction().map_err(|error| self.failed(error))?;
        writer.write_all(HEAD.as_bytes())?;
        writeln!(writer, "<h1>{}</h1><p>{}</p>", Escaped(header.account.as_str()), readable(header.exported))?;
        let conversations = self.conversations(&header.account)?;
        writeln!(writer, "<nav><ul>")?;
        for conversation in &conversations {
            writeln!(writer, "<li><a href=\"#{}\">{}</a></li>", conversation.id, Escaped(&conversation.title))?;
        }
        writeln!(writer, "<li><a href=\"#calls\">Calls</a></li></ul></nav>")?;
        for conversation in &conversations {
            writeln!(writer, "<section id=\"{}\"><h2>{}</h2>", conversation.id, Escaped(&conversation.title))?;
            self.write_messages(&mut writer, &conversation.id, &header.account)?;
            writeln!(writer, "</section>")?;
        }
        self.write_calls(&mut writer)?;
        writer.write_all(b"</body></html>\n")?;
        Ok(writer.flush()?)
    }

    fn write_messages(&self, writer: &mut impl Write, conversation: &ConversationId, me: &Name) -> Result<(), TransferError> {
        let mut window = Window::Oldest;
        loop {
            let page = self.page(conversation, window, PAGE_MAX)?;
            for message in &page.messages {
                let quoted = message.reply_to.map(|to| self.quote(conversation, &to)).transpose()?;
                write_message(writer, message, quoted.flatten().as_deref(), me)?;
            }
            match page.messages.last() {
                Some(last) if page.has_more => window = Window::After(last.place),
                _ => return Ok(()),
            }
        }
    }

    /// The beginning of a message that is answered.
    fn quote(&self, conversation: &ConversationId, entry: &EntryRef) -> Result<Option<String>, TransferError> {
        let text = self.message(conversation, entry)?.and_then(|message| match message.content {
            Content::Text(text) => Some(text),
            Content::File(file) => Some(file.name.to_string()),
            Content::Voice { .. } | Content::Deleted => None,
        });
        Ok(text.map(|text| text.chars().take(QUOTED_CHARS).collect()))
    }

    fn write_calls(&self, writer: &mut impl Write) -> Result<(), TransferError> {
        writeln!(writer, "<section id=\"calls\"><h2>Calls</h2><table>")?;
        for call in self.calls(UnixMillis(u64::MAX), CALLS_MAX)? {
            write_call(writer, &call)?;
        }
        Ok(writeln!(writer, "</table></section>")?)
    }
}

fn write_message(writer: &mut impl Write, message: &Message, quoted: Option<&str>, me: &Name) -> std::io::Result<()> {
    let class = if message.user == *me { " class=\"own\"" } else { "" };
    write!(writer, "<article{class}><small>{} · {}", Escaped(message.user.as_str()), readable(message.written))?;
    match (&message.content, message.edited) {
        (Content::Deleted, _) => write!(writer, " · deleted")?,
        (_, Some(at)) => write!(writer, " · edited {}", readable(at))?,
        (_, None) => {}
    }
    write!(writer, "</small>")?;
    if let Some(quoted) = quoted {
        write!(writer, "<blockquote>{}</blockquote>", Escaped(quoted))?;
    }
    write_content(writer, &message.content)?;
    for reaction in &message.reactions {
        let users: Vec<&str> = reaction.users.iter().map(Name::as_str).collect();
        write!(writer, " <small title=\"{}\">{} {}</small>", Escaped(&users.join(", ")), Escaped(&reaction.emoji), users.len())?;
    }
    writeln!(writer, "</article>")
}

fn write_content(writer: &mut impl Write, content: &Content) -> std::io::Result<()> {
    match content {
        Content::Text(text) => write!(writer, "<p>{}</p>", Escaped(text)),
        Content::File(file) => write_file(writer, file),
        Content::Voice { duration_ms, is_voicemail, .. } => {
            let what = if *is_voicemail { "Voicemail" } else { "Voice message" };
            write!(writer, "<p>{what}, {} s</p>", duration_ms.div_ceil(1_000))
        }
        Content::Deleted => Ok(()),
    }
}

fn write_file(writer: &mut impl Write, file: &FileOffer) -> std::io::Result<()> {
    write!(writer, "<p>File: {} ({} bytes)<br><small>BLAKE3 {}</small></p>", Escaped(&file.name), file.len, file.hash)
}

fn write_call(writer: &mut impl Write, call: &Call) -> std::io::Result<()> {
    let text = |name: &str| call.record.get(name).and_then(Value::as_str).unwrap_or_default();
    let seconds = call.record.get("seconds").and_then(Value::as_f64).unwrap_or_default();
    let (with, direction, reason) = (Escaped(text("with")), Escaped(text("direction")), Escaped(text("reason")));
    writeln!(
        writer,
        "<tr><td>{}</td><td>{with}</td><td>{direction}</td><td>{seconds:.0} s</td><td>{reason}</td></tr>",
        readable(call.began)
    )
}

/// Text in HTML, between tags or in an attribute's quotation marks.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => std::fmt::Write::write_char(f, c),
        })
    }
}
