//! The keys of a network, in files of the data folder.
//!
//! They are made once, when the folder has no `network.document`; after that a missing key is an error and never made
//! again, since a fresh one would silently end the network (root, issuing) or every password (OPAQUE).

use crate::error::ServeError;
use ahoy_identity::opaque::ServerSetup;
use ahoy_identity::{SigningKey, network_id, random};
use ahoy_protocol::certificate::{NetworkDocument, NetworkStatement};
use ahoy_protocol::{List, NetworkId, UnixMillis, Wire};
use ahoy_store::DataFolder;
use zeroize::Zeroizing;

const ROOT: &str = "root.key";
const ISSUING: &str = "issuing.key";
const OPAQUE: &str = "opaque.setup";
const TICKET: &str = "ticket.key";
/// Written last: where it is, every key was on the disk before.
pub(crate) const DOCUMENT: &str = "network.document";

/// What only the login servers of a network have.
pub(crate) struct Keys {
    /// Signs the issuing key and the TLS certificate.
    pub(crate) root: SigningKey,
    /// Signs certificates, grants and rosters.
    pub(crate) issuing: SigningKey,
    /// OPRF seed and key exchange key.
    pub(crate) opaque: ServerSetup,
    /// Seals tickets.
    pub(crate) ticket: Zeroizing<[u8; 32]>,
    /// Root key and issuing key, for everybody to check.
    pub(crate) document: NetworkDocument,
    /// Hash of the root key.
    pub(crate) network: NetworkId,
}

impl Keys {
    /// The keys in `folder`, made if the folder has never had any.
    pub(crate) fn load_or_make(folder: &DataFolder, now: UnixMillis) -> Result<Self, ServeError> {
        if folder.read(DOCUMENT)?.is_none() {
            make(folder, now)?;
        }
        Self::load(folder)
    }

    fn load(folder: &DataFolder) -> Result<Self, ServeError> {
        let root = SigningKey::from_seed(*read_key(folder, ROOT)?);
        let issuing = SigningKey::from_seed(*read_key(folder, ISSUING)?);
        let opaque = ServerSetup::from_bytes(&read(folder, OPAQUE)?).map_err(|_| damaged(folder, OPAQUE))?;
        let ticket = read_key(folder, TICKET)?;
        let document = NetworkDocument::decode(&read(folder, DOCUMENT)?).map_err(|_| damaged(folder, DOCUMENT))?;
        let network = network_id(&root.root_key());
        if document.root != root.root_key() {
            return Err(damaged(folder, ROOT));
        }
        if !ahoy_identity::Network::from_document(&document, &network).is_ok_and(|network| network.issuing.contains(&issuing.issuing_key()))
        {
            return Err(damaged(folder, ISSUING));
        }
        Ok(Self { root, issuing, opaque, ticket, document, network })
    }
}

/// Makes the keys of a network. Begun and cut short, it leaves no document, and is begun again.
fn make(folder: &DataFolder, now: UnixMillis) -> Result<(), ServeError> {
    let root = SigningKey::generate();
    let issuing = SigningKey::generate();
    folder.write(ROOT, root.seed())?;
    folder.write(ISSUING, issuing.seed())?;
    folder.write(OPAQUE, &ServerSetup::generate().to_bytes())?;
    folder.write(TICKET, Zeroizing::new(random::<32>()).as_slice())?;
    let statement = NetworkStatement { issuing: List::first_of([issuing.issuing_key()]), issued: now };
    let setup = |error: ahoy_protocol::WireError| ServeError::Setup(error.to_string());
    let document = NetworkDocument { root: root.root_key(), statement: root.sign(&statement).map_err(setup)? };
    folder.write(DOCUMENT, &document.encode().map_err(setup)?)?;
    Ok(())
}

fn read(folder: &DataFolder, file: &'static str) -> Result<Zeroizing<Vec<u8>>, ServeError> {
    let missing = || ServeError::KeyMissing { file, dir: folder.path().to_owned() };
    folder.read(file)?.map(Zeroizing::new).ok_or_else(missing)
}

fn read_key(folder: &DataFolder, file: &'static str) -> Result<Zeroizing<[u8; 32]>, ServeError> {
    let bytes = read(folder, file)?;
    <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| damaged(folder, file))
}

fn damaged(folder: &DataFolder, file: &'static str) -> ServeError {
    ServeError::KeyDamaged { file, dir: folder.path().to_owned() }
}
