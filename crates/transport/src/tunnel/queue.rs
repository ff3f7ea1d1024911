//! What waits to go into a tunnel.
//!
//! A state machine without I/O. TCP delivers everything, late rather than never, which is right for files and wrong for speech: a sentence
//! that comes two seconds late keeps all that follow it two seconds late. So nothing waits longer than [`AGE_MAX`], and where there is more
//! than fits, the oldest frames of calls make room first: QUIC to the node, by which calls are set up, is little and worth more.
//!
//! It promises that what comes out keeps its order, is no older than [`AGE_MAX`], and is never more than [`BYTES_MAX`].

use ahoy_protocol::datagram::{Kind, classify};
use ahoy_protocol::tunnel::HEADER_BYTES;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest that anything waits: what is older is no good to a listener, and QUIC has given it up by then.
pub(crate) const AGE_MAX: Duration = Duration::from_millis(200);
/// The most that waits: [`AGE_MAX`] at the most that a relay forwards for a leg, 2 Mbit/s, and a little for what comes in bursts.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// The queue of one tunnel, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    calls: VecDeque<Entry>,
    others: VecDeque<Entry>,
    /// Of all that waits, with the headers that it will have.
    bytes: usize,
    /// How many were put in so far.
    pushed: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since: Instant,
    datagram: Vec<u8>,
}

impl Entry {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.datagram.len()
    }
}

impl Queue {
    /// Puts a datagram at the end.
    pub(crate) fn push(&mut self, now: Instant, datagram: &[u8]) {
        let entry = Entry { number: self.pushed, since: now, datagram: datagram.to_vec() };
        self.pushed += 1;
        self.bytes += entry.bytes();
        match classify(datagram) {
            Some(Kind::Relay) => self.calls.push_back(entry),
            _ => self.others.push_back(entry),
        }
        self.drop_old(now);
        while self.bytes > BYTES_MAX {
            let oldest = self.calls.pop_front().or_else(|| self.others.pop_front());
            self.drop_entry(&oldest.expect("what has bytes has entries"));
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.drop_old(now);
        let first_call = self.calls.front().map(|entry| entry.number);
        let first_other = self.others.front().map(|entry| entry.number);
        let from = match (first_call, first_other) {
            (Some(call), Some(other)) if call > other => &mut self.others,
            (Some(_), _) => &mut self.calls,
            (None, _) => &mut self.others,
        };
        let entry = from.pop_front()?;
        self.bytes -= entry.bytes();
        Some(entry.datagram)
    }

    /// How many bytes wait, with the headers that they will have.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many datagrams were put in so far.
    pub(crate) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// How many datagrams were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn drop_old(&mut self, now: Instant) {
        let is_old = |entry: &mut Entry| now.saturating_duration_since(entry.since) > AGE_MAX;
        while let Some(entry) = self.calls.pop_front_if(is_old).or_else(|| self.others.pop_front_if(is_old)) {
            self.drop_entry(&entry);
        }
    }

    fn drop_entry(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes();
        self.dropped += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_protocol::datagram::relay_frame;

    /// Of a call, or QUIC to the node; told apart by a number.
    fn voice(number: u8) -> Vec<u8> {
        relay_frame(1, &[0x40, number])
    }

    fn control(number: u8) -> Vec<u8> {
        vec![0x40, number]
    }

    fn popped(queue: &mut Queue, now: Instant) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| queue.pop(now)).collect()
    }

    #[test]
    fn what_goes_in_comes_out_in_its_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let all = [control(1), voice(2), voice(3), control(4), voice(5)];
        all.iter().for_each(|datagram| queue.push(now, datagram));
        assert_eq!(popped(&mut queue, now), all);
        assert_eq!((queue.bytes(), queue.dropped()), (0, 0));
    }

    #[test]
    fn nothing_comes_out_late() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.push(start, &voice(1));
        queue.push(start, &control(2));
        queue.push(start + AGE_MAX / 2, &voice(3));
        assert_eq!(popped(&mut queue, start + AGE_MAX + Duration::from_millis(1)), [voice(3)]);
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn the_oldest_voice_makes_room_before_anything_else() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let long = |first: &[u8]| [first, &vec![0; 1000 - first.len()]].concat();
        queue.push(now, &long(&control(0)));
        let fit = u8::try_from(BYTES_MAX / (1000 + HEADER_BYTES)).expect("few");
        (1..=fit).for_each(|number| queue.push(now, &long(&voice(number))));
        let left = popped(&mut queue, now);
        assert_eq!(left.len(), usize::from(fit));
        assert_eq!(left[0], long(&control(0)), "what is not voice stays, old as it is");
        assert_eq!(left[1], long(&voice(2)), "the oldest voice went");
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn where_there_is_no_voice_the_oldest_of_the_rest_goes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let long = |number: u8| [&[0x40, number][..], &[0; 998]].concat();
        let fit = u8::try_from(BYTES_MAX / (1000 + HEADER_BYTES)).expect("few");
        (0..=fit).for_each(|number| queue.push(now, &long(number)));
        assert_eq!(queue.pop(now), Some(long(1)));
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        for number in 0..100_000_u32 {
            let length = 1 + (number as usize * 7919) % 1472;
            let first = if number % 3 == 0 { 0x40 } else { 0x0f };
            queue.push(now, &vec![first; length]);
            assert!(queue.bytes() <= BYTES_MAX);
            now += Duration::from_micros(number.into());
        }
        popped(&mut queue, now);
        assert_eq!(queue.bytes(), 0);
    }
}
