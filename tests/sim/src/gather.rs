//! Asking observers from where they see this device, a few times, since a question or its answer may be lost.

use crate::dice::Dice;
use ahoy_path::nat::Observation;
use std::net::SocketAddr;
use std::time::Duration;

/// When questions are sent, from the beginning on.
const ASKED_MS: [u64; 4] = [0, 150, 400, 900];
/// When conclusions are drawn from the answers so far.
const CONCLUDED_MS: [u64; 2] = [600, 1600];

/// After how long those are asked anew of whom somebody did not answer; doubles each time.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
const ASKED_AGAIN_DOUBLINGS_MAX: u32 = 4;

#[derive(Debug)]
struct Round {
    begun: Duration,
    nonce: u32,
    asked: usize,
    concluded: usize,
    observers: Vec<SocketAddr>,
    observations: Vec<Observation>,
}

/// Asks.
#[derive(Debug)]
pub struct Gather {
    dice: Dice,
    round: Option<Round>,
    /// Rounds in a row in which somebody did not answer.
    failures: u32,
}

/// Whether more may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Somebody may yet answer.
    Open,
    /// Everybody answered.
    Complete,
    /// Somebody did not: it is worth asking again after this time.
    Incomplete(Duration),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask these, with this nonce.
    Ask(Vec<SocketAddr>, u32),
    /// This is what was found out.
    Conclude(Vec<Observation>, Ending),
}

impl Gather {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self { dice, round: None, failures: 0 }
    }

    /// Asks these from now on, and forgets what was found out before.
    pub fn begin(&mut self, now: Duration, observers: Vec<SocketAddr>) {
        let nonce = u32::try_from(self.dice.below(u64::from(u32::MAX))).expect("below a u32");
        self.round = Some(Round { begun: now, nonce, asked: 0, concluded: 0, observers, observations: Vec::new() });
    }

    /// Whether questions are under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.round.is_some()
    }

    /// An answer came.
    pub fn handle_answer(&mut self, nonce: u32, observer: SocketAddr, seen: SocketAddr) {
        let Some(round) = self.round.as_mut().filter(|round| round.nonce == nonce) else { return };
        if round.observers.contains(&observer) && round.observations.iter().all(|known| known.observer != observer) {
            round.observations.push(Observation { observer, seen });
        }
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let round = self.round.as_ref()?;
        if round.is_complete() {
            return Some(round.begun);
        }
        let ms = ASKED_MS.get(round.asked).into_iter().chain(CONCLUDED_MS.get(round.concluded)).min()?;
        Some(round.begun + Duration::from_millis(*ms))
    }

    /// What is to be done at `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Step> {
        let round = self.round.as_mut()?;
        if round.is_complete() {
            self.failures = 0;
            return Some(Step::Conclude(self.round.take()?.observations, Ending::Complete));
        }
        let is_due = |ms: &u64| round.begun + Duration::from_millis(*ms) <= now;
        if ASKED_MS.get(round.asked).is_some_and(is_due) {
            round.asked += 1;
            let answered = |observer: &SocketAddr| round.observations.iter().any(|known| known.observer == *observer);
            let open = round.observers.iter().copied().filter(|observer| !answered(observer)).collect();
            return Some(Step::Ask(open, round.nonce));
        }
        if CONCLUDED_MS.get(round.concluded).is_some_and(is_due) {
            round.concluded += 1;
            let observations = round.observations.clone();
            if round.concluded < CONCLUDED_MS.len() {
                return Some(Step::Conclude(observations, Ending::Open));
            }
            self.round = None;
            let pause = ASKED_AGAIN_AFTER * 2u32.pow(self.failures.min(ASKED_AGAIN_DOUBLINGS_MAX));
            self.failures += 1;
            return Some(Step::Conclude(observations, Ending::Incomplete(pause)));
        }
        None
    }
}

impl Round {
    fn is_complete(&self) -> bool {
        self.observations.len() == self.observers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn it_asks_those_again_that_did_not_answer_and_concludes_early_when_all_did() {
        let (one, two, me) = (address("198.51.100.1:1"), address("198.51.100.2:1"), address("203.0.113.1:5"));
        let mut gather = Gather::new(Dice::new(1));
        let now = Duration::from_secs(5);
        gather.begin(now, vec![one, two]);
        let Some(Step::Ask(asked, nonce)) = gather.poll(now) else { panic!("it asks at once") };
        assert_eq!(asked, [one, two]);
        gather.handle_answer(nonce, one, me);
        gather.handle_answer(nonce ^ 1, two, me);
        assert_eq!(gather.poll(now), None);
        let later = gather.next_at().expect("a second question");
        assert_eq!(gather.poll(later), Some(Step::Ask(vec![two], nonce)));
        gather.handle_answer(nonce, two, me);
        assert!(matches!(gather.poll(later), Some(Step::Conclude(all, Ending::Complete)) if all.len() == 2));
        assert!(!gather.is_busy());
    }

    #[test]
    fn it_concludes_without_answers_and_ends() {
        let mut gather = Gather::new(Dice::new(1));
        gather.begin(Duration::ZERO, vec![address("198.51.100.1:1")]);
        let mut conclusions = Vec::new();
        while let Some(at) = gather.next_at() {
            if let Some(Step::Conclude(observations, ending)) = gather.poll(at) {
                assert!(observations.is_empty());
                conclusions.push(ending);
            }
        }
        assert_eq!(conclusions, [Ending::Open, Ending::Incomplete(ASKED_AGAIN_AFTER)]);
        assert!(!gather.is_busy());
    }
}
