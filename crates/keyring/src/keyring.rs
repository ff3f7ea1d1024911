//! Which slots there are, and which is tried when.

use crate::holder::{Holder, HolderError, Slot};
use crate::key::{KeyId, StoreKey};
use crate::key_file::KeyFile;
use crate::password::{Cost, PasswordSlot};
use crate::secret_service::SecretService;
use ahoy_store::{DataFolder, StoreError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thiserror::Error;

/// The file of the account's folder that says which key it is and holds the password's slot.
const FILE: &str = "store-key.json";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// The account's folder.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// No key was made for this folder.
    #[error("{} has no key for messages; sign in again with the password", .dir.display())]
    NoKey {
        /// The folder.
        dir: PathBuf,
    },
    /// No key ring has the key, and no password was given.
    #[error("the messages in {} are locked: no key ring has their key ({reasons}); give the password", .dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// What each of the key rings said.
        reasons: String,
    },
    /// The password does not open it.
    #[error("this password does not open the messages in {}; if it was changed elsewhere, the one before does", .dir.display())]
    WrongPassword {
        /// The folder.
        dir: PathBuf,
    },
    /// The password's slot could not be made.
    #[error("there is too little memory to protect the messages in {} by the password", .dir.display())]
    Memory {
        /// The folder.
        dir: PathBuf,
    },
}

/// A key, and where it was found or is kept.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The key.
    pub key: StoreKey,
    /// Where it will be found the next time. [`Slot::Password`]: nowhere, it will be asked for.
    pub slot: Slot,
}

/// The slots of one account's key.
#[derive(Debug)]
pub struct Keyring {
    folder: DataFolder,
    holders: Vec<Box<dyn Holder>>,
    cost: Cost,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Slots {
    id: String,
    /// [`StoreKey::check`]: what a key ring gives may be of another time.
    check: String,
    password: PasswordSlot,
}

impl Keyring {
    /// The slots of the account in `folder` on this system. `state` is where programs of this user keep what is not to be copied
    /// with their data, such as `~/.local/state`.
    #[must_use]
    pub fn of_system(folder: DataFolder, state: Option<PathBuf>) -> Self {
        let mut holders: Vec<Box<dyn Holder>> = vec![Box::new(SecretService::of_session())];
        #[cfg(target_os = "linux")]
        holders.push(Box::new(crate::kernel::KernelKeyRing));
        if let Some(state) = state {
            holders.push(Box::new(KeyFile::in_folder(state.join("ahoy").join("keys"))));
        }
        Self::new(folder, holders, Cost::default())
    }

    /// Slots in `holders`, of which the first that can is used, and in `folder`, where a guess at the password costs `cost`.
    #[must_use]
    pub fn new(folder: DataFolder, holders: Vec<Box<dyn Holder>>, cost: Cost) -> Self {
        Self { folder, holders, cost }
    }

    /// Whether a key was made for this folder.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn has_key(&self) -> Result<bool, KeyringError> {
        Ok(self.slots()?.is_some())
    }

    /// Makes a key in the place of any before. What was encrypted under that one cannot be read again.
    ///
    /// # Errors
    /// If the folder cannot be written; the key before is then still there.
    pub fn create(&self, password: &str) -> Result<Opened, KeyringError> {
        let before = self.slots()?;
        let (id, key) = (KeyId::generate(), StoreKey::generate());
        self.write(&id, &key, password)?;
        before.iter().for_each(|slots| self.forget(slots));
        Ok(Opened { slot: self.keep(&id, &key), key })
    }

    /// The key, from the first slot that has it. The password is needed only where no key ring has.
    ///
    /// # Errors
    /// [`KeyringError::Locked`] without a password that is needed, [`KeyringError::WrongPassword`] with another.
    pub fn open(&self, password: Option<&str>) -> Result<Opened, KeyringError> {
        let (id, slots) = self.known()?;
        let mut reasons = Vec::new();
        for holder in &self.holders {
            match holder.get(&id) {
                Ok(Some(key)) if key.check() == slots.check => return Ok(Opened { key, slot: holder.slot() }),
                Ok(_) => {}
                Err(HolderError(reason)) => reasons.push(reason),
            }
        }
        let dir = self.folder.path().to_owned();
        let Some(password) = password else {
            let reasons = if reasons.is_empty() { "it is in none".into() } else { reasons.join("; ") };
            return Err(KeyringError::Locked { dir, reasons });
        };
        let key = slots.password.open(&id, password).filter(|key| key.check() == slots.check);
        let key = key.ok_or(KeyringError::WrongPassword { dir })?;
        Ok(Opened { slot: self.keep(&id, &key), key })
    }

    /// Makes `password` the one that opens the folder.
    ///
    /// # Errors
    /// If there is no key, or the folder cannot be written.
    pub fn set_password(&self, key: &StoreKey, password: &str) -> Result<(), KeyringError> {
        let (id, _) = self.known()?;
        self.write(&id, key, password)
    }

    /// Removes the key from all slots: what was encrypted under it cannot be read again.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn remove(&self) -> Result<(), KeyringError> {
        self.slots()?.iter().for_each(|slots| self.forget(slots));
        Ok(self.folder.remove(FILE)?)
    }

    /// Asks the key rings to forget a key. One that cannot be asked keeps what opens nothing any more.
    fn forget(&self, slots: &Slots) {
        let Some(id) = KeyId::parse(&slots.id) else { return };
        for holder in &self.holders {
            if let Err(error) = holder.remove(&id) {
                tracing::debug!(slot = ?holder.slot(), %error, "a key ring could not be asked to forget a key");
            }
        }
    }

    /// Brings the key to the first key ring that takes it, and says which.
    fn keep(&self, id: &KeyId, key: &StoreKey) -> Slot {
        for holder in &self.holders {
            match holder.put(id, key) {
                Ok(()) => return holder.slot(),
                Err(error) => tracing::debug!(slot = ?holder.slot(), %error, "a key ring does not take the key"),
            }
        }
        Slot::Password
    }

    fn write(&self, id: &KeyId, key: &StoreKey, password: &str) -> Result<(), KeyringError> {
        let password = PasswordSlot::seal(id, key, password, self.cost);
        let password = password.ok_or_else(|| KeyringError::Memory { dir: self.folder.path().to_owned() })?;
        Ok(self.folder.write_json(FILE, &Slots { id: id.as_str().to_owned(), check: key.check(), password })?)
    }

    fn slots(&self) -> Result<Option<Slots>, KeyringError> {
        Ok(self.folder.read_json(FILE)?)
    }

    fn known(&self) -> Result<(KeyId, Slots), KeyringError> {
        let slots = self.slots()?.and_then(|slots| Some((KeyId::parse(&slots.id)?, slots)));
        slots.ok_or_else(|| KeyringError::NoKey { dir: self.folder.path().to_owned() })
    }
}
