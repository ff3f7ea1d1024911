//! What is counted over all devices that were open one after the other.

use crate::gauge::Gauge;
use crate::timing::CallbackTimes;

/// The counts of those that are closed; who asks adds the one that is open.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    times: CallbackTimes,
    slipped: u64,
}

impl Tally {
    /// The device with this gauge is closed.
    pub(crate) fn close(&mut self, gauge: &Gauge) {
        self.times.add(&gauge.times());
        self.slipped += gauge.slipped();
    }

    /// How long callbacks took.
    pub(crate) fn times(&self, open: Option<&Gauge>) -> CallbackTimes {
        let mut times = self.times.clone();
        if let Some(gauge) = open {
            times.add(&gauge.times());
        }
        times
    }

    /// Frames that slipped.
    pub(crate) fn slipped(&self, open: Option<&Gauge>) -> u64 {
        self.slipped + open.map_or(0, Gauge::slipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_closed_devices_counted_goes_on_counting() {
        let (first, second) = (Gauge::new(48_000), Gauge::new(44_100));
        for gauge in [&first, &second] {
            gauge.slip(10);
            gauge.took(Duration::from_micros(5));
        }
        let mut tally = Tally::default();
        tally.close(&first);
        assert_eq!((tally.slipped(None), tally.slipped(Some(&second))), (10, 20));
        assert_eq!((tally.times(None).count(), tally.times(Some(&second)).count()), (1, 2));
    }
}
