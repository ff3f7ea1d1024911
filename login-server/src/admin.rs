//! What whoever runs the network does with accounts and nodes. It works on the database, so a running server need not be asked.

use crate::clock::Clock;
use crate::database::{Database, nodes, roster, users};
use crate::error::ServeError;
use crate::folder::{self, DatabaseAddress};
use crate::nodes::token_hash;
use crate::roster::revoked_until;
use ahoy_identity::random;
use ahoy_protocol::{Name, NodeKey, UnixMillis};
use serde::Serialize;
use sqlx::AnyConnection;
use std::path::Path;
use std::time::Duration;

/// How long after a reset nobody can register the name: its owner, and all who call him, have that long to notice.
pub const RESET_COOL_DOWN: Duration = Duration::from_secs(24 * 3600);
/// Letters of a token: 160 bits in base32.
const TOKEN_BYTES: usize = 20;

/// The accounts and nodes of a data folder.
#[derive(Debug)]
pub struct Admin {
    database: Database,
    clock: Clock,
}

/// An account, as `users list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserSummary {
    /// The name.
    pub name: String,
    /// `active`, `disabled`, or `reset`.
    pub status: &'static str,
    /// How many devices count.
    pub devices: usize,
    /// How often the name has been registered.
    pub epoch: u32,
    /// When it was first registered, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A node, as `nodes list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeSummary {
    /// Its key.
    pub node: String,
    /// `supernode` or `relay`.
    pub role: String,
    /// `listed`, `away`, or `removed`.
    pub status: &'static str,
    /// Where it serves QUIC.
    pub addresses: Vec<String>,
    /// When its certificate was last renewed, in milliseconds since the Unix epoch.
    pub renewed_ms: u64,
}

/// When the name of an account that is reset can be registered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoolDown {
    /// After [`RESET_COOL_DOWN`].
    Kept,
    /// At once.
    Skipped,
}

