//! The queue that our own packets stand in, as reports tell of it.
//!
//! A report says by how much the fastest packet since the last report was slower than the fastest of 30 s. That is the queue at the bottleneck
//! and jitter; only a queue of our own making lasts, and grows with what we send. A queue that stays as it is when we send less is somebody
//! else's, or the path has become longer: it is subtracted from there on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A queue longer than this is to be shortened: a hundred milliseconds are heard.
const HIGH_MS: f64 = 60.0;
/// On a path without fluctuations, a queue of this length with losses is a short buffer that overflows.
const OVERFLOWING_MS: f64 = 30.0;
/// A report over so much time is believed by itself, since it tells of the fastest packet in it; more frequent ones are when the next one
/// agrees: a hiccup of a radio link is over by then.
const BELIEVED: Duration = Duration::from_millis(250);
/// A queue above the threshold that does not grow was perhaps not made by us, or is in balance; after this long, sending less tells.
const STANDING: Duration = Duration::from_millis(1_200);
/// How much more than at first makes it a queue that grows.
const GROWS_MS: f64 = 8.0;
/// Within the time of one report a queue grows by no more than this; what is slower is a hiccup.
const SPREAD_MAX_MS: f64 = 300.0;
/// By so much at least from each report to the next, it mounts.
const MOUNTS_MS: f64 = 15.0;
/// Reports that are looked back at.
const REPORTS_MAX: usize = 16;
/// How far back, at most.
const LOOK_BACK: Duration = Duration::from_secs(2);
/// What fluctuation may add to the thresholds, at most.
const FLUCTUATION_MAX_MS: f64 = 60.0;
/// What the receiver may report, at most: three seconds of queue are no more news than ten.
const QUEUE_MAX_MS: f64 = 3_000.0;

/// How packets queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Congestion {
    /// More and more, or until the buffer is full: what we send is too much.
    Growing,
    /// Evenly: it may be somebody else's queue, or a longer path.
    Standing,
}

#[derive(Debug, Clone, Copy)]
struct Reported {
    at: Instant,
    least_ms: f64,
}

/// What reports say about the queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    reports: VecDeque<Reported>,
    /// The first report of those that have been above the threshold ever since.
    high_since: Option<Reported>,
    /// By how much reports differ from their mean while nothing queues.
    fluctuation_ms: f64,
    mean_ms: f64,
    /// Not of our making.
    foreign_ms: f64,
    greatest_ms: f64,
    /// Until when the queue is learned as not of our making, after the path has changed.
    learns_until: Option<Instant>,
    raw_ms: f64,
    /// Between the newest report and the one before.
    gap: Duration,
    /// The time that the link was busy all along, or was last.
    busy: Option<Busy>,
    is_busy: bool,
    /// The part of it after a cut.
    busy_since_cut: Option<Busy>,
    cut_at: Option<Instant>,
}

/// A stretch of time in which packets queued without a break, by what was sent: between the packet that the first report told of, and the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
    first_ms: f64,
    last_ms: f64,
}

impl Busy {
    /// How long the bottleneck took for what was sent in it: as long as that took, and as much longer as the queue has grown.
    pub(crate) fn seconds(&self) -> f64 {
        self.until.saturating_duration_since(self.from).as_secs_f64() + (self.last_ms - self.first_ms) / 1_000.0
    }
}

impl Queue {
    /// The path has changed: what it takes now is its own.
    pub(crate) fn rebase(&mut self, now: Instant, learning: Duration) {
        self.reports.clear();
        self.high_since = None;
        self.busy = None;
        self.is_busy = false;
        self.learns_until = Some(now + learning);
    }

