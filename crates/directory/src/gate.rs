//! The gate: which records a store takes and a reader believes.
//!
//! A record passes if everything in it was signed by whom it had to be signed by, all its parts speak of the same user or
//! device, and its times hold. One thing is lenient on purpose. Certificates of devices are renewed by each device for
//! itself, so a telephone that lay in a drawer for months has a lapsed one; that must not make its user's other devices
//! unreachable. Such a device, like a revoked one, is left out of [`VerifiedUser::devices`], and only a record of which no
//! device is left is refused.

use crate::merge::Version;
use ahoy_identity::{ChainError, Network, VerifiedDevice, VerifyError, record_key, verify};
use ahoy_protocol::certificate::{DeviceCertificate, UserCertificate};
use ahoy_protocol::ids::{DeviceKey, NodeKey, RecordKey, UserKey};
use ahoy_protocol::record::{
    PRESENCE_LIFE, PresenceRecord, PresenceStatement, Record, Subject, USER_STATEMENT_LIFE, UserRecord, UserStatement,
};
use ahoy_protocol::roster::Roster;
use ahoy_protocol::time::CLOCK_AHEAD_MAX;
use ahoy_protocol::{Name, Signed, UnixMillis, Wire, WireError};
use std::time::Duration;
use thiserror::Error;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It is not a record.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A certificate in it does not hold.
    #[error("a certificate in the record does not hold: {0}")]
    Chain(String),
    /// A statement in it was not signed by the key that had to sign it.
    #[error("the statement of the record does not hold: {0}")]
    Signature(String),
    /// Its parts speak of different users, devices or epochs.
    #[error("the parts of the record do not agree on the {0}")]
    Disagreement(&'static str),
    /// A certificate in it was revoked.
    #[error("a certificate in the record was revoked")]
    Revoked,
    /// None of its devices has a certificate that counts.
    #[error("no device in the record has a certificate that counts")]
    NoDevice,
    /// Its end of validity has passed, or is further away than it may be.
    #[error("the record is not valid at this time")]
    OutOfTime,
    /// Its time or sequence number lies ahead of this program's clock.
    #[error("the record comes from the future")]
    Ahead,
    /// It lies under a key that is not the hash of its subject.
    #[error("the record lies under a key that is not its own")]
    WrongKey,
}

impl From<ChainError> for RecordError {
    fn from(error: ChainError) -> Self {
        Self::Chain(error.to_string())
    }
}

impl From<VerifyError> for RecordError {
    fn from(error: VerifyError) -> Self {
        Self::Signature(error.to_string())
    }
}

/// What records are checked against.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// The network, whose issuing keys count.
    pub network: &'a Network,
    /// The newest roster: revoked certificates and salts.
    pub roster: &'a Roster,
}

/// A record that passed the gate: the bytes as they came, and what they say.
#[derive(Debug, Clone)]
pub struct VerifiedRecord {
    record: Record,
    subject: Subject,
    version: Version,
    not_after: UnixMillis,
    content: Verified,
}

/// What a record that passed the gate says.
#[derive(Debug, Clone)]
pub enum Verified {
    /// From a user record.
    User(VerifiedUser),
    /// From a presence record.
    Presence(VerifiedPresence),
}

/// A user, as a record that passed the gate has it.
#[derive(Debug, Clone)]
pub struct VerifiedUser {
    /// The name.
    pub name: Name,
    /// The key that the login server certified for the name.
    pub user: UserKey,
    /// Epoch of that key.
    pub epoch: u32,
    /// Number of the statement within the epoch.
    pub seq: u64,
    /// The certificate of name and key.
    pub certificate: UserCertificate,
    /// The devices whose certificates hold, in the record's order.
    pub devices: Vec<VerifiedDevice>,
    /// Supernodes that keep messages for the user.
    pub mailboxes: Vec<NodeKey>,
}

