//! The last resort: a file for each key, outside of the account's folder.

use crate::holder::{Holder, HolderError, Slot};
use crate::key::{KeyId, StoreKey};
use ahoy_store::{DataFolder, StoreError};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Whose folder it is.
const PROGRAM: &str = "ahoy-keys";
/// Version of what is in it.
const FORMAT: u32 = 1;

/// Keys as files of a folder that only its owner may read.
#[derive(Debug)]
pub struct KeyFile {
    dir: PathBuf,
}

impl KeyFile {
    /// Keys in the folder `dir`, which is made when the first is kept.
    #[must_use]
    pub fn in_folder(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn folder(&self) -> Result<DataFolder, HolderError> {
        DataFolder::open(&self.dir, PROGRAM, FORMAT).map_err(because)
    }
}

impl Holder for KeyFile {
    fn slot(&self) -> Slot {
        Slot::KeyFile
    }

    fn get(&self, id: &KeyId) -> Result<Option<StoreKey>, HolderError> {
        if !self.dir.exists() {
            return Ok(None);
        }
        let bytes = self.folder()?.read(id.as_str()).map_err(because)?.map(Zeroizing::new);
        Ok(bytes.and_then(|bytes| StoreKey::from_slice(&bytes)))
    }

    fn put(&self, id: &KeyId, key: &StoreKey) -> Result<(), HolderError> {
        self.folder()?.write(id.as_str(), key.as_bytes()).map_err(because)
    }

    fn remove(&self, id: &KeyId) -> Result<(), HolderError> {
        if !self.dir.exists() {
            return Ok(());
        }
        self.folder()?.remove(id.as_str()).map_err(because)
    }
}

fn because(error: StoreError) -> HolderError {
    HolderError(error.to_string())
}
