//! Nodes, and the tokens with which they join.

use super::{integer, time, unsigned};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::NodeRequest;
use ahoy_protocol::{NodeKey, UnixMillis, Wire};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// A node that enrolled.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// What it last said of itself: key, role, addresses.
    pub(crate) request: NodeRequest,
    /// Serial of its certificate.
    pub(crate) serial: u64,
    /// When its certificate was last issued.
    pub(crate) renewed: UnixMillis,
    /// Whether the roster has it.
    pub(crate) listed: bool,
    /// Whether somebody removed it.
    pub(crate) removed: bool,
}

/// A query for nodes, in the columns that [`read_node`] expects.
macro_rules! select_nodes {
    ($rest:literal) => {
        concat!("SELECT request, serial, renewed, listed, removed FROM nodes ", $rest)
    };
}

/// The node with this key.
pub(crate) async fn find(connection: &mut AnyConnection, node: &NodeKey) -> Result<Option<Node>, sqlx::Error> {
    let row = sqlx::query(select_nodes!("WHERE node = $1")).bind(node.as_bytes().as_slice()).fetch_optional(connection).await?;
    row.map(|row| read_node(&row)).transpose()
}

/// All nodes, in the order in which they joined.
pub(crate) async fn all(connection: &mut AnyConnection) -> Result<Vec<Node>, sqlx::Error> {
    sqlx::query(select_nodes!("ORDER BY serial")).fetch_all(connection).await?.iter().map(read_node).collect()
}

/// The nodes that the roster has, in the order in which they joined.
pub(crate) async fn listed(connection: &mut AnyConnection) -> Result<Vec<Node>, sqlx::Error> {
    sqlx::query(select_nodes!("WHERE listed = 1 ORDER BY serial")).fetch_all(connection).await?.iter().map(read_node).collect()
}

/// How many nodes the roster has.
pub(crate) async fn listed_count(connection: &mut AnyConnection) -> Result<u64, sqlx::Error> {
    unsigned(&sqlx::query("SELECT COUNT(*) FROM nodes WHERE listed = 1").fetch_one(connection).await?, 0)
}

/// Writes a node, in the place of one with the same key.
pub(crate) async fn put(write: &mut AnyConnection, node: &Node) -> Result<(), sqlx::Error> {
    let request = node.request.encode().map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO nodes (node, role, request, serial, renewed, listed, removed) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (node) DO UPDATE SET role = excluded.role, request = excluded.request, serial = excluded.serial,
            renewed = excluded.renewed, listed = excluded.listed, removed = excluded.removed",
    )
    .bind(node.request.node.as_bytes().as_slice())
    .bind(role_text(node.request.role))
    .bind(request)
    .bind(integer(node.serial))
    .bind(integer(node.renewed.0))
    .bind(i64::from(node.listed))
    .bind(i64::from(node.removed))
    .execute(write)
    .await?;
    Ok(())
}

/// Takes the nodes off the roster that last renewed before `since`. Returns how many they were.
pub(crate) async fn unlist(write: &mut AnyConnection, since: UnixMillis) -> Result<u64, sqlx::Error> {
    let update = "UPDATE nodes SET listed = 0 WHERE listed = 1 AND renewed < $1";
    Ok(sqlx::query(update).bind(integer(since.0)).execute(write).await?.rows_affected())
}

/// Keeps the hash of a token.
pub(crate) async fn put_token(write: &mut AnyConnection, hash: &[u8; 32], now: UnixMillis) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO tokens (hash, node, created) VALUES ($1, $2, $3)";
    sqlx::query(insert).bind(hash.as_slice()).bind(Vec::<u8>::new()).bind(integer(now.0)).execute(write).await?;
    Ok(())
}

/// Binds a token to a node. False if there is no such token, or another node has it.
pub(crate) async fn use_token(write: &mut AnyConnection, hash: &[u8; 32], node: &NodeKey) -> Result<bool, sqlx::Error> {
    let update = "UPDATE tokens SET node = $1 WHERE hash = $2 AND (node = $3 OR node = $1)";
    let node = node.as_bytes().as_slice();
    let result = sqlx::query(update).bind(node).bind(hash.as_slice()).bind(Vec::<u8>::new()).execute(write).await?;
    Ok(result.rows_affected() == 1)
}

/// Whether [`use_token`] would bind this token to this node. Changes nothing.
pub(crate) async fn may_use_token(connection: &mut AnyConnection, hash: &[u8; 32], node: &NodeKey) -> Result<bool, sqlx::Error> {
    let select = "SELECT COUNT(*) FROM tokens WHERE hash = $1 AND (node = $2 OR node = $3)";
    let query = sqlx::query(select).bind(hash.as_slice()).bind(Vec::<u8>::new()).bind(node.as_bytes().as_slice());
    Ok(unsigned(&query.fetch_one(connection).await?, 0)? > 0)
}

/// Forgets the tokens that a node used.
pub(crate) async fn forget_tokens(write: &mut AnyConnection, node: &NodeKey) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM tokens WHERE node = $1").bind(node.as_bytes().as_slice()).execute(write).await?;
    Ok(())
}

fn role_text(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Supernode => "supernode",
        NodeRole::Relay => "relay",
    }
}

fn read_node(row: &AnyRow) -> Result<Node, sqlx::Error> {
    let request: Vec<u8> = row.try_get(0)?;
    Ok(Node {
        request: NodeRequest::decode(&request).map_err(|_| super::decode(0))?,
        serial: unsigned(row, 1)?,
        renewed: time(row, 2)?,
        listed: unsigned(row, 3)? != 0,
        removed: unsigned(row, 4)? != 0,
    })
}
