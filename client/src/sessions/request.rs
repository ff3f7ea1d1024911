//! Requests to whichever supernode answers first.

use super::{Inner, REQUEST_TIME, Session, lock};
use ahoy_protocol::directory::{Request, Response};
use ahoy_protocol::record::HOMES_MAX;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

/// After this time without an answer the next supernode is asked as well.
const HEDGE_TIME: Duration = Duration::from_millis(400);
/// How long a request waits for a first session.
const SESSION_WAIT: Duration = Duration::from_secs(5);
/// How long an answer that is not good waits for a supernode that is still being connected and may know better.
const SECOND_OPINION_WAIT: Duration = Duration::from_secs(1);
/// Requests in a row without an answer after which a session counts as dead: one may be bad luck.
const SILENT_REQUESTS_MAX: u32 = 2;

impl Inner {
    pub(super) async fn request(self: &Arc<Self>, request: Request) -> Option<Response> {
        self.request_until(request, is_answer).await
    }

    /// Asks one supernode after the other until an answer is good: the first as soon as there is a connection with one, the next one when
    /// the last answer was not good, or is slow. Without a good answer, the first of those that came.
    pub(super) async fn request_until(self: &Arc<Self>, request: Request, is_good: impl Fn(&Response) -> bool) -> Option<Response> {
        let mut connected = self.connected.subscribe();
        let request = Arc::new(request);
        let (answered, mut answers) = mpsc::channel(HOMES_MAX);
        let mut round = Round::new(Instant::now());
        let mut fallback = None;
        loop {
            let next = {
                let sessions = connected.borrow_and_update();
                let id = round.next(Instant::now(), sessions.iter().map(|session| session.connection.id()));
                id.and_then(|id| sessions.iter().find(|session| session.connection.id() == id).cloned())
            };
            if let Some(session) = next {
                let (inner, request, answered) = (self.clone(), request.clone(), answered.clone());
                // Not given up when another answers first: a supernode that is silent is to be noticed. It ends by its time-out.
                tokio::spawn(async move {
                    let answer = inner.ask(&session, &request).await;
                    let _ = answered.send(answer).await;
                });
            }
            if round.is_over(Instant::now(), self.is_another_coming()) {
                return fallback;
            }
            tokio::select! {
                Some(answer) = answers.recv() => {
                    round.handle_answer(Instant::now(), answer.is_some());
                    match answer {
                        Some(response) if is_good(&response) => return Some(response),
                        answer => fallback = fallback.or(answer),
                    }
                }
                () = sleep_until(round.wakes_at(Instant::now()).into()) => {}
                () = async { drop(connected.changed().await) } => {}
            }
        }
    }

    /// True if a slot is about to have a session.
    fn is_another_coming(&self) -> bool {
        let trying = lock(&self.taken).values().filter(|taken| taken.by.is_some()).count();
        trying > self.connected.borrow().len()
    }

    /// Asks a supernode. Whoever is given an answer there is registered, even if that has not been heard yet.
    async fn ask(&self, session: &Session, request: &Request) -> Option<Response> {
        let response = session.request(request).await?;
        if is_answer(&response) {
            self.set_registered(session);
        }
        Some(response)
    }
}

