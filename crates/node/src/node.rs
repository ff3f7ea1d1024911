//! A member of the network.

use crate::addresses::Addresses;
use crate::error::RosterRefused;
use crate::join::{Preparation, now};
use crate::kept::{Membership, save_document, save_membership};
use crate::roster::{Offered, RosterView};
use crate::upkeep;
use ahoy_identity::{Network, SigningKey};
use ahoy_login_client::LoginClient;
use ahoy_protocol::certificate::{NetworkDocument, NodeCertificate, NodeRole};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{NetworkLink, Signed, UnixMillis};
use ahoy_store::{DataFolder, FolderLock};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A node that has joined. Its certificate and its roster are kept fresh in the background until it is dropped.
pub struct Node {
    shared: Arc<Shared>,
    /// Dropping the set stops the upkeep.
    _upkeep: JoinSet<()>,
    _lock: FolderLock,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.shared.key.node_key();
        f.debug_struct("Node").field("role", &self.shared.role).field("node", &node).finish_non_exhaustive()
    }
}

impl Node {
    pub(crate) fn start(from: Preparation, client: LoginClient, membership: Membership, addresses: Addresses) -> Self {
        let Preparation { folder, lock, key, link, role, .. } = from;
        let shared = Arc::new(Shared::new(folder, key, link, role, client, membership, addresses));
        let mut tasks = JoinSet::new();
        tasks.spawn(upkeep::follow_rosters(shared.clone()));
        let addresses = shared.addresses.subscribe();
        tasks.spawn(upkeep::renew(shared.clone(), addresses));
        Self { shared, _upkeep: tasks, _lock: lock }
    }

    /// What this network's signatures are checked against. Ask again rather than keep it: issuing keys are replaced now and then.
    #[must_use]
    pub fn network(&self) -> Arc<Network> {
        self.shared.network()
    }

    /// The newest roster, and each that follows.
    #[must_use]
    pub fn roster(&self) -> watch::Receiver<Arc<RosterView>> {
        self.shared.roster.subscribe()
    }

    /// Takes a roster that somebody else handed on, if it is newer.
    ///
    /// # Errors
    /// [`RosterRefused`]: it is older than the one at hand, or not signed as it must be.
    pub fn offer_roster(&self, signed: Signed<Roster>) -> Result<Offered, RosterRefused> {
        self.shared.offer_roster(signed)
    }

    /// The node's key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.shared.key
    }

    /// The node's certificate as it stands.
    #[must_use]
    pub fn certificate(&self) -> Signed<NodeCertificate> {
        self.shared.membership.lock().unwrap_or_else(PoisonError::into_inner).signed.clone()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.shared.folder
    }

    /// Tells the login server other addresses, as soon as it can be reached.
    pub fn announce(&self, addresses: Addresses) {
        self.shared.addresses.send_if_modified(|told| {
            let other = *told != addresses;
            *told = addresses;
            other
        });
    }
}

/// What the node and its upkeep share.
pub(crate) struct Shared {
    pub(crate) folder: Arc<DataFolder>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) link: NetworkLink,
    pub(crate) role: NodeRole,
    pub(crate) addresses: watch::Sender<Addresses>,
    /// Held only to look or to replace, never over an await.
    client: Mutex<LoginClient>,
    network: RwLock<Arc<Network>>,
    membership: Mutex<Membership>,
    roster: watch::Sender<Arc<RosterView>>,
}

impl Shared {
    fn new(
        folder: Arc<DataFolder>,
        key: Arc<SigningKey>,
        link: NetworkLink,
        role: NodeRole,
        client: LoginClient,
        membership: Membership,
        addresses: Addresses,
    ) -> Self {
        Self {
            folder,
            key,
            link,
            role,
            addresses: watch::Sender::new(addresses),
            network: RwLock::new(Arc::new(client.network().clone())),
            client: Mutex::new(client),
            roster: watch::Sender::new(membership.roster.clone()),
            membership: Mutex::new(membership),
        }
    }

    pub(crate) fn network(&self) -> Arc<Network> {
        self.network.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn client(&self) -> LoginClient {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn certificate(&self) -> NodeCertificate {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    pub(crate) fn roster_version(&self) -> u64 {
        self.roster.borrow().roster.version
    }

    pub(crate) fn offer_roster(&self, signed: Signed<Roster>) -> Result<Offered, RosterRefused> {
        let roster = self.network().verify_roster(&signed, now())?;
        self.take_roster(Arc::new(RosterView { roster, signed }))
    }

    /// Puts a checked roster in force, if it is newer.
    fn take_roster(&self, view: Arc<RosterView>) -> Result<Offered, RosterRefused> {
        let mut membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        let (offered, held) = (view.roster.version, membership.roster.roster.version);
        if offered < held {
            return Err(RosterRefused::Older { offered, held });
        }
        if offered == held {
            return Ok(Offered::Known);
        }
        if view.roster.node(self.role, &self.key.node_key()).is_none() {
            tracing::warn!(version = offered, "the roster does not list this node; nobody will use it until it is enrolled again");
        }
        membership.roster = view.clone();
        self.keep(&membership);
        self.roster.send_replace(view);
        Ok(Offered::Taken)
    }

    /// Puts a renewed certificate, and the roster that came with it, in force.
    pub(crate) fn take_membership(&self, renewed: Membership) {
        {
            let mut membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
            membership.certificate = renewed.certificate;
            membership.signed = renewed.signed;
            self.keep(&membership);
        }
        if let Err(refused) = self.take_roster(renewed.roster) {
            tracing::warn!(%refused, "the renewal brought an old roster");
        }
    }

    /// Puts a document with newer issuing keys in force, and a client that has it.
    pub(crate) fn take_document(&self, client: LoginClient) {
        let newer = statement_issued(client.document()) > statement_issued(self.client().document());
        if !newer {
            return;
        }
        if let Err(problem) = save_document(&self.folder, client.document()) {
            tracing::warn!(%problem, "the network document was not kept");
        }
        *self.network.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client.network().clone());
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    /// A full disk must not end a node that serves; the next start is the poorer for it.
    fn keep(&self, membership: &Membership) {
        if let Err(problem) = save_membership(&self.folder, membership) {
            tracing::warn!(%problem, "certificate and roster were not kept");
        }
    }
}

/// When the statement was made; the client that holds the document has checked its signature.
fn statement_issued(document: &NetworkDocument) -> Option<UnixMillis> {
    document.statement.claims().ok().map(|statement| statement.issued)
}
