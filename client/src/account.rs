//! Registering and signing in: how a device becomes part of an account.

use crate::home::{Account, Home, HomeError};
use crate::reach::ReachSettings;
use crate::sessions::publish_once;
use ahoy_directory::{Gate, choose_user};
use ahoy_identity::{ChainError, SigningKey};
use ahoy_login_client::{LoginClient, LoginClientError, NewDevice, SignedIn};
use ahoy_protocol::certificate::DeviceCertificate;
use ahoy_protocol::directory::Response;
use ahoy_protocol::login::Credentials;
use ahoy_protocol::record::{Record, USER_STATEMENT_LIFE, UserRecord, UserStatement};
use ahoy_protocol::{DeviceKey, List, Name, NetworkLink, NodeKey, Signed, UnixMillis, WireError};
use ahoy_transport::{ClientEndpoint, TransportError};
use std::collections::BTreeSet;
use std::time::SystemTime;
use thiserror::Error;

/// How often a record is merged and written again when another device writes at the same time.
const PUBLISH_TRIES_MAX: usize = 3;

/// Why a device did not become part of an account.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The login server.
    #[error(transparent)]
    Login(#[from] LoginClientError),
    /// What the login server handed out does not hold together.
    #[error("the login server's answer cannot be trusted: {0}; tell whoever runs the network")]
    Chain(#[from] ChainError),
    /// A record that does not fit its limits.
    #[error("cannot make the user record: {0}")]
    Record(#[from] WireError),
    /// The UDP port.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What somebody who wants in does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Make a new account.
    Register,
    /// Add this device to an account that exists.
    SignIn,
}

/// An account, and whether the directory knows of this device already.
#[derive(Debug)]
pub struct Entered {
    /// The account, kept in the home.
    pub account: Account,
    /// False if no supernode could be reached: the record is then published when the device comes online.
    pub is_published: bool,
}

/// Registers, or signs in, and keeps the account in `home`.
///
/// # Errors
/// See [`AccountError`]. Nothing is kept unless all went well.
pub async fn enter(
    home: &Home,
    entrance: Entrance,
    link: &NetworkLink,
    name: &Name,
    password: &str,
    label: &str,
    reach: &ReachSettings,
) -> Result<Entered, AccountError> {
    home.check_owner(name, link)?;
    let keys = home.device_keys()?;
    let login = LoginClient::connect_through(link, reach.login_proxy(link).as_deref()).await?;
    let device = NewDevice { device: keys.signing.device_key(), seal: keys.seal.public(), label: label.to_owned() };
    let signed_in = match entrance {
        Entrance::Register => login.register(name, password, &device).await?,
        Entrance::SignIn => login.sign_in(name, password, &device).await?,
    };
    let SignedIn { credentials, user, epoch } = signed_in;
    let network = login.network().clone();
    network.verify_roster(&credentials.roster, UnixMillis::from(SystemTime::now()))?;
    let mut account = Account {
        link: link.clone(),
        name: name.clone(),
        keys,
        document: login.document().clone(),
        network,
        record: user_record(name, &user, epoch, &credentials, &[], 0)?,
        roster: credentials.roster.clone(),
        credentials,
    };
    let is_published = publish(&mut account, &user, epoch, reach).await?;
    // The user key is wiped here: from now on the device has its own keys alone.
    drop(user);
    home.save(&account)?;
    Ok(Entered { account, is_published })
}

/// Writes the user record to the directory: reads what is there, merges, writes, and tries again if another device was faster.
async fn publish(account: &mut Account, user: &SigningKey, epoch: u32, reach: &ReachSettings) -> Result<bool, AccountError> {
    let endpoint = ClientEndpoint::bind(None, &account.keys.signing)?;
    endpoint.set_reach(reach.of_transport());
    let mut is_published = false;
    for _ in 0..PUBLISH_TRIES_MAX {
        match publish_once(&endpoint, account).await {
            Some(Response::Published { .. }) => is_published = true,
            Some(Response::Superseded(Record::User(newer))) => {
                if merge_newer(account, user, epoch, &newer)? {
                    continue;
                }
            }
            Some(_) | None => {}
        }
        break;
    }
    endpoint.close();
    Ok(is_published)
}

/// Makes one's own record newer than `newer`, with its mailboxes. False if `newer` is not to be believed.
fn merge_newer(account: &mut Account, user: &SigningKey, epoch: u32, newer: &UserRecord) -> Result<bool, AccountError> {
    let now = UnixMillis::from(SystemTime::now());
    let roster = account.network.verify_roster(&account.roster, now)?;
    let gate = Gate { network: &account.network, roster: &roster };
    let Some(known) = choose_user(&gate, now, &account.name, [newer]) else { return Ok(false) };
    if known.user != user.user_key() {
        return Ok(false);
    }
    // Another device that signed in at the same time may have written of this one already.
    let own = account.keys.signing.device_key();
    if known.devices.iter().any(|device| device.device() == own) {
        account.record = newer.clone();
        return Ok(true);
    }
    // What it knows and the login server's answer of a moment ago did not is kept.
    let listed: BTreeSet<DeviceKey> = device_keys(&account.credentials.devices)?.into_iter().collect();
    let further = newer.devices.iter().filter(|signed| {
        let device = signed.claims().ok().and_then(|certificate| certificate.statement.claims().ok());
        device.is_some_and(|statement| !listed.contains(&statement.device) && known.devices.iter().any(|d| d.device() == statement.device))
    });
    account.credentials.devices = List::first_of(account.credentials.devices.iter().chain(further).cloned().collect::<Vec<_>>());
    account.record = user_record(&account.name, user, epoch, &account.credentials, &known.mailboxes, known.seq)?;
    Ok(true)
}

/// The user record with all devices that the login server knows of, signed by the user key.
fn user_record(
    name: &Name,
    user: &SigningKey,
    epoch: u32,
    credentials: &Credentials,
    mailboxes: &[NodeKey],
    above_seq: u64,
) -> Result<UserRecord, AccountError> {
    let now = UnixMillis::from(SystemTime::now());
    // Numbered by the login server's time, so that of two devices that sign in together the later, which knows of both, wins.
    let issued = credentials.device.claims()?.issued;
    let statement = UserStatement {
        name: name.clone(),
        epoch,
        seq: issued.0.min(now.0).max(above_seq.saturating_add(1)),
        devices: List::first_of(device_keys(&credentials.devices)?),
        mailboxes: List::first_of(mailboxes.iter().copied()),
        issued: now,
        not_after: now.plus(USER_STATEMENT_LIFE),
    };
    Ok(UserRecord { certificate: credentials.user.clone(), statement: user.sign(&statement)?, devices: credentials.devices.clone() })
}

/// The device keys that certificates, already checked, are about.
fn device_keys(certificates: &[Signed<DeviceCertificate>]) -> Result<Vec<DeviceKey>, WireError> {
    certificates.iter().map(|certificate| Ok(certificate.claims()?.statement.claims()?.device)).collect()
}
