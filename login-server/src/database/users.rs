//! Accounts and their devices.

use super::{array, integer, next_serial, time, unsigned};
use ahoy_protocol::certificate::DeviceStatement;
use ahoy_protocol::{DeviceKey, Name, Signature, Signed, UnixMillis, UserKey};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// An account.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: Name,
    /// What OPAQUE keeps of the password; empty after a reset.
    pub(crate) record: Vec<u8>,
    pub(crate) user: UserKey,
    pub(crate) epoch: u32,
    /// Serial of the user's certificate.
    pub(crate) serial: u64,
    /// The user key, sealed; empty after a reset.
    pub(crate) backup: Vec<u8>,
    pub(crate) disabled: bool,
    /// After a reset: when the name may be registered again.
    pub(crate) free_from: Option<UnixMillis>,
    pub(crate) created: UnixMillis,
}

/// A device of an account.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) device: DeviceKey,
    pub(crate) name: Name,
    pub(crate) statement: Signed<DeviceStatement>,
    /// Serial of the device's certificate.
    pub(crate) serial: u64,
    pub(crate) revoked: bool,
}

/// A query for accounts, in the columns that [`read_user`] expects.
macro_rules! select_users {
    ($rest:literal) => {
        concat!("SELECT name, record, user_key, epoch, serial, backup, disabled, free_from, created FROM users ", $rest)
    };
}

/// A query for devices, in the columns that [`read_device`] expects.
macro_rules! select_devices {
    ($rest:literal) => {
        concat!("SELECT device, name, statement, signature, serial, revoked FROM devices ", $rest)
    };
}

/// The account with this name.
pub(crate) async fn find(connection: &mut AnyConnection, name: &Name) -> Result<Option<User>, sqlx::Error> {
    let select = select_users!("WHERE name = $1");
    sqlx::query(select).bind(name.as_str()).fetch_optional(connection).await?.map(|row| read_user(&row)).transpose()
}

/// All accounts, by name.
pub(crate) async fn all(connection: &mut AnyConnection) -> Result<Vec<User>, sqlx::Error> {
    let select = select_users!("ORDER BY name");
    sqlx::query(select).fetch_all(connection).await?.iter().map(read_user).collect()
}

/// Writes an account, in the place of one with the same name.
pub(crate) async fn put(write: &mut AnyConnection, user: &User) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO users (name, record, user_key, epoch, serial, backup, disabled, free_from, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (name) DO UPDATE SET record = excluded.record, user_key = excluded.user_key, epoch = excluded.epoch,
            serial = excluded.serial, backup = excluded.backup, disabled = excluded.disabled,
            free_from = excluded.free_from, created = excluded.created",
    )
    .bind(user.name.as_str())
    .bind(user.record.as_slice())
    .bind(user.user.as_bytes().as_slice())
    .bind(i64::from(user.epoch))
    .bind(integer(user.serial))
    .bind(user.backup.as_slice())
    .bind(i64::from(user.disabled))
    .bind(integer(user.free_from.map_or(0, |time| time.0)))
    .bind(integer(user.created.0))
    .execute(write)
    .await?;
    Ok(())
}

/// The device with this key, whoever's it is.
pub(crate) async fn device(connection: &mut AnyConnection, device: &DeviceKey) -> Result<Option<Device>, sqlx::Error> {
    let select = select_devices!("WHERE device = $1");
    let row = sqlx::query(select).bind(device.as_bytes().as_slice()).fetch_optional(connection).await?;
    row.map(|row| read_device(&row)).transpose()
}

/// The devices of an account that count, the oldest first.
pub(crate) async fn devices(connection: &mut AnyConnection, name: &Name) -> Result<Vec<Device>, sqlx::Error> {
    let select = select_devices!("WHERE name = $1 AND revoked = 0 ORDER BY added, serial");
    sqlx::query(select).bind(name.as_str()).fetch_all(connection).await?.iter().map(read_device).collect()
}

/// Writes a device that counts, in the place of one with the same key. One that counted before keeps its serial, so that
/// revoking it ends its older certificates too; any other gets a new one.
pub(crate) async fn put_device(
    write: &mut AnyConnection,
    statement: &DeviceStatement,
    signed: &Signed<DeviceStatement>,
    now: UnixMillis,
) -> Result<(), sqlx::Error> {
    let serial = next_serial(write).await?;
    sqlx::query(
        "INSERT INTO devices (device, name, statement, signature, serial, added, revoked) VALUES ($1, $2, $3, $4, $5, $6, 0)
         ON CONFLICT (device) DO UPDATE SET name = excluded.name, statement = excluded.statement, signature = excluded.signature,
            serial = CASE WHEN devices.revoked = 0 AND devices.name = excluded.name THEN devices.serial ELSE excluded.serial END,
            added = excluded.added, revoked = 0",
    )
    .bind(statement.device.as_bytes().as_slice())
    .bind(statement.name.as_str())
    .bind(signed.body())
    .bind(signed.signature().0.as_slice())
    .bind(integer(serial))
    .bind(integer(now.0))
    .execute(write)
    .await?;
    Ok(())
}

/// Makes no device of an account count any more.
pub(crate) async fn revoke_devices(write: &mut AnyConnection, name: &Name, now: UnixMillis) -> Result<(), sqlx::Error> {
    let update = "UPDATE devices SET revoked = $1 WHERE name = $2 AND revoked = 0";
    sqlx::query(update).bind(integer(now.0)).bind(name.as_str()).execute(write).await?;
    Ok(())
}

fn read_user(row: &AnyRow) -> Result<User, sqlx::Error> {
    let free_from = time(row, 7)?;
    Ok(User {
        name: Name::try_from(row.try_get::<String, _>(0)?).map_err(|_| super::decode(0))?,
        record: row.try_get(1)?,
        user: UserKey(array(row, 2)?),
        epoch: u32::try_from(unsigned(row, 3)?).map_err(|_| super::decode(3))?,
        serial: unsigned(row, 4)?,
        backup: row.try_get(5)?,
        disabled: unsigned(row, 6)? != 0,
        free_from: (free_from.0 != 0).then_some(free_from),
        created: time(row, 8)?,
    })
}

fn read_device(row: &AnyRow) -> Result<Device, sqlx::Error> {
    Ok(Device {
        device: DeviceKey(array(row, 0)?),
        name: Name::try_from(row.try_get::<String, _>(1)?).map_err(|_| super::decode(1))?,
        statement: Signed::from_parts(row.try_get(2)?, Signature(array(row, 3)?)),
        serial: unsigned(row, 4)?,
        revoked: unsigned(row, 5)? != 0,
    })
}
