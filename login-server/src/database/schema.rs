//! The tables, and how an older database comes up to date.

use crate::error::ServeError;
use sqlx::{AnyPool, AssertSqlSafe, Row};

/// One list of statements for each format; a database of format *n* needs those from the *n*th on. Never edited once
/// published, only added to. `{bytes}` and `{integer}` are the only words in which the two databases differ.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value {integer} NOT NULL)",
    "INSERT INTO counters (name, value) VALUES ('writes', 0), ('serial', 0), ('roster', 0)",
    // An account. `record` and `backup` are empty after a reset; `free_from` is then when the name may be registered again, else zero.
    "CREATE TABLE users (
        name TEXT PRIMARY KEY,
        record {bytes} NOT NULL,
        user_key {bytes} NOT NULL,
        epoch {integer} NOT NULL,
        serial {integer} NOT NULL,
        backup {bytes} NOT NULL,
        disabled {integer} NOT NULL,
        free_from {integer} NOT NULL,
        created {integer} NOT NULL)",
    // A device. `statement` is what the user key signed, name, epoch and label among it; `revoked` is zero for one that counts.
    "CREATE TABLE devices (
        device {bytes} PRIMARY KEY,
        name TEXT NOT NULL REFERENCES users (name),
        statement {bytes} NOT NULL,
        signature {bytes} NOT NULL,
        serial {integer} NOT NULL,
        added {integer} NOT NULL,
        revoked {integer} NOT NULL)",
    "CREATE INDEX devices_of_user ON devices (name)",
    // A node. `request` is what the node last said of itself; `listed` tells whether the roster has it.
    "CREATE TABLE nodes (
        node {bytes} PRIMARY KEY,
        role TEXT NOT NULL,
        request {bytes} NOT NULL,
        serial {integer} NOT NULL,
        renewed {integer} NOT NULL,
        listed {integer} NOT NULL,
        removed {integer} NOT NULL)",
    // A token for one node: its hash, and the key that used it.
    "CREATE TABLE tokens (hash {bytes} PRIMARY KEY, node {bytes} NOT NULL, created {integer} NOT NULL)",
    "CREATE TABLE salts (since {integer} PRIMARY KEY, salt {bytes} NOT NULL)",
    // Serials in the roster's list of revoked certificates, until the last of them has expired by itself.
    "CREATE TABLE revoked (serial {integer} PRIMARY KEY, not_after {integer} NOT NULL)",
]];

/// Brings the tables up to date.
pub(super) async fn migrate(pool: &AnyPool, sqlite: bool) -> Result<(), ServeError> {
    // SQLite takes the write lock at once, instead of failing when two who have read both want to write.
    let mut transaction = pool.begin_with(if sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" }).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)").execute(&mut *transaction).await?;
    let insert = "INSERT INTO meta (name, value) VALUES ('format', '0') ON CONFLICT (name) DO UPDATE SET value = meta.value";
    sqlx::query(insert).execute(&mut *transaction).await?;
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'format'").fetch_one(&mut *transaction).await?;
    let format: u32 = row.try_get::<String, _>(0)?.parse().map_err(|_| ServeError::Database("the table meta is damaged".into()))?;
    let readable = u32::try_from(MIGRATIONS.len()).expect("a handful");
    if format > readable {
        return Err(ServeError::DatabaseNewer { found: format, readable });
    }
    for statement in MIGRATIONS[format as usize..].iter().copied().flatten() {
        let sql = statement.replace("{bytes}", if sqlite { "BLOB" } else { "BYTEA" }).replace("{integer}", "BIGINT");
        // Made of constants alone.
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
    }
    sqlx::query("UPDATE meta SET value = $1 WHERE name = 'format'").bind(readable.to_string()).execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}
