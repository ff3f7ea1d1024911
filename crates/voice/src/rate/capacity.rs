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
use super::ledger::{Ledger, LossStats};
use super::queue::{Congestion, Queue};

/// What is kept of the rate that came through a queue.
const KEPT: f64 = 0.93;
/// Of a thin link, where packets are few and all else weighs more.
const KEPT_OF_THIN: f64 = 0.8;
/// What is sent until the queue is gone, of the same: at most this…
const WHILE_DRAINING: f64 = 0.4;
/// … and less where the queue is long, so that it is gone within so many seconds…
const DRAINED_WITHIN_S: f64 = 1.0;
/// … but not next to nothing.
const WHILE_DRAINING_LEAST: f64 = 0.3;
/// What is kept of the rate sent, at most: a cut is one.
const KEPT_OF_SENT: f64 = 0.92;
/// A queue that is not gone after this long was not ours, or was cut too little.
const DRAINS: Duration = Duration::from_millis(2_000);
/// A queue that grew was ours, most likely: if less does not shorten it, it is cut so many times more.
const ROUNDS: u32 = 2;
/// A queue that was ours falls by this much at least between two looks, if it falls.
const MOVED_MS: f64 = 30.0;
/// A queue that was ours is shorter this long after less is heard to have been sent.
const DRAINS_OURS: Duration = Duration::from_millis(800);
/// This much of a queue left means that it was not ours…
const UNMOVED: f64 = 0.75;
/// … unless so much is lost meanwhile that it may be a full one, to which we add.
const FULL_LOSES: f64 = 0.08;
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
/// And what is tried as it is, since a step so small queues slowly, so long.
const TRIAL: Duration = Duration::from_millis(2_000);
/// A probe that reports say nothing of ends.
const PROBE_UNTOLD: Duration = Duration::from_secs(4);
/// After a cut or a failed probe, the next probe waits so long, then twice as long each time…
const BACKOFF_LEAST: Duration = Duration::from_secs(4);
/// … up to this. A link that widens is noticed within a minute.
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// After a queue of our own making, what the link carries is known, and it seldom widens within seconds.
const NARROWED: Duration = Duration::from_secs(15);
/// Where so much is lost that copies do not repair, words are lost while nothing is tried: no wait is longer than this.
const WORDS_LOST: f64 = 0.2;
const WORDS_WAIT: Duration = Duration::from_millis(1_500);
/// A budget that has held for so long, untried, is forgiven its failures.
const HOLDS: Duration = Duration::from_secs(180);
/// A probe fails when this much more is lost in it than before it, and more than chance may lose: a link may drop what it does not carry without
/// queueing it.
const DROPPED: f64 = 0.15;
/// Loss in a probe is counted from so many packets on.
const PROBE_PACKETS_LEAST: f64 = 15.0;
/// What chance may lose, in standard deviations.
const CHANCE: f64 = 2.0;
/// A link that was busy this long before a cut was not what it was for.
const BUSY_BEFORE_CUT: Duration = Duration::from_secs(1);
/// What came through since a cut counts if it was over so many seconds.
const SINCE_CUT_LEAST_S: f64 = 0.3;
/// Between two cuts that reports say nothing of.
const UNSEEN_AGAIN: Duration = Duration::from_millis(500);
/// A queue that has grown so much since the last cut asks for another.
const GROWN_MS: f64 = 40.0;
/// What a probe that failed has left in the queue is gone soon, and is no reason for a cut, up to this.
const LEFT_BY_PROBE_MS: f64 = 300.0;
/// … and for so long.
const LEFT_BY_PROBE: Duration = Duration::from_secs(4);
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
    /// Whether it is a rung tried as it is, not copies that are not needed.
    is_trial: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Steady,
    Draining {
        until: Instant,
        least_ms_before: f64,
        budget_before_bps: f64,
        rate_before_bps: f64,
        rate_bps: f64,
        rounds: u32,
        is_ours: bool,
    },
    Probing(Probe),
}

/// What is seen of the network when a report has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) told_until: Option<Instant>,
    pub(crate) report_gap: Duration,
    /// Packets of the last seconds before the probe that runs, and those of the probe.
    pub(crate) before: LossStats,
    pub(crate) during: LossStats,
}

