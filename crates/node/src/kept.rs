//! What a node keeps in its data folder, and how much of it still counts.
//!
//! Three files: the node's key, the network document, and the credentials (certificate and newest roster). What is read
//! back is checked like what comes from a socket: the folder may be another network's, or years old.

use crate::error::NodeError;
use crate::roster::RosterView;
use ahoy_identity::{ChainError, Network, SigningKey};
use ahoy_protocol::certificate::{NetworkDocument, NodeCertificate, NodeRole};
use ahoy_protocol::login::NodeCredentials;
use ahoy_protocol::time::DAY;
use ahoy_protocol::{NetworkLink, Signed, UnixMillis, Wire};
use ahoy_store::{DataFolder, StoreError};
use std::sync::Arc;
use std::time::Duration;

const KEY_FILE: &str = "node.key";
const DOCUMENT_FILE: &str = "network.bin";
const CREDENTIALS_FILE: &str = "credentials.bin";

/// For how long after its end a certificate is gone on with while the login server is away, so that its absence never ends the network.
pub(crate) const GRACE: Duration = Duration::from_secs(7 * DAY.as_secs());

/// The node's key, made at the first start.
pub(crate) fn load_or_make_key(folder: &DataFolder) -> Result<SigningKey, NodeError> {
    if let Some(seed) = folder.read(KEY_FILE)? {
        let seed = <[u8; 32]>::try_from(seed).map_err(|_| NodeError::Key(folder.path().join(KEY_FILE)))?;
        return Ok(SigningKey::from_seed(seed));
    }
    let key = SigningKey::generate();
    save_key(folder, &key)?;
    Ok(key)
}

pub(crate) fn save_key(folder: &DataFolder, key: &SigningKey) -> Result<(), StoreError> {
    folder.write(KEY_FILE, key.seed())
}

/// The document of the network that `link` names, if the folder has it.
pub(crate) fn load_document(folder: &DataFolder, link: &NetworkLink) -> Result<Option<NetworkDocument>, StoreError> {
    let Some(bytes) = folder.read(DOCUMENT_FILE)? else { return Ok(None) };
    let document = NetworkDocument::decode(&bytes).ok();
    Ok(document.filter(|document| Network::from_document(document, &link.network).is_ok()))
}

pub(crate) fn save_document(folder: &DataFolder, document: &NetworkDocument) -> Result<(), StoreError> {
    let bytes = document.encode().expect("a document that was read within its limit is written within it");
    folder.write(DOCUMENT_FILE, &bytes)
}

/// The credentials in the folder, unchecked. Damaged ones are as good as none: a token or a renewal brings others.
pub(crate) fn load_credentials(folder: &DataFolder) -> Result<Option<NodeCredentials>, StoreError> {
    Ok(folder.read(CREDENTIALS_FILE)?.and_then(|bytes| NodeCredentials::decode(&bytes).ok()))
}

pub(crate) fn save_credentials(folder: &DataFolder, credentials: &NodeCredentials) -> Result<(), StoreError> {
    let bytes = credentials.encode().expect("certificate and roster were read within their limits");
    folder.write(CREDENTIALS_FILE, &bytes)
}

pub(crate) fn save_membership(folder: &DataFolder, membership: &Membership) -> Result<(), StoreError> {
    let credentials = NodeCredentials { certificate: membership.signed.clone(), roster: membership.roster.signed.clone() };
    save_credentials(folder, &credentials)
}

/// Certificate and roster with their signatures checked.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub(crate) certificate: NodeCertificate,
    pub(crate) signed: Signed<NodeCertificate>,
    pub(crate) roster: Arc<RosterView>,
}

/// Whose membership it must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) network: &'a Network,
    pub(crate) role: NodeRole,
    pub(crate) key: &'a SigningKey,
}

impl Membership {
    /// From the login server: everything must hold at `now`.
    pub(crate) fn fresh(expected: Expected<'_>, credentials: NodeCredentials, now: UnixMillis) -> Result<Self, NodeError> {
        let certificate = expected.network.verify_node(&credentials.certificate, now)?;
        Self::new(expected, certificate, credentials, now)
    }

    /// From the data folder: the certificate may have ended up to [`GRACE`] ago. The roster's own life has that time in it.
    pub(crate) fn kept(expected: Expected<'_>, credentials: NodeCredentials, now: UnixMillis) -> Result<Self, NodeError> {
        let certificate = expected.network.verify_issued(&credentials.certificate)?;
        if now > certificate.not_after.plus(GRACE) {
            return Err(NodeError::Chain(ChainError::Lapsed));
        }
        Self::new(expected, certificate, credentials, now)
    }

    fn new(expected: Expected<'_>, certificate: NodeCertificate, credentials: NodeCredentials, now: UnixMillis) -> Result<Self, NodeError> {
        if certificate.role != expected.role || certificate.node != expected.key.node_key() {
            return Err(NodeError::NotOurs(expected.role));
        }
        let roster = expected.network.verify_roster(&credentials.roster, now)?;
        let roster = Arc::new(RosterView { roster, signed: credentials.roster });
        Ok(Self { certificate, signed: credentials.certificate, roster })
    }
}