/// Where a device is, as a record that passed the gate has it.
#[derive(Debug, Clone)]
pub struct VerifiedPresence {
    /// The device.
    pub device: DeviceKey,
    /// Its certificate.
    pub certificate: VerifiedDevice,
    /// Number of the statement.
    pub seq: u64,
    /// Supernodes at which it is, its home first; empty if it has gone offline.
    pub homes: Vec<NodeKey>,
    /// Good until.
    pub not_after: UnixMillis,
}

impl VerifiedRecord {
    /// The record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whose record it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Its place in the order of the subject's records.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Until when its own statement holds.
    #[must_use]
    pub fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &Verified {
        &self.content
    }

    /// The user, if it is a user record.
    #[must_use]
    pub fn into_user(self) -> Option<VerifiedUser> {
        match self.content {
            Verified::User(user) => Some(user),
            Verified::Presence(_) => None,
        }
    }

    /// The presence, if it is a presence record.
    #[must_use]
    pub fn into_presence(self) -> Option<VerifiedPresence> {
        match self.content {
            Verified::Presence(presence) => Some(presence),
            Verified::User(_) => None,
        }
    }

    /// The record alone.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// Puts `record`, made of parts of verified records, in this one's place.
    pub(crate) fn with_record(mut self, record: Record, content: Verified) -> Self {
        self.record = record;
        self.content = content;
        self
    }
}

/// Whose record `record` claims to be, and which version, with nothing checked.
///
/// # Errors
/// [`WireError`] if its statement cannot be read.
pub fn claims_of(record: &Record) -> Result<(Subject, Version), WireError> {
    Ok(match record {
        Record::User(record) => {
            let statement = record.statement.claims()?;
            (Subject::User(statement.name), Version { epoch: statement.epoch, seq: statement.seq })
        }
        Record::Presence(record) => {
            let statement = record.statement.claims()?;
            (Subject::Device(statement.device), Version { epoch: 0, seq: statement.seq })
        }
    })
}

