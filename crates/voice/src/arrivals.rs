//! Which frames came: what a receiver report says, and what is lost.

/// How far back a frame is known to have come or not, in frames. A receiver report tells of 64; reordering beyond
/// 1.3 s of the shortest frames is a late frame in any case.
const REMEMBERED: i64 = u128::BITS as i64;

/// What a frame's coming means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It had not come before.
    First,
    /// It had.
    Again,
    /// It is from before the first, or from longer ago than is remembered.
    Unknown,
}

/// The frames of a timeline that came.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    first: i64,
    highest: i64,
    /// Bit 0 is the highest.
    bits: u128,
    came: u64,
}

impl Arrivals {
    /// Begins with `sequence`, which is yet to be marked.
    pub(crate) fn beginning(sequence: i64) -> Self {
        Self { first: sequence, highest: sequence, bits: 0, came: 0 }
    }

    /// Marks the frame that a packet is about.
    pub(crate) fn mark_own(&mut self, sequence: i64) -> Arrival {
        // The first packets may change places too.
        if sequence < self.first && self.first - sequence < REMEMBERED && self.highest - sequence < REMEMBERED {
            self.first = sequence;
        }
        self.mark_copy(sequence)
    }

    /// Marks a frame that came as a copy.
    pub(crate) fn mark_copy(&mut self, sequence: i64) -> Arrival {
        if sequence < self.first {
            return Arrival::Unknown;
        }
        if sequence > self.highest {
            let by = sequence - self.highest;
            self.bits = if by < REMEMBERED { self.bits << by } else { 0 };
            self.highest = sequence;
        }
        let age = self.highest - sequence;
        if age >= REMEMBERED {
            return Arrival::Unknown;
        }
        let bit = 1_u128 << age;
        if self.bits & bit != 0 {
            return Arrival::Again;
        }
        self.bits |= bit;
        self.came += 1;
        Arrival::First
    }

    pub(crate) fn highest(&self) -> i64 {
        self.highest
    }

    /// The last 64, bit 0 being the highest.
    pub(crate) fn last_64(&self) -> u64 {
        self.bits as u64
    }

    /// Frames between the first and the highest that have not come.
    pub(crate) fn missing(&self) -> u64 {
        let expected = u64::try_from(self.highest - self.first).unwrap_or(0).saturating_add(1);
        expected.saturating_sub(self.came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_missing_until_it_is_filled() {
        let mut arrivals = Arrivals::beginning(10);
        for sequence in [10, 11, 14] {
            assert_eq!(arrivals.mark_own(sequence), Arrival::First);
        }
        assert_eq!((arrivals.missing(), arrivals.last_64()), (2, 0b11001));
        assert_eq!(arrivals.mark_copy(13), Arrival::First);
        assert_eq!(arrivals.mark_own(13), Arrival::Again);
        assert_eq!((arrivals.missing(), arrivals.last_64()), (1, 0b11011));
    }

    #[test]
    fn copies_from_before_the_first_packet_are_no_part_of_the_count() {
        let mut arrivals = Arrivals::beginning(10);
        arrivals.mark_own(10);
        assert_eq!(arrivals.mark_copy(9), Arrival::Unknown);
        assert_eq!(arrivals.mark_own(8), Arrival::First);
        assert_eq!(arrivals.missing(), 1);
    }

    #[test]
    fn what_is_too_long_ago_stays_missing() {
        let mut arrivals = Arrivals::beginning(0);
        arrivals.mark_own(0);
        arrivals.mark_own(1_000);
        assert_eq!(arrivals.mark_own(800), Arrival::Unknown);
        assert_eq!(arrivals.missing(), 999);
    }
}
