//! Supernodes and relays: how they join, and how they stay.

use crate::accounts::{check_time, slow_down};
use crate::database::{next_serial, nodes, roster};
use crate::roster::has_room;
use crate::state::{App, Refusal};
use crate::throttle::NetworkPrefix;
use ahoy_identity::{sha256, verify};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::{EnrolNode, LoginError, NodeCredentials, NodeRequest, RenewNode};
use ahoy_protocol::{NodeKey, Signed, UnixMillis};
use sqlx::AnyConnection;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the database keeps of a token.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    sha256(&[b"ahoy/node-token/1", token.as_bytes()])
}

/// Makes a node part of the network.
pub(crate) async fn enrol(app: Arc<App>, from: NetworkPrefix, enrol: EnrolNode) -> Result<NodeCredentials, Refusal> {
    let now = app.now();
    app.throttle().node(now, from).map_err(slow_down)?;
    let request = check_request(&app, &enrol.request, now)?;
    let token = token_hash(&enrol.token);
    // Asked before there is a write: a stranger's guess must not wait in line with those who write.
    if !nodes::may_use_token(&mut *app.database.read().await?, &token, &request.node).await? {
        return Err(LoginError::Token.into());
    }
    let mut write = app.database.write().await?;
    if !nodes::use_token(&mut write, &token, &request.node).await? {
        return Err(LoginError::Token.into());
    }
    let existing = nodes::find(&mut write, &request.node).await?.filter(|node| !node.removed);
    let node = take(&mut write, request, existing, now).await?;
    write.commit().await?;
    tracing::info!(role = %node.request.role, "a node enrolled");
    credentials(&app, &node, now).await
}

/// Renews the certificate and the addresses of a node.
pub(crate) async fn renew(app: Arc<App>, from: NetworkPrefix, renew: RenewNode) -> Result<NodeCredentials, Refusal> {
    let now = app.now();
    app.throttle().node(now, from).map_err(slow_down)?;
    let request = check_request(&app, &renew.request, now)?;
    // Asked before there is a write, as above; asked again inside it, since the node may have been removed in between.
    enrolled(&mut *app.database.read().await?, &request.node).await?;
    let mut write = app.database.write().await?;
    let existing = enrolled(&mut write, &request.node).await?;
    let node = take(&mut write, request, Some(existing), now).await?;
    write.commit().await?;
    credentials(&app, &node, now).await
}

/// The node with this key, if it is part of the network.
async fn enrolled(connection: &mut AnyConnection, node: &NodeKey) -> Result<nodes::Node, Refusal> {
    let node = nodes::find(connection, node).await?.filter(|node| !node.removed);
    node.ok_or(LoginError::UnknownNode.into())
}

/// Writes what a node says of itself, and changes the roster if that differs from what it has.
async fn take(
    write: &mut AnyConnection,
    request: NodeRequest,
    existing: Option<nodes::Node>,
    now: UnixMillis,
) -> Result<nodes::Node, Refusal> {
    if existing.as_ref().is_some_and(|existing| existing.request.role != request.role) {
        return Err(Refusal::because("the node's key is enrolled in another role; use another data folder"));
    }
    let known = existing.as_ref().filter(|existing| existing.listed);
    if known.is_none() && !has_room(nodes::listed_count(write).await?) {
        return Err(Refusal::because("the network has as many nodes as it may have"));
    }
    let changed = known.is_none_or(|known| !same_addresses(&known.request, &request));
    let serial = match existing {
        Some(existing) => existing.serial,
        None => next_serial(write).await?,
    };
    let node = nodes::Node { request, serial, renewed: now, listed: true, removed: false };
    nodes::put(write, &node).await?;
    if changed {
        roster::bump(write, now).await?;
    }
    Ok(node)
}

async fn credentials(app: &App, node: &nodes::Node, now: UnixMillis) -> Result<NodeCredentials, Refusal> {
    Ok(NodeCredentials {
        certificate: app.issuer.node(node.request.role, node.request.node, node.serial, now)?,
        roster: app.roster.newest(now).await?.signed.clone(),
    })
}

fn same_addresses(a: &NodeRequest, b: &NodeRequest) -> bool {
    (&a.udp, &a.tcp, &a.overlay) == (&b.udp, &b.tcp, &b.overlay)
}

fn check_request(app: &App, signed: &Signed<NodeRequest>, now: UnixMillis) -> Result<NodeRequest, Refusal> {
    let claims = signed.claims().map_err(|_| Refusal::because("the request cannot be read"))?;
    let request = verify(signed, claims.node.as_bytes()).map_err(|_| Refusal::because("the node did not sign the request"))?;
    if request.network != app.keys.network {
        return Err(Refusal::because("it is meant for another network"));
    }
    check_time(request.issued, now)?;
    if request.udp.is_empty() {
        return Err(Refusal::because("the node names no address for QUIC"));
    }
    if request.role == NodeRole::Relay && !request.overlay.is_empty() {
        return Err(Refusal::because("a relay has no overlay address"));
    }
    match request.udp.iter().chain(&request.tcp).chain(&request.overlay).find(|address| !is_reachable(address)) {
        Some(address) => Err(Refusal::because(&format!("nobody can reach the node at {address}; give its address with --public"))),
        None => Ok(request),
    }
}

/// False for an address that stands for no single machine. Private and loopback addresses are fine: networks live there too.
fn is_reachable(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}