/// Whom one request asks, and when.
#[derive(Debug)]
struct Round {
    /// Connections by which it was asked.
    asked: BTreeSet<usize>,
    unanswered: usize,
    /// When the next is asked, whatever becomes of the last.
    next_at: Instant,
    give_up_at: Instant,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { asked: BTreeSet::new(), unanswered: 0, next_at: now, give_up_at: now + SESSION_WAIT }
    }

    /// Which of these connections is asked at `now`, if any.
    fn next(&mut self, now: Instant, connections: impl IntoIterator<Item = usize>) -> Option<usize> {
        if now < self.next_at || self.asked.len() >= HOMES_MAX {
            return None;
        }
        let next = connections.into_iter().find(|connection| !self.asked.contains(connection))?;
        self.asked.insert(next);
        self.unanswered += 1;
        self.next_at = now + HEDGE_TIME;
        Some(next)
    }

    /// Somebody has answered, or will not. The answer counts as no good one: otherwise the round is over.
    fn handle_answer(&mut self, now: Instant, is_there: bool) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.next_at = now;
        if is_there {
            self.give_up_at = self.give_up_at.min(now + SECOND_OPINION_WAIT);
        }
    }

    /// True if nobody is left to ask and to wait for. Whether somebody may be asked soon is given.
    fn is_over(&self, now: Instant, is_another_coming: bool) -> bool {
        let nobody_left = !self.asked.is_empty() && (self.asked.len() >= HOMES_MAX || !is_another_coming);
        self.unanswered == 0 && (nobody_left || self.give_up_at <= now)
    }

    /// When to look again, at the latest, if no answer and no further connection comes.
    fn wakes_at(&self, now: Instant) -> Instant {
        match self.unanswered {
            0 => self.give_up_at,
            _ if now < self.next_at => self.next_at,
            // Whoever is asked answers within this time, or counts as silent.
            _ => now + REQUEST_TIME,
        }
    }
}

impl Session {
    /// Asks this supernode. `None` if it does not answer.
    pub(super) async fn request(&self, request: &Request) -> Option<Response> {
        match self.connection.request(request, REQUEST_TIME).await {
            Ok(response) => {
                self.silent.store(0, Ordering::Relaxed);
                Some(response)
            }
            Err(error) => {
                debug!(%error, address = %self.address, "a supernode does not answer");
                if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_REQUESTS_MAX {
                    self.connection.close(0, "silent");
                }
                None
            }
        }
    }
}

/// False for what only says that another is to be asked.
fn is_answer(response: &Response) -> bool {
    !matches!(response, Response::Busy { .. } | Response::Refused(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connection_is_asked_at_once_and_the_next_when_the_answer_is_slow() {
        let now = Instant::now();
        let mut round = Round::new(now);
        assert_eq!(round.next(now, []), None);
        let connected = now + SESSION_WAIT / 2;
        assert_eq!(round.next(connected, [7]), Some(7));
        assert_eq!(round.next(connected, [7, 8]), None, "the first has time to answer");
        assert_eq!(round.wakes_at(connected), connected + HEDGE_TIME);
        let slow = connected + HEDGE_TIME;
        assert_eq!(round.next(slow, [7]), None);
        assert!(round.wakes_at(slow) > slow, "it sleeps while there is nobody else");
        assert_eq!(round.next(slow, [7, 8]), Some(8));
    }

    #[test]
    fn an_answer_that_is_not_good_has_the_next_asked_at_once() {
        let now = Instant::now();
        let mut round = Round::new(now);
        assert_eq!(round.next(now, [1, 2]), Some(1));
        round.handle_answer(now, true);
        assert_eq!(round.next(now, [1, 2]), Some(2));
    }

    #[test]
    fn a_bad_answer_waits_a_little_for_a_supernode_that_is_being_connected() {
        let now = Instant::now();
        let mut round = Round::new(now);
        assert!(round.next(now, [1]).is_some());
        assert!(!round.is_over(now, true));
        round.handle_answer(now, true);
        assert!(!round.is_over(now, true));
        assert!(round.is_over(now + SECOND_OPINION_WAIT, true));
        assert!(round.is_over(now, false), "there is no other");
    }

    #[test]
    fn without_any_supernode_a_request_waits_for_one_and_gives_up() {
        let now = Instant::now();
        let round = Round::new(now);
        assert!(!round.is_over(now, false));
        assert_eq!(round.wakes_at(now), now + SESSION_WAIT);
        assert!(round.is_over(now + SESSION_WAIT, true));
    }

    #[test]
    fn no_more_are_asked_than_a_device_has_homes() {
        let now = Instant::now();
        let mut round = Round::new(now);
        for connection in 0..HOMES_MAX {
            assert_eq!(round.next(now, 0..100), Some(connection));
            round.handle_answer(now, false);
        }
        assert_eq!(round.next(now, 0..100), None);
        assert!(round.is_over(now, true));
    }
}
