//! Which packets came and which frames: what a receiver report says, what is lost, and how it is lost.

/// How far back a frame is known to have come or not, in frames. A receiver report tells of 64; reordering beyond
/// 1.3 s of the shortest frames is a late frame in any case.
const REMEMBERED: i64 = u128::BITS as i64;

/// A packet that has not come when as many later ones have been sent is counted as lost: 0.5 s of 20 ms.
const LOST_AFTER: i64 = 24;

/// What a frame's coming means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It had not come before.
    First,
    /// It had come as a copy, and the packet itself comes only now.
    Repaired,
    /// It had.
    Again,
    /// It is from before the first, or from longer ago than is remembered.
    Unknown,
}

/// Packets that did not come themselves, and in how many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PacketLoss {
    pub(crate) expected: u64,
    pub(crate) lost: u64,
    pub(crate) bursts: u64,
}

impl std::ops::Add for PacketLoss {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { expected: self.expected + other.expected, lost: self.lost + other.lost, bursts: self.bursts + other.bursts }
    }
}

/// The packets and frames of a timeline that came.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    first: i64,
    highest: i64,
    /// Packets that came themselves; bit 0 is the highest.
    own: u128,
    /// Frames that came, by themselves or as copies; likewise.
    frames: u128,
    frames_came: u64,
    /// The first packet that is not judged yet.
    judged: i64,
    was_lost: bool,
    loss: PacketLoss,
}

impl Arrivals {
    /// Begins with `sequence`, which is yet to be marked.
    pub(crate) fn beginning(sequence: i64) -> Self {
        Self {
            first: sequence,
            highest: sequence,
            own: 0,
            frames: 0,
            frames_came: 0,
            judged: sequence,
            was_lost: false,
            loss: PacketLoss::default(),
        }
    }

    /// Marks a packet and its own frame.
    pub(crate) fn mark_own(&mut self, sequence: i64) -> Arrival {
        // The first packets may change places too.
        if sequence < self.first && self.highest - sequence < LOST_AFTER {
            self.first = sequence;
            self.judged = sequence;
        }
        let arrival = self.mark_copy(sequence);
        if arrival == Arrival::Unknown {
            return arrival;
        }
        let bit = 1_u128 << (self.highest - sequence);
        let is_again = self.own & bit != 0;
        self.own |= bit;
        match arrival {
            Arrival::Again if !is_again => Arrival::Repaired,
            arrival => arrival,
        }
    }

    /// Marks a frame that came as a copy.
    pub(crate) fn mark_copy(&mut self, sequence: i64) -> Arrival {
        if sequence < self.first {
            return Arrival::Unknown;
        }
        if sequence > self.highest {
            self.advance(sequence);
        }
        let age = self.highest - sequence;
        if age >= REMEMBERED {
            return Arrival::Unknown;
        }
        let bit = 1_u128 << age;
        if self.frames & bit != 0 {
            return Arrival::Again;
        }
        self.frames |= bit;
        self.frames_came += 1;
        Arrival::First
    }

    fn advance(&mut self, to: i64) {
        while self.judged <= to - LOST_AFTER && self.judged <= self.highest {
            let age = self.highest - self.judged;
            self.judge(age < REMEMBERED && self.own & (1_u128 << age) != 0);
        }
        // What was sent since the highest, and is too long ago to come any more, is lost in one run.
        let silent = to - LOST_AFTER + 1 - self.judged;
        if silent > 0 {
            self.judge(false);
            self.judged += silent - 1;
            self.loss.expected += silent.unsigned_abs() - 1;
            self.loss.lost += silent.unsigned_abs() - 1;
        }
        let by = to - self.highest;
        (self.own, self.frames) = if by < REMEMBERED { (self.own << by, self.frames << by) } else { (0, 0) };
        self.highest = to;
    }

    fn judge(&mut self, came: bool) {
        self.judged += 1;
        self.loss.expected += 1;
        self.loss.lost += u64::from(!came);
        self.loss.bursts += u64::from(!came && !self.was_lost);
        self.was_lost = !came;
    }

    pub(crate) fn highest(&self) -> i64 {
        self.highest
    }

    /// Which of the last 64 packets came themselves, bit 0 being the highest.
    pub(crate) fn last_64(&self) -> u64 {
        self.own as u64
    }

    /// Frames between the first and the highest that have not come.
    pub(crate) fn missing(&self) -> u64 {
        let expected = u64::try_from(self.highest - self.first).unwrap_or(0).saturating_add(1);
        expected.saturating_sub(self.frames_came)
    }

    /// Packets lost, of those that are judged.
    pub(crate) fn loss(&self) -> PacketLoss {
        self.loss
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
        assert_eq!((arrivals.missing(), arrivals.last_64()), (1, 0b11001), "a copy is no packet");
        assert_eq!(arrivals.mark_own(13), Arrival::Repaired);
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

    #[test]
    fn runs_of_lost_packets_are_counted_whether_copies_repaired_them_or_not() {
        let mut arrivals = Arrivals::beginning(0);
        let is_lost = |sequence: i64| matches!(sequence, 5 | 20..=23 | 60);
        for sequence in (0..200).filter(|sequence| !is_lost(*sequence)) {
            arrivals.mark_own(sequence);
            arrivals.mark_copy(sequence - 1);
        }
        assert_eq!(arrivals.loss(), PacketLoss { expected: 200 - 24, lost: 6, bursts: 3 });
        arrivals.mark_own(500);
        assert_eq!(arrivals.loss(), PacketLoss { expected: 477, lost: 6 + 277, bursts: 4 });
    }
}
