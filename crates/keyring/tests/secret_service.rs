//! The desktop's key ring, played on a bus of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ahoy_keyring::{Holder, KeyId, SecretService, StoreKey};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use zbus::blocking::{Connection, connection};
use zbus::interface;
use zbus::object_server::ObjectServer;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

/// A bus, ended with the test.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    /// `None` where there is no program that could be one.
    fn start() -> Option<Self> {
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            eprintln!("skipped: there is no dbus-daemon");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self { daemon, address: address.trim().to_owned() })
    }

    fn holder(&self) -> SecretService {
        SecretService::on_bus(self.address.clone())
    }

    /// Begins to play a key ring; it ends when the connection is dropped.
    fn play(&self, is_locked: bool) -> Connection {
        let items = Items::default();
        let service = Service { items: items.clone(), is_locked };
        let builder = connection::Builder::address(self.address.as_str()).unwrap();
        let builder = builder.serve_at("/org/freedesktop/secrets", service).unwrap();
        let builder = builder.serve_at("/org/freedesktop/secrets/collection/login", Collection { items }).unwrap();
        builder.name("org.freedesktop.secrets").unwrap().build().unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A secret as it crosses the bus.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);
/// The items by their paths: attributes and value.
type Items = Arc<Mutex<HashMap<OwnedObjectPath, (HashMap<String, String>, Vec<u8>)>>>;

struct Service {
    items: Items,
    is_locked: bool,
}

#[interface(name = "org.freedesktop.Secret.Service")]
impl Service {
    fn open_session(&self, algorithm: String, _input: Value<'_>) -> (OwnedValue, OwnedObjectPath) {
        assert_eq!(algorithm, "plain");
        (OwnedValue::from(0_u8), path("/org/freedesktop/secrets/session/1"))
    }

    fn read_alias(&self, name: String) -> OwnedObjectPath {
        path(if name == "default" { "/org/freedesktop/secrets/collection/login" } else { "/" })
    }

    fn search_items(&self, attributes: HashMap<String, String>) -> (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) {
        let items = self.items.lock().unwrap();
        let has_all = |item: &HashMap<String, String>| attributes.iter().all(|(name, value)| item.get(name) == Some(value));
        let found = items.iter().filter(|(_, (item, _))| has_all(item)).map(|(path, _)| path.clone()).collect();
        if self.is_locked { (Vec::new(), found) } else { (found, Vec::new()) }
    }

    fn unlock(&self, objects: Vec<OwnedObjectPath>) -> (Vec<OwnedObjectPath>, OwnedObjectPath) {
        if self.is_locked { (Vec::new(), path("/org/freedesktop/secrets/prompt/1")) } else { (objects, path("/")) }
    }
}

struct Collection {
    items: Items,
}

#[interface(name = "org.freedesktop.Secret.Collection")]
impl Collection {
    async fn create_item(
        &self,
        properties: HashMap<String, OwnedValue>,
        secret: Secret,
        replace: bool,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> (OwnedObjectPath, OwnedObjectPath) {
        assert!(replace);
        let attributes = properties["org.freedesktop.Secret.Item.Attributes"].try_clone().unwrap();
        let attributes = HashMap::<String, String>::try_from(attributes).unwrap();
        let item = path(&format!("/org/freedesktop/secrets/collection/login/{}", attributes["store-key"]));
        self.items.lock().unwrap().insert(item.clone(), (attributes, secret.2));
        server.at(&item, Item { path: item.clone(), items: self.items.clone() }).await.unwrap();
        (item, path("/"))
    }
}

struct Item {
    path: OwnedObjectPath,
    items: Items,
}

#[interface(name = "org.freedesktop.Secret.Item")]
impl Item {
    fn get_secret(&self, session: OwnedObjectPath) -> (Secret,) {
        ((session, Vec::new(), self.items.lock().unwrap()[&self.path].1.clone(), "application/octet-stream".into()),)
    }

    fn delete(&self) -> OwnedObjectPath {
        self.items.lock().unwrap().remove(&self.path);
        path("/")
    }
}

fn path(text: &str) -> OwnedObjectPath {
    ObjectPath::try_from(text.to_owned()).unwrap().into()
}

#[test]
fn a_key_is_kept_replaced_and_removed() {
    let Some(bus) = Bus::start() else { return };
    let _service = bus.play(false);
    let (ring, id, key) = (bus.holder(), KeyId::generate(), StoreKey::generate());
    assert!(ring.get(&id).unwrap().is_none());
    ring.put(&id, &StoreKey::generate()).unwrap();
    ring.put(&id, &key).unwrap();
    assert_eq!(ring.get(&id).unwrap().map(|key| *key.as_bytes()), Some(*key.as_bytes()));
    assert!(ring.get(&KeyId::generate()).unwrap().is_none());
    ring.remove(&id).unwrap();
    assert!(ring.get(&id).unwrap().is_none());
}

#[test]
fn a_locked_key_ring_is_an_error_and_nobody_waits_for_a_prompt() {
    let Some(bus) = Bus::start() else { return };
    let _service = bus.play(true);
    let error = bus.holder().put(&KeyId::generate(), &StoreKey::generate()).unwrap_err();
    assert_eq!(error.to_string(), "the desktop's key ring is locked");
}

#[test]
fn a_bus_without_a_key_ring_is_an_error() {
    let nowhere = SecretService::on_bus("unix:path=/nowhere/bus".into());
    assert!(nowhere.get(&KeyId::generate()).unwrap_err().to_string().starts_with("there is no session bus"));
    let Some(bus) = Bus::start() else { return };
    assert!(bus.holder().get(&KeyId::generate()).is_err());
}
