//! The desktop's key ring, by the D-Bus interface that GNOME Keyring, KWallet and KeePassXC share (freedesktop.org's Secret Service).
//!
//! A key ring that is locked is not asked to unlock itself: that would wait for somebody at the screen, who may not be there; the password
//! is asked instead. Secrets cross the bus as they are: whoever can listen to the user's own bus can ask the key ring, too.

use crate::holder::{Holder, HolderError, Slot};
use crate::key::{KeyId, StoreKey};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;
use zbus::blocking::{Connection, connection};
use zbus::zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Type, Value};
use zeroize::Zeroizing;

const NAME: &str = "org.freedesktop.secrets";
const SERVICE_PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
/// How long the key ring may take to answer; the first question starts it.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// What the service writes where there is no object.
const NOTHING: &str = "/";
/// What the user reads in the list of secrets.
const LABEL: &str = "Ahoy: key of the messages";

/// The key ring of the session.
#[derive(Debug)]
pub struct SecretService {
    /// Where its bus is, if it is not the one that the session's environment names.
    address: Option<String>,
}

/// A secret as it crosses the bus: session, parameters of its encryption, value, media type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// A conversation with the key ring, at the end of which it forgets the session.
struct Session {
    bus: Connection,
    path: OwnedObjectPath,
}

impl SecretService {
    /// The key ring on the bus of this session.
    #[must_use]
    pub fn of_session() -> Self {
        Self { address: None }
    }

    /// The key ring on the bus at this address.
    #[must_use]
    pub fn on_bus(address: String) -> Self {
        Self { address: Some(address) }
    }

    fn session(&self) -> Result<Session, HolderError> {
        let builder = match &self.address {
            Some(address) => connection::Builder::address(address.as_str()),
            None => connection::Builder::session(),
        };
        let bus = builder.and_then(|builder| builder.method_timeout(ANSWER_TIME).build());
        let bus = bus.map_err(|error| HolderError(format!("there is no session bus: {error}")))?;
        let mut session = Session { bus, path: OwnedObjectPath::default() };
        let opened: (OwnedValue, OwnedObjectPath) = session.ask(SERVICE_PATH, SERVICE, "OpenSession", &("plain", Value::from("")))?;
        session.path = opened.1;
        Ok(session)
    }
}

impl Holder for SecretService {
    fn slot(&self) -> Slot {
        Slot::SecretService
    }

    fn get(&self, id: &KeyId) -> Result<Option<StoreKey>, HolderError> {
        let session = self.session()?;
        let Some(item) = session.find(id)?.into_iter().next() else { return Ok(None) };
        let secret: (Secret,) = session.ask(item.as_str(), ITEM, "GetSecret", &(&session.path,))?;
        Ok(StoreKey::from_slice(&Zeroizing::new(secret.0.2)))
    }

    fn put(&self, id: &KeyId, key: &StoreKey) -> Result<(), HolderError> {
        let session = self.session()?;
        let collection: OwnedObjectPath = session.ask(SERVICE_PATH, SERVICE, "ReadAlias", &("default",))?;
        if collection.as_str() == NOTHING {
            return Err(HolderError("the desktop's key ring has no default collection".into()));
        }
        session.unlock(std::slice::from_ref(&collection))?;
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Value::from(LABEL)),
            ("org.freedesktop.Secret.Item.Attributes", Value::from(attributes(id))),
        ]);
        let secret: Secret = (session.path.clone(), Vec::new(), key.as_bytes().to_vec(), "application/octet-stream".into());
        let created: (OwnedObjectPath, OwnedObjectPath) =
            session.ask(collection.as_str(), COLLECTION, "CreateItem", &(properties, &secret, true))?;
        session.done(&created.1)
    }

    fn remove(&self, id: &KeyId) -> Result<(), HolderError> {
        let session = self.session()?;
        for item in session.find(id)? {
            let prompt: OwnedObjectPath = session.ask(item.as_str(), ITEM, "Delete", &())?;
            session.done(&prompt)?;
        }
        Ok(())
    }
}

impl Session {
    /// The items with this key, unlocked.
    fn find(&self, id: &KeyId) -> Result<Vec<OwnedObjectPath>, HolderError> {
        let found: (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = self.ask(SERVICE_PATH, SERVICE, "SearchItems", &(attributes(id),))?;
        let (mut unlocked, locked) = found;
        if unlocked.is_empty() && !locked.is_empty() {
            self.unlock(&locked)?;
            unlocked = locked;
        }
        Ok(unlocked)
    }

    /// Unlocks what can be without asking somebody.
    fn unlock(&self, objects: &[OwnedObjectPath]) -> Result<(), HolderError> {
        let unlocked: (Vec<OwnedObjectPath>, OwnedObjectPath) = self.ask(SERVICE_PATH, SERVICE, "Unlock", &(objects,))?;
        self.done(&unlocked.1)
    }

    /// An error where the key ring wants to ask the user something first.
    fn done(&self, prompt: &ObjectPath<'_>) -> Result<(), HolderError> {
        if prompt.as_str() == NOTHING {
            return Ok(());
        }
        // The question is taken back; whether the key ring understood makes no difference.
        let _ = self.bus.call_method(Some(NAME), prompt, Some("org.freedesktop.Secret.Prompt"), "Dismiss", &());
        Err(HolderError("the desktop's key ring is locked".into()))
    }

    fn ask<A: DeserializeOwned + Type>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        question: &(impl serde::Serialize + DynamicType),
    ) -> Result<A, HolderError> {
        let because = |error: zbus::Error| HolderError(format!("the desktop's key ring does not answer to {method}: {error}"));
        let reply = self.bus.call_method(Some(NAME), path, Some(interface), method, question).map_err(because)?;
        reply.body().deserialize().map_err(because)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.path.as_str() != NOTHING {
            // The key ring forgets it in any case when the connection ends.
            let _ = self.bus.call_method(Some(NAME), &self.path, Some("org.freedesktop.Secret.Session"), "Close", &());
        }
    }
}

/// By which the key ring finds a key.
fn attributes(id: &KeyId) -> HashMap<&'static str, &str> {
    HashMap::from([("application", "ahoy"), ("store-key", id.as_str())])
}
