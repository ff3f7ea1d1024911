//! For tests of nodes: a folder as an earlier run would have left it, so that a node starts without a login server.

use crate::kept::{save_credentials, save_document, save_key};
use ahoy_identity::SigningKey;
use ahoy_protocol::certificate::NetworkDocument;
use ahoy_protocol::login::NodeCredentials;
use ahoy_store::{DataFolder, StoreError};
use std::path::Path;

/// Leaves key, network document and credentials in `dir` as an earlier run of `program` would have.
///
/// # Errors
/// If the folder cannot be used.
pub fn leave_behind(
    dir: &Path,
    program: &str,
    key: &SigningKey,
    document: &NetworkDocument,
    credentials: &NodeCredentials,
) -> Result<(), StoreError> {
    let folder = DataFolder::open(dir, program, crate::join::FOLDER_VERSION)?;
    save_key(&folder, key)?;
    save_document(&folder, document)?;
    save_credentials(&folder, credentials)
}