    /// A report says so of packets, of which the newest was sent at `sent`.
    pub(crate) fn handle_report(&mut self, now: Instant, sent: Instant, least_ms: u16, greatest_ms: u16) {
        let raw_ms = f64::from(least_ms).min(QUEUE_MAX_MS);
        self.raw_ms = raw_ms;
        let passed = self.reports.back().map_or(Duration::ZERO, |last| now.saturating_duration_since(last.at));
        self.gap = passed;
        match self.learns_until {
            Some(until) if now <= until => self.foreign_ms = raw_ms,
            Some(_) | None => {
                self.learns_until = None;
                // A foreign queue is never longer than the whole. Within 30 s reports have taken it for the path's own, and so it ends.
                self.foreign_ms = self.foreign_ms.min(raw_ms);
            }
        }
        let least_ms = raw_ms - self.foreign_ms;
        self.greatest_ms = (f64::from(greatest_ms).min(QUEUE_MAX_MS) - self.foreign_ms).max(least_ms);
        let is_busy = least_ms > OVERFLOWING_MS;
        // While a queue grows, the newest packet is the slowest; while it shrinks, the fastest.
        let newest_ms = if least_ms > self.least_ms() { self.greatest_ms.min(least_ms + SPREAD_MAX_MS) } else { least_ms };
        match &mut self.busy {
            Some(busy) if is_busy && self.is_busy => (busy.until, busy.last_ms) = (sent, newest_ms),
            Some(_) | None if is_busy => self.busy = Some(Busy { from: sent, until: sent, first_ms: newest_ms, last_ms: newest_ms }),
            Some(_) | None => {}
        }
        self.is_busy = is_busy;
        if is_busy && self.cut_at.is_some_and(|at| sent > at) {
            let first = Busy { from: sent, until: sent, first_ms: newest_ms, last_ms: newest_ms };
            let busy = self.busy_since_cut.get_or_insert(first);
            (busy.until, busy.last_ms) = (sent, newest_ms);
        }
        let threshold_ms = self.high_ms();
        let reported = Reported { at: now, least_ms };
        if least_ms <= threshold_ms {
            self.high_since = None;
            let weight = (passed.as_secs_f64() / 5.0).clamp(0.01, 0.3);
            self.fluctuation_ms += weight * ((least_ms - self.mean_ms).abs() - self.fluctuation_ms);
            self.mean_ms += weight * (least_ms - self.mean_ms);
        } else if self.high_since.is_none() {
            self.high_since = Some(reported);
        }
        while self.reports.len() >= REPORTS_MAX
            || self.reports.front().is_some_and(|first| now.saturating_duration_since(first.at) > LOOK_BACK)
        {
            self.reports.pop_front();
        }
        self.reports.push_back(reported);
    }

    fn margin_ms(&self) -> f64 {
        (2.0 * self.fluctuation_ms).min(FLUCTUATION_MAX_MS)
    }

    fn high_ms(&self) -> f64 {
        HIGH_MS + self.margin_ms()
    }

    /// The least of the newest report.
    pub(crate) fn least_ms(&self) -> f64 {
        self.reports.back().map_or(0.0, |last| last.least_ms)
    }

    /// The greatest of the newest report.
    pub(crate) fn greatest_ms(&self) -> f64 {
        self.greatest_ms.max(0.0)
    }

    /// Whether reports have said for a while that nothing queues.
    pub(crate) fn is_short(&self) -> bool {
        self.reports.iter().rev().take(2).all(|reported| reported.least_ms < OVERFLOWING_MS + self.margin_ms())
    }

    /// By how much the greatest delay rose above what it usually is, so that it is to be noticed.
    pub(crate) fn noticeable_ms(&self) -> f64 {
        OVERFLOWING_MS + self.margin_ms()
    }

    /// Whether our packets queue so that we must send less.
    pub(crate) fn congestion(&self, now: Instant, is_losing: bool) -> Option<Congestion> {
        let (Some(last), false) = (self.reports.back(), self.learns_until.is_some()) else { return None };
        if is_losing && self.overflows(now) {
            return Some(Congestion::Growing);
        }
        let first = self.high_since?;
        let lasts = now.saturating_duration_since(first.at);
        let grows = last.least_ms > first.least_ms + GROWS_MS || self.mounts();
        let is_rare = self.gap > BELIEVED && lasts.is_zero();
        if grows { Some(Congestion::Growing) } else { (is_rare || lasts >= STANDING).then_some(Congestion::Standing) }
    }

    /// Whether each of the last reports told of a longer queue than the one before: hiccups come at once, and shrink.
    fn mounts(&self) -> bool {
        let newest: Vec<f64> = self.reports.iter().rev().take(3).map(|reported| reported.least_ms).collect();
        let [last, before, first] = newest[..] else { return false };
        last > before + MOUNTS_MS && before > first + MOUNTS_MS
    }

    /// Whether a short buffer seems to be full: packets have queued for half a second without a break.
    fn overflows(&self, now: Instant) -> bool {
        let recent =
            self.reports.iter().rev().take_while(|reported| now.saturating_duration_since(reported.at) < Duration::from_millis(550));
        let (mut count, mut least_ms) = (0, f64::INFINITY);
        for reported in recent {
            count += 1;
            least_ms = least_ms.min(reported.least_ms);
        }
        count >= 2 && least_ms > OVERFLOWING_MS + 2.0 * self.margin_ms()
    }

    /// Less has been sent since.
    pub(crate) fn set_cut(&mut self, cut_at: Option<Instant>) {
        if self.cut_at != cut_at {
            self.cut_at = cut_at;
            self.busy_since_cut = None;
        }
    }

    /// The part of [`Queue::busy`] since less was sent.
    pub(crate) fn busy_since_cut(&self) -> Option<Busy> {
        self.busy_since_cut
    }

    /// The last stretch of time in which the link was busy all along.
    pub(crate) fn busy(&self) -> Option<Busy> {
        self.busy
    }

    /// What queues is not of our making: less was sent, and it stayed.
    pub(crate) fn disown(&mut self) {
        self.foreign_ms = (self.raw_ms - 1.0).max(0.0);
        self.reports.clear();
        self.high_since = None;
        self.busy = None;
        self.is_busy = false;
    }
}
