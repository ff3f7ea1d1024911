//! What the supernodes of a look-up have returned so far: which record is the highest, who agrees, who is behind.

use ahoy_directory::{Merge, Version, VerifiedRecord, merge};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::directory::USER_RECORDS_MAX;

/// A tally of verified records of one subject. `W` is who returned one.
#[derive(Debug)]
pub(crate) struct Tally<W> {
    own: Option<Version>,
    /// The highest first; different versions, or different records of one.
    records: Vec<VerifiedRecord>,
    kept_until: UnixMillis,
    returned: Vec<(W, Version)>,
}

impl<W> Tally<W> {
    /// Begins with what is kept here.
    pub(crate) fn new(own: Option<(VerifiedRecord, UnixMillis)>) -> Self {
        let kept_until = own.as_ref().map_or(UnixMillis(0), |(_, until)| *until);
        let records: Vec<_> = own.into_iter().map(|(record, _)| record).collect();
        Self { own: records.first().map(VerifiedRecord::version), records, kept_until, returned: Vec::new() }
    }

    /// Counts a record that `from` returned, which keeps it until `kept_until`.
    pub(crate) fn add(&mut self, from: W, record: VerifiedRecord, kept_until: UnixMillis) {
        self.returned.push((from, record.version()));
        let Some(best) = self.records.first() else {
            self.records.push(record);
            self.kept_until = kept_until;
            return;
        };
        let version = record.version();
        match merge(best, record.clone()) {
            Merge::Replace(merged) if version == best.version() => {
                self.records[0] = *merged;
                self.kept_until = self.kept_until.max(kept_until);
            }
            Merge::Replace(newer) => {
                self.records.insert(0, *newer);
                self.kept_until = kept_until;
            }
            Merge::Same => self.kept_until = self.kept_until.max(kept_until),
            Merge::Conflict => self.records.insert(1, record),
            Merge::Superseded => {
                if !self.records.iter().any(|known| known.version() == version) {
                    self.records.push(record);
                }
            }
        }
        self.records.truncate(USER_RECORDS_MAX);
    }

    /// True if nobody had a record so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many hold the highest version.
    pub(crate) fn agreeing(&self) -> usize {
        let Some(best) = self.records.first().map(VerifiedRecord::version) else { return 0 };
        usize::from(self.own == Some(best)) + self.returned.iter().filter(|(_, version)| *version == best).count()
    }

    /// The highest record, and until when it is kept.
    pub(crate) fn best(&self) -> Option<(&VerifiedRecord, UnixMillis)> {
        self.records.first().map(|best| (best, self.kept_until))
    }

    /// True if a lower version than the highest is kept here.
    pub(crate) fn is_own_stale(&self) -> bool {
        match (self.own, self.records.first()) {
            (Some(own), Some(best)) => own < best.version(),
            _ => false,
        }
    }

    /// Who returned a lower version than the highest.
    pub(crate) fn stale(&self) -> impl Iterator<Item = &W> {
        let best = self.records.first().map(VerifiedRecord::version);
        self.returned.iter().filter(move |(_, version)| Some(*version) < best).map(|(from, _)| from)
    }

    /// The records, the highest first.
    pub(crate) fn into_records(self) -> Vec<VerifiedRecord> {
        self.records
    }
}
