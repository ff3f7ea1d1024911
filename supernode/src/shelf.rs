//! The records that this supernode keeps, and what it checks them against: shared by the client plane and the overlay.
//!
//! Whoever stores a record here, and by whichever plane, goes through the same gate.

use ahoy_directory::{Gate, PutError, RecordError, RecordStore, Stored, Verified, VerifiedRecord, claims_of};
use ahoy_identity::Network;
use ahoy_node::RosterView;
use ahoy_protocol::ids::RecordKey;
use ahoy_protocol::record::{Record, Subject};
use ahoy_protocol::{UnixMillis, Wire};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use thiserror::Error;

/// Most subjects with a record here: a record with its certificates is about 1.5 KB in memory twice over, so this is below a gigabyte.
const SUBJECTS_MAX: usize = 250_000;

/// What records, certificates and nodes are checked against.
#[derive(Clone)]
pub(crate) struct Trust {
    /// The network.
    pub(crate) network: Arc<Network>,
    /// The newest roster.
    pub(crate) view: Arc<RosterView>,
}

/// Why a record is not taken.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// This supernode has not joined its network, and so has nothing to check against.
    #[error("this supernode is still starting")]
    Starting,
    /// The record did not pass the gate.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It passed, and is not stored all the same.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// A record as it is handed to another supernode.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kept_until: UnixMillis,
}

impl From<&Stored> for Copy {
    fn from(stored: &Stored) -> Self {
        Self { bytes: stored.bytes().to_vec(), kept_until: stored.kept_until() }
    }
}

/// The records and the trust.
pub(crate) struct Shelf {
    trust: RwLock<Option<Trust>>,
    records: Mutex<RecordStore>,
}

impl Shelf {
    /// An empty shelf that takes nothing before [`Shelf::set_trust`].
    pub(crate) fn new() -> Self {
        Self { trust: RwLock::new(None), records: Mutex::new(RecordStore::new(SUBJECTS_MAX)) }
    }

    /// Goes by another network document or roster from here on.
    pub(crate) fn set_trust(&self, now: UnixMillis, trust: Trust) {
        let revoked: BTreeSet<u64> = trust.view.roster.revoked.iter().copied().collect();
        let mut records = self.records();
        records.set_salts(&trust.view.roster.salts_at(now));
        records.retain(|stored| counts(stored.verified(), &revoked));
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(trust);
    }

    /// Does what is due merely because time has passed: salts go out of use, records end.
    pub(crate) fn tidy(&self, now: UnixMillis) {
        let salts = self.trust().map(|trust| trust.view.roster.salts_at(now));
        let mut records = self.records();
        if let Some(salts) = salts {
            records.set_salts(&salts);
        }
        records.drop_ended(now);
    }

    /// What is checked against at present; `None` while the supernode has not joined.
    pub(crate) fn trust(&self) -> Option<Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks a record.
    pub(crate) fn check(&self, now: UnixMillis, record: Record) -> Result<VerifiedRecord, Refusal> {
        let trust = self.trust().ok_or(Refusal::Starting)?;
        Ok(trust.gate().check(now, record)?)
    }

    /// Checks bytes that lie under a key.
    pub(crate) fn check_at(&self, now: UnixMillis, key: &RecordKey, bytes: &[u8]) -> Result<VerifiedRecord, Refusal> {
        let trust = self.trust().ok_or(Refusal::Starting)?;
        Ok(trust.gate().check_at(now, key, bytes)?)
    }

    /// Stores a record that its owner brought, and gives the copy to hand on.
    pub(crate) fn put(&self, now: UnixMillis, verified: VerifiedRecord) -> Result<Copy, PutError> {
        let subject = verified.subject().clone();
        let mut records = self.records();
        records.put(now, verified)?;
        records.get(now, &subject).map(Copy::from).ok_or(PutError::Full)
    }

    /// Stores a verified record that another supernode returned.
    pub(crate) fn put_until(&self, now: UnixMillis, verified: VerifiedRecord, until: UnixMillis) -> Result<(), PutError> {
        self.records().put_until(now, verified, until)
    }

    /// Stores bytes that another supernode hands on.
    pub(crate) fn put_bytes(&self, now: UnixMillis, key: &RecordKey, bytes: &[u8], until: UnixMillis) -> Result<(), Refusal> {
        if self.records().holds(now, key, bytes, until) {
            return Ok(());
        }
        self.check_newer(now, bytes)?;
        let verified = self.check_at(now, key, bytes)?;
        Ok(self.put_until(now, verified, until)?)
    }

    /// Refuses what itself says that it is older than what is here, which costs no signature.
    fn check_newer(&self, now: UnixMillis, bytes: &[u8]) -> Result<(), Refusal> {
        let offered = Record::decode(bytes).map_err(RecordError::from)?;
        let (subject, version) = claims_of(&offered).map_err(RecordError::from)?;
        match self.records().get(now, &subject).map(Stored::verified) {
            Some(held) if held.version() > version => Err(PutError::Superseded(Box::new(held.record().clone())).into()),
            _ => Ok(()),
        }
    }

    /// The keys of a subject, the one to write under first.
    pub(crate) fn keys(&self, now: UnixMillis, subject: &Subject) -> Vec<RecordKey> {
        self.trust().map(|trust| trust.gate().keys(now, subject)).unwrap_or_default()
    }

    /// The record of a subject, and until when it is kept.
    pub(crate) fn get(&self, now: UnixMillis, subject: &Subject) -> Option<(VerifiedRecord, UnixMillis)> {
        self.records().get(now, subject).map(|stored| (stored.verified().clone(), stored.kept_until()))
    }

    /// The records themselves. The lock is never held over an await.
    pub(crate) fn records(&self) -> MutexGuard<'_, RecordStore> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trust {
    fn gate(&self) -> Gate<'_> {
        Gate { network: &self.network, roster: &self.view.roster }
    }
}

/// Whether a record that once passed the gate is not revoked since.
fn counts(verified: &VerifiedRecord, revoked: &BTreeSet<u64>) -> bool {
    match verified.content() {
        Verified::User(user) => {
            !revoked.contains(&user.certificate.serial) && user.devices.iter().any(|device| !revoked.contains(&device.certificate.serial))
        }
        Verified::Presence(presence) => !revoked.contains(&presence.certificate.certificate.serial),
    }
}
