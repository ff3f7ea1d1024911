//! What the link carries, as far as it is known.
//!
//! The budget is a rate at which packets did not queue. When they do, it falls to what came through, and for a while less is sent, until the
//! queue is gone. It rises by probes: packets carry copies that are not needed, for a second in all, and if they do not queue either, the
//! budget is what was sent. A probe that fails has cost nothing that is heard; the next one waits twice as long.
//!
//! A probe runs ahead of the reports on it by no more than would queue for [`AHEAD_MS`] if there were no room at all. Where reports are
//! frequent it is one second long; where they are rare, it is some packets at a time.

use std::time::{Duration, Instant};

use super::ladder::FLOOR;
use super::ledger::Ledger;
use super::queue::Queue;

/// What is kept of the rate that came through a queue.
const KEPT: f64 = 0.9;
/// What is sent until the queue is gone, of the same.
const WHILE_DRAINING: f64 = 0.62;
/// What is kept of the rate sent, at most: a cut is one.
const KEPT_OF_SENT: f64 = 0.92;
/// A queue that is not gone after this long was not ours, or was cut too little.
const DRAINS: Duration = Duration::from_millis(2_000);
/// This much of a queue left means that it was not ours.
const UNMOVED: f64 = 0.75;
/// After a cut, the next waits for reports on the time after it: this and two round trips.
const CUT_TELLS: Duration = Duration::from_millis(450);
/// A probe may cause so much queue before its first report, if there is no room: little is heard of it.
const AHEAD_MS: f64 = 60.0;
/// Below this many bits per second a link is thin: queues drain slowly.
pub(crate) const THIN_BPS: f64 = 20_000.0;
/// In the first seconds, which are to be short, it may be more, unless the link may be thin.
const AHEAD_AT_FIRST_MS: f64 = 150.0;
/// In all, a probe lasts so long.
const PROBE: Duration = Duration::from_millis(1_000);
/// A probe that reports say nothing of ends.
const PROBE_UNTOLD: Duration = Duration::from_secs(4);
/// After a cut or a failed probe, the next probe waits so long, then twice as long each time…
const BACKOFF_LEAST: Duration = Duration::from_secs(4);
/// … up to this. A link that widens is noticed within a minute.
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// A budget that has held for so long is forgiven its failures.
const HOLDS: Duration = Duration::from_secs(45);
/// A probe fails when this much more is lost than before it: a link may drop what it does not carry without queueing it.
const DROPPED: f64 = 0.15;
/// Reports rarer than this may miss a short queue by its least; the greatest is looked at too, and the next report is waited for.
const RARE_REPORTS: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy)]
struct Probe {
    begun: Instant,
    rate_bps: f64,
    /// Packets carry more copies from here on, or pause.
    active_since: Option<Instant>,
    paused_at: Instant,
    /// How long it was active before.
    active: Duration,
    /// Reports have told of what was sent until here.
    told_until: Instant,
    ahead: Duration,
    least_ms_before: f64,
    greatest_ms_before: f64,
    lost_before: f64,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Steady,
    Draining { until: Instant, grew_since: Instant, least_ms_before: f64, budget_before_bps: f64, rate_before_bps: f64, rate_bps: f64 },
    Probing(Probe),
}

/// What is seen of the network when a report has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) told_until: Option<Instant>,
    /// Share of packets lost of late, and how many were counted.
    pub(crate) lost: f64,
    pub(crate) packets: usize,
    pub(crate) report_gap: Duration,
}

/// What the link is believed to carry.
#[derive(Debug)]
pub(crate) struct Capacity {
    budget_bps: f64,
    phase: Phase,
    probes_from: Instant,
    backoff: Duration,
    changed_at: Instant,
    cut_at: Option<Instant>,
    has_passed: bool,
}

impl Capacity {
    pub(crate) fn new(now: Instant, budget_bps: f64) -> Self {
        Self {
            budget_bps,
            phase: Phase::Steady,
            probes_from: now,
            backoff: BACKOFF_LEAST,
            changed_at: now,
            cut_at: None,
            has_passed: false,
        }
    }

    /// The rate at which packets do not queue.
    pub(crate) fn budget_bps(&self) -> f64 {
        self.budget_bps
    }

    /// The rate to keep to at the moment.
    pub(crate) fn allowed_bps(&self) -> f64 {
        match self.phase {
            Phase::Draining { rate_bps, .. } => rate_bps,
            Phase::Steady | Phase::Probing(_) => self.budget_bps,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing(_))
    }

    /// Whether a probe's copies are to be sent at the moment.
    pub(crate) fn is_probe_active(&self) -> bool {
        matches!(self.phase, Phase::Probing(Probe { active_since: Some(_), .. }))
    }

    /// Whether the link has carried less than was tried before.
    pub(crate) fn has_failed(&self) -> bool {
        self.backoff > BACKOFF_LEAST
    }

