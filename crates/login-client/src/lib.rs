//! Speaks with the login server: register, sign in, renew, roster, enrol.
//!
//! Everything that comes back is checked against the network link before it is handed on: the server's key in the TLS
//! handshake, every certificate, grant and roster, and that each is about whom it was asked for. The password stays here:
//! OPAQUE's messages go out, and what opens the backup of the user key is computed from the answers.
//!
//! What this crate does not do: it keeps nothing, and it retries nothing.

mod error;
mod https;
mod pin;

pub use error::LoginClientError;

use ahoy_identity::opaque::{ExportKey, OpaqueError, RegistrationClient, SignInClient};
use ahoy_identity::{Network, SigningKey, VerifiedDevice, backup, password};
use ahoy_protocol::certificate::{DEVICE_LABEL_BYTES_MAX, DeviceStatement, NetworkDocument, UserCertificate};
use ahoy_protocol::login::{
    Account, AddDevice, Credentials, EnrolNode, LoginError, NODE_TOKEN_BYTES_MAX, NodeCredentials, NodeRequest, RegisterChallenge,
    RegisterFinish, RegisterStart, Renew, RenewNode, RenewRequest, RosterReply, SignInChallenge, SignInFinish, SignInStart, paths,
};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{DeviceKey, Name, NetworkLink, SealKey, Signed, Text, UnixMillis};
use https::Https;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A client of one network's login server.
#[derive(Debug, Clone)]
pub struct LoginClient {
    https: Https,
    network: Arc<Network>,
    document: Arc<NetworkDocument>,
}

/// A device that is about to become one of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Its key.
    pub device: DeviceKey,
    /// The key to which one seals for it.
    pub seal: SealKey,
    /// What the user calls it. What is too long is cut off.
    pub label: String,
}

/// What somebody who knows the password gets.
#[derive(Debug)]
pub struct SignedIn {
    /// Certificates, grant and roster for the device.
    pub credentials: Credentials,
    /// The user key. To be dropped, which wipes it, as soon as the user statement is signed.
    pub user: SigningKey,
    /// The epoch of the user key.
    pub epoch: u32,
}

