//! How much one asker, one pair and all of them together may ask.

use ahoy_directory::{Buckets, Rate};
use ahoy_protocol::ids::{DeviceKey, UserKey};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Requests of one connection. A client asks a few times a minute, and somebody who writes to many a few times a second.
pub(crate) const REQUEST_RATE: Rate = Rate { per_s: 100.0, burst: 300 };
/// The same for a supernode of the roster, which hands on the signals and the mail of all its clients.
pub(crate) const SUPERNODE_REQUEST_RATE: Rate = Rate { per_s: 2000.0, burst: 4000 };
/// Look-ups and publications of one connection, each of which asks some twenty questions of other supernodes. At a start a
/// client looks up its contacts, a few at a time.
pub(crate) const WALK_RATE: Rate = Rate { per_s: 10.0, burst: 60 };
/// Envelopes that one connection posts. A message to somebody is as many envelopes as both have devices, and receipts come on top; after a
/// time offline a whole outbox comes at once.
pub(crate) const POSTING_RATE: Rate = Rate { per_s: 200.0, burst: 3000 };
/// Requests of strangers that one user sends, to each device of those whom he asks: somebody who has just come asks a few dozen friends.
const STRANGER_RATE: Rate = Rate { per_s: 0.05, burst: 100 };
/// Users whose requests are counted at a time.
const STRANGERS_MAX: usize = 20_000;
/// Connections from one address prefix (IPv4 /24, IPv6 /48): a university, not a flood. Loopback is free of it.
pub(crate) const CONNECTIONS_PER_PREFIX_MAX: usize = 512;
/// Requests that are answered at a time. Each may hold a record and a few dozen answers, some 100 KB.
const REQUESTS_MAX: usize = 1024;
/// Requests at a time that wait for the registration of whoever sent them. Each is a few hundred bytes, or a record, and waits for seconds at most.
const EARLY_REQUESTS_MAX: usize = 1024;
/// Requests at a time that are longer than those of strangers may be: 50 MB.
const LONG_REQUESTS_MAX: usize = 256;
/// Answers with mail at a time that are on their way, up to 208 KiB each: 100 MB.
const MAIL_ANSWERS_MAX: usize = 512;
/// Envelopes on their way to other supernodes at a time, in messages of up to 208 KiB each, most of them far shorter. Beyond that they are
/// told of when the mailboxes are compared.
const FORWARDS_MAX: usize = 1024;
/// Answers at a time that are on their way to those who have said who they are: two for each of a quarter of all devices.
const ANSWERS_MAX: usize = 4096;
/// Answers at a time that are on their way to those who have not. A roster is up to 192 KiB, so these are below 100 MB.
const ANSWERS_TO_STRANGERS_MAX: usize = 512;

/// Signals of one device to anybody: a call to a user with twelve devices is up to 48, answers and cancellations included.
const SENDER_RATE: Rate = Rate { per_s: 5.0, burst: 60 };
/// Signals of one device to one other: a call takes three, so this is a call every two seconds and a few at once.
const PAIR_RATE: Rate = Rate { per_s: 1.5, burst: 20 };
/// Devices whose signals are counted at a time.
const SENDERS_MAX: usize = 20_000;
/// Pairs whose signals are counted at a time.
const PAIRS_MAX: usize = 100_000;

/// Counts what is being done for all askers together.
#[derive(Debug)]
pub(crate) struct Work {
    requests: Semaphore,
    early_requests: Semaphore,
    answers: Semaphore,
    answers_to_strangers: Semaphore,
    mail_answers: Semaphore,
    long_requests: Semaphore,
    forwards: Arc<Semaphore>,
}

