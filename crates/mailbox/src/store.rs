//! The store: its file, its batches, and its totals.

use crate::error::{MailError, OpenError};
use crate::limits::Limits;
use crate::schema;
use ahoy_protocol::{Signable, Signed, UnixMillis, ids::Signature};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use std::path::Path;

/// The mail of a supernode.
#[derive(Debug)]
pub struct MailStore {
    pub(crate) connection: Connection,
    pub(crate) limits: Limits,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Users.
    pub users: u64,
    /// Devices that have a mailbox.
    pub mailboxes: u64,
    /// Envelopes that wait.
    pub envelopes: u64,
    /// Bytes of sealed content, of envelopes and vaults.
    pub bytes: u64,
}

impl MailStore {
    /// Opens the store in this file, and makes it if there is none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        Ok(Self { connection: schema::open(path)?, limits })
    }

    /// Does several things that become durable together: waiting for the disk once costs as much as waiting once for each.
    ///
    /// # Errors
    /// If they could not be written: then nothing of all that was done has been.
    pub fn together<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<T, MailError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self);
        if let Err(error) = self.connection.execute_batch("COMMIT") {
            // It fails where SQLite has rolled back by itself, and there is nothing left to do.
            let _ = self.connection.execute_batch("ROLLBACK");
            return Err(error.into());
        }
        Ok(done)
    }

    /// How much there is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn totals(&self) -> Result<Totals, MailError> {
        let totals = |row: &Row<'_>| {
            Ok(Totals { users: count(row, 0)?, mailboxes: count(row, 1)?, envelopes: count(row, 2)?, bytes: count(row, 3)? })
        };
        Ok(one(&self.connection, "SELECT users, mailboxes, envelopes, bytes FROM node", [], totals)?.unwrap_or_default())
    }
}

/// The next number of the store.
pub(crate) fn next_number(connection: &Connection, now: UnixMillis) -> Result<i64, MailError> {
    let mut statement = connection.prepare_cached("UPDATE node SET number = max(number + 1, ?1) RETURNING number")?;
    Ok(statement.query_row(params![integer(now.0)], |row| row.get(0))?)
}

/// The row that a query finds, if there is one.
pub(crate) fn one<T>(
    connection: &Connection,
    query: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(query)?.query_row(params, read).optional()
}

/// Runs a statement; how many rows it changed.
pub(crate) fn run(connection: &Connection, statement: &str, params: impl Params) -> rusqlite::Result<usize> {
    connection.prepare_cached(statement)?.execute(params)
}

/// What is signed, as it lies in two columns from `at` on.
pub(crate) fn signed<T: Signable>(row: &Row<'_>, at: usize) -> rusqlite::Result<Signed<T>> {
    Ok(Signed::from_parts(row.get(at)?, Signature(row.get(at + 1)?)))
}

/// A column that counts.
pub(crate) fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

/// A count of rows as SQLite has it.
pub(crate) fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A number as SQLite has it. Those that are too great were written by somebody who wanted to see what happens.
pub(crate) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
