//! Posting: each envelope is kept at the mailboxes that its writer names, and pushed to its device where that is here.

use crate::plane::{Plane, now};
use crate::sessions::PUSH_TIME_MAX;
use ahoy_mailbox::Verdict;
use ahoy_protocol::List;
use ahoy_protocol::directory::{Push, Request, Response};
use ahoy_protocol::ids::{NodeKey, UserKey};
use ahoy_protocol::mail::{ENVELOPES_SENT_MAX, Envelope, Given, MailForward, MailResponse, Permit, Posted, Posting};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// A writer is answered when so many mailboxes keep each of his envelopes; the others are told all the same.
const KEPT_ENOUGH: u8 = 2;
/// Pushes to devices under way at a time for one request: a device takes no more streams at a time.
const PUSHES_MAX: usize = 8;

impl Plane {
    /// Posts for a device of `from`: here if this is one of the mailboxes, and at the others.
    pub(crate) async fn post(&self, from: UserKey, keep: bool, postings: Vec<Posting>) -> List<Posted, ENVELOPES_SENT_MAX> {
        let mut tally = Tally::new(postings.len());
        let own = self.own_key();
        let mut by_mailbox: BTreeMap<NodeKey, Vec<usize>> = BTreeMap::new();
        for (index, posting) in postings.iter().enumerate() {
            if matches!(posting.permit, Permit::Stranger) && !self.may_ask_strangers(from) {
                tally.add(index, Posted::Full);
                continue;
            }
            for mailbox in &posting.mailboxes {
                let indices = by_mailbox.entry(*mailbox).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        let here = by_mailbox.remove(&own).unwrap_or_default();
        let mut elsewhere: FuturesUnordered<_> = by_mailbox
            .into_iter()
            .map(|(mailbox, indices)| {
                let telling = self.forward(mailbox, forward_of(from, keep, indices.iter().map(|index| &postings[*index])));
                async move { (indices, telling.await.ok().flatten()) }
            })
            .collect();
        let given = here.iter().map(|index| given_of(from, &postings[*index])).collect();
        let keeping = self.accept(keep, given);
        tokio::pin!(keeping);
        let mut is_kept_here = false;
        // Those that are elsewhere are told even if nobody waits for their answers any more.
        while !is_kept_here || !(tally.is_enough() || elsewhere.is_empty()) {
            tokio::select! {
                posted = &mut keeping, if !is_kept_here => {
                    is_kept_here = true;
                    here.iter().zip(posted).for_each(|(index, posted)| tally.add(*index, posted));
                }
                Some((indices, response)) = elsewhere.next() => {
                    let posted = posted_in(response);
                    for (index, posted) in indices.iter().zip(posted) {
                        // It may be new to the device, or have lost what it had.
                        if posted == Posted::NoMailbox && here.contains(index) {
                            self.mail.hasten(postings[*index].envelope.to);
                        }
                        tally.add(*index, posted);
                    }
                }
            }
        }
        tally.into_posted()
    }

    fn may_ask_strangers(&self, from: UserKey) -> bool {
        self.guard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take_stranger(Instant::now(), from).is_ok()
    }

    /// Asks another supernode in a task of its own, which goes on when nobody waits for it. What it answered; nothing if it did not, or if
    /// there was no room.
    pub(crate) fn forward(&self, mailbox: NodeKey, request: Request) -> oneshot::Receiver<Option<Response>> {
        let (tell, told) = oneshot::channel();
        if let Some(room) = self.work.begin_forward() {
            let neighbours = self.neighbours.clone();
            tokio::spawn(async move {
                // Who does not wait any more does not need to know.
                let _ = tell.send(neighbours.ask(&mailbox, &request).await);
                drop(room);
            });
        }
        told
    }

    /// Keeps envelopes here, if they are to be kept, and pushes them to those of their devices that are here.
    pub(crate) async fn accept(&self, keep: bool, given: Vec<Given>) -> Vec<Posted> {
        if given.is_empty() {
            return Vec::new();
        }
        let count = given.len();
        let judging = self.mail.desk.ask(move |store| {
            let mut judged = Vec::with_capacity(given.len());
            for given in given {
                let Given { permit, from, envelope } = given;
                let verdict =
                    if keep { store.post(now(), &from, &permit, &envelope)? } else { store.admit(&from, &permit, &envelope.to)? };
                judged.push((verdict, envelope));
            }
            Ok(judged)
        });
        let judged = match judging.await {
            Ok(judged) => judged,
            Err(error) => {
                tracing::warn!(%error, "envelopes could not be kept");
                return vec![Posted::Unreachable; count];
            }
        };
        judged.iter().for_each(|(verdict, _)| self.mail.counters.count(*verdict));
        let verdicts: Vec<_> = judged.iter().map(|(verdict, _)| *verdict).collect();
        let pushed = self.push_all(judged).await;
        verdicts.into_iter().zip(pushed).map(|(verdict, pushed)| posted(verdict, pushed)).collect()
    }

    /// Pushes those that may be; which of them arrived in time.
    async fn push_all(&self, judged: Vec<(Verdict, Envelope)>) -> Vec<bool> {
        let mut pushed = vec![false; judged.len()];
        let may_be = |verdict| matches!(verdict, Verdict::Kept | Verdict::Passed);
        let pushes = judged.into_iter().enumerate().filter(|(_, (verdict, _))| may_be(*verdict)).map(|(index, (_, envelope))| async move {
            let to = envelope.to;
            (index, self.sessions.push(&to, &Push::Mail(Box::new(envelope))).await)
        });
        let mut pushes = futures::stream::iter(pushes).buffer_unordered(PUSHES_MAX);
        let end = tokio::time::Instant::now() + PUSH_TIME_MAX;
        while let Ok(Some((index, arrived))) = timeout_at(end, pushes.next()).await {
            pushed[index] = arrived;
            self.mail.counters.pushed.fetch_add(u64::from(arrived), Ordering::Relaxed);
        }
        pushed
    }
}

fn given_of(from: UserKey, posting: &Posting) -> Given {
    Given { permit: posting.permit, from, envelope: posting.envelope.clone() }
}

/// The postings as they are handed on: the receiver is one of their mailboxes, and hands nothing on.
fn forward_of<'a>(from: UserKey, keep: bool, postings: impl Iterator<Item = &'a Posting>) -> Request {
    let postings = postings.map(|posting| Posting { mailboxes: List::default(), ..posting.clone() });
    Request::ForwardMail(Box::new(MailForward::Post { keep, from, postings: List::first_of(postings) }))
}

fn posted_in(response: Option<Response>) -> Vec<Posted> {
    match response {
        Some(Response::Mail(response)) => match *response {
            MailResponse::Posted(posted) => posted.into_vec(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What one mailbox answers.
fn posted(verdict: Verdict, pushed: bool) -> Posted {
    match verdict {
        Verdict::Kept => Posted::Kept { by: 1, pushed },
        Verdict::Passed => Posted::Kept { by: 0, pushed },
        Verdict::Taken => Posted::Kept { by: 1, pushed: true },
        Verdict::NoMailbox => Posted::NoMailbox,
        Verdict::Full => Posted::Full,
        Verdict::NotPermitted => Posted::NotPermitted,
    }
}

/// What the mailboxes of each posting answered, taken together.
struct Tally(Vec<Posted>);

impl Tally {
    fn new(count: usize) -> Self {
        Self(vec![Posted::Unreachable; count])
    }

    fn add(&mut self, index: usize, answer: Posted) {
        let Some(so_far) = self.0.get_mut(index) else { return };
        *so_far = match (*so_far, answer) {
            (Posted::Kept { by, pushed }, Posted::Kept { by: and, pushed: or }) => {
                Posted::Kept { by: by.saturating_add(and), pushed: pushed || or }
            }
            (one, other) => {
                if rank(other) > rank(one) {
                    other
                } else {
                    one
                }
            }
        };
    }

    /// True if there is nothing left that a writer has to wait for.
    fn is_enough(&self) -> bool {
        self.0.iter().all(|posted| matches!(posted, Posted::Kept { by, pushed } if *pushed || *by >= KEPT_ENOUGH))
    }

    fn into_posted(self) -> List<Posted, ENVELOPES_SENT_MAX> {
        List::first_of(self.0)
    }
}

/// Of different answers the one that says most: that it is kept; that it may be later; that it may not; that nobody knows.
fn rank(posted: Posted) -> u8 {
    match posted {
        Posted::Kept { .. } => 4,
        Posted::Full => 3,
        Posted::NotPermitted => 2,
        Posted::NoMailbox => 1,
        Posted::Unreachable => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_that_keep_are_counted_and_the_others_answers_forgotten() {
        let mut tally = Tally::new(2);
        tally.add(0, Posted::NotPermitted);
        tally.add(0, Posted::Kept { by: 1, pushed: false });
        tally.add(0, Posted::NoMailbox);
        assert!(!tally.is_enough());
        tally.add(0, Posted::Kept { by: 1, pushed: false });
        tally.add(1, Posted::Kept { by: 1, pushed: true });
        assert!(tally.is_enough());
        tally.add(7, Posted::Full);
        assert_eq!(tally.into_posted()[..], [Posted::Kept { by: 2, pushed: false }, Posted::Kept { by: 1, pushed: true }]);
    }

    #[test]
    fn where_nobody_keeps_it_the_answer_that_says_most_is_given() {
        let mut tally = Tally::new(1);
        for answer in [Posted::NoMailbox, Posted::Full, Posted::NotPermitted] {
            tally.add(0, answer);
        }
        assert_eq!(tally.into_posted()[..], [Posted::Full]);
    }
}
