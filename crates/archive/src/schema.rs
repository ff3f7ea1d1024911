//! The tables, and how an archive of an earlier format becomes one of this.
//!
//! The format is SQLite's `user_version`. A migration is a list of statements; those that are due run in one transaction, after a copy of the
//! file was made, so that an archive has one format or the other, whenever the program dies.

use crate::error::ArchiveError;
use rusqlite::{Connection, TransactionBehavior};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The steps from an empty file to the present format. One that was released is not changed; a new one is added.
pub(crate) const MIGRATIONS: &[&str] = &[FORMAT_1];

/// Times are Unix milliseconds; they and sequence numbers are 64 bits, of which SQLite takes the first for a sign.
const FORMAT_1: &str = "
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    conversation BLOB NOT NULL UNIQUE,
    title TEXT NOT NULL DEFAULT '',
    draft TEXT NOT NULL DEFAULT ''
);

-- What one device writes in one conversation. `user` is empty while the log is only known from what others say about it.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations,
    author BLOB NOT NULL,
    user TEXT NOT NULL DEFAULT '',
    read INTEGER NOT NULL DEFAULT 0,
    UNIQUE (conversation, author)
);

CREATE TABLE entries (
    log INTEGER NOT NULL REFERENCES logs,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    received INTEGER NOT NULL,
    shown INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (log, seq)
) WITHOUT ROWID;

-- What shown entries amount to: a row for each entry that people see as a message, with its present text.
-- `placed`, `rank` and `seq` are its place in the conversation; `scope` lets a search be about one conversation.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    conversation INTEGER NOT NULL REFERENCES conversations,
    log INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    placed INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    edited INTEGER,
    deleted INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL DEFAULT 0,
    scope TEXT NOT NULL,
    text TEXT NOT NULL,
    FOREIGN KEY (log, seq) REFERENCES entries
);
CREATE INDEX messages_in_order ON messages (conversation, placed, rank, seq);
-- With `deleted`, so that what is unread is counted in the index alone.
CREATE INDEX messages_by_log ON messages (log, seq, deleted);

-- The last that each user did to a message: a new text, or its deletion. Kept although the message may not be here yet.
CREATE TABLE edits (
    log INTEGER NOT NULL REFERENCES logs,
    seq INTEGER NOT NULL,
    user TEXT NOT NULL,
    written INTEGER NOT NULL,
    by_author BLOB NOT NULL,
    by_seq INTEGER NOT NULL,
    text TEXT,
    PRIMARY KEY (log, seq, user)
) WITHOUT ROWID;

CREATE TABLE reactions (
    log INTEGER NOT NULL REFERENCES logs,
    seq INTEGER NOT NULL,
    emoji TEXT NOT NULL,
    user TEXT NOT NULL,
    written INTEGER NOT NULL,
    by_author BLOB NOT NULL,
    by_seq INTEGER NOT NULL,
    is_on INTEGER NOT NULL,
    PRIMARY KEY (log, seq, emoji, user)
) WITHOUT ROWID;

