//! From flags to a member of the network: open the folder, enrol or renew, or go on with what is kept while the login server is away.

use crate::addresses::Addresses;
use crate::args::ServeArgs;
use crate::error::NodeError;
use crate::kept::{Expected, Membership, load_credentials, load_document, load_or_make_key, save_document, save_membership};
use crate::node::Node;
use ahoy_identity::{ChainError, Network, SigningKey};
use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_protocol::certificate::NodeRole;
use ahoy_protocol::login::{LoginError, NODE_TOKEN_BYTES_MAX, NodeCredentials, NodeRequest};
use ahoy_protocol::roster::NODE_ADDRESSES_MAX;
use ahoy_protocol::{List, NetworkLink, Signed, UnixMillis};
use ahoy_store::{DataFolder, FolderLock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

/// The version of the data folder that this program writes.
pub(crate) const FOLDER_VERSION: u32 = 1;

/// A node before it has joined: its folder is locked, its key is there, and its link was read.
pub struct Preparation {
    pub(crate) folder: Arc<DataFolder>,
    pub(crate) lock: FolderLock,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) link: NetworkLink,
    pub(crate) role: NodeRole,
    token: Option<String>,
}

impl std::fmt::Debug for Preparation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preparation").field("role", &self.role).field("folder", &self.folder.path()).finish_non_exhaustive()
    }
}

impl Node {
    /// Opens and locks the data folder of `program`, loads or makes the node's key, and reads the network link.
    ///
    /// # Errors
    /// See [`NodeError`]: the link is none, or the folder cannot be used.
    pub async fn prepare(args: &ServeArgs, role: NodeRole, program: &str) -> Result<Preparation, NodeError> {
        let link: NetworkLink = args.network.parse()?;
        if args.token.as_ref().is_some_and(|token| token.trim().is_empty() || token.trim().len() > NODE_TOKEN_BYTES_MAX) {
            return Err(NodeError::Token);
        }
        let folder = DataFolder::open(&args.data, program, FOLDER_VERSION)?;
        let lock = folder.lock()?;
        let key = Arc::new(load_or_make_key(&folder)?);
        let token = args.token.as_ref().map(|token| token.trim().to_owned());
        Ok(Preparation { folder: Arc::new(folder), lock, key, link, role, token })
    }
}

impl Preparation {
    /// The node's key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// Enrols with the token, or renews the certificate, or goes on with the one in the folder while the login server is away.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn join(self, addresses: Addresses) -> Result<Node, NodeError> {
        let (client, away) = self.login_client().await?;
        let membership = match away {
            Some(problem) => self.go_on(client.network(), problem)?,
            None => self.fresh_membership(&client, &addresses).await?,
        };
        // Not before: the document of a network that did not take this node in must not replace the one that did.
        save_document(&self.folder, client.document())?;
        save_membership(&self.folder, &membership)?;
        Ok(Node::start(self, client, membership, addresses))
    }

    /// A client of the login server, and why it is away if it is and the folder has the network's document.
    async fn login_client(&self) -> Result<(LoginClient, Option<LoginClientError>), NodeError> {
        match LoginClient::connect(&self.link).await {
            Ok(client) => Ok((client, None)),
            Err(problem) if problem.is_temporary() => match load_document(&self.folder, &self.link)? {
                Some(document) => Ok((LoginClient::with_network(&self.link, document)?, Some(problem))),
                None => Err(problem.into()),
            },
            Err(problem) => Err(problem.into()),
        }
    }

    /// A node that the login server knows needs its key alone: the certificate in the folder may be damaged or gone.
    async fn fresh_membership(&self, client: &LoginClient, addresses: &Addresses) -> Result<Membership, NodeError> {
        let request = signed_request(&self.key, self.role, client.network(), addresses)?;
        let credentials = match client.renew_node(request.clone()).await {
            Ok(credentials) => credentials,
            Err(problem) if problem.is_temporary() => return self.go_on(client.network(), problem),
            Err(LoginClientError::Refused(LoginError::UnknownNode)) => self.enrolled(client, request).await?,
            Err(problem) => return Err(problem.into()),
        };
        Membership::fresh(self.expected(client.network()), credentials, now())
    }

    async fn enrolled(&self, client: &LoginClient, request: Signed<NodeRequest>) -> Result<NodeCredentials, NodeError> {
        match &self.token {
            Some(token) => Ok(client.enrol(token, request).await?),
            None if self.was_enrolled(client.network()) => Err(LoginClientError::Refused(LoginError::UnknownNode).into()),
            None => Err(NodeError::NoCertificate(self.folder.path().to_owned())),
        }
    }

    /// True if the folder holds a certificate of `network` for this node, good or not.
    fn was_enrolled(&self, network: &Network) -> bool {
        let kept = load_credentials(&self.folder).ok().flatten();
        let certificate = kept.and_then(|kept| network.verify_issued(&kept.certificate).ok());
        certificate.is_some_and(|certificate| certificate.node == self.key.node_key() && certificate.role == self.role)
    }

    /// What the folder holds, if it still counts.
    fn go_on(&self, network: &Network, problem: LoginClientError) -> Result<Membership, NodeError> {
        let Some(kept) = load_credentials(&self.folder)? else { return Err(problem.into()) };
        match Membership::kept(self.expected(network), kept, now()) {
            Ok(membership) => {
                tracing::warn!(%problem, "going on with the certificate and the roster in the data folder");
                Ok(membership)
            }
            Err(NodeError::Chain(ChainError::Lapsed)) => Err(NodeError::Lapsed { problem, folder: self.folder.path().to_owned() }),
            // Another network's, or another key's: as good as none.
            Err(_) => Err(problem.into()),
        }
    }

    fn expected<'a>(&'a self, network: &'a Network) -> Expected<'a> {
        Expected { network, role: self.role, key: &self.key }
    }
}

/// What the node says of itself, signed at this moment.
pub(crate) fn signed_request(
    key: &SigningKey,
    role: NodeRole,
    network: &Network,
    addresses: &Addresses,
) -> Result<Signed<NodeRequest>, NodeError> {
    let list = |addresses: &[SocketAddr]| List::new(addresses.to_vec()).ok_or(NodeError::TooManyAddresses { max: NODE_ADDRESSES_MAX });
    let request = NodeRequest {
        network: network.id,
        role,
        node: key.node_key(),
        udp: list(&addresses.udp)?,
        tcp: list(&addresses.tcp)?,
        overlay: list(&addresses.overlay)?,
        issued: now(),
    };
    Ok(key.sign(&request).expect("a request of bounded lists is within its limit"))
}

pub(crate) fn now() -> UnixMillis {
    SystemTime::now().into()
}