/// What kind of answer there is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    ToStranger,
    Mail,
    Other,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            requests: Semaphore::new(REQUESTS_MAX),
            early_requests: Semaphore::new(EARLY_REQUESTS_MAX),
            answers: Semaphore::new(ANSWERS_MAX),
            answers_to_strangers: Semaphore::new(ANSWERS_TO_STRANGERS_MAX),
            mail_answers: Semaphore::new(MAIL_ANSWERS_MAX),
            long_requests: Semaphore::new(LONG_REQUESTS_MAX),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
        }
    }

    /// Room to work on one more request, if there is any.
    pub(crate) fn begin_request(&self) -> Option<SemaphorePermit<'_>> {
        self.requests.try_acquire().ok()
    }

    /// Room for one more request to wait for a registration, if there is any. Strangers who never register leave room for others' requests.
    pub(crate) fn begin_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.early_requests.try_acquire().ok()
    }

    /// Room to send one more answer, if there is any. Strangers who take none leave room for others.
    pub(crate) fn begin_answer(&self, kind: AnswerKind) -> Option<SemaphorePermit<'_>> {
        let answers = match kind {
            AnswerKind::ToStranger => &self.answers_to_strangers,
            AnswerKind::Mail => &self.mail_answers,
            AnswerKind::Other => &self.answers,
        };
        answers.try_acquire().ok()
    }

    /// Room to read a long request, if there is any.
    pub(crate) fn begin_long_request(&self) -> Option<SemaphorePermit<'_>> {
        self.long_requests.try_acquire().ok()
    }

    /// Room for one more message with mail to another supernode, if there is any.
    pub(crate) fn begin_forward(&self) -> Option<OwnedSemaphorePermit> {
        self.forwards.clone().try_acquire_owned().ok()
    }

    /// Requests that there is room for.
    pub(crate) fn requests_free(&self) -> usize {
        self.requests.available_permits()
    }

    /// How much of the room for requests is taken.
    pub(crate) fn load_percent(&self) -> usize {
        100 * REQUESTS_MAX.saturating_sub(self.requests_free()) / REQUESTS_MAX
    }
}

/// Counts what devices send to devices.
#[derive(Debug)]
pub(crate) struct Guard {
    senders: Buckets<DeviceKey>,
    pairs: Buckets<(DeviceKey, DeviceKey)>,
    strangers: Buckets<UserKey>,
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self {
            senders: Buckets::new(SENDER_RATE, SENDERS_MAX),
            pairs: Buckets::new(PAIR_RATE, PAIRS_MAX),
            strangers: Buckets::new(STRANGER_RATE, STRANGERS_MAX),
        }
    }

    /// Counts a signal, or says how long its sender has to wait.
    pub(crate) fn take_signal(&mut self, now: Instant, from: DeviceKey, to: DeviceKey) -> Result<(), Duration> {
        // The pair first: who floods one device should not be able to call the others either, but need not be punished twice.
        self.pairs.take((from, to), now)?;
        self.senders.take(from, now)
    }

    /// Counts a stranger's request, or says how long he has to wait.
    pub(crate) fn take_stranger(&mut self, now: Instant, from: UserKey) -> Result<(), Duration> {
        self.strangers.take(from, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_who_take_no_answers_leave_room_for_those_who_are_known() {
        let work = Work::new();
        let taken: Vec<_> = std::iter::from_fn(|| work.begin_answer(AnswerKind::ToStranger)).collect();
        assert_eq!(taken.len(), ANSWERS_TO_STRANGERS_MAX);
        assert!(work.begin_answer(AnswerKind::Other).is_some());
        assert!(work.begin_answer(AnswerKind::Mail).is_some());
    }

    fn taken(guard: &mut Guard, now: Instant, to: impl Fn(u8) -> DeviceKey) -> usize {
        (0..200).filter(|n| guard.take_signal(now, DeviceKey([1; 32]), to(*n)).is_ok()).count()
    }

    #[test]
    fn who_floods_one_device_can_still_call_another() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        assert_eq!(taken(&mut guard, now, |_| DeviceKey([2; 32])), 20);
        assert!(guard.take_signal(now, DeviceKey([1; 32]), DeviceKey([3; 32])).is_ok());
        assert!(guard.take_signal(now, DeviceKey([4; 32]), DeviceKey([2; 32])).is_ok(), "others reach the flooded one");
    }

    #[test]
    fn who_floods_everybody_is_stopped() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        assert_eq!(taken(&mut guard, now, |n| DeviceKey([n; 32])), 60);
    }
}
