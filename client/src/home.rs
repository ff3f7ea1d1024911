//! The home: the folder in which a device keeps its account.
//!
//! At rest are the device's own keys, its certificates and what it has learned of others; never the user key, never the password.

use crate::calls::{CALLS_MAX, CallRecord};
use crate::settings::{Key, SettingError, Settings};
use ahoy_identity::{ChainError, Network, SealSecret, SigningKey};
use ahoy_login_client::{LoginClient, LoginClientError};
use ahoy_protocol::certificate::NetworkDocument;
use ahoy_protocol::link::LinkError;
use ahoy_protocol::login::{Credentials, RosterReply};
use ahoy_protocol::name::NameError;
use ahoy_protocol::record::{Record, UserRecord};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::{Name, NetworkLink, Signed, UserKey, Wire, WireError};
use ahoy_store::{DataFolder, FolderLock, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// What data folders of this program are called.
const PROGRAM: &str = "ahoy";
/// Version of what is in them.
const FORMAT: u32 = 1;
/// Most people whose keys are remembered.
const PINS_MAX: usize = 100_000;

const ACCOUNT: &str = "account.json";
const DEVICE_KEYS: &str = "device.key";
const NETWORK: &str = "network.bin";
const CREDENTIALS: &str = "credentials.bin";
const RECORD: &str = "record.bin";
const ROSTER: &str = "roster.bin";
const PINS: &str = "pins.json";
const SETTINGS: &str = "settings.json";
const CALLS: &str = "calls.json";

/// Why a home cannot be used.
#[derive(Debug, Error)]
pub enum HomeError {
    /// The folder, or a file in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody has signed in here.
    #[error("nobody is signed in at {}; use `ahoy register NAME --network LINK` or `ahoy sign-in NAME --network LINK` first", .0.display())]
    NobodySignedIn(PathBuf),
    /// A setting cannot be what it was to be.
    #[error(transparent)]
    Setting(SettingError),
    /// The settings hold what is none.
    #[error("{SETTINGS} in {dir} is damaged: {reason}; remove what is wrong with `ahoy settings unset KEY`, or remove the file", dir = .dir.display())]
    Settings {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        reason: SettingError,
    },
    /// Another account is here.
    #[error("{dir} belongs to {owner}; name another folder with --home for {asked}", dir = .dir.display())]
    OtherAccount {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asked.
        asked: Name,
    },
    /// A file holds something that this program did not write.
    #[error("{file} in {} is damaged: {reason}; sign in again with `ahoy sign-in`", .dir.display())]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// The folder of a device.
#[derive(Debug)]
pub struct Home {
    folder: DataFolder,
    /// Held while pins are written.
    pins: Mutex<()>,
    /// Held while calls are written.
    calls: Mutex<()>,
}

/// The keys of this device.
#[derive(Debug, Clone)]
pub struct DeviceKeys {
    /// Signs, and is the device's identity in TLS.
    pub signing: SigningKey,
    /// Opens what is sealed to the device.
    pub seal: SealSecret,
}

/// All that a device knows of its account.
#[derive(Debug, Clone)]
pub struct Account {
    /// The network.
    pub link: NetworkLink,
    /// The account's name.
    pub name: Name,
    /// This device's keys.
    pub keys: DeviceKeys,
    /// The network's root key and what it signed.
    pub document: NetworkDocument,
    /// What signatures are checked against.
    pub network: Network,
    /// Certificates and grant.
    pub credentials: Credentials,
    /// The newest user record of one's own.
    pub record: UserRecord,
    /// The newest roster.
    pub roster: Signed<Roster>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AccountFile {
    network: String,
    name: String,
}

/// The key under which somebody was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    user: String,
    epoch: u32,
    /// Whether there has been a call with them that was answered.
    #[serde(default)]
    has_talked: bool,
}

/// What the key of somebody just looked up is, compared with the one seen first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinCheck {
    /// Never seen before: it is to be remembered.
    First,
    /// The one seen before, of somebody with whom no call has been answered yet.
    Seen,
    /// The one known from calls.
    Same,
    /// Another one. Nothing may be sent under it before the user has had a look.
    Changed,
}

impl Home {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        Ok(Self { folder: DataFolder::open(dir, PROGRAM, FORMAT)?, pins: Mutex::default(), calls: Mutex::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes this process the home's owner until the lock is dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process is.
    pub fn lock(&self) -> Result<FolderLock, HomeError> {
        Ok(self.folder.lock()?)
    }

    /// True if somebody has signed in here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn has_account(&self) -> Result<bool, HomeError> {
        Ok(self.folder.read(CREDENTIALS)?.is_some())
    }

    /// Refuses the home to anybody but the one who signed in here first.
    ///
    /// # Errors
    /// [`HomeError::OtherAccount`].
    pub fn check_owner(&self, name: &Name, link: &NetworkLink) -> Result<(), HomeError> {
        let Some(file) = self.folder.read_json::<AccountFile>(ACCOUNT)? else { return Ok(()) };
        let is_same_network = file.network.parse::<NetworkLink>().is_ok_and(|known| known.network == link.network);
        if is_same_network && file.name == name.as_str() {
            return Ok(());
        }
        let owner = if is_same_network { file.name } else { format!("{} of another network", file.name) };
        Err(HomeError::OtherAccount { dir: self.path().to_owned(), owner, asked: name.clone() })
    }

    /// This device's keys, made at the first call.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn device_keys(&self) -> Result<DeviceKeys, HomeError> {
        if let Some(bytes) = self.folder.read(DEVICE_KEYS)? {
            return parse_keys(&bytes).ok_or_else(|| self.damaged(DEVICE_KEYS, &"it must have 64 bytes"));
        }
        let keys = DeviceKeys { signing: SigningKey::generate(), seal: SealSecret::generate() };
        self.folder.write(DEVICE_KEYS, &[&keys.signing.seed()[..], &keys.seal.as_bytes()[..]].concat())?;
        Ok(keys)
    }

    /// Keeps an account.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn save(&self, account: &Account) -> Result<(), HomeError> {
        let file = AccountFile { network: account.link.to_string(), name: account.name.to_string() };
        self.folder.write_json(ACCOUNT, &file)?;
        self.write(NETWORK, &account.document)?;
        self.save_record(&account.record)?;
        self.save_roster(&account.roster)?;
        // Last, because its presence says that the rest is there.
        self.save_credentials(&account.credentials)
    }

    /// Keeps renewed credentials.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn save_credentials(&self, credentials: &Credentials) -> Result<(), HomeError> {
        self.write(CREDENTIALS, credentials)
    }

    /// Keeps a newer user record.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn save_record(&self, record: &UserRecord) -> Result<(), HomeError> {
        self.write(RECORD, &Record::User(record.clone()))
    }

    /// Keeps a newer roster.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn save_roster(&self, roster: &Signed<Roster>) -> Result<(), HomeError> {
        self.write(ROSTER, &RosterReply { roster: Some(roster.clone()) })
    }

    /// The account that signed in here.
    ///
    /// # Errors
    /// [`HomeError::NobodySignedIn`], [`HomeError::Damaged`], or the folder's.
    pub fn account(&self) -> Result<Account, HomeError> {
        let nobody = || HomeError::NobodySignedIn(self.path().to_owned());
        let file: AccountFile = self.folder.read_json(ACCOUNT)?.ok_or_else(nobody)?;
        let credentials: Credentials = self.read(CREDENTIALS)?.ok_or_else(nobody)?;
        let document: NetworkDocument = self.read(NETWORK)?.ok_or_else(nobody)?;
        let record = match self.read(RECORD)?.ok_or_else(nobody)? {
            Record::User(record) => record,
            Record::Presence(_) => return Err(self.damaged(RECORD, &"it holds another kind of record")),
        };
        let link: NetworkLink = file.network.parse().map_err(|error: LinkError| self.damaged(ACCOUNT, &error))?;
        let name: Name = file.name.parse().map_err(|error: NameError| self.damaged(ACCOUNT, &error))?;
        let network = Network::from_document(&document, &link.network).map_err(|error: ChainError| self.damaged(NETWORK, &error))?;
        let kept: Option<RosterReply> = self.read(ROSTER)?;
        let roster = kept.and_then(|reply| reply.roster).unwrap_or_else(|| credentials.roster.clone());
        Ok(Account { link, name, keys: self.device_keys()?, document, network, credentials, record, roster })
    }

    /// A client of the login server of `account`, through the proxy that the settings or the environment name. Nothing is sent.
    ///
    /// # Errors
    /// See [`LoginClientError`].
    pub fn login_client(&self, account: &Account) -> Result<LoginClient, LoginClientError> {
        // Damaged settings are told where they are read first.
        let (reach, _) = self.settings().unwrap_or_default().reach_here();
        LoginClient::with_network_through(&account.link, account.document.clone(), reach.login_proxy(&account.link).as_deref())
    }

    /// What the user has set.
    ///
    /// # Errors
    /// [`HomeError::Settings`] if a value is none, or the folder's.
    pub fn settings(&self) -> Result<Settings, HomeError> {
        let values: BTreeMap<String, String> = self.folder.read_json(SETTINGS)?.unwrap_or_default();
        Settings::from_values(values).map_err(|reason| HomeError::Settings { dir: self.path().to_owned(), reason })
    }

    /// Changes one setting: `None` makes it the default again, and that also where the value that it has is none.
    ///
    /// # Errors
    /// [`HomeError::Settings`] if another value is none, or the folder's.
    pub fn change_setting(&self, key: Key, value: Option<&str>) -> Result<Settings, HomeError> {
        let damaged = |reason| HomeError::Settings { dir: self.path().to_owned(), reason };
        let mut values: BTreeMap<String, String> = self.folder.read_json(SETTINGS)?.unwrap_or_default();
        values.remove(key.as_str());
        let mut settings = Settings::from_values(values).map_err(damaged)?;
        if let Some(value) = value {
            settings.set(key, value).map_err(HomeError::Setting)?;
        }
        self.folder.write_json(SETTINGS, settings.values())?;
        Ok(settings)
    }

    /// Compares somebody's key with the one first seen.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn check_pin(&self, name: &Name, user: &UserKey) -> Result<PinCheck, HomeError> {
        let pins: BTreeMap<String, Pin> = self.folder.read_json(PINS)?.unwrap_or_default();
        Ok(match pins.get(name.as_str()) {
            Some(known) if known.user == user.to_string() && known.has_talked => PinCheck::Same,
            Some(known) if known.user == user.to_string() => PinCheck::Seen,
            Some(_) => PinCheck::Changed,
            None => PinCheck::First,
        })
    }

    /// Remembers the key of somebody who was never seen before (trust on first use). It is written to the disk, which takes its time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remember_pin(&self, name: &Name, user: &UserKey, epoch: u32) -> Result<(), HomeError> {
        // Two at a time would forget one of them.
        let _writing = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pins: BTreeMap<String, Pin> = self.folder.read_json(PINS)?.unwrap_or_default();
        if !pins.contains_key(name.as_str()) && pins.len() < PINS_MAX {
            pins.insert(name.to_string(), Pin { user: user.to_string(), epoch, has_talked: false });
            self.folder.write_json(PINS, &pins)?;
        }
        Ok(())
    }

    /// Remembers that there was a call with somebody that was answered: from here on he is no stranger.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remember_talk(&self, name: &Name) -> Result<(), HomeError> {
        let _writing = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pins: BTreeMap<String, Pin> = self.folder.read_json(PINS)?.unwrap_or_default();
        if let Some(pin) = pins.get_mut(name.as_str()).filter(|pin| !pin.has_talked) {
            pin.has_talked = true;
            self.folder.write_json(PINS, &pins)?;
        }
        Ok(())
    }

    /// Forgets the key of somebody, so that the one seen next is trusted.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn forget_pin(&self, name: &Name) -> Result<(), HomeError> {
        let mut pins: BTreeMap<String, Pin> = self.folder.read_json(PINS)?.unwrap_or_default();
        if pins.remove(name.as_str()).is_some() {
            self.folder.write_json(PINS, &pins)?;
        }
        Ok(())
    }

    /// The calls of the past, the oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn calls(&self) -> Result<Vec<CallRecord>, HomeError> {
        Ok(self.folder.read_json(CALLS)?.unwrap_or_default())
    }

    /// Keeps a call that is over, and forgets the oldest where there are more than [`CALLS_MAX`]. It is written to the disk, which takes its time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn remember_call(&self, call: CallRecord) -> Result<(), HomeError> {
        let _writing = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut calls = match self.calls() {
            // What a person damaged is of no more use, and must not keep the calls from here on from being kept.
            Err(HomeError::Store(StoreError::Damaged { .. })) => Vec::new(),
            calls => calls?,
        };
        calls.push(call);
        let surplus = calls.len().saturating_sub(CALLS_MAX);
        calls.drain(..surplus);
        Ok(self.folder.write_json(CALLS, &calls)?)
    }

    fn write<T: Wire>(&self, file: &'static str, value: &T) -> Result<(), HomeError> {
        let bytes = value.encode().map_err(|error| self.damaged(file, &error))?;
        Ok(self.folder.write(file, &bytes)?)
    }

    fn read<T: Wire>(&self, file: &'static str) -> Result<Option<T>, HomeError> {
        let Some(bytes) = self.folder.read(file)? else { return Ok(None) };
        T::decode(&bytes).map(Some).map_err(|error: WireError| self.damaged(file, &error))
    }

    fn damaged(&self, file: &'static str, reason: &dyn std::fmt::Display) -> HomeError {
        HomeError::Damaged { dir: self.path().to_owned(), file, reason: reason.to_string() }
    }
}