/// Whether more was lost during a probe than before it.
fn drops(before: &LossStats, during: &LossStats) -> bool {
    let (n, m) = (before.packets as f64, during.packets as f64);
    if n < 1.0 || m < PROBE_PACKETS_LEAST {
        return false;
    }
    let [lost_before, lost_during] = [before, during].map(LossStats::packets_lost);
    let both = (n * lost_before + m * lost_during) / (n + m);
    let deviation = (both * (1.0 - both) * (1.0 / n + 1.0 / m)).sqrt();
    lost_during - lost_before > DROPPED + CHANCE * deviation
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
    failed_at: Option<Instant>,
    has_passed: bool,
    /// Probes that passed since one failed, or a cut.
    passed: u32,
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
            failed_at: None,
            has_passed: false,
            passed: 0,
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
            Phase::Probing(Probe { is_trial: true, rate_bps, .. }) => rate_bps,
            Phase::Steady | Phase::Probing(_) => self.budget_bps,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. })
    }

    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing(Probe { is_trial: false, .. }))
    }

    /// Whether a probe's copies are to be sent at the moment.
    pub(crate) fn is_probe_active(&self) -> bool {
        matches!(self.phase, Phase::Probing(Probe { active_since: Some(_), is_trial: false, .. }))
    }

    /// Whether the link has carried less than was tried before.
    pub(crate) fn has_failed(&self) -> bool {
        self.backoff > BACKOFF_LEAST
    }

    /// When less was sent last, for a queue.
    pub(crate) fn cut_at(&self) -> Option<Instant> {
        self.cut_at
    }

    /// How many probes have passed since one failed, or a cut.
    pub(crate) fn passed(&self) -> u32 {
        self.passed
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

    /// Since when a probe runs.
    pub(crate) fn probes_since(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Probing(probe) => Some(probe.begun),
            Phase::Steady | Phase::Draining { .. } => None,
        }
    }

    /// A rung a little wider than what is known to be carried is sent as it is, and given up if that queues.
    pub(crate) fn begin_trial(&mut self, now: Instant, rate_bps: f64, queue: &Queue) {
        self.begin_probe(now, rate_bps, queue);
        if let Phase::Probing(probe) = &mut self.phase {
            probe.is_trial = true;
            probe.ahead = PROBE_UNTOLD;
        }
    }

    pub(crate) fn begin_probe(&mut self, now: Instant, rate_bps: f64, queue: &Queue) {
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
            is_trial: false,
        });
    }

    /// A report has come.
    pub(crate) fn handle_report(&mut self, now: Instant, queue: &Queue, seen: Seen) {
        let cut_at = self.cut_at;
        let probe = match &mut self.phase {
            Phase::Steady => return,
            Phase::Draining { until, least_ms_before, rounds, .. } => {
                if seen.told_until.is_none_or(|told| cut_at.is_some_and(|at| told < at)) {
                    // What was sent before the cut goes on queueing.
                    *least_ms_before = least_ms_before.max(queue.least_ms());
                    *until = now + if *rounds > 0 { DRAINS_OURS } else { DRAINS };
                }
                return;
            }
            Phase::Probing(probe) => probe,
        };
        let Some(told_until) = seen.told_until.filter(|told| *told > probe.begun) else { return };
        let is_rare = seen.report_gap > RARE_REPORTS;
        let queues = queue.least_ms() > probe.least_ms_before + queue.noticeable_ms()
            || (is_rare && queue.greatest_ms() > probe.greatest_ms_before + 1.5 * queue.noticeable_ms());
        // A step so small would lose no more than chance may.
        if queues || (!probe.is_trial && drops(&seen.before, &seen.during)) {
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
        let long = if probe.is_trial && self.passed == 0 { TRIAL } else { PROBE };
        if active < long {
            return;
        }
        self.budget_bps = self.budget_bps.max(probe.rate_bps);
        self.phase = Phase::Steady;
        self.changed_at = now;
        self.has_passed = true;
        self.passed += 1;
    }

    fn fail(&mut self, now: Instant) {
        self.failed_at = Some(now);
        self.changed_at = now;
        self.phase = Phase::Steady;
        self.back_off(now);
    }

    fn back_off(&mut self, now: Instant) {
        self.passed = 0;
        self.probes_from = now + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
    }

    /// Packets queue that were sent at `sent_bps`, of which `carried_bps` came through.
    pub(crate) fn cut(
        &mut self,
        now: Instant,
        rtt: Duration,
        sent_bps: f64,
        carried_bps: Option<f64>,
        queue: &Queue,
        congestion: Congestion,
    ) {
        if self.cut_at.is_some_and(|at| now.saturating_duration_since(at) < CUT_TELLS + 2 * rtt) {
            return;
        }
        if let Phase::Draining { least_ms_before, .. } = self.phase
            && queue.least_ms() < least_ms_before + GROWN_MS
        {
            return;
        }
        let left_by_probe = self.failed_at.is_some_and(|at| now.saturating_duration_since(at) < LEFT_BY_PROBE + 2 * rtt);
        if left_by_probe && queue.least_ms() < LEFT_BY_PROBE_MS {
            return;
        }
        let floor_bps = f64::from(FLOOR.wire_bps());
        let through_bps = carried_bps.map_or(0.5 * sent_bps, |carried| carried.min(self.budget_bps));
        let rate_before_bps = self.allowed_bps().min(sent_bps);
        let budget_before_bps = match self.phase {
            Phase::Draining { budget_before_bps, .. } => budget_before_bps,
            Phase::Steady | Phase::Probing(_) => self.budget_bps,
        };
        self.budget_bps = (KEPT * through_bps).min(KEPT_OF_SENT * self.budget_bps).max(floor_bps);
        let queue_s = queue.least_ms() / 1_000.0;
        let kept = (1.0 - queue_s / DRAINED_WITHIN_S).clamp(WHILE_DRAINING_LEAST, WHILE_DRAINING);
        let rate_bps = (kept * through_bps).max(floor_bps);
        self.phase = Phase::Draining {
            until: now + DRAINS + rtt + Duration::from_secs_f64(queue_s),
            least_ms_before: queue.least_ms(),
            budget_before_bps,
            rate_before_bps,
            rate_bps,
            rounds: if congestion == Congestion::Growing { ROUNDS } else { 0 },
            is_ours: congestion == Congestion::Growing,
        };
        self.cut_at = Some(now);
        self.changed_at = now;
        self.back_off(now);
    }

    /// Reports are stuck, it seems: half as much, until they come and say what is the matter.
    pub(crate) fn cut_unseen(&mut self, now: Instant, queue: &Queue) {
        if self.cut_at.is_some_and(|at| now.saturating_duration_since(at) < UNSEEN_AGAIN) {
            return;
        }
        let floor_bps = f64::from(FLOOR.wire_bps());
        let rate_before_bps = self.allowed_bps();
        let budget_before_bps = match self.phase {
            Phase::Draining { budget_before_bps, .. } => budget_before_bps,
            Phase::Steady | Phase::Probing(_) => self.budget_bps,
        };
        let rate_bps = (0.5 * rate_before_bps).max(floor_bps);
        self.budget_bps = self.budget_bps.min(rate_bps);
        self.phase = Phase::Draining {
            until: now + DRAINS,
            least_ms_before: queue.least_ms(),
            budget_before_bps,
            rate_before_bps,
            rate_bps,
            rounds: ROUNDS,
            is_ours: true,
        };
        self.cut_at = Some(now);
        self.changed_at = now;
    }

    /// Time has passed. `lost` of the packets lately, `unrepaired` of what they said.
    pub(crate) fn tick(&mut self, now: Instant, queue: &mut Queue, ledger: &Ledger, [lost, unrepaired]: [f64; 2], has_news: bool) {
        let floor_bps = f64::from(FLOOR.wire_bps());
        match &mut self.phase {
            Phase::Steady => {
                if now.saturating_duration_since(self.changed_at) > HOLDS {
                    self.backoff = BACKOFF_LEAST;
                }
                if unrepaired > WORDS_LOST {
                    self.probes_from = self.probes_from.min(self.changed_at + WORDS_WAIT);
                }
            }
            Phase::Draining { until, least_ms_before, budget_before_bps, rate_before_bps, rate_bps, rounds, is_ours } => {
                if queue.is_short() {
                    // As long as there was a queue, the link was busy: what came through is what it carries. After a link that merely
                    // paused, it is what was sent.
                    let busy = queue.busy().filter(|busy| self.cut_at.is_none_or(|at| busy.until + BUSY_BEFORE_CUT > at));
                    let carried_bps = match busy {
                        Some(busy) => {
                            // What filled the queue besides may be gone since.
                            let since_cut = queue.busy_since_cut().filter(|busy| busy.seconds() > SINCE_CUT_LEAST_S);
                            let since_cut_bps = since_cut.and_then(|busy| ledger.carried_bps(&busy)).unwrap_or(0.0);
                            let carried_bps = ledger.carried_bps(&busy).unwrap_or(0.0).max(KEPT_OF_THIN * since_cut_bps);
                            if unrepaired < WORDS_LOST {
                                self.probes_from = self.probes_from.max(now + NARROWED);
                            }
                            carried_bps
                        }
                        // It was the other direction alone.
                        None => *budget_before_bps / KEPT,
                    };
                    let kept = if carried_bps < THIN_BPS { KEPT_OF_THIN } else { KEPT };
                    self.budget_bps = self.budget_bps.max((kept * carried_bps).min(*budget_before_bps));
                    self.phase = Phase::Steady;
                } else if now >= *until && has_news {
                    let moved_ms = if *is_ours { *least_ms_before - MOVED_MS } else { UNMOVED * *least_ms_before };
                    let is_unmoved = queue.least_ms() > moved_ms;
                    if is_unmoved && (lost > FULL_LOSES || *rounds > 0) && *rate_bps > floor_bps {
                        *rounds = rounds.saturating_sub(1);
                        *rate_bps = (WHILE_DRAINING * *rate_bps).max(floor_bps);
                        *least_ms_before = queue.least_ms();
                        *until = now + DRAINS_OURS + Duration::from_secs_f64(queue.least_ms() / 1_000.0);
                    } else if is_unmoved {
                        queue.disown();
                        // Less did not help, so the rate from before was not too much; unless the queue had grown with it, or there is no less.
                        if !*is_ours && *rate_bps > floor_bps {
                            self.budget_bps = self.budget_bps.max(0.9 * *rate_before_bps);
                        }
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
