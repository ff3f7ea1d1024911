//! Finding and storing records: the shelf here, and the keepers that the overlay knows.

use crate::overlay::{Answer, KEEPERS, Overlay, Walk};
use crate::shelf::{Copy, Refusal, Shelf};
use ahoy_directory::{PutError, RecordError, Tally, VerifiedRecord, Version};
use ahoy_protocol::UnixMillis;
use ahoy_protocol::Wire;
use ahoy_protocol::ids::RecordKey;
use ahoy_protocol::record::{Record, Subject};
use futures::stream::{self, FuturesUnordered, SelectAll, StreamExt};
use libp2p::PeerId;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Supernodes that must say the same for an answer to be given without further waiting, this one included.
const AGREEING: usize = 3;
/// After the first valid record, others that may be newer are waited for this long.
const SETTLING_TIME: Duration = Duration::from_millis(400);
/// A look-up that has found nothing ends after this long, even if somebody has not answered.
const LOOKUP_TIME_MAX: Duration = Duration::from_millis(2500);
/// A record is stored at its keepers for at most this long; who answers later has it all the same.
const STORING_TIME_MAX: Duration = Duration::from_millis(1500);
/// Keepers that have not stored a record after this long are asked whether they have a newer one: Kademlia's refusal is that no
/// answer comes.
const SUSPICION_TIME: Duration = Duration::from_millis(300);
/// Different records that one look-up remembers to have verified: more would be several versions and as many forgers' attempts.
const SEEN_MAX: usize = 8;
/// After a majority has stored a record, the others are waited for this long, so that the next look-up finds them all agreeing.
const STRAGGLER_TIME: Duration = Duration::from_millis(100);

/// Why a record was not published.
#[derive(Debug, Error)]
pub(crate) enum PublishError {
    /// It did not pass the gate.
    #[error(transparent)]
    Refused(RecordError),
    /// A newer one stays.
    #[error("a newer record is stored")]
    Superseded(Box<Record>),
    /// There is no room, or this supernode is still starting.
    #[error("there is no room for the record")]
    Busy,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Verified records of the subject, the highest first.
    pub(crate) records: Vec<VerifiedRecord>,
    /// Supernodes asked, this one included.
    pub(crate) asked: u16,
    /// False if the overlay had too much to do to look under each key.
    pub(crate) walked: bool,
}

impl Found {
    /// True if that nothing was found says nothing.
    pub(crate) fn is_unasked(&self) -> bool {
        self.records.is_empty() && !self.walked
    }
}

/// The directory, as this supernode sees it.
#[derive(Clone)]
pub(crate) struct Directory {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) overlay: Overlay,
}

impl Directory {
    /// Finds the records of a subject, here and in the overlay, and brings who has an old one up to date.
    pub(crate) async fn look_up(&self, subject: &Subject) -> Found {
        self.look_up_telling(subject, oneshot::channel().0).await
    }

    /// Like [`Directory::look_up`]; `early` is told the first valid record as soon as there is one, though a newer one may follow.
    pub(crate) async fn look_up_telling(&self, subject: &Subject, early: oneshot::Sender<VerifiedRecord>) -> Found {
        let start = Instant::now();
        let now = SystemTime::now().into();
        let mut early = Some(early);
        let mut tell = |record: &VerifiedRecord| {
            if let Some(early) = early.take() {
                // Who does not listen needs only the end.
                drop(early.send(record.clone()));
            }
        };
        let mut tally = Tally::new(self.shelf.get(now, subject));
        if let Some((own, _)) = tally.best() {
            tell(own);
        }
        let walks = self.shelf.keys(now, subject).into_iter().map(|key| (key, self.overlay.get(key))).collect();
        let mut walks = Walks::new(walks);
        // Those that are connected are those that can answer.
        let enough = AGREEING.min(self.overlay.connected() + 1);
        let mut seen = Seen::new(&tally);
        let mut end = start + if tally.is_empty() { LOOKUP_TIME_MAX } else { SETTLING_TIME };
        while tally.agreeing() < enough {
            let answer = tokio::select! {
                answer = walks.answers.next() => answer,
                () = sleep_until(end) => None,
            };
            let Some((key, Answer { from, copy })) = answer else { break };
            let checked = match seen.get(&copy.bytes) {
                Some(verified) => Ok(verified),
                None => self.shelf.check_at(now, &key, &copy.bytes),
            };
            match checked {
                Ok(verified) if verified.subject() == subject => {
                    seen.add(&copy.bytes, &verified);
                    tell(&verified);
                    if tally.is_empty() {
                        end = end.min(Instant::now() + SETTLING_TIME);
                    }
                    tally.add(from, key, verified, copy.kept_until);
                }
                Ok(_) => {}
                Err(refusal) => tracing::debug!(%from, %refusal, "a supernode returned a record that does not hold"),
            }
        }
        self.bring_up_to_date(now, &tally);
        Found { asked: walks.asked().saturating_add(1), walked: walks.all_began(), records: tally.into_records() }
    }