impl LoginClient {
    /// Reaches the login server that `link` names and learns the network's keys from it.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn connect(link: &NetworkLink) -> Result<Self, LoginClientError> {
        Self::connect_through(link, None).await
    }

    /// As [`LoginClient::connect`], through the proxy with this URL, of the kind `http`, `socks5` or `socks5h`.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn connect_through(link: &NetworkLink, proxy: Option<&str>) -> Result<Self, LoginClientError> {
        let https = Https::new(link, proxy)?;
        let document = https.get::<NetworkDocument>(paths::NETWORK, Duration::ZERO).await?;
        Self::assemble(https, link, document)
    }

    /// A client that knows the network's keys already. Nothing is sent.
    ///
    /// # Errors
    /// If `document` is not of the network that `link` names.
    pub fn with_network(link: &NetworkLink, document: NetworkDocument) -> Result<Self, LoginClientError> {
        Self::with_network_through(link, document, None)
    }

    /// As [`LoginClient::with_network`], for a client that goes through the proxy with this URL.
    ///
    /// # Errors
    /// If `document` is not of the network that `link` names, or `proxy` is no proxy's URL.
    pub fn with_network_through(link: &NetworkLink, document: NetworkDocument, proxy: Option<&str>) -> Result<Self, LoginClientError> {
        Self::assemble(Https::new(link, proxy)?, link, document)
    }

    fn assemble(https: Https, link: &NetworkLink, document: NetworkDocument) -> Result<Self, LoginClientError> {
        let network = Network::from_document(&document, &link.network).map_err(|error| untrusted("network document", error))?;
        Ok(Self { https, network: Arc::new(network), document: Arc::new(document) })
    }

    /// The login server's clock, in whole seconds, if it tells it. It answers although this machine's clock is wrong.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn server_time(&self) -> Result<Option<SystemTime>, LoginClientError> {
        self.https.date(paths::NETWORK).await
    }

    /// What the network's signatures are checked against.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network's keys as its root key signed them, to be stored for [`LoginClient::with_network`].
    #[must_use]
    pub fn document(&self) -> &NetworkDocument {
        &self.document
    }

    /// Registers `name`, with `device` as its first device.
    ///
    /// # Errors
    /// [`LoginClientError::WeakPassword`] before anything is sent; else see [`LoginClientError`].
    pub async fn register(&self, name: &Name, password: &str, device: &NewDevice) -> Result<SignedIn, LoginClientError> {
        password::check(password, name)?;
        let (client, opaque) = RegistrationClient::start(password.as_bytes()).map_err(|_| LoginClientError::Malformed)?;
        let start = RegisterStart { name: name.clone(), opaque };
        let challenge: RegisterChallenge = self.https.post(paths::REGISTER_START, &start).await?;
        let finish = {
            let (password, name, challenge) = (password.to_owned(), name.clone(), challenge.opaque);
            slow_hash(move || client.finish(password.as_bytes(), &name, &challenge)).await?
        };
        let (record, export) = finish;
        let user = SigningKey::generate();
        let request = RegisterFinish {
            name: name.clone(),
            opaque: record,
            user: user.user_key(),
            backup: backup::seal(&export, &user),
            device: sign_device(&user, name, challenge.epoch, device)?,
        };
        let credentials: Credentials = self.https.post(paths::REGISTER_FINISH, &request).await?;
        let certificate = self.check_credentials(&credentials, &device.device)?;
        check_is(&certificate, name, &user, challenge.epoch)?;
        Ok(SignedIn { credentials, user, epoch: challenge.epoch })
    }

    /// Signs in as `name`, and makes `device` one of its devices.
    ///
    /// # Errors
    /// For a wrong password as for an unknown name: [`LoginError::Credentials`]; else see [`LoginClientError`].
    pub async fn sign_in(&self, name: &Name, password: &str, device: &NewDevice) -> Result<SignedIn, LoginClientError> {
        let (account, export) = self.prove_password(name, password).await?;
        let certificate = self.network.verify_user(&account.certificate, now()).map_err(|error| untrusted("user certificate", error))?;
        let user = backup::open(&export, &account.backup).ok_or(LoginClientError::Backup)?;
        check_is(&certificate, name, &user, certificate.epoch)?;
        let request = AddDevice { ticket: account.ticket, device: sign_device(&user, name, certificate.epoch, device)? };
        let credentials: Credentials = self.https.post(paths::ADD_DEVICE, &request).await?;
        let renewed = self.check_credentials(&credentials, &device.device)?;
        check_is(&renewed, name, &user, certificate.epoch)?;
        Ok(SignedIn { credentials, user, epoch: certificate.epoch })
    }

    async fn prove_password(&self, name: &Name, password: &str) -> Result<(Account, ExportKey), LoginClientError> {
        let wrong = || LoginClientError::Refused(LoginError::Credentials);
        // No account has a longer one; the slow hash is spared.
        if password.len() > password::PASSWORD_BYTES_MAX {
            return Err(wrong());
        }
        let (client, opaque) = SignInClient::start(password.as_bytes()).map_err(|_| LoginClientError::Malformed)?;
        let start = SignInStart { name: name.clone(), opaque };
        let challenge: SignInChallenge = self.https.post(paths::SIGN_IN_START, &start).await?;
        let (password, hashed_name, opaque) = (password.to_owned(), name.clone(), challenge.opaque);
        let (opaque, export) = slow_hash(move || client.finish(password.as_bytes(), &hashed_name, &opaque)).await?;
        let finish = SignInFinish { ticket: challenge.ticket, opaque };
        Ok((self.https.post(paths::SIGN_IN_FINISH, &finish).await?, export))
    }

    /// Gets fresh certificates, a fresh grant and the newest roster for a device.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn renew(&self, device: &SigningKey) -> Result<Credentials, LoginClientError> {
        let request = RenewRequest { network: self.network.id, device: device.device_key(), issued: now() };
        let request = Renew { request: device.sign(&request).map_err(|_| LoginClientError::Malformed)? };
        let credentials: Credentials = self.https.post(paths::RENEW, &request).await?;
        self.check_credentials(&credentials, &device.device_key())?;
        Ok(credentials)
    }

    /// The newest roster if it is another than version `since`, after waiting for it for at most `wait_s` seconds.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn roster(&self, since: u64, wait_s: u64) -> Result<Option<Signed<Roster>>, LoginClientError> {
        let path = format!("{}?since={since}&wait={wait_s}", paths::ROSTER);
        let reply: RosterReply = self.https.get(&path, Duration::from_secs(wait_s)).await?;
        if let Some(roster) = &reply.roster {
            self.network.verify_roster(roster, now()).map_err(|error| untrusted("roster", error))?;
        }
        Ok(reply.roster)
    }

    /// Makes a node part of the network.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn enrol(&self, token: &str, request: Signed<NodeRequest>) -> Result<NodeCredentials, LoginClientError> {
        let token = Text::<NODE_TOKEN_BYTES_MAX>::new(token.trim().to_owned()).ok_or(LoginClientError::Refused(LoginError::Token))?;
        let credentials: NodeCredentials = self.https.post(paths::ENROL_NODE, &EnrolNode { token, request: request.clone() }).await?;
        self.check_node_credentials(&credentials, &request)?;
        Ok(credentials)
    }

    /// Renews the certificate and the addresses of a node.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub async fn renew_node(&self, request: Signed<NodeRequest>) -> Result<NodeCredentials, LoginClientError> {
        let credentials: NodeCredentials = self.https.post(paths::RENEW_NODE, &RenewNode { request: request.clone() }).await?;
        self.check_node_credentials(&credentials, &request)?;
        Ok(credentials)
    }

    /// Checks all that came for `device`. Returns the user's certificate.
    fn check_credentials(&self, credentials: &Credentials, device: &DeviceKey) -> Result<UserCertificate, LoginClientError> {
        let now = now();
        let user = self.network.verify_user(&credentials.user, now).map_err(|error| untrusted("user certificate", error))?;
        let of_user = |signed| {
            let verified = self.network.verify_device(signed, now).map_err(|error| untrusted("device certificate", error))?;
            let same = verified.user() == user.user && *verified.name() == user.name && verified.statement.epoch == user.epoch;
            if same { Ok(verified) } else { Err(mixed_up("device certificate")) }
        };
        let own: VerifiedDevice = of_user(&credentials.device)?;
        let all = credentials.devices.iter().map(of_user).collect::<Result<Vec<_>, _>>()?;
        if own.device() != *device || !all.iter().any(|listed| listed.device() == *device) {
            return Err(mixed_up("device certificate"));
        }
        self.network.verify_grant(&credentials.grant, device, now).map_err(|error| untrusted("relay grant", error))?;
        self.network.verify_roster(&credentials.roster, now).map_err(|error| untrusted("roster", error))?;
        Ok(user)
    }

    fn check_node_credentials(&self, credentials: &NodeCredentials, request: &Signed<NodeRequest>) -> Result<(), LoginClientError> {
        let now = now();
        let asked = request.claims().map_err(|_| LoginClientError::Malformed)?;
        let certificate = self.network.verify_node(&credentials.certificate, now).map_err(|error| untrusted("node certificate", error))?;
        let roster = self.network.verify_roster(&credentials.roster, now).map_err(|error| untrusted("roster", error))?;
        let same = certificate.node == asked.node && certificate.role == asked.role && roster.node(asked.role, &asked.node).is_some();
        if same { Ok(()) } else { Err(mixed_up("node certificate")) }
    }
}

