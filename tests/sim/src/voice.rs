//! A voice that sends a numbered packet every 20 ms, and an ear that notices every gap.

use ahoy_path::REPLAY_PACKETS_MAX;
use std::collections::VecDeque;
use std::time::Duration;

/// How often a voice packet is sent.
pub const FRAME: Duration = Duration::from_millis(20);
/// Gaps shorter than this are not remembered.
const GAP_NOTED: Duration = Duration::from_millis(60);

/// The sending side.
#[derive(Debug)]
pub struct Voice {
    next_frame: Option<Duration>,
    sent: Vec<Duration>,
    recent: VecDeque<u32>,
}

impl Voice {
    /// A voice that is silent.
    #[must_use]
    pub fn new() -> Self {
        Self { next_frame: None, sent: Vec::new(), recent: VecDeque::with_capacity(REPLAY_PACKETS_MAX + 1) }
    }

    /// Speaks from `at` on.
    pub fn begin(&mut self, at: Duration) {
        self.next_frame.get_or_insert(at);
    }

    /// Is silent.
    pub fn stop(&mut self) {
        self.next_frame = None;
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.next_frame
    }

    /// The number of the packet that is due, if one is.
    pub fn poll(&mut self, now: Duration) -> Option<u32> {
        let due = self.next_frame.filter(|due| *due <= now)?;
        // After a sleep the frames of the meantime are not made up for.
        self.next_frame = Some(if now - due > FRAME { now + FRAME } else { due + FRAME });
        let number = u32::try_from(self.sent.len()).expect("a call has fewer packets");
        self.sent.push(now);
        self.recent.push_back(number);
        if self.recent.len() > REPLAY_PACKETS_MAX {
            self.recent.pop_front();
        }
        Some(number)
    }

    /// The packets sent last.
    pub fn recent(&self) -> impl Iterator<Item = u32> + '_ {
        self.recent.iter().copied()
    }

    /// Numbers of the packets that were sent between two times.
    fn between(&self, from: Duration, until: Duration) -> std::ops::Range<usize> {
        self.sent.partition_point(|at| *at < from)..self.sent.partition_point(|at| *at < until)
    }
}

impl Default for Voice {
    fn default() -> Self {
        Self::new()
    }
}

/// The receiving side.
#[derive(Debug, Default)]
pub struct Ear {
    heard: Vec<u64>,
    count: u32,
    first: Option<Duration>,
    last: Option<Duration>,
    gaps: Vec<(Duration, Duration)>,
}

impl Ear {
    /// A packet came. `false`: it had come before.
    pub fn hear(&mut self, now: Duration, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, number % 64);
        if self.heard.len() <= word {
            self.heard.resize(word + 1, 0);
        }
        if self.heard[word] >> bit & 1 == 1 {
            return false;
        }
        self.heard[word] |= 1 << bit;
        self.count += 1;
        self.first.get_or_insert(now);
        if let Some(last) = self.last.replace(now)
            && now - last >= GAP_NOTED
        {
            self.gaps.push((last, now));
        }
        true
    }

    fn has(&self, number: usize) -> bool {
        self.heard.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Packets that came.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// When the first one came.
    #[must_use]
    pub fn first(&self) -> Option<Duration> {
        self.first
    }

    /// When the last one came.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.last
    }

    /// When the silence that began before `at` or at it ended; `None`: it has not.
    #[must_use]
    pub fn heard_again(&self, at: Duration) -> Option<Duration> {
        let gap = self.gaps.iter().find(|(_, end)| *end > at);
        gap.filter(|(begin, _)| *begin <= at + FRAME).map(|(_, end)| *end).or(self.last.filter(|last| *last >= at).map(|_| at))
    }

    /// The longest time without a packet, between two times. Shorter ones than 60 ms count as none.
    #[must_use]
    pub fn longest_gap(&self, from: Duration, until: Duration) -> Duration {
        let clipped = |(begin, end): (Duration, Duration)| end.min(until).saturating_sub(begin.max(from));
        let before = self.first.map_or((from, until), |first| (from, first));
        let after = (self.last.unwrap_or(until), until);
        let open_ends = [before, after].into_iter().map(clipped).filter(|gap| *gap >= GAP_NOTED);
        self.gaps.iter().copied().map(clipped).chain(open_ends).max().unwrap_or_default()
    }

    /// All gaps of at least this length, begin and end.
    pub fn gaps(&self, at_least: Duration) -> impl Iterator<Item = (Duration, Duration)> + '_ {
        self.gaps.iter().copied().filter(move |(begin, end)| *end - *begin >= at_least)
    }

    /// How many packets that `voice` sent between two times never came, and how many it sent.
    #[must_use]
    pub fn missing(&self, voice: &Voice, from: Duration, until: Duration) -> (usize, usize) {
        let sent = voice.between(from, until);
        let all = sent.len();
        (sent.filter(|number| !self.has(*number)).count(), all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn ear(at_ms: &[u64]) -> Ear {
        let mut ear = Ear::default();
        at_ms.iter().zip(0..).for_each(|(at, number)| assert!(ear.hear(ms(*at), number)));
        ear
    }

    #[test]
    fn a_gap_is_between_two_packets_or_before_the_first_or_after_the_last() {
        let ear = ear(&[1000, 1020, 1320, 1340]);
        assert_eq!(ear.longest_gap(ms(1000), ms(1340)), ms(300));
        assert_eq!(ear.longest_gap(ms(1000), ms(1100)), ms(80));
        assert_eq!(ear.longest_gap(ms(0), ms(1340)), ms(1000));
        assert_eq!(ear.longest_gap(ms(1300), ms(5000)), ms(3660));
        assert_eq!(ear.heard_again(ms(1020)), Some(ms(1320)));
        assert_eq!(ear.heard_again(ms(1340)), Some(ms(1340)));
        assert_eq!(ear.heard_again(ms(1350)), None);
    }

    #[test]
    fn a_packet_is_heard_once_and_a_lost_one_is_missed() {
        let (mut voice, mut ear) = (Voice::new(), Ear::default());
        voice.begin(ms(0));
        for nth in 0..100 {
            assert_eq!(voice.poll(ms(nth * 20)), Some(nth as u32));
            assert_eq!(voice.poll(ms(nth * 20)), None);
            if nth % 10 != 0 {
                assert!(ear.hear(ms(nth * 20), nth as u32));
                assert!(!ear.hear(ms(nth * 20), nth as u32));
            }
        }
        assert_eq!(ear.missing(&voice, ms(0), ms(2000)), (10, 100));
        assert_eq!(ear.missing(&voice, ms(20), ms(200)), (0, 9));
        assert_eq!(voice.recent().last(), Some(99));
        assert_eq!(voice.recent().count(), REPLAY_PACKETS_MAX);
    }

    #[test]
    fn a_sleep_is_not_made_up_for() {
        let mut voice = Voice::new();
        voice.begin(ms(0));
        voice.poll(ms(0));
        assert_eq!(voice.poll(ms(5000)), Some(1));
        assert_eq!(voice.poll(ms(5000)), None);
        assert_eq!(voice.next_at(), Some(ms(5020)));
    }
}
