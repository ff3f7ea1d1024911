//! Users with devices, made of keys alone, and a store for the tests of this crate.

use crate::{Limits, MailStore, Opened, VerifiedTerms};
use ahoy_identity::{Network, SealSecret, SigningKey, network_id, pass, random};
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement};
use ahoy_protocol::ids::{DeviceKey, EnvelopeId, MailboxSecret, PassId, RatchetKey, UserKey};
use ahoy_protocol::mail::{Envelope, MailboxTerms, Permit, Prekey, PrekeyKind};
use ahoy_protocol::time::DAY;
use ahoy_protocol::{Blob, List, Name, Signed, Text, UnixMillis};
use tempfile::TempDir;

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A store in a folder of its own.
pub(crate) struct Shop {
    pub(crate) folder: TempDir,
    pub(crate) store: MailStore,
}

impl Shop {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = MailStore::open(&folder.path().join("mail.sqlite"), limits).expect("opens");
        Self { folder, store }
    }

    /// What is there after a restart.
    pub(crate) fn reopened(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        let store = MailStore::open(&folder.path().join("mail.sqlite"), Limits::default()).expect("opens again");
        Self { folder, store }
    }
}

/// A user, his network and his devices.
pub(crate) struct User {
    pub(crate) network: Network,
    issuing: SigningKey,
    key: SigningKey,
    pub(crate) devices: Vec<SigningKey>,
    pub(crate) secret: MailboxSecret,
}

impl User {
    pub(crate) fn new(devices: usize) -> Self {
        let issuing = SigningKey::generate();
        let network = Network { id: network_id(&issuing.root_key()), issuing: vec![issuing.issuing_key()] };
        let devices = (0..devices).map(|_| SigningKey::generate()).collect();
        Self { network, issuing, key: SigningKey::generate(), devices, secret: MailboxSecret(random()) }
    }

    pub(crate) fn user(&self) -> UserKey {
        self.key.user_key()
    }

    pub(crate) fn device(&self, n: usize) -> DeviceKey {
        self.devices[n].device_key()
    }

    pub(crate) fn certificate(&self, device: usize) -> Signed<DeviceCertificate> {
        let statement = DeviceStatement {
            name: Name::parse("bob").expect("a name"),
            epoch: 1,
            device: self.device(device),
            seal: SealSecret::generate().public(),
            label: Text::fitting("laptop"),
            added: NOW,
        };
        let statement = self.key.sign(&statement).expect("fits");
        let certificate = DeviceCertificate { user: self.user(), statement, serial: 1, issued: NOW, not_after: NOW.plus(30 * DAY) };
        self.issuing.sign(&certificate).expect("fits")
    }

    pub(crate) fn terms(&self, device: usize, version: u64) -> MailboxTerms {
        MailboxTerms {
            user: self.user(),
            device: self.device(device),
            version,
            secret: self.secret,
            revoked: List::default(),
            strangers: true,
            mailboxes: List::default(),
        }
    }

    pub(crate) fn verified(&self, device: usize, terms: &MailboxTerms) -> VerifiedTerms {
        let signed = self.devices[device].sign(terms).expect("fits");
        VerifiedTerms::check(&self.network, NOW, signed, self.certificate(device)).expect("holds")
    }

    pub(crate) fn open(&self, store: &mut MailStore, device: usize) -> Opened {
        store.open_mailbox(NOW, &self.verified(device, &self.terms(device, 1))).expect("opens")
    }

    pub(crate) fn permit(&self, contact: u8) -> Permit {
        Permit::Pass(pass(&self.secret, PassId([contact; 16])))
    }

    pub(crate) fn key(&self, device: usize, n: u8, kind: PrekeyKind) -> Signed<Prekey> {
        let prekey = Prekey { device: self.device(device), identity: RatchetKey([0; 32]), key: RatchetKey([n; 32]), kind, issued: NOW };
        self.devices[device].sign(&prekey).expect("fits")
    }
}

/// Somebody else.
pub(crate) const ALICE: UserKey = UserKey([0xa1; 32]);

pub(crate) fn id(n: u32) -> EnvelopeId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.to_be_bytes());
    EnvelopeId(id)
}

pub(crate) fn envelope(to: DeviceKey, n: u32, len: usize) -> Envelope {
    Envelope { to, id: id(n), not_after: NOW.plus(10 * DAY), sealed: Blob::new(vec![7; len]).expect("fits") }
}