    /// Gives the highest record to whoever returned a lower one, and keeps it here if a lower one is here.
    fn bring_up_to_date(&self, now: UnixMillis, tally: &Tally<PeerId, RecordKey>) {
        let Some((best, kept_until)) = tally.best() else { return };
        let keeps = tally.is_own_stale() || self.overlay.connected() < KEEPERS.get();
        if keeps && let Err(error) = self.shelf.put_until(now, best.clone(), kept_until) {
            tracing::debug!(%error, "a record that was found is not kept here");
        }
        let Ok(bytes) = best.record().encode() else { return };
        for (peer, key) in tally.stale() {
            self.overlay.repair(*peer, *key, Copy { bytes: bytes.clone(), kept_until });
        }
    }

    /// Checks a record, stores it here and at its keepers, and says how many hold it then.
    pub(crate) async fn publish(&self, record: Record) -> Result<u16, PublishError> {
        let now = SystemTime::now().into();
        let verified = self.shelf.check(now, record).map_err(|refusal| match refusal {
            Refusal::Record(error) => PublishError::Refused(error),
            Refusal::Starting | Refusal::Put(_) => PublishError::Busy,
        })?;
        let (subject, version) = (verified.subject().clone(), verified.version());
        let copy = self.shelf.put(now, verified).map_err(|error| match error {
            PutError::Superseded(newer) | PutError::Conflict(newer) => PublishError::Superseded(newer),
            PutError::Full => PublishError::Busy,
        })?;
        let keys = self.shelf.keys(now, &subject);
        let mut storing = futures::future::join_all(keys.into_iter().map(|key| self.store_at_keepers(key, copy.clone())));
        let outcomes = match timeout(SUSPICION_TIME, &mut storing).await {
            Ok(outcomes) => outcomes,
            Err(_) => {
                self.check_superseded(&subject, version).await?;
                storing.await
            }
        };
        // The first key is the one that lasts.
        let Some(outcome) = outcomes.first() else { return Err(PublishError::Busy) };
        Ok(u16::try_from(outcome.stored).unwrap_or(u16::MAX))
    }

    /// Keepers that do not take a record may have a newer one, which then stays.
    async fn check_superseded(&self, subject: &Subject, version: Version) -> Result<(), PublishError> {
        match self.look_up(subject).await.records.into_iter().next() {
            Some(best) if best.version() > version => Err(PublishError::Superseded(Box::new(best.into_record()))),
            _ => Ok(()),
        }
    }

    async fn store_at_keepers(&self, key: RecordKey, copy: Copy) -> Stored {
        let mut keepers = self.overlay.keepers(key).await;
        keepers.truncate(KEEPERS.get());
        let mut outcome = Stored { stored: 1, keepers: keepers.len() + 1 };
        let mut puts: FuturesUnordered<_> = keepers.into_iter().map(|keeper| self.overlay.put(keeper, key, copy.clone())).collect();
        let mut end = Instant::now() + STORING_TIME_MAX;
        while let Ok(Some(stored)) = timeout_at(end, puts.next()).await {
            outcome.stored += usize::from(stored);
            if outcome.is_majority() {
                end = end.min(Instant::now() + STRAGGLER_TIME);
            }
        }
        outcome
    }
}

struct Stored {
    /// Supernodes that hold the record, this one included.
    stored: usize,
    /// Supernodes that should, this one included.
    keepers: usize,
}

impl Stored {
    fn is_majority(&self) -> bool {
        2 * self.stored > self.keepers
    }
}

/// The records of one subject that were verified during a look-up: most supernodes return the same bytes, under any of its keys.
struct Seen(Vec<(Vec<u8>, VerifiedRecord)>);

impl Seen {
    /// Begins with what is kept here.
    fn new(tally: &Tally<PeerId, RecordKey>) -> Self {
        let own = tally.best().and_then(|(own, _)| Some((own.record().encode().ok()?, own.clone())));
        Self(own.into_iter().collect())
    }

    fn get(&self, bytes: &[u8]) -> Option<VerifiedRecord> {
        self.0.iter().find(|(seen, _)| seen == bytes).map(|(_, verified)| verified.clone())
    }

    fn add(&mut self, bytes: &[u8], verified: &VerifiedRecord) {
        if self.0.len() < SEEN_MAX && self.0.iter().all(|(seen, _)| seen != bytes) {
            self.0.push((bytes.to_vec(), verified.clone()));
        }
    }
}

/// The walks for the keys of one subject, taken together.
struct Walks {
    answers: SelectAll<stream::BoxStream<'static, (RecordKey, Answer)>>,
    asked: Vec<watch::Receiver<Option<u32>>>,
}

impl Walks {
    fn new(walks: Vec<(RecordKey, Walk)>) -> Self {
        let mut asked = Vec::new();
        let mut answers = SelectAll::new();
        for (key, mut walk) in walks {
            asked.push(walk.asked.clone());
            answers.push(stream::poll_fn(move |cx| walk.answers.poll_recv(cx)).map(move |answer| (key, answer)).boxed());
        }
        Self { answers, asked }
    }

    fn all_began(&self) -> bool {
        self.asked.iter().all(|asked| asked.borrow().is_some())
    }

    /// Supernodes that were asked: the walks for several keys ask mostly the same ones.
    fn asked(&self) -> u16 {
        let most = self.asked.iter().filter_map(|asked| *asked.borrow()).max().unwrap_or(0);
        u16::try_from(most).unwrap_or(u16::MAX)
    }
}
