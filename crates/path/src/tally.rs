//! What became of a way's probes of late, by the time at which that was known: only what two ways lost at the same time can be compared.

use std::time::{Duration, Instant};

/// A period, and how many are remembered: half a minute.
const PERIOD: Duration = Duration::from_secs(4);
const PERIODS: usize = 8;
/// Periods that a comparison takes in at least, since those of two ways do not begin together.
const PERIODS_MIN: usize = 2;
/// Probes of each way without which nothing is compared.
const PROBES_MIN: u32 = 16;
/// How much less another way must lose, as a share of probes, to be better for its loss: so much, and so many standard errors of the
/// difference between two ways that lose alike. Behind one line that loses half they do, and differ by more once in thousands of comparisons.
const MARGIN: f64 = 0.25;
const MARGIN_ERRORS: f64 = 4.5;

/// Probes of one period.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    lost: u32,
    all: u32,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.all += other.all;
    }
}

impl Count {
    /// Whether the share lost is clearly less than that of `other`: a test of two proportions.
    fn is_clearly_less_than(self, other: Self) -> bool {
        let share = |count: Self| f64::from(count.lost) / f64::from(count.all);
        let both = f64::from(self.lost + other.lost) / f64::from(self.all + other.all);
        let error = (both * (1.0 - both) * (1.0 / f64::from(self.all) + 1.0 / f64::from(other.all))).sqrt();
        share(self) + MARGIN.max(MARGIN_ERRORS * error) < share(other)
    }
}

/// The last half minute of a way, the latest period first.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    since: Option<Instant>,
    counts: [Count; PERIODS],
}

impl Tally {
    /// A probe was answered in time, or was not.
    pub(crate) fn count(&mut self, now: Instant, lost: bool) {
        let began = *self.since.get_or_insert(now);
        let periods = self.periods_until(now);
        self.since = Some(began + PERIOD * u32::try_from(periods).unwrap_or(0));
        self.counts.rotate_right(periods.min(PERIODS));
        self.counts[..periods.min(PERIODS)].fill(Count::default());
        self.counts[0] += Count { lost: u32::from(lost), all: 1 };
    }

    /// A probe that was counted as lost was answered after all.
    pub(crate) fn was_late(&mut self) {
        if let Some(count) = self.counts.iter_mut().find(|count| count.lost > 0) {
            count.lost -= 1;
        }
    }

    /// Whether this way clearly lost less than `other` in the same time.
    pub(crate) fn lost_less_than(&self, now: Instant, other: &Self) -> bool {
        (PERIODS_MIN..=PERIODS).any(|periods| {
            let (own, others) = (self.last(now, periods), other.last(now, periods));
            own.all >= PROBES_MIN && others.all >= PROBES_MIN && own.is_clearly_less_than(others)
        })
    }

    /// The probes of the last so many periods.
    fn last(&self, now: Instant, periods: usize) -> Count {
        let mut sum = Count::default();
        let known = periods.saturating_sub(self.periods_until(now));
        self.counts[..known.min(PERIODS)].iter().for_each(|count| sum += *count);
        sum
    }

    fn periods_until(&self, now: Instant) -> usize {
        let time = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (time.as_millis() / PERIOD.as_millis()).try_into().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe each half second until `now`, the last so many seconds of which lost so many of ten.
    fn tally(start: Instant, seconds: u64, lossy_seconds: u64, lost_of_ten: u64) -> Tally {
        let mut tally = Tally::default();
        for nth in 0..seconds * 2 {
            let is_lossy = nth >= (seconds - lossy_seconds) * 2;
            tally.count(start + Duration::from_millis(500 * nth), is_lossy && nth * 7 % 10 < lost_of_ten);
        }
        tally
    }

    #[test]
    fn ways_are_compared_by_what_they_lost_at_the_same_time() {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let well = tally(start, 60, 60, 0);
        assert!(well.lost_less_than(now, &tally(start, 60, 12, 7)));
        assert!(!tally(start, 60, 12, 5).lost_less_than(now, &tally(start, 60, 12, 7)), "both began to lose");
        assert!(!well.lost_less_than(now, &well));
        assert!(!well.lost_less_than(now + PERIOD * 9, &tally(start, 60, 12, 7)), "that is long ago");
    }

    #[test]
    fn few_probes_say_nothing() {
        let start = Instant::now();
        let lossy = tally(start, 60, 12, 10);
        assert!(!tally(start + Duration::from_secs(56), 4, 0, 0).lost_less_than(start + Duration::from_secs(60), &lossy));
    }

    #[test]
    fn what_was_late_was_not_lost() {
        let mut tally = Tally::default();
        tally.count(Instant::now(), true);
        tally.was_late();
        assert_eq!(tally.counts[0].lost, 0);
    }
}
