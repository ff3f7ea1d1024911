//! A network with users, made of keys alone, for the tests of this crate.

use crate::gate::{Gate, RecordError, VerifiedRecord};
use ahoy_identity::{Network, SealSecret, SigningKey, network_id, random};
use ahoy_protocol::certificate::{DeviceCertificate, DeviceStatement, UserCertificate};
use ahoy_protocol::ids::{NodeKey, Salt};
use ahoy_protocol::record::{PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, USER_STATEMENT_LIFE, UserRecord, UserStatement};
use ahoy_protocol::roster::{Roster, SaltPeriod};
use ahoy_protocol::time::{DAY, HOUR};
use ahoy_protocol::{List, Name, Signed, Text, UnixMillis};
use std::cell::Cell;

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) struct World {
    issuing: SigningKey,
    network: Network,
    pub(crate) roster: Roster,
    serials: Cell<u64>,
}

/// A user, with the keys that a real one would never hold in one place.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: Name,
    pub(crate) key: std::rc::Rc<SigningKey>,
    pub(crate) devices: Vec<std::rc::Rc<SigningKey>>,
    epoch: u32,
    certificate: Signed<UserCertificate>,
    certificates: Vec<Signed<DeviceCertificate>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let issuing = SigningKey::generate();
        let network = Network { id: network_id(&SigningKey::generate().root_key()), issuing: vec![issuing.issuing_key()] };
        let salts = List::first_of([SaltPeriod { salt: Salt(random()), since: NOW.minus(DAY) }]);
        let roster = Roster { version: 1, issued: NOW, not_after: NOW.plus(DAY), salts, nodes: List::default(), revoked: List::default() };
        Self { issuing, network, roster, serials: Cell::new(1) }
    }

    pub(crate) fn gate(&self) -> Gate<'_> {
        Gate { network: &self.network, roster: &self.roster }
    }

    pub(crate) fn check(&self, record: Record) -> Result<VerifiedRecord, RecordError> {
        self.check_at(NOW, record)
    }

    pub(crate) fn check_at(&self, now: UnixMillis, record: Record) -> Result<VerifiedRecord, RecordError> {
        self.gate().check(now, record)
    }

    pub(crate) fn verified(&self, record: Record) -> VerifiedRecord {
        self.check(record).expect("passes the gate")
    }

    pub(crate) fn revoke(&mut self, serial: u64) {
        self.roster.revoked = List::first_of(self.roster.revoked.iter().copied().chain([serial]));
    }

    pub(crate) fn change_salt(&mut self, now: UnixMillis) {
        let last = self.roster.salts[self.roster.salts.len() - 1];
        self.roster.salts = List::first_of([last, SaltPeriod { salt: Salt(random()), since: now }]);
    }

    pub(crate) fn user(&self, name: &str, devices: usize) -> User {
        self.user_of_epoch(name, devices, 1)
    }

    pub(crate) fn user_of_epoch(&self, name: &str, devices: usize, epoch: u32) -> User {
        let name = Name::parse(name).expect("a name");
        let key = SigningKey::generate();
        let certificate = UserCertificate {
            name: name.clone(),
            user: key.user_key(),
            epoch,
            serial: self.serial(),
            issued: NOW,
            not_after: NOW.plus(30 * DAY),
        };
        let certificate = self.issuing.sign(&certificate).expect("fits");
        let mut user = User { name, key: key.into(), devices: Vec::new(), epoch, certificate, certificates: Vec::new() };
        for _ in 0..devices {
            let device = SigningKey::generate();
            user.certificates.push(self.certify(&user, &device, NOW, NOW.plus(30 * DAY)));
            user.devices.push(device.into());
        }
        user
    }

    fn serial(&self) -> u64 {
        self.serials.replace(self.serials.get() + 1)
    }

    fn certify(&self, user: &User, device: &SigningKey, issued: UnixMillis, not_after: UnixMillis) -> Signed<DeviceCertificate> {
        let statement = DeviceStatement {
            name: user.name.clone(),
            epoch: user.epoch,
            device: device.device_key(),
            seal: SealSecret::generate().public(),
            label: Text::fitting("laptop"),
            added: NOW,
        };
        let statement = user.key.sign(&statement).expect("fits");
        let certificate = DeviceCertificate { user: user.key.user_key(), statement, serial: self.serial(), issued, not_after };
        self.issuing.sign(&certificate).expect("fits")
    }
}

impl User {
    pub(crate) fn certify(&mut self, world: &World, device: usize, issued: UnixMillis, not_after: UnixMillis) {
        self.certificates[device] = world.certify(self, &self.devices[device], issued, not_after);
    }

    pub(crate) fn serial(&self) -> u64 {
        self.certificate.claims().expect("readable").serial
    }

    pub(crate) fn device_serial(&self, device: usize) -> u64 {
        self.certificates[device].claims().expect("readable").serial
    }

    pub(crate) fn statement(&self, seq: u64) -> UserStatement {
        UserStatement {
            name: self.name.clone(),
            epoch: self.epoch,
            seq,
            devices: List::first_of(self.devices.iter().map(|device| device.device_key())),
            mailboxes: List::default(),
            issued: NOW,
            not_after: NOW.plus(USER_STATEMENT_LIFE),
        }
    }

    pub(crate) fn record(&self, seq: u64) -> UserRecord {
        self.record_of(seq, &(0..self.devices.len()).collect::<Vec<_>>())
    }

    pub(crate) fn record_of(&self, seq: u64, devices: &[usize]) -> UserRecord {
        let mut statement = self.statement(seq);
        statement.devices = List::first_of(devices.iter().map(|device| self.devices[*device].device_key()));
        UserRecord {
            certificate: self.certificate.clone(),
            statement: self.key.sign(&statement).expect("fits"),
            devices: List::first_of(devices.iter().map(|device| self.certificates[*device].clone())),
        }
    }

    pub(crate) fn presence(&self, device: usize, seq: u64) -> PresenceRecord {
        let statement = PresenceStatement {
            device: self.devices[device].device_key(),
            seq,
            homes: List::first_of([NodeKey([1; 32])]),
            issued: NOW,
            not_after: NOW.plus(PRESENCE_LIFE.min(HOUR)),
        };
        PresenceRecord { statement: self.devices[device].sign(&statement).expect("fits"), certificate: self.certificates[device].clone() }
    }
}