    pub(crate) fn may_probe(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Steady) && now >= self.probes_from
    }

    /// A rate is known to be carried without having been probed.
    pub(crate) fn raise(&mut self, now: Instant, budget_bps: f64) {
        if budget_bps > self.budget_bps {
            self.budget_bps = budget_bps;
            self.changed_at = now;
        }
    }

    pub(crate) fn begin_probe(&mut self, now: Instant, rate_bps: f64, queue: &Queue, lost_before: f64) {
        let is_first = !self.has_passed && self.cut_at.is_none() && self.budget_bps >= THIN_BPS;
        let allowed_ms = if is_first { AHEAD_AT_FIRST_MS } else { AHEAD_MS };
        let excess = (rate_bps / self.budget_bps - 1.0).max(0.05);
        self.phase = Phase::Probing(Probe {
            begun: now,
            rate_bps,
            active_since: Some(now),
            paused_at: now,
            active: Duration::ZERO,
            told_until: now,
            ahead: Duration::from_secs_f64((allowed_ms / 1000.0 / excess).clamp(0.01, 1.0)),
            least_ms_before: queue.least_ms(),
            greatest_ms_before: queue.greatest_ms(),
            lost_before,
        });
    }

    /// A report has come while a probe runs.
    pub(crate) fn handle_report(&mut self, now: Instant, queue: &Queue, seen: Seen) {
        let Phase::Probing(probe) = &mut self.phase else { return };
        let Some(told_until) = seen.told_until.filter(|told| *told > probe.begun) else { return };
        let is_rare = seen.report_gap > RARE_REPORTS;
        let queues = queue.least_ms() > probe.least_ms_before + queue.noticeable_ms()
            || (is_rare && queue.greatest_ms() > probe.greatest_ms_before + 1.5 * queue.noticeable_ms());
        let drops = seen.packets >= 20 && seen.lost > 2.0 * probe.lost_before + DROPPED;
        if queues || drops {
            self.fail(now);
            return;
        }
        // The fastest packet since a report long ago may be one from before the probe.
        let told_until = if is_rare { told_until.checked_sub(seen.report_gap).unwrap_or(told_until) } else { told_until };
        if told_until > probe.told_until {
            probe.told_until = told_until;
            // Each report that is good news lets it run farther ahead.
            probe.ahead = probe.ahead.mul_f64(1.6).min(PROBE);
        }
        if probe.active_since.is_none() && told_until >= probe.paused_at {
            probe.active_since = Some(now);
        }
        let active = probe.active + probe.active_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if active < PROBE {
            return;
        }
        self.budget_bps = self.budget_bps.max(probe.rate_bps);
        self.phase = Phase::Steady;
        self.changed_at = now;
        self.has_passed = true;
    }

    fn fail(&mut self, now: Instant) {
        self.phase = Phase::Steady;
        self.back_off(now);
    }

    fn back_off(&mut self, now: Instant) {
        self.probes_from = now + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
    }

    /// Packets queue that were sent at `sent_bps`, of which `delivered_bps` came through.
    pub(crate) fn cut(&mut self, now: Instant, rtt: Duration, sent_bps: f64, delivered_bps: Option<f64>, queue: &Queue) {
        if self.cut_at.is_some_and(|at| now.saturating_duration_since(at) < CUT_TELLS + 2 * rtt) {
            return;
        }
        if let Phase::Draining { least_ms_before, .. } = self.phase
            && queue.least_ms() < least_ms_before + 40.0
        {
            return;
        }
        let floor_bps = f64::from(FLOOR.wire_bps());
        let through_bps = delivered_bps.unwrap_or(0.5 * sent_bps).min(sent_bps);
        let rate_before_bps = self.allowed_bps().min(sent_bps);
        let (budget_before_bps, grew_since) = match self.phase {
            Phase::Draining { budget_before_bps, grew_since, .. } => (budget_before_bps, grew_since),
            Phase::Steady | Phase::Probing(_) => (self.budget_bps, queue.grew_since().unwrap_or(now)),
        };
        self.budget_bps = (KEPT * through_bps).min(KEPT_OF_SENT * self.budget_bps).max(floor_bps);
        let rate_bps = (WHILE_DRAINING * through_bps).max(floor_bps);
        self.phase = Phase::Draining {
            until: now + DRAINS,
            grew_since,
            least_ms_before: queue.least_ms(),
            budget_before_bps,
            rate_before_bps,
            rate_bps,
        };
        self.cut_at = Some(now);
        self.changed_at = now;
        self.back_off(now);
    }

    pub(crate) fn tick(&mut self, now: Instant, queue: &mut Queue, ledger: &Ledger) {
        match &mut self.phase {
            Phase::Steady => {
                if now.saturating_duration_since(self.changed_at) > HOLDS {
                    self.backoff = BACKOFF_LEAST;
                }
            }
            Phase::Draining { until, grew_since, least_ms_before, budget_before_bps, rate_before_bps, rate_bps } => {
                if queue.is_short() {
                    // As long as there was a queue, the link was busy: what came through is what it carries. After a link that merely
                    // paused, it is what was sent.
                    let carried_bps = ledger.delivered_bps(now, *grew_since).unwrap_or(0.0);
                    self.budget_bps = self.budget_bps.max((KEPT * carried_bps).min(*budget_before_bps));
                    self.phase = Phase::Steady;
                } else if now >= *until {
                    if queue.least_ms() > UNMOVED * *least_ms_before {
                        queue.disown();
                        // Less did not help, so the rate from before was not too much.
                        self.budget_bps = self.budget_bps.max(0.9 * *rate_before_bps);
                        self.phase = Phase::Steady;
                    } else {
                        *until = now + DRAINS;
                        *least_ms_before = queue.least_ms();
                        *rate_before_bps = *rate_bps;
                    }
                }
            }
            Phase::Probing(probe) => {
                if now.saturating_duration_since(probe.told_until) > PROBE_UNTOLD {
                    self.fail(now);
                } else if let Some(since) = probe.active_since
                    && now.saturating_duration_since(since.max(probe.told_until)) > probe.ahead
                {
                    probe.active += now.saturating_duration_since(since);
                    probe.active_since = None;
                    probe.paused_at = now;
                }
            }
        }
    }

    /// Another path: what is known of the old one does not count against it.
    pub(crate) fn forget_failures(&mut self, now: Instant) {
        self.backoff = BACKOFF_LEAST;
        self.probes_from = now + Duration::from_secs(1);
        self.phase = Phase::Steady;
        self.cut_at = None;
    }
}