impl Admin {
    /// Opens the accounts of the data folder at `dir`.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn open(dir: &Path, clock: Clock) -> Result<Self, ServeError> {
        let folder = folder::open(dir)?;
        let database = Database::open(&DatabaseAddress::remembered(&folder)?).await?;
        Ok(Self { database, clock })
    }

    /// Makes a token with which one node can join.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn node_token(&self) -> Result<String, ServeError> {
        let token = base32(&random::<TOKEN_BYTES>());
        let mut write = self.database.write().await?;
        nodes::put_token(&mut write, &token_hash(&token), self.clock.now()).await?;
        write.commit().await?;
        Ok(token)
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn users(&self) -> Result<Vec<UserSummary>, ServeError> {
        let mut read = self.database.read().await?;
        let mut summaries = Vec::new();
        for user in users::all(&mut read).await? {
            let devices = users::devices(&mut read, &user.name).await?.len();
            summaries.push(UserSummary {
                name: user.name.to_string(),
                status: status(&user),
                devices,
                epoch: user.epoch,
                created_ms: user.created.0,
            });
        }
        Ok(summaries)
    }

    /// Refuses an account's sign-ins and renewals, and revokes its certificates.
    ///
    /// # Errors
    /// If there is no such account, or the database fails.
    pub async fn disable(&self, name: &Name) -> Result<(), ServeError> {
        let now = self.clock.now();
        let mut write = self.database.write().await?;
        let mut user = find(&mut write, name).await?;
        revoke(&mut write, &user, now).await?;
        user.disabled = true;
        users::put(&mut write, &user).await?;
        Ok(write.commit().await?)
    }

    /// Undoes [`Admin::disable`].
    ///
    /// # Errors
    /// If there is no such account, or the database fails.
    pub async fn enable(&self, name: &Name) -> Result<(), ServeError> {
        let mut write = self.database.write().await?;
        let mut user = find(&mut write, name).await?;
        user.disabled = false;
        users::put(&mut write, &user).await?;
        // What was reset stays revoked: its password is gone, and so are its devices.
        if user.free_from.is_none() {
            for serial in serials(&mut write, &user).await? {
                roster::unrevoke(&mut write, serial).await?;
            }
            roster::bump(&mut write, self.clock.now()).await?;
        }
        Ok(write.commit().await?)
    }

    /// Removes an account's password and backup and revokes its devices, so that the name can be registered again.
    ///
    /// # Errors
    /// If there is no such account, or the database fails.
    pub async fn reset(&self, name: &Name, cool_down: CoolDown) -> Result<(), ServeError> {
        let now = self.clock.now();
        let mut write = self.database.write().await?;
        let mut user = find(&mut write, name).await?;
        revoke(&mut write, &user, now).await?;
        users::revoke_devices(&mut write, name, now).await?;
        user.record.clear();
        user.backup.clear();
        user.free_from = Some(match cool_down {
            CoolDown::Kept => now.plus(RESET_COOL_DOWN),
            CoolDown::Skipped => now,
        });
        users::put(&mut write, &user).await?;
        Ok(write.commit().await?)
    }

    /// All nodes, in the order in which they joined.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn nodes(&self) -> Result<Vec<NodeSummary>, ServeError> {
        let mut read = self.database.read().await?;
        let summary = |node: nodes::Node| NodeSummary {
            node: node.request.node.to_string(),
            role: node.request.role.to_string(),
            status: match (node.removed, node.listed) {
                (true, _) => "removed",
                (false, true) => "listed",
                (false, false) => "away",
            },
            addresses: node.request.udp.iter().map(ToString::to_string).collect(),
            renewed_ms: node.renewed.0,
        };
        Ok(nodes::all(&mut read).await?.into_iter().map(summary).collect())
    }

    /// Takes a node out of the network. Only a new token brings it back.
    ///
    /// # Errors
    /// If there is no such node, or the database fails.
    pub async fn remove_node(&self, key: &str) -> Result<(), ServeError> {
        let now = self.clock.now();
        let unknown = || ServeError::UnknownNode(key.to_owned());
        let key = NodeKey::from_hex(key).ok_or_else(unknown)?;
        let mut write = self.database.write().await?;
        let mut node = nodes::find(&mut write, &key).await?.ok_or_else(unknown)?;
        node.removed = true;
        node.listed = false;
        nodes::put(&mut write, &node).await?;
        // A node may use its token again; this one would come back with it.
        nodes::forget_tokens(&mut write, &key).await?;
        roster::revoke(&mut write, node.serial, revoked_until(now)).await?;
        roster::bump(&mut write, now).await?;
        Ok(write.commit().await?)
    }
}

async fn find(connection: &mut AnyConnection, name: &Name) -> Result<users::User, ServeError> {
    users::find(connection, name).await?.ok_or_else(|| ServeError::UnknownUser(name.clone()))
}

/// Serials of all certificates of an account that count.
async fn serials(connection: &mut AnyConnection, user: &users::User) -> Result<Vec<u64>, sqlx::Error> {
    let devices = users::devices(connection, &user.name).await?;
    Ok(devices.iter().map(|device| device.serial).chain([user.serial]).collect())
}

async fn revoke(write: &mut AnyConnection, user: &users::User, now: UnixMillis) -> Result<(), sqlx::Error> {
    for serial in serials(write, user).await? {
        roster::revoke(write, serial, revoked_until(now)).await?;
    }
    roster::bump(write, now).await
}

fn status(user: &users::User) -> &'static str {
    match (user.disabled, user.free_from) {
        (true, _) => "disabled",
        (false, Some(_)) => "reset",
        (false, None) => "active",
    }
}

/// Lower-case base32 of `bytes`: letters and digits that survive being read aloud.
fn base32(bytes: &[u8; TOKEN_BYTES]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let group = |five: &[u8]| five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let letter = |bits: u64, n: u32| char::from(ALPHABET[(bits >> (5 * n) & 31) as usize]);
    bytes.chunks_exact(5).flat_map(|five| (0..8).rev().map(move |n| letter(group(five), n))).collect()
}
