//! The key is found where it was put, and nowhere is it put in the clear but where that is said.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ahoy_keyring::{Cost, Holder, HolderError, KernelKeyRing, KeyFile, KeyId, Keyring, KeyringError, Opened, Slot, StoreKey};
use ahoy_store::DataFolder;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };
const PASSWORD: &str = "correct horse battery";

type Keys = BTreeMap<String, [u8; 32]>;

/// A key ring of the test's making; `None`: it is broken.
#[derive(Debug, Clone, Default)]
struct Ring(Arc<Mutex<Option<Keys>>>);

impl Ring {
    fn working() -> Self {
        Self(Arc::new(Mutex::new(Some(Keys::new()))))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Keys) -> T) -> Result<T, HolderError> {
        self.0.lock().unwrap().as_mut().map(use_it).ok_or_else(|| HolderError("it is broken".into()))
    }
}

impl Holder for Ring {
    fn slot(&self) -> Slot {
        Slot::KernelKeyRing
    }

    fn get(&self, id: &KeyId) -> Result<Option<StoreKey>, HolderError> {
        self.with(|keys| keys.get(id.as_str()).copied().map(StoreKey::from_bytes))
    }

    fn put(&self, id: &KeyId, key: &StoreKey) -> Result<(), HolderError> {
        self.with(|keys| keys.insert(id.as_str().to_owned(), *key.as_bytes())).map(drop)
    }

    fn remove(&self, id: &KeyId) -> Result<(), HolderError> {
        self.with(|keys| keys.remove(id.as_str())).map(drop)
    }
}

struct Scene {
    dir: TempDir,
    ring: Ring,
}

impl Scene {
    fn new(ring: Ring) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), ring }
    }

    /// The slots as a program that is started finds them.
    fn keyring(&self) -> Keyring {
        let folder = DataFolder::open(&self.account(), "ahoy", 1).unwrap();
        let file = KeyFile::in_folder(self.keys());
        Keyring::new(folder, vec![Box::new(self.ring.clone()), Box::new(file)], CHEAP)
    }

    fn account(&self) -> PathBuf {
        self.dir.path().join("account")
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }
}

fn bytes_of(opened: &Opened) -> [u8; 32] {
    *opened.key.as_bytes()
}

#[test]
fn a_key_that_was_made_is_opened_without_the_password() {
    let scene = Scene::new(Ring::working());
    assert!(!scene.keyring().has_key().unwrap());
    let made = scene.keyring().create(PASSWORD).unwrap();
    let opened = scene.keyring().open(None).unwrap();
    assert_eq!((bytes_of(&opened), opened.slot), (bytes_of(&made), Slot::KernelKeyRing));
    assert!(scene.keyring().has_key().unwrap());
    assert!(!scene.keys().exists(), "there is a key ring, so there is no file");
}

#[test]
fn after_a_restart_of_the_system_the_password_opens_and_brings_the_key_back() {
    let scene = Scene::new(Ring::working());
    let made = scene.keyring().create(PASSWORD).unwrap();
    scene.ring.with(Keys::clear).unwrap();
    let locked = scene.keyring().open(None).unwrap_err();
    assert!(matches!(locked, KeyringError::Locked { .. }), "{locked}");
    let wrong = scene.keyring().open(Some("another")).unwrap_err();
    assert!(matches!(wrong, KeyringError::WrongPassword { .. }), "{wrong}");
    assert_eq!(bytes_of(&scene.keyring().open(Some(PASSWORD)).unwrap()), bytes_of(&made));
    assert_eq!(bytes_of(&scene.keyring().open(None).unwrap()), bytes_of(&made));
}

#[test]
fn without_a_key_ring_the_key_is_in_a_file_elsewhere_and_that_is_told() {
    let scene = Scene::new(Ring::default());
    let made = scene.keyring().create(PASSWORD).unwrap();
    assert_eq!(made.slot, Slot::KeyFile);
    assert!(made.slot.caution().is_some());
    let opened = scene.keyring().open(None).unwrap();
    assert_eq!((bytes_of(&opened), opened.slot), (bytes_of(&made), Slot::KeyFile));
    std::fs::remove_dir_all(scene.keys()).unwrap();
    let locked = scene.keyring().open(None).unwrap_err().to_string();
    assert!(locked.contains("it is broken"), "{locked}");
}

