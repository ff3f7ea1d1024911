//! How long packets are under way: what stands in the network's queues, and how it trembles.

use std::collections::VecDeque;

/// Seconds over which the least one-way delay is remembered.
const LEAST_OVER_S: usize = 30;

/// The part of each new difference in the mean jitter (RFC 3550, section 6.4.1).
const JITTER_GAIN: f64 = 1.0 / 16.0;

/// Watches packets' transits.
#[derive(Debug, Default)]
pub(crate) struct Queueing {
    /// The least transit of each second, newest last.
    least_ms: VecDeque<(i64, f64)>,
    /// The least and the greatest since the last report.
    recent_ms: Option<(f64, f64)>,
    newest_ms: Option<f64>,
    jitter_ms: f64,
}

impl Queueing {
    /// Takes the transit of a packet.
    pub(crate) fn observe(&mut self, at_ms: f64, transit_ms: f64) {
        let second = (at_ms / 1000.0) as i64;
        match self.least_ms.back_mut() {
            Some((last, least)) if *last == second => *least = least.min(transit_ms),
            _ => self.least_ms.push_back((second, transit_ms)),
        }
        while self.least_ms.len() > LEAST_OVER_S {
            self.least_ms.pop_front();
        }
        let (least, greatest) = self.recent_ms.unwrap_or((transit_ms, transit_ms));
        self.recent_ms = Some((least.min(transit_ms), greatest.max(transit_ms)));
        if let Some(newest) = self.newest_ms.replace(transit_ms) {
            self.jitter_ms += ((transit_ms - newest).abs() - self.jitter_ms) * JITTER_GAIN;
        }
    }

    /// The least and the greatest queueing delay since the last call.
    pub(crate) fn take_ms(&mut self) -> (f64, f64) {
        let base = self.least_ms.iter().map(|(_, least)| *least).fold(f64::INFINITY, f64::min);
        let newest = self.newest_ms.unwrap_or(base);
        let (least, greatest) = self.recent_ms.take().unwrap_or((newest, newest));
        ((least - base).max(0.0), (greatest - base).max(0.0))
    }

    /// The interarrival jitter.
    pub(crate) fn jitter_ms(&self) -> f64 {
        self.jitter_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queueing_is_above_the_least_of_the_last_half_minute() {
        let mut queueing = Queueing::default();
        for second in 0..60 {
            let transit = if second < 10 { 20.0 } else { 50.0 };
            queueing.observe(f64::from(second) * 1000.0, transit);
            queueing.observe(f64::from(second) * 1000.0 + 20.0, transit + 7.0);
            let expected = if (10..38).contains(&second) { 30.0 } else { 0.0 };
            let (least, greatest) = queueing.take_ms();
            if !(38..42).contains(&second) {
                assert!((least - expected).abs() < 1e-9 && (greatest - expected - 7.0).abs() < 1e-9, "second {second}");
            }
        }
    }

    #[test]
    fn jitter_is_the_mean_difference_of_neighbours() {
        let mut queueing = Queueing::default();
        for packet in 0..500 {
            queueing.observe(f64::from(packet) * 20.0, f64::from(packet % 2) * 8.0);
        }
        assert!((queueing.jitter_ms() - 8.0).abs() < 0.01);
    }
}
