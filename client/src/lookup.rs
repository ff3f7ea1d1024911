//! Finding somebody: what supernodes return is checked here, whatever they say of it.

use crate::sessions::Sessions;
use ahoy_directory::{Gate, choose_presence, choose_user};
use ahoy_identity::VerifiedDevice;
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::directory::{Found, Request, Response};
use ahoy_protocol::{Name, NodeKey, UnixMillis, UserKey};
use std::net::SocketAddr;
use std::time::SystemTime;
use thiserror::Error;

/// Why nobody was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookUpError {
    /// No supernode answered.
    #[error("no supernode can be reached; check this computer's network connection")]
    NoSupernode,
    /// Nobody has the name.
    #[error("nobody is called {0} on this network; check the spelling")]
    Unknown(Name),
    /// All supernodes are busy.
    #[error("the supernodes are busy; try again in a moment")]
    Busy,
    /// The supernodes refuse this device.
    #[error("the supernodes refuse this device: {0}; if this computer's clock is right, sign in again")]
    Refused(String),
}

/// Somebody, as the directory has him and his signatures prove.
#[derive(Debug, Clone)]
pub struct Person {
    /// The name.
    pub name: Name,
    /// The user key.
    pub user: UserKey,
    /// Its epoch.
    pub epoch: u32,
    /// The devices that can be reached now, each with the supernodes at which it is.
    pub devices: Vec<(VerifiedDevice, Vec<NodeKey>)>,
    /// How many supernodes were asked.
    pub supernodes_asked: u16,
    /// Addresses of the supernodes at which the devices are.
    pub found_at: Vec<SocketAddr>,
}

/// Looks somebody up.
///
/// # Errors
/// See [`LookUpError`].
pub async fn find(sessions: &Sessions, name: &Name) -> Result<Person, LookUpError> {
    // A supernode that has just begun, or that lies, knows nobody: another is asked before that is believed.
    let is_good = |response: &Response| match response {
        Response::Found(found) => read(sessions, name, found).is_some_and(|person| !person.devices.is_empty()),
        _ => false,
    };
    match sessions.request_until(Request::Find(name.clone()), is_good).await {
        Some(Response::Found(found)) => read(sessions, name, &found).ok_or_else(|| LookUpError::Unknown(name.clone())),
        Some(Response::Busy { .. }) => Err(LookUpError::Busy),
        Some(Response::Refused(reason)) => Err(LookUpError::Refused(reason.to_string())),
        Some(_) | None => Err(sessions.last_refusal().map_or(LookUpError::NoSupernode, LookUpError::Refused)),
    }
}

fn read(sessions: &Sessions, name: &Name, found: &Found) -> Option<Person> {
    let (account, roster) = (sessions.account(), sessions.roster());
    let gate = Gate { network: &account.network, roster: &roster };
    let now = UnixMillis::from(SystemTime::now());
    let user = choose_user(&gate, now, name, &found.users)?;
    let mut devices = Vec::new();
    let mut found_at = Vec::new();
    for device in user.devices {
        let Some(presence) = choose_presence(&gate, now, &device.device(), &found.presence) else { continue };
        let homes: Vec<NodeKey> = presence.homes.into_iter().filter(|home| roster.node(NodeRole::Supernode, home).is_some()).collect();
        if homes.is_empty() {
            continue;
        }
        found_at.extend(homes.iter().filter_map(|home| roster.node(NodeRole::Supernode, home)?.udp.first()));
        devices.push((device, homes));
    }
    found_at.sort();
    found_at.dedup();
    Some(Person { name: name.clone(), user: user.user, epoch: user.epoch, devices, supernodes_asked: found.supernodes_asked, found_at })
}
