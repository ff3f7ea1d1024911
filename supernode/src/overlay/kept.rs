//! The shelf as libp2p's Kademlia sees it.
//!
//! `put` is the gate: Kademlia resets the stream of a writer whose record is not taken, so the writer sees the refusal.

use crate::shelf::{Refusal, Shelf};
use ahoy_directory::{PutError, Stored};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::ids::RecordKey;
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey as KadKey};
use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Records that one run of the replication goes over. Kademlia copies them all at its start, so that many are some 15 MB; what a
/// fuller store has beyond them comes in the next runs.
const REPLICATED_MAX: usize = 10_000;

/// The shelf, for Kademlia.
pub(super) struct KeptRecords {
    shelf: Arc<Shelf>,
    /// Where the last run of the replication stopped.
    replicated: Cell<Option<RecordKey>>,
}

impl KeptRecords {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, replicated: Cell::new(None) }
    }
}

impl RecordStore for KeptRecords {
    type RecordsIter<'a> = std::vec::IntoIter<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &KadKey) -> Option<Cow<'_, Record>> {
        let now = SystemTime::now().into();
        let key = record_key(key)?;
        self.shelf.records().get_at(now, &key).map(|stored| Cow::Owned(kad_record(now, &key, stored)))
    }

    fn put(&mut self, record: Record) -> Result<()> {
        let now = SystemTime::now().into();
        let key = record_key(&record.key).ok_or(Error::ValueTooLarge)?;
        let until = kept_until(now, record.expires);
        self.shelf.put_bytes(now, &key, &record.value, until).map_err(|refusal| {
            tracing::debug!(%refusal, "a supernode's record was refused");
            match refusal {
                Refusal::Put(PutError::Full) => Error::MaxRecords,
                // There is no error for "not valid"; any resets the writer's stream.
                Refusal::Starting | Refusal::Record(_) | Refusal::Put(_) => Error::ValueTooLarge,
            }
        })
    }

    fn remove(&mut self, key: &KadKey) {
        if let Some(key) = record_key(key) {
            self.shelf.records().remove_at(&key);
        }
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        let now = SystemTime::now().into();
        let shelf = self.shelf.records();
        let page = shelf.page(self.replicated.get(), REPLICATED_MAX);
        let records: Vec<_> = page.map(|(key, stored)| (*key, Cow::Owned(kad_record(now, key, stored)))).collect();
        self.replicated.set(records.last().map(|(key, _)| *key).filter(|_| records.len() == REPLICATED_MAX));
        records.into_iter().map(|(_, record)| record).collect::<Vec<_>>().into_iter()
    }

    // Provider records say "this peer has it", unsigned; nothing here uses them.
    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &KadKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, _: &KadKey, _: &PeerId) {}
}

fn record_key(key: &KadKey) -> Option<RecordKey> {
    key.as_ref().try_into().ok().map(RecordKey)
}

fn kad_record(now: UnixMillis, key: &RecordKey, stored: &Stored) -> Record {
    new_record(now, key, stored.bytes().to_vec(), stored.kept_until())
}

/// A record for Kademlia, which sends the time left along with it.
pub(super) fn new_record(now: UnixMillis, key: &RecordKey, value: Vec<u8>, kept_until: UnixMillis) -> Record {
    Record { key: KadKey::new(key.as_bytes()), value, publisher: None, expires: Instant::now().checked_add(kept_until.since(now)) }
}

/// Until when the supernode that a record comes from keeps it.
pub(super) fn kept_until(now: UnixMillis, expires: Option<Instant>) -> UnixMillis {
    // Kademlia sends whole seconds; where it says nothing the limit of the record's kind is the only one.
    expires.map_or(UnixMillis(u64::MAX), |expires| now.plus(expires.saturating_duration_since(Instant::now()) + Duration::from_secs(1)))
}