impl Gate<'_> {
    /// Keys under which the subject's record lies at `now`, the one to write under first.
    #[must_use]
    pub fn keys(&self, now: UnixMillis, subject: &Subject) -> Vec<RecordKey> {
        self.roster.salts_at(now).iter().map(|salt| record_key(salt, subject)).collect()
    }

    /// Checks bytes that lie, or are to lie, under `key`.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn check_at(&self, now: UnixMillis, key: &RecordKey, bytes: &[u8]) -> Result<VerifiedRecord, RecordError> {
        let record = Record::decode(bytes)?;
        // Before any signature, for hashing is a hundred times cheaper.
        if !self.keys(now, &claims_of(&record)?.0).contains(key) {
            return Err(RecordError::WrongKey);
        }
        self.check(now, record)
    }

    /// Checks a record.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn check(&self, now: UnixMillis, record: Record) -> Result<VerifiedRecord, RecordError> {
        record.encode()?;
        let (subject, version, not_after, content) = match &record {
            Record::User(user) => {
                let (user, statement) = self.check_user(now, user)?;
                let version = Version { epoch: user.epoch, seq: user.seq };
                (Subject::User(user.name.clone()), version, statement.not_after, Verified::User(user))
            }
            Record::Presence(presence) => {
                let presence = self.check_presence(now, presence)?;
                let version = Version { epoch: 0, seq: presence.seq };
                (Subject::Device(presence.device), version, presence.not_after, Verified::Presence(presence))
            }
        };
        Ok(VerifiedRecord { record, subject, version, not_after, content })
    }

    fn check_user(&self, now: UnixMillis, record: &UserRecord) -> Result<(VerifiedUser, UserStatement), RecordError> {
        let certificate = self.network.verify_user(&record.certificate, now)?;
        if self.roster.is_revoked(certificate.serial) {
            return Err(RecordError::Revoked);
        }
        let statement = verify(&record.statement, certificate.user.as_bytes())?;
        agree(statement.name == certificate.name, "name")?;
        agree(statement.epoch == certificate.epoch, "epoch")?;
        check_times(now, statement.seq, statement.issued, statement.not_after, USER_STATEMENT_LIFE)?;
        let devices = self.check_devices(now, &certificate, &statement, &record.devices)?;
        let user = VerifiedUser {
            name: certificate.name.clone(),
            user: certificate.user,
            epoch: certificate.epoch,
            seq: statement.seq,
            certificate,
            devices,
            mailboxes: statement.mailboxes.to_vec(),
        };
        Ok((user, statement))
    }

    /// Checks that each device of the statement has its certificate, and gives those that count at `now`.
    fn check_devices(
        &self,
        now: UnixMillis,
        user: &UserCertificate,
        statement: &UserStatement,
        certificates: &[Signed<DeviceCertificate>],
    ) -> Result<Vec<VerifiedDevice>, RecordError> {
        agree(statement.devices.len() == certificates.len(), "number of devices")?;
        let mut counting = Vec::with_capacity(certificates.len());
        for (index, (device, signed)) in statement.devices.iter().zip(certificates).enumerate() {
            agree(!statement.devices[..index].contains(device), "devices")?;
            if let Some(verified) = self.check_device(now, user, device, signed)? {
                counting.push(verified);
            }
        }
        if counting.is_empty() {
            return Err(RecordError::NoDevice);
        }
        Ok(counting)
    }

    /// `None`: the certificate is the device's and was well signed, but does not count at `now`.
    fn check_device(
        &self,
        now: UnixMillis,
        user: &UserCertificate,
        device: &DeviceKey,
        signed: &Signed<DeviceCertificate>,
    ) -> Result<Option<VerifiedDevice>, RecordError> {
        let claimed = signed.claims()?;
        // A lapsed certificate is judged by the last moment at which it held, so that a forged one is told from a lapsed one.
        let lapsed = now >= claimed.not_after;
        let verified = self.network.verify_device(signed, if lapsed { claimed.not_after.minus(Duration::from_millis(1)) } else { now })?;
        agree(verified.certificate.user == user.user, "user key")?;
        agree(verified.statement.name == user.name, "name")?;
        agree(verified.statement.epoch == user.epoch, "epoch")?;
        agree(verified.statement.device == *device, "devices")?;
        let counts = !lapsed && !self.roster.is_revoked(verified.certificate.serial);
        Ok(counts.then_some(verified))
    }

    fn check_presence(&self, now: UnixMillis, record: &PresenceRecord) -> Result<VerifiedPresence, RecordError> {
        let certificate = self.network.verify_device(&record.certificate, now)?;
        if self.roster.is_revoked(certificate.certificate.serial) {
            return Err(RecordError::Revoked);
        }
        let device = certificate.statement.device;
        let statement: PresenceStatement = verify(&record.statement, device.as_bytes())?;
        agree(statement.device == device, "device")?;
        check_times(now, statement.seq, statement.issued, statement.not_after, PRESENCE_LIFE)?;
        Ok(VerifiedPresence { device, certificate, seq: statement.seq, homes: statement.homes.to_vec(), not_after: statement.not_after })
    }
}

fn agree(holds: bool, on: &'static str) -> Result<(), RecordError> {
    if holds { Ok(()) } else { Err(RecordError::Disagreement(on)) }
}