fn parse_keys(bytes: &[u8]) -> Option<DeviceKeys> {
    let (seed, secret) = bytes.split_at_checked(32)?;
    Some(DeviceKeys { signing: SigningKey::from_seed(seed.try_into().ok()?), seal: SealSecret::from_bytes(secret.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::open(dir.path()).expect("opens");
        (dir, home)
    }

    #[test]
    fn a_device_keeps_its_keys() {
        let (_dir, home) = home();
        let first = home.device_keys().expect("made");
        let second = home.device_keys().expect("read");
        assert_eq!(first.signing.public(), second.signing.public());
        assert_eq!(first.seal.public(), second.seal.public());
    }

    #[test]
    fn a_key_is_trusted_on_first_use_and_not_when_it_changes() {
        let (_dir, home) = home();
        let bob = Name::parse("bob").expect("a name");
        let (first, other) = (UserKey([1; 32]), UserKey([2; 32]));
        assert_eq!(home.check_pin(&bob, &first).expect("read"), PinCheck::First);
        home.remember_pin(&bob, &first, 1).expect("stored");
        assert_eq!(home.check_pin(&bob, &first).expect("read"), PinCheck::Seen);
        home.remember_talk(&bob).expect("stored");
        assert_eq!(home.check_pin(&bob, &first).expect("read"), PinCheck::Same);
        assert_eq!(home.check_pin(&bob, &other).expect("read"), PinCheck::Changed);
        home.remember_pin(&bob, &other, 2).expect("stored");
        assert_eq!(home.check_pin(&bob, &first).expect("read"), PinCheck::Same);
    }

    #[test]
    fn settings_are_kept_and_a_damaged_one_can_be_unset() {
        let (_dir, home) = home();
        home.change_setting(Key::Udp, Some("never")).expect("stored");
        assert!(home.change_setting(Key::Udp, Some("loud")).is_err());
        assert_eq!(home.settings().expect("read").shown(Key::Udp).as_deref(), Some("never"));
        std::fs::write(home.path().join(SETTINGS), r#"{"udp":"loud"}"#).expect("written");
        let error = home.settings().expect_err("damaged").to_string();
        assert!(error.contains("udp") && error.contains("unset"), "{error}");
        assert_eq!(home.change_setting(Key::Udp, None).expect("mended"), Settings::default());
    }

    #[test]
    fn the_last_thousand_calls_are_kept() {
        let (_dir, home) = home();
        assert!(home.calls().expect("read").is_empty());
        let call = |number: usize| CallRecord { call: number.to_string(), ..CallRecord::default() };
        let full: Vec<_> = (0..CALLS_MAX).map(call).collect();
        home.folder.write_json(CALLS, &full).expect("written");
        home.remember_call(call(CALLS_MAX)).expect("stored");
        let calls = home.calls().expect("read");
        assert_eq!((calls.len(), calls[0].call.as_str(), calls[CALLS_MAX - 1].call.as_str()), (CALLS_MAX, "1", "1000"));
        std::fs::write(home.path().join(CALLS), "[{").expect("written");
        assert!(home.calls().is_err());
        home.remember_call(call(7)).expect("stored");
        assert_eq!(home.calls().expect("read").len(), 1);
    }

    #[test]
    fn an_empty_home_says_what_to_do() {
        let (_dir, home) = home();
        let error = home.account().expect_err("nobody").to_string();
        assert!(error.contains("ahoy sign-in"), "{error}");
    }
}
