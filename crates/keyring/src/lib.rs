//! Where the key of a device's archive lies between two starts of the program.
//!
//! The key is random, and made once. What is in the account's folder alone does not give it away: it lies in *slots*, each of which is enough.
//!
//! 1. The desktop's key ring (Secret Service), where the session has one.
//! 2. The kernel's key ring of the user, which lasts until the system is restarted.
//! 3. The folder itself, sealed under the account's password (Argon2id). It is always there.
//! 4. A file outside of the folder, where neither key ring works. It keeps the archive from whoever gets a copy of the folder, and from
//!    nobody else; [`Slot::caution`] says so.
//!
//! The key is in the first of 1, 2 and 4 that takes it, and is brought there again whenever the password had to be asked.

mod holder;
#[cfg(target_os = "linux")]
mod kernel;
mod key;
mod key_file;
mod keyring;
mod password;
mod secret_service;

pub use holder::{Holder, HolderError, Slot};
#[cfg(target_os = "linux")]
pub use kernel::KernelKeyRing;
pub use key::{KeyId, StoreKey};
pub use key_file::KeyFile;
pub use keyring::{Keyring, KeyringError, Opened};
pub use password::Cost;
pub use secret_service::SecretService;