/// A statement may be dated a little ahead, for clocks differ, and may not claim to hold for longer than its kind does.
fn check_times(now: UnixMillis, seq: u64, issued: UnixMillis, not_after: UnixMillis, life_max: Duration) -> Result<(), RecordError> {
    let latest = now.plus(CLOCK_AHEAD_MAX);
    if issued > latest || seq > latest.0 {
        return Err(RecordError::Ahead);
    }
    if not_after <= now || not_after > issued.plus(life_max) {
        return Err(RecordError::OutOfTime);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, World};
    use ahoy_protocol::time::{DAY, HOUR};
    use proptest::prelude::*;

    #[test]
    fn a_user_record_passes() {
        let world = World::new();
        let bob = world.user("bob", 2);
        let verified = world.check(Record::User(bob.record(1))).expect("passes");
        let user = verified.into_user().expect("a user");
        assert_eq!((user.name.as_str(), user.devices.len()), ("bob", 2));
        assert_eq!(user.user, bob.key.user_key());
    }

    #[test]
    fn a_presence_record_passes_and_only_within_its_hour() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let record = Record::Presence(bob.presence(0, 1));
        assert!(world.check(record.clone()).is_ok());
        assert_eq!(world.check_at(NOW.plus(HOUR), record).err(), Some(RecordError::OutOfTime));
    }

    #[test]
    fn a_record_signed_by_another_user_is_refused() {
        let world = World::new();
        let (bob, eve) = (world.user("bob", 1), world.user("eve", 1));
        let mut forged = bob.record(1);
        forged.statement = eve.key.sign(&bob.statement(1)).expect("fits");
        assert!(matches!(world.check(Record::User(forged)), Err(RecordError::Signature(_))));
    }

    #[test]
    fn a_record_for_another_name_is_refused() {
        let world = World::new();
        let eve = world.user("eve", 1);
        let mut statement = eve.statement(1);
        statement.name = Name::parse("bob").expect("a name");
        let mut forged = eve.record(1);
        forged.statement = eve.key.sign(&statement).expect("fits");
        assert_eq!(world.check(Record::User(forged)).err(), Some(RecordError::Disagreement("name")));
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let world = World::new();
        let record = Record::User(world.user("bob", 1).record(1));
        let (subject, claimed) = claims_of(&record).expect("readable");
        assert_eq!(claimed, world.verified(record.clone()).version());
        let other = Subject::User(Name::parse("eve").expect("a name"));
        let bytes = record.encode().expect("fits");
        let gate = world.gate();
        for key in gate.keys(NOW, &subject) {
            assert!(gate.check_at(NOW, &key, &bytes).is_ok());
        }
        assert_eq!(gate.check_at(NOW, &gate.keys(NOW, &other)[0], &bytes).err(), Some(RecordError::WrongKey));
    }

    #[test]
    fn a_device_of_another_user_is_refused() {
        let world = World::new();
        let (bob, eve) = (world.user("bob", 1), world.user("eve", 1));
        let mut statement = bob.statement(1);
        statement.devices = eve.statement(1).devices;
        let mut forged = bob.record(1);
        forged.statement = bob.key.sign(&statement).expect("fits");
        forged.devices = eve.record(1).devices;
        assert_eq!(world.check(Record::User(forged)).err(), Some(RecordError::Disagreement("user key")));
    }

    #[test]
    fn a_device_needs_its_own_certificate() {
        let world = World::new();
        let bob = world.user("bob", 2);
        let mut swapped = bob.record(1);
        swapped.devices = ahoy_protocol::List::first_of(bob.record(1).devices.into_vec().into_iter().rev());
        assert_eq!(world.check(Record::User(swapped)).err(), Some(RecordError::Disagreement("devices")));
        let mut fewer = bob.record(1);
        fewer.devices = ahoy_protocol::List::first_of(bob.record(1).devices.into_vec().into_iter().take(1));
        assert_eq!(world.check(Record::User(fewer)).err(), Some(RecordError::Disagreement("number of devices")));
    }

    #[test]
    fn a_device_that_appears_twice_is_refused() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let mut statement = bob.statement(1);
        statement.devices = ahoy_protocol::List::first_of([statement.devices[0], statement.devices[0]]);
        let mut record = bob.record(1);
        record.statement = bob.key.sign(&statement).expect("fits");
        record.devices = ahoy_protocol::List::first_of([record.devices[0].clone(), record.devices[0].clone()]);
        assert_eq!(world.check(Record::User(record)).err(), Some(RecordError::Disagreement("devices")));
    }

    #[test]
    fn a_record_from_the_future_is_refused() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let ahead = NOW.plus(CLOCK_AHEAD_MAX).0;
        assert!(world.check(Record::User(bob.record(ahead))).is_ok());
        assert_eq!(world.check(Record::User(bob.record(ahead + 1))).err(), Some(RecordError::Ahead));
        let mut statement = bob.statement(1);
        statement.issued = UnixMillis(ahead + 1);
        let mut record = bob.record(1);
        record.statement = bob.key.sign(&statement).expect("fits");
        assert_eq!(world.check(Record::User(record)).err(), Some(RecordError::Ahead));
    }

    #[test]
    fn a_lapsed_device_is_left_out_and_the_last_one_takes_the_record_with_it() {
        let world = World::new();
        let mut bob = world.user("bob", 2);
        bob.certify(&world, 0, NOW.minus(HOUR), NOW.plus(HOUR));
        bob.certify(&world, 1, NOW.minus(DAY), NOW.minus(HOUR));
        let verified = world.check(Record::User(bob.record(1))).expect("passes").into_user().expect("a user");
        assert_eq!(verified.devices.iter().map(VerifiedDevice::device).collect::<Vec<_>>(), [bob.devices[0].device_key()]);
        let later = world.check_at(NOW.plus(HOUR), Record::User(bob.record(1)));
        assert_eq!(later.err(), Some(RecordError::NoDevice));
    }

    #[test]
    fn a_lapsed_user_certificate_is_refused() {
        let world = World::new();
        let bob = world.user("bob", 1);
        let late = world.check_at(NOW.plus(31 * DAY), Record::User(bob.record(1)));
        assert!(matches!(late, Err(RecordError::Chain(_))));
    }

    #[test]
    fn what_the_roster_revokes_counts_no_more() {
        let mut world = World::new();
        let bob = world.user("bob", 2);
        world.revoke(bob.device_serial(0));
        let left = world.check(Record::User(bob.record(1))).expect("passes").into_user().expect("a user");
        assert_eq!(left.devices.len(), 1);
        assert_eq!(world.check(Record::Presence(bob.presence(0, 1))).err(), Some(RecordError::Revoked));
        assert!(world.check(Record::Presence(bob.presence(1, 1))).is_ok());
        world.revoke(bob.serial());
        assert_eq!(world.check(Record::User(bob.record(1))).err(), Some(RecordError::Revoked));
    }

    #[test]
    fn another_networks_record_is_refused() {
        let (ours, theirs) = (World::new(), World::new());
        assert!(matches!(ours.check(Record::User(theirs.user("bob", 1).record(1))), Err(RecordError::Chain(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_record_changed_in_any_byte_is_refused(at in any::<prop::sample::Index>(), change in 1_u8.., presence in any::<bool>()) {
            let world = World::new();
            let bob = world.user("bob", 2);
            let record = if presence { Record::Presence(bob.presence(0, 1)) } else { Record::User(bob.record(1)) };
            let mut bytes = record.encode().expect("fits");
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            if let Ok(changed) = Record::decode(&bytes) {
                prop_assert!(world.check(changed).is_err());
            }
        }

        #[test]
        fn no_bytes_make_the_gate_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let world = World::new();
            prop_assert!(world.gate().check_at(NOW, &RecordKey([0; 32]), &bytes).is_err());
        }

        #[test]
        fn a_forged_name_is_refused(name in "[a-z][a-z0-9]{1,20}") {
            prop_assume!(name != "eve");
            let world = World::new();
            let eve = world.user("eve", 1);
            let mut statement = eve.statement(1);
            statement.name = Name::parse(&name).expect("a name");
            let mut forged = eve.record(1);
            forged.statement = eve.key.sign(&statement).expect("fits");
            prop_assert!(world.check(Record::User(forged)).is_err());
        }
    }
}