CREATE VIRTUAL TABLE search USING fts5 (
    scope, text, content = 'messages', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2', prefix = '1 2 3'
);
-- Deleted words leave the index at once, and not with the next merge of its parts.
INSERT INTO search (search, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER messages_added AFTER INSERT ON messages BEGIN
    INSERT INTO search (rowid, scope, text) VALUES (new.id, new.scope, new.text);
END;
CREATE TRIGGER messages_changed AFTER UPDATE OF text ON messages BEGIN
    INSERT INTO search (search, rowid, scope, text) VALUES ('delete', old.id, old.scope, old.text);
    INSERT INTO search (rowid, scope, text) VALUES (new.id, new.scope, new.text);
END;

CREATE TABLE registers (key TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE outbox (
    id BLOB PRIMARY KEY,
    addressee BLOB NOT NULL,
    next_try INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    bytes BLOB NOT NULL
);
CREATE INDEX outbox_in_order ON outbox (next_try);

CREATE TABLE seen (id BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX seen_in_order ON seen (until);

CREATE TABLE calls (id BLOB PRIMARY KEY, began INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX calls_in_order ON calls (began);
";

/// Brings the archive at `path` to the format that `migrations` lead to.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), ArchiveError> {
    let failed = |error: rusqlite::Error| ArchiveError::of(path, &error);
    let readable = u32::try_from(migrations.len()).expect("there are few formats");
    let found = version(connection).map_err(failed)?;
    if found > readable {
        return Err(ArchiveError::Newer { path: path.to_owned(), found, readable });
    }
    // Here and not before: what a later version wrote is not touched in any way.
    settle(connection).map_err(failed)?;
    if found == readable {
        return Ok(());
    }
    if found > 0 {
        back_up(connection, path, found)?;
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(failed)?;
    for migration in &migrations[found as usize..] {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", readable).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// The format of the archive; 0 for an empty file.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Where the copy lies that is made before an archive of format `version` is brought to a later one.
pub(crate) fn backup_path(path: &Path, version: u32) -> PathBuf {
    path.with_extension(format!("format-{version}.backup"))
}

/// Settings of the connection that write to the file, or are about writing.
fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         -- A commit is on the disk when it returns: the mailboxes are told to delete what was committed.
         PRAGMA synchronous = FULL;
         -- What was deleted is overwritten.
         PRAGMA secure_delete = ON;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         -- In KiB: enough for the upper levels of every index of a million messages.
         PRAGMA cache_size = -32768;
         -- In bytes: a log file that a large import made long becomes short again.
         PRAGMA journal_size_limit = 16777216;",
    )
}

/// Copies the file, which stays encrypted under the same key, beside itself.
fn back_up(connection: &Connection, path: &Path, version: u32) -> Result<(), ArchiveError> {
    // All of the log goes into the file; with this the only connection to it, the file is then the archive.
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|error| ArchiveError::of(path, &error))?;
    if busy != 0 {
        return Err(ArchiveError::InUse { path: path.to_owned() });
    }
    let copied = copy_whole(path, &backup_path(path, version));
    copied.map_err(|source| ArchiveError::Backup { path: path.to_owned(), source })
}

fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = to.with_extension("unfinished");
    let mut copy = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()?;
    std::fs::rename(&unfinished, to)?;
    File::open(to.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Archive, Batch};
    use tempfile::TempDir;

    const KEY: [u8; 32] = [7; 32];
    const NEXT: &str = "CREATE TABLE more (id INTEGER PRIMARY KEY); INSERT INTO more SELECT length(bytes) FROM registers;";

    fn with_next() -> Vec<&'static str> {
        [MIGRATIONS, &[NEXT]].concat()
    }

    /// A folder with an archive of the present format, in which one register is kept.
    fn folder() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut batch = Batch::new();
        batch.save("register", vec![1, 2, 3]);
        Archive::open(dir.path(), &KEY).unwrap().commit(&batch).unwrap();
        dir
    }

    fn files(dir: &TempDir) -> Vec<(String, Vec<u8>)> {
        let read = |file: std::fs::DirEntry| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap());
        let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| read(file.unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn an_earlier_format_is_copied_and_brought_to_this_one() {
        let dir = folder();
        let archive = Archive::open_with(dir.path(), &KEY, &with_next()).unwrap();
        assert_eq!(archive.register("register").unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(archive.connection.query_row("SELECT id FROM more", [], |row| row.get(0)), Ok(3));

        // The copy is an archive of the earlier format.
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(backup_path(archive.path(), 1), other.path().join("archive.sqlite")).unwrap();
        assert_eq!(Archive::open(other.path(), &KEY).unwrap().register("register").unwrap(), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_later_format_is_refused_and_not_touched() {
        let dir = folder();
        drop(Archive::open_with(dir.path(), &KEY, &with_next()).unwrap());
        let before = files(&dir);
        let refused = Archive::open(dir.path(), &KEY).unwrap_err();
        assert!(matches!(refused, ArchiveError::Newer { found: 2, readable: 1, .. }), "{refused}");
        assert_eq!(files(&dir), before);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_archive_as_it_was() {
        let dir = folder();
        let broken = [MIGRATIONS, &["CREATE TABLE more (id INTEGER); DROP TABLE registers; SELECT no_such_function();"]].concat();
        assert!(Archive::open_with(dir.path(), &KEY, &broken).is_err());
        assert_eq!(Archive::open(dir.path(), &KEY).unwrap().register("register").unwrap(), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_full_disk_is_told_and_what_was_kept_stays() {
        let dir = folder();
        let mut archive = Archive::open(dir.path(), &KEY).unwrap();
        let pages: i64 = archive.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        archive.connection.pragma_update(None, "max_page_count", pages + 4).unwrap();
        let mut batch = Batch::new();
        batch.save("register", vec![4]);
        batch.save("large", vec![0; 1_000_000]);
        let refused = archive.commit(&batch).unwrap_err();
        assert!(matches!(refused, ArchiveError::Full { .. }), "{refused}");
        assert_eq!(archive.register("register").unwrap(), Some(vec![1, 2, 3]), "nothing of the batch is kept");
        let mut batch = Batch::new();
        batch.save("register", vec![5]);
        archive.commit(&batch).unwrap();
        assert_eq!(archive.register("register").unwrap(), Some(vec![5]), "what has room is kept");
    }
}