fn sign_device(user: &SigningKey, name: &Name, epoch: u32, device: &NewDevice) -> Result<Signed<DeviceStatement>, LoginClientError> {
    let statement = DeviceStatement {
        name: name.clone(),
        epoch,
        device: device.device,
        seal: device.seal,
        label: Text::<DEVICE_LABEL_BYTES_MAX>::fitting(&device.label),
        added: now(),
    };
    user.sign(&statement).map_err(|_| LoginClientError::Malformed)
}

/// Checks that a certificate is of this name and key.
fn check_is(certificate: &UserCertificate, name: &Name, user: &SigningKey, epoch: u32) -> Result<(), LoginClientError> {
    let same = certificate.name == *name && certificate.user == user.user_key() && certificate.epoch == epoch;
    if same { Ok(()) } else { Err(mixed_up("user certificate")) }
}

/// Runs a step with the slow hash where it holds up nobody else.
async fn slow_hash<T: Send + 'static>(step: impl FnOnce() -> Result<T, OpaqueError> + Send + 'static) -> Result<T, LoginClientError> {
    match tokio::task::spawn_blocking(step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(OpaqueError::WrongPassword)) => Err(LoginClientError::Refused(LoginError::Credentials)),
        Ok(Err(OpaqueError::Message)) | Err(_) => Err(LoginClientError::Malformed),
    }
}

fn untrusted(what: &'static str, reason: ahoy_identity::ChainError) -> LoginClientError {
    LoginClientError::Untrusted { what, reason }
}

fn mixed_up(what: &'static str) -> LoginClientError {
    untrusted(what, ahoy_identity::ChainError::Contradiction)
}

fn now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}
