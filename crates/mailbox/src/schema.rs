//! The tables, and how a file comes to have them.
//!
//! `number`s and `changed` count up over the whole store and never fall below the time in Unix milliseconds, so that who remembers one is
//! not misled by a store that was lost and begun anew. Totals are kept by triggers: no path through the code can miss one.

use crate::error::OpenError;
use rusqlite::Connection;
use std::path::Path;

/// The format that this program reads and writes.
const FORMAT: i64 = 1;
/// The file of SQLite's log is cut to this after it was carried over, in bytes.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Prepared statements that are kept: more than there are.
const STATEMENTS_MAX: usize = 128;

const TABLES: &str = "
CREATE TABLE node (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL,
    users INTEGER NOT NULL,
    mailboxes INTEGER NOT NULL,
    envelopes INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO node VALUES (1, 0, 0, 0, 0, 0);

CREATE TABLE users (
    user BLOB PRIMARY KEY,
    terms BLOB NOT NULL,
    signature BLOB NOT NULL,
    seen INTEGER NOT NULL,
    items INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX users_by_seen ON users (seen);

CREATE TABLE mailboxes (
    device BLOB PRIMARY KEY,
    user BLOB NOT NULL REFERENCES users,
    version INTEGER NOT NULL,
    terms BLOB NOT NULL,
    signature BLOB NOT NULL,
    certificate BLOB NOT NULL,
    certificate_signature BLOB NOT NULL,
    seen INTEGER NOT NULL,
    changed INTEGER NOT NULL DEFAULT 0,
    envelopes INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX mailboxes_of ON mailboxes (user);
CREATE INDEX mailboxes_by_seen ON mailboxes (seen);

CREATE TABLE envelopes (
    number INTEGER PRIMARY KEY,
    device BLOB NOT NULL REFERENCES mailboxes,
    id BLOB NOT NULL,
    writer BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE (device, id)
) STRICT;
CREATE INDEX envelopes_for ON envelopes (device, number);
CREATE INDEX envelopes_by_end ON envelopes (not_after);

CREATE TABLE shares (
    device BLOB NOT NULL,
    writer BLOB NOT NULL,
    envelopes INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (device, writer)
) STRICT, WITHOUT ROWID;

CREATE TABLE taken (
    number INTEGER PRIMARY KEY,
    device BLOB NOT NULL REFERENCES mailboxes,
    id BLOB NOT NULL,
    not_after INTEGER NOT NULL,
    UNIQUE (device, id)
) STRICT;
CREATE INDEX taken_by ON taken (device, number);
CREATE INDEX taken_by_end ON taken (not_after);

CREATE TABLE keys (
    number INTEGER PRIMARY KEY,
    device BLOB NOT NULL REFERENCES mailboxes,
    key BLOB NOT NULL,
    kind INTEGER NOT NULL,
    prekey BLOB NOT NULL,
    signature BLOB NOT NULL,
    UNIQUE (device, key)
) STRICT;
CREATE INDEX keys_of ON keys (device, kind, number);

CREATE TABLE askers (
    device BLOB NOT NULL REFERENCES mailboxes,
    asker BLOB NOT NULL,
    since INTEGER NOT NULL,
    given INTEGER NOT NULL,
    PRIMARY KEY (device, asker)
) STRICT, WITHOUT ROWID;
CREATE INDEX askers_by_since ON askers (since);

CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    user BLOB NOT NULL REFERENCES users,
    key BLOB NOT NULL,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE (user, key)
) STRICT;
CREATE INDEX items_of ON items (user, number);

CREATE TABLE agreements (
    subject BLOB NOT NULL,
    peer BLOB NOT NULL,
    upto INTEGER NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (subject, peer)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER user_came AFTER INSERT ON users BEGIN
    UPDATE node SET users = users + 1;
END;
CREATE TRIGGER user_went AFTER DELETE ON users BEGIN
    UPDATE node SET users = users - 1;
    DELETE FROM agreements WHERE subject = old.user;
END;
CREATE TRIGGER mailbox_opened AFTER INSERT ON mailboxes BEGIN
    UPDATE node SET mailboxes = mailboxes + 1;
END;
CREATE TRIGGER mailbox_closed AFTER DELETE ON mailboxes BEGIN
    UPDATE node SET mailboxes = mailboxes - 1;
    DELETE FROM agreements WHERE subject = old.device;
END;
CREATE TRIGGER envelope_came AFTER INSERT ON envelopes BEGIN
    UPDATE node SET envelopes = envelopes + 1, bytes = bytes + length(new.sealed);
    UPDATE mailboxes SET envelopes = envelopes + 1, bytes = bytes + length(new.sealed), changed = new.number WHERE device = new.device;
    INSERT INTO shares VALUES (new.device, new.writer, 1, length(new.sealed))
        ON CONFLICT DO UPDATE SET envelopes = envelopes + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER envelope_went AFTER DELETE ON envelopes BEGIN
    UPDATE node SET envelopes = envelopes - 1, bytes = bytes - length(old.sealed);
    UPDATE mailboxes SET envelopes = envelopes - 1, bytes = bytes - length(old.sealed) WHERE device = old.device;
    UPDATE shares SET envelopes = envelopes - 1, bytes = bytes - length(old.sealed) WHERE device = old.device AND writer = old.writer;
    DELETE FROM shares WHERE device = old.device AND writer = old.writer AND envelopes = 0;
END;
CREATE TRIGGER item_came AFTER INSERT ON items BEGIN
    UPDATE node SET bytes = bytes + length(new.sealed);
    UPDATE users SET items = items + 1 WHERE user = new.user;
END;
CREATE TRIGGER item_changed AFTER UPDATE ON items BEGIN
    UPDATE node SET bytes = bytes + length(new.sealed) - length(old.sealed);
END;
CREATE TRIGGER item_went AFTER DELETE ON items BEGIN
    UPDATE node SET bytes = bytes - length(old.sealed);
    UPDATE users SET items = items - 1 WHERE user = old.user;
END;
";

/// Opens the file, or makes it.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), source };
    let mut connection = Connection::open(path).map_err(unreadable)?;
    let found = set_up(&mut connection).map_err(unreadable)?;
    if found > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    Ok(connection)
}

/// Makes the tables where there are none; the format that the file has.
fn set_up(connection: &mut Connection) -> rusqlite::Result<i64> {
    // Before anything is written to a file that a later version may have made.
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > FORMAT {
        return Ok(found);
    }
    if found == 0 {
        // Only a file without tables can be told to give room back.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was answered with "kept" is on the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    if found == 0 {
        let making = connection.transaction()?;
        making.execute_batch(TABLES)?;
        making.pragma_update(None, "user_version", FORMAT)?;
        making.commit()?;
    }
    Ok(FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_of_a_later_version_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mail.sqlite");
        open(&path).expect("opens").pragma_update(None, "user_version", FORMAT + 1).expect("works");
        let before = fs::read(&path).expect("reads");
        let refused = open(&path).expect_err("is refused");
        assert!(matches!(refused, OpenError::Newer { found, .. } if found == FORMAT + 1));
        assert_eq!(fs::read(&path).expect("reads"), before);
    }

    #[test]
    fn what_is_no_store_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mail.sqlite");
        fs::write(&path, [7; 5000]).expect("writes");
        let refused = open(&path).expect_err("is refused").to_string();
        assert!(refused.contains("mail.sqlite") && refused.contains("move it away"), "{refused}");
    }
}