#[test]
fn a_key_of_another_time_is_not_taken() {
    let scene = Scene::new(Ring::working());
    let made = scene.keyring().create(PASSWORD).unwrap();
    scene.ring.with(|keys| keys.values_mut().for_each(|key| *key = [0; 32])).unwrap();
    assert!(matches!(scene.keyring().open(None), Err(KeyringError::Locked { .. })));
    assert_eq!(bytes_of(&scene.keyring().open(Some(PASSWORD)).unwrap()), bytes_of(&made));
}

#[test]
fn a_changed_password_opens_and_the_one_before_does_not() {
    let scene = Scene::new(Ring::working());
    let made = scene.keyring().create(PASSWORD).unwrap();
    scene.keyring().set_password(&made.key, "another").unwrap();
    scene.ring.with(Keys::clear).unwrap();
    assert!(matches!(scene.keyring().open(Some(PASSWORD)), Err(KeyringError::WrongPassword { .. })));
    assert_eq!(bytes_of(&scene.keyring().open(Some("another")).unwrap()), bytes_of(&made));
}

#[test]
fn a_removed_key_is_nowhere() {
    let scene = Scene::new(Ring::working());
    scene.keyring().create(PASSWORD).unwrap();
    scene.keyring().remove().unwrap();
    assert_eq!(scene.ring.with(|keys| keys.len()), Ok(0));
    assert!(matches!(scene.keyring().open(Some(PASSWORD)), Err(KeyringError::NoKey { .. })));
}

#[test]
fn a_key_made_anew_leaves_nothing_of_the_one_before() {
    let scene = Scene::new(Ring::working());
    let before = scene.keyring().create(PASSWORD).unwrap();
    let made = scene.keyring().create(PASSWORD).unwrap();
    assert_ne!(bytes_of(&made), bytes_of(&before));
    assert_eq!(scene.ring.with(|keys| keys.values().copied().collect::<Vec<_>>()), Ok(vec![bytes_of(&made)]));
    assert_eq!(bytes_of(&scene.keyring().open(None).unwrap()), bytes_of(&made));
}

#[test]
fn the_folder_alone_does_not_give_the_key_away() {
    let scene = Scene::new(Ring::default());
    let made = scene.keyring().create(PASSWORD).unwrap();
    let hex = data_encoding::HEXLOWER.encode(made.key.as_bytes());
    for file in std::fs::read_dir(scene.account()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(32).any(|window| window == made.key.as_bytes()));
        assert!(!String::from_utf8_lossy(&bytes).contains(&hex));
    }
    assert!(!format!("{made:?}").contains(&hex[..8]));
}

#[test]
fn damaged_slots_are_an_error_and_no_path() {
    let scene = Scene::new(Ring::default());
    scene.keyring().create(PASSWORD).unwrap();
    let file = scene.account().join("store-key.json");
    let mut slots: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    slots["id"] = "../../elsewhere".into();
    std::fs::write(&file, slots.to_string()).unwrap();
    assert!(matches!(scene.keyring().open(Some(PASSWORD)), Err(KeyringError::NoKey { .. })));
    std::fs::write(&file, "{").unwrap();
    assert!(matches!(scene.keyring().open(Some(PASSWORD)), Err(KeyringError::Folder(_))));
}

#[test]
fn the_kernel_keeps_a_key_until_it_is_removed() {
    let (ring, id, key) = (KernelKeyRing, KeyId::generate(), StoreKey::generate());
    if let Err(error) = ring.put(&id, &key) {
        // Containers often have no access to it.
        eprintln!("skipped: {error}");
        return;
    }
    assert_eq!(ring.get(&id).unwrap().map(|key| *key.as_bytes()), Some(*key.as_bytes()));
    let other = StoreKey::generate();
    ring.put(&id, &other).unwrap();
    assert_eq!(ring.get(&id).unwrap().map(|key| *key.as_bytes()), Some(*other.as_bytes()));
    ring.remove(&id).unwrap();
    assert!(ring.get(&id).unwrap().is_none());
    ring.remove(&id).unwrap();
}
