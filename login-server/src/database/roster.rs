//! What the roster is made of: its version, salts, and revoked serials.

use super::{array, integer, time, unsigned};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::Salt;
use ahoy_protocol::roster::{REVOKED_MAX, SaltPeriod};
use sqlx::AnyConnection;

/// The roster's version.
pub(crate) async fn version(connection: &mut AnyConnection) -> Result<u64, sqlx::Error> {
    unsigned(&sqlx::query("SELECT value FROM counters WHERE name = 'roster'").fetch_one(connection).await?, 0)
}

/// The roster changes. A version is at least the time in seconds, so that a database restored from an old backup does not
/// bring back versions that everybody has seen.
pub(crate) async fn bump(write: &mut AnyConnection, now: UnixMillis) -> Result<(), sqlx::Error> {
    let update = "UPDATE counters SET value = CASE WHEN value >= $1 THEN value + 1 ELSE $1 END WHERE name = 'roster'";
    sqlx::query(update).bind(integer(now.0 / 1000)).execute(write).await?;
    Ok(())
}

/// The last two salts, the newest last.
pub(crate) async fn salts(connection: &mut AnyConnection) -> Result<Vec<SaltPeriod>, sqlx::Error> {
    let rows = sqlx::query("SELECT since, salt FROM salts ORDER BY since DESC LIMIT 2").fetch_all(connection).await?;
    rows.iter().rev().map(|row| Ok(SaltPeriod { since: time(row, 0)?, salt: Salt(array(row, 1)?) })).collect()
}

/// Adds a salt, and forgets those before its predecessor.
pub(crate) async fn add_salt(write: &mut AnyConnection, period: &SaltPeriod) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO salts (since, salt) VALUES ($1, $2)";
    sqlx::query(insert).bind(integer(period.since.0)).bind(period.salt.as_bytes().as_slice()).execute(&mut *write).await?;
    let delete = "DELETE FROM salts WHERE since NOT IN (SELECT since FROM salts ORDER BY since DESC LIMIT 2)";
    sqlx::query(delete).execute(write).await?;
    Ok(())
}

/// The serials that count no more. Where they are too many, those that would have counted longest are told.
pub(crate) async fn revoked(connection: &mut AnyConnection) -> Result<Vec<u64>, sqlx::Error> {
    let rows = sqlx::query("SELECT serial FROM revoked ORDER BY not_after DESC, serial LIMIT $1").bind(integer(REVOKED_MAX as u64));
    rows.fetch_all(connection).await?.iter().map(|row| unsigned(row, 0)).collect()
}

/// Makes a serial count no more, until the last certificate that has it has lapsed.
pub(crate) async fn revoke(write: &mut AnyConnection, serial: u64, not_after: UnixMillis) -> Result<(), sqlx::Error> {
    let insert =
        "INSERT INTO revoked (serial, not_after) VALUES ($1, $2) ON CONFLICT (serial) DO UPDATE SET not_after = excluded.not_after";
    sqlx::query(insert).bind(integer(serial)).bind(integer(not_after.0)).execute(write).await?;
    Ok(())
}

/// Makes a serial count again.
pub(crate) async fn unrevoke(write: &mut AnyConnection, serial: u64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM revoked WHERE serial = $1").bind(integer(serial)).execute(write).await?;
    Ok(())
}

/// Forgets serials whose certificates have lapsed. Returns how many they were.
pub(crate) async fn forget_lapsed(write: &mut AnyConnection, now: UnixMillis) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query("DELETE FROM revoked WHERE not_after < $1").bind(integer(now.0)).execute(write).await?.rows_affected())
}
