//! The rate controller: what to send, by what the other side says has arrived.
//!
//! There is one for each peer. It is told of every packet sent and every report that comes, and says which [`Rung`] of the ladder to stand on.
//! Two questions are kept apart. *What does the link carry?* ([`capacity`]): answered by delay, since packets that are sent too fast stand in a
//! queue before they are lost; delay-based, like RFC 8298 and Google's congestion control, but with the few rates that speech has. *What repairs
//! the loss?* ([`choice`]): loss without a queue is no congestion, and is answered by copies at no higher rate.
//!
//! It does no I/O and reads no clock. Reports are believed within limits: whatever they say, the rate stays between the floor and the
//! settings' most, and the work on each is bounded.

mod capacity;
mod choice;
mod ladder;
mod ledger;
mod queue;
mod round_trip;

use std::time::{Duration, Instant};

use ahoy_protocol::media::{COPIES_MAX, FrameDuration, ReceiverReport};

use self::capacity::{Capacity, Seen, THIN_BPS};
use self::choice::{Situation, expected_loss};
use self::ladder::{CLEAN, FLOOR, LADDER, LAN, START};
pub use self::ladder::{DATAGRAM_OVERHEAD_BYTES, Rung, RungName};
use self::ledger::{Ledger, LossStats, Told};
use self::queue::Queue;
use self::round_trip::RoundTrip;

/// Decisions are taken this often, however often it is asked.
const DECIDES_EVERY: Duration = Duration::from_millis(20);
/// Rungs are compared with every report, and this often without one.
const CHOOSES_EVERY: Duration = Duration::from_millis(100);
/// Loss in this time is answered at once.
const RECENT: Duration = Duration::from_millis(1_500);
/// Loss in this time is reckoned with; a rung is left downwards when this has passed without.
const LATELY: Duration = Duration::from_secs(10);
/// Time that very heavy loss is measured over…
const HEAVY_WINDOW: Duration = Duration::from_secs(4);
/// … which are so many packets at least.
const HEAVY_PACKETS: usize = 50;
/// Above this share of lost packets, a third copy is worth its place…
const HEAVY_FROM: f64 = 0.42;
/// … and below this no longer.
const HEAVY_UNTIL: f64 = 0.3;
/// A round trip below this, without a relay, is a local network, if hardly anything is lost…
const LAN_RTT: Duration = Duration::from_millis(10);
/// … until the round trip is above this…
const LAN_RTT_MOST: Duration = Duration::from_millis(20);
/// … or more than this is lost.
const LAN_LOSS: f64 = 0.005;
/// From this round trip on a path may be thin, and is approached with care. Below it, a link that is too thin for the first rung is found out within
/// a second, and everybody else is spared the longer frames, by which the first word would come 40 ms later.
const QUICK_RTT: Duration = Duration::from_millis(125);
/// From this round trip on, two copies of 40 ms would make talk halting…
const FAR_RTT: Duration = Duration::from_millis(280);
/// … and below this they do not.
const FAR_RTT_UNTIL: Duration = Duration::from_millis(220);
/// Fewer reports than this are no news of a path.
const REPORTS_LEAST: u32 = 2;
/// More copies must promise so much of R, and come at once…
const GAIN_MORE: f64 = 1.5;
/// … fewer must promise more, since they may cost words…
const GAIN_FEWER: f64 = 3.0;
/// … and as many copies, less.
const GAIN_OTHER: f64 = 1.0;
/// Changes for the better wait so long after one another: a receiver settles after each.
const DWELL: Duration = Duration::from_millis(600);
/// Copies that were given up too early are not given up again for so long, then for three times as long…
const UNPROTECT_LEAST: Duration = Duration::from_secs(10);
/// … up to this.
const UNPROTECT_MOST: Duration = Duration::from_secs(120);
/// They were, if they are wanted again within this.
const UNPROTECT_REGRET: Duration = Duration::from_secs(90);
/// A change within so much of what is known to be carried is tried as it is: L1, L2 and L3 are about as wide, and so is each narrow rung and the
/// next.
const STEP: f64 = 1.36;
/// Above this many bits per second steps are small again: there is little above.
const WIDE_BPS: f64 = 30_000.0;
/// A probe doubles the rate at most…
const PROBE_MOST: f64 = 2.0;
/// … and on thin links, where that has failed, adds half to it.
const PROBE_MOST_CAREFUL: f64 = 1.5;
/// In its first seconds a call has reports no rarer than this, so that it finds its rung.
const FIRST_REPORTS: Duration = Duration::from_millis(80);
/// The first seconds.
const FIRST: Duration = Duration::from_secs(3);
/// Without any report for so long, little is sent.
const SILENT: Duration = Duration::from_millis(2_500);
/// That is, so many bits per second.
const SILENT_BPS: f64 = 30_000.0;
/// Without any report for so long, nothing but probes is sent (RFC 8083).
const STOPPED: Duration = Duration::from_secs(10);
/// One probe in this time.
pub const STOPPED_PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// A buffer overflows when more is lost of late than this, and so many times what was lost in the last ten seconds.
const OVERFLOW_LOSS: f64 = 0.05;
const OVERFLOW_TIMES: f64 = 1.25;
/// Reports are stuck when what comes queues for so long…
const STUCK_QUEUE_MS: f64 = 120.0;
/// … hardly anything was lost before…
const STUCK_LOSS: f64 = 0.1;
/// … and none has come for so long, where they are due every 100 ms, and a round trip.
const STUCK_REPORTS: Duration = Duration::from_millis(300);
/// Packets of which nothing is heard for so long, and two round trips, are stuck.
const STUCK: Duration = Duration::from_millis(1_500);
/// A round trip longer by this than the least of any path lately is a queue that stands, and no path's own length.
const STANDING: Duration = Duration::from_millis(300);
/// After a change of the path, the queue's base is learned anew for so long.
const LEARNS_PATH: Duration = Duration::from_millis(1_000);
/// What users who save data want to send at most, on the wire.
const SAVER_BPS: u32 = 32_000;
/// Loss before a probe is counted over this.
const BEFORE_PROBE: Duration = Duration::from_secs(4);

/// The user's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSettings {
    /// Most bits per second on the wire.
    pub wire_bps_max: u32,
    /// Whether few are wanted.
    pub data_saver: bool,
}

impl Default for RateSettings {
    fn default() -> Self {
        Self { wire_bps_max: LAN.wire_bps(), data_saver: false }
    }
}

impl RateSettings {
    fn wire_bps_max(&self) -> u32 {
        let most = if self.data_saver { self.wire_bps_max.min(SAVER_BPS) } else { self.wire_bps_max };
        most.max(FLOOR.wire_bps())
    }
}

/// Why it stands on its rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// The call has just begun.
    Beginning,
    /// Nothing better is wanted.
    Best,
    /// Packets get lost, and copies repair that.
    Loss,
    /// The link carries no more.
    Bandwidth,
    /// A queue is waited out.
    Congestion,
    /// The user's bounds.
    Settings,
    /// No reports come.
    Silence,
}

impl Why {
    /// One word for logs and scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Best => "best",
            Self::Loss => "loss",
            Self::Bandwidth => "bandwidth",
            Self::Congestion => "congestion",
            Self::Settings => "settings",
            Self::Silence => "silence",
        }
    }
}

/// What is known of the path, and done about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateFacts {
    /// Packets that got lost in the last ten seconds, in percent.
    pub lost_percent: f64,
    /// What copies did not repair of it, in percent.
    pub unrepaired_percent: f64,
    /// Mean length of a run of lost packets.
    pub mean_burst: f64,
    /// Queue before the bottleneck.
    pub queue: Duration,
    /// Round trip, without queues.
    pub rtt: Duration,
    /// Sent of late, on the wire, in bits per second.
    pub wire_bps: u32,
    /// What the link is known to carry, in bits per second; it may be more.
    pub available_bps: u32,
    /// Whether more is tried out at the moment.
    pub is_probing: bool,
    /// Why it stands on its rung.
    pub why: Why,
}

/// Chooses the rung for one peer.
#[derive(Debug)]
pub struct RateController {
    settings: RateSettings,
    ledger: Ledger,
    queue: Queue,
    capacity: Capacity,
    /// What it stands on, without a probe's copies.
    base: Rung,
    /// With them.
    rung: Rung,
    probe_copies: usize,
    begun_at: Instant,
    changed_at: Instant,
    unprotect_from: Instant,
    unprotected_at: Option<Instant>,
    unprotect_hold: Duration,
    round_trip: RoundTrip,
    rtt: Duration,
    is_rtt_known: bool,
    is_relayed: bool,
    is_lan: bool,
    is_far: bool,
    is_very_lossy: bool,
    /// What it stood on before reports failed to come, or to say anything.
    before_silence: Option<Rung>,
    reports: u32,
    reported_at: Instant,
    report_gap: Duration,
    /// How long the other side's packets queue.
    incoming_queue_ms: f64,
    /// When the first packet was sent since the last report.
    unanswered_since: Option<Instant>,
    has_news: bool,
    decides_at: Instant,
    chooses_at: Instant,
    recent: LossStats,
    lately: LossStats,
    wanted: Rung,
}

impl RateController {
    /// For a call that begins at `now`.
    #[must_use]
    pub fn new(now: Instant, settings: RateSettings) -> Self {
        let rung = if START.wire_bps() <= settings.wire_bps_max() { START } else { FLOOR };
        Self {
            settings,
            ledger: Ledger::default(),
            queue: Queue::default(),
            capacity: Capacity::new(now, f64::from(rung.wire_bps())),
            base: rung,
            rung,
            probe_copies: 0,
            begun_at: now,
            changed_at: now,
            unprotect_from: now,
            unprotected_at: None,
            unprotect_hold: UNPROTECT_LEAST,
            round_trip: RoundTrip::default(),
            rtt: Duration::from_millis(100),
            is_rtt_known: false,
            is_relayed: false,
            is_lan: false,
            is_far: false,
            is_very_lossy: false,
            before_silence: None,
            reports: 0,
            reported_at: now,
            report_gap: Duration::from_millis(100),
            incoming_queue_ms: 0.0,
            unanswered_since: None,
            has_news: false,
            decides_at: now,
            chooses_at: now,
            recent: LossStats::default(),
            lately: LossStats::default(),
            wanted: rung,
        }
    }

    /// Other bounds, from now on.
    pub fn configure(&mut self, settings: RateSettings) {
        self.settings = settings;
    }

    /// A packet has been sent, which takes `wire_bytes` with all headers.
    pub fn handle_sent(&mut self, now: Instant, sequence: u16, wire_bytes: usize) {
        self.ledger.handle_sent(now, sequence, wire_bytes);
        self.unanswered_since.get_or_insert(now);
    }

    /// A report has come.
    pub fn handle_report(&mut self, now: Instant, report: &ReceiverReport) {
        match self.ledger.handle_report(report) {
            Told::Absurd => return,
            // A report that was overtaken says what used to be; one without news says nothing of a queue.
            Told::Stale => {}
            Told::News => {
                let sent = self.ledger.told_until().unwrap_or(now);
                self.queue.handle_report(now, sent, report.queueing_ms, report.queueing_max_ms);
            }
        }
        self.report_gap = now.saturating_duration_since(self.reported_at);
        self.reported_at = now;
        self.unanswered_since = None;
        self.reports = self.reports.saturating_add(1);
        self.has_news = true;
    }

    /// What this side tells the other of its packets. Where a link narrows for both directions at once, what comes queues, and the reports on
    /// what goes are stuck behind it: that alone says something.
    pub fn handle_own_report(&mut self, report: &ReceiverReport) {
        self.incoming_queue_ms = f64::from(report.queueing_ms);
    }

    /// What is known of the path. `path_changed`: the packets go another way since the last call.
    pub fn handle_path(&mut self, now: Instant, rtt: Duration, is_relayed: bool, path_changed: bool) {
        let has_queue = self.has_standing_queue();
        // A queue on this device's line stays where it is, whichever way is taken.
        let path_changed = path_changed && !has_queue;
        if path_changed {
            self.round_trip.clear();
        }
        self.round_trip.handle(now, rtt);
        self.rtt = self.round_trip.least().unwrap_or(rtt);
        self.is_relayed = is_relayed;
        self.is_far = self.rtt > if self.is_far { FAR_RTT_UNTIL } else { FAR_RTT };
        if path_changed {
            self.queue.rebase(now, LEARNS_PATH + 2 * self.rtt);
            self.capacity.forget_failures(now);
        }
        if !self.is_rtt_known && self.reports == 0 {
            self.begin(now);
        }
        self.is_rtt_known = true;
    }

    fn has_standing_queue(&self) -> bool {
        self.round_trip.excess() > STANDING
    }

    /// The first rung of a path whose round trip is known.
    fn begin(&mut self, now: Instant) {
        let most = self.settings.wire_bps_max();
        self.is_lan = self.rtt < LAN_RTT && !self.is_relayed;
        let rung = match self.rtt {
            _ if self.is_lan => LAN,
            rtt if rtt < QUICK_RTT => CLEAN,
            _ => START,
        };
        if rung.wire_bps() <= most {
            self.capacity.raise(now, f64::from(rung.wire_bps()));
            self.base = rung;
        }
    }

    /// Decides. `Some` when something else is to be sent from here on. To be called at least every 50 ms.
    pub fn tick(&mut self, now: Instant) -> Option<Rung> {
        if now < self.decides_at {
            return None;
        }
        self.decides_at = now + DECIDES_EVERY;
        self.weigh_loss();
        self.weigh_queue(now);
        // What a full queue loses, copies do not repair.
        let unrepaired = if self.has_standing_queue() { 0.0 } else { self.recent.unrepaired(self.base.settings.copies) };
        let losses = [self.recent.packets_lost(), unrepaired];
        self.capacity.tick(now, &mut self.queue, &self.ledger, losses, self.has_news);
        if self.has_news || now >= self.chooses_at {
            self.chooses_at = now + CHOOSES_EVERY;
            self.choose(now);
        }
        self.has_news = false;
        let own = self.base.settings.copies;
        // The base may have changed since the probe began.
        let is_allowed = |copies: &usize| self.base.with_copies(*copies).wire_bps() <= self.settings.wire_bps_max();
        let probed = if self.capacity.is_probe_active() { self.probe_copies } else { own };
        let copies = (own + 1..=probed).rev().find(is_allowed).unwrap_or(own);
        let rung = self.base.with_copies(copies);
        if rung == self.rung {
            return None;
        }
        self.rung = rung;
        Some(rung)
    }

    fn weigh_loss(&mut self) {
        let Some(until) = self.ledger.told_until().filter(|_| self.has_news) else { return };
        let back = |window: Duration| until.checked_sub(window).unwrap_or(until);
        self.recent = self.ledger.loss(back(RECENT));
        self.lately = self.ledger.loss(back(LATELY));
        // What has lasted, and goes on; or has not been over for long.
        let heavy = self.ledger.loss(back(HEAVY_WINDOW));
        let is_heavy = self.lately.packets > HEAVY_PACKETS && heavy.packets_lost() > HEAVY_FROM && self.lately.packets_lost() > HEAVY_FROM;
        self.is_very_lossy = is_heavy || (self.is_very_lossy && self.lately.packets_lost() > HEAVY_UNTIL);
        let lan_rtt_most = if self.is_lan { LAN_RTT_MOST } else { LAN_RTT };
        let lan_loss_most = if self.is_lan { 2.0 * LAN_LOSS } else { LAN_LOSS };
        self.is_lan = self.is_rtt_known && self.rtt < lan_rtt_most && !self.is_relayed && self.lately.lost < lan_loss_most;
    }

    fn weigh_queue(&mut self, now: Instant) {
        // A full buffer loses more than the path does anyway.
        let is_losing =
            self.recent.packets >= 15 && self.recent.packets_lost() > OVERFLOW_LOSS + OVERFLOW_TIMES * self.lately.packets_lost();
        if self.has_news && self.reports >= REPORTS_LEAST {
            let probed = self.capacity.probes_since().map(|begun| {
                let before = self.ledger.loss_in(begun.checked_sub(BEFORE_PROBE).unwrap_or(begun), Some(begun));
                (before, self.ledger.loss(begun))
            });
            let (before, during) = probed.unwrap_or_default();
            let seen = Seen { told_until: self.ledger.told_until(), report_gap: self.report_gap, before, during };
            self.capacity.handle_report(now, &self.queue, seen);
        }
        self.weigh_stuck_reports(now);
        self.queue.set_cut(self.capacity.cut_at());
        let Some(congestion) = self.queue.congestion(now, is_losing).filter(|_| self.has_news) else { return };
        let sent_bps = self.ledger.sent_bps(now, Duration::from_millis(500)).min(f64::from(self.rung.wire_bps()) * 1.2);
        let carried_bps = self.queue.busy().and_then(|busy| self.ledger.carried_bps(&busy));
        self.capacity.cut(now, self.rtt, sent_bps.max(f64::from(FLOOR.wire_bps())), carried_bps, &self.queue, congestion);
    }

    /// Where a link narrows for both directions at once, what comes queues, and the reports on what goes are stuck in that queue, or lost at its
    /// end. Half as much is sent until they say more.
    fn weigh_stuck_reports(&mut self, now: Instant) {
        let usual = self.rung.report_interval().max(FIRST_REPORTS);
        let is_late = now.saturating_duration_since(self.reported_at) > STUCK_REPORTS * usual.as_millis() as u32 / 100 + self.rtt;
        // Where much is lost anyway, so are reports.
        let is_lossy = self.lately.packets_lost() > STUCK_LOSS;
        if self.reports < REPORTS_LEAST || self.incoming_queue_ms < STUCK_QUEUE_MS || is_lossy || !is_late {
            return;
        }
        self.capacity.cut_unseen(now, &self.queue);
    }

    fn choose(&mut self, now: Instant) {
        let situation = Situation {
            settings: self.settings,
            rtt: self.rtt,
            is_lan: self.is_lan,
            is_far: self.is_far,
            is_very_lossy: self.is_very_lossy,
            lost: expected_loss(&self.recent, &self.lately),
        };
        self.wanted = situation.best(f64::INFINITY);
        if self.hears_nothing(now) {
            self.before_silence.get_or_insert(self.base);
            let most_bps = SILENT_BPS.min(self.capacity.allowed_bps());
            if f64::from(self.base.wire_bps()) > most_bps {
                self.change(now, situation.best(most_bps));
            }
            return;
        }
        if let Some(rung) = self.before_silence.take().filter(|rung| situation.may_keep(*rung, self.capacity.allowed_bps())) {
            self.change(now, rung);
        }
        self.reach(now, &situation);
        let allowed_bps = self.capacity.allowed_bps();
        if situation.may_keep(self.base, allowed_bps) {
            self.improve(now, &situation, allowed_bps);
        } else {
            self.change(now, situation.best(allowed_bps));
        }
    }

    /// Whether reports do not come, or come and tell of nothing that was sent lately: there is an outage.
    fn hears_nothing(&self, now: Instant) -> bool {
        let is_silent = self.unanswered_since.is_some_and(|since| now.saturating_duration_since(since) > SILENT);
        let untold = self.ledger.untold_since().filter(|_| self.reports > 0);
        is_silent || untold.is_some_and(|since| self.reported_at.saturating_duration_since(since) > STUCK + 2 * self.rtt)
    }

    /// Tries for more than is known to be carried, where that would be better.
    fn reach(&mut self, now: Instant, situation: &Situation) {
        let budget_bps = self.capacity.budget_bps();
        let promises = |rung: Rung| situation.rating(rung) > situation.rating(self.base) + GAIN_OTHER;
        let is_clear = self.queue.is_short() && !self.has_standing_queue();
        let is_ready = self.reports >= REPORTS_LEAST && is_clear && self.capacity.may_probe(now);
        let wanted_bps = f64::from(self.wanted.wire_bps());
        if wanted_bps <= budget_bps || !promises(self.wanted) || !is_ready {
            return;
        }
        // Long packets are few: a copy more is too big a step, and tells late.
        let is_long = self.base.settings.duration > FrameDuration::Ms60;
        let is_careful = is_long || self.capacity.has_failed();
        let next = if self.capacity.passed() == 0 {
            situation.next(self.base, budget_bps, STEP * budget_bps, GAIN_OTHER)
        } else {
            // What goes well goes on faster.
            let faster = if budget_bps < THIN_BPS {
                PROBE_MOST_CAREFUL
            } else if budget_bps < WIDE_BPS {
                PROBE_MOST
            } else {
                STEP
            };
            Some(situation.best(faster * budget_bps)).filter(|rung| f64::from(rung.wire_bps()) > budget_bps && promises(*rung))
        };
        if wanted_bps <= STEP * budget_bps && !is_careful {
            self.capacity.begin_trial(now, wanted_bps, &self.queue);
        } else if let Some(next) = next.filter(|_| is_careful) {
            self.capacity.begin_trial(now, f64::from(next.wire_bps()), &self.queue);
        } else {
            self.probe(now, wanted_bps);
        }
    }

    /// Goes to a better rung within what is allowed, if it is better by enough, and for long enough.
    fn improve(&mut self, now: Instant, situation: &Situation, allowed_bps: f64) {
        let best = situation.best(allowed_bps);
        let gain = situation.rating(best) - situation.rating(self.base);
        let dwelt = now.saturating_duration_since(self.changed_at) >= DWELL;
        match best.settings.copies.cmp(&self.base.settings.copies) {
            std::cmp::Ordering::Greater if gain > GAIN_MORE && dwelt => {
                if self.unprotected_at.is_some_and(|at| now.saturating_duration_since(at) < UNPROTECT_REGRET.max(self.unprotect_hold)) {
                    self.unprotect_hold = (self.unprotect_hold * 3).min(UNPROTECT_MOST);
                }
                self.unprotected_at = None;
                self.unprotect_from = now + self.unprotect_hold;
                self.change(now, best);
            }
            std::cmp::Ordering::Less if gain > GAIN_FEWER && dwelt && now >= self.unprotect_from => {
                self.unprotected_at = Some(now);
                self.change(now, best);
            }
            std::cmp::Ordering::Equal if gain > GAIN_OTHER && dwelt => self.change(now, best),
            std::cmp::Ordering::Greater | std::cmp::Ordering::Less | std::cmp::Ordering::Equal => {}
        }
    }

    fn change(&mut self, now: Instant, rung: Rung) {
        if rung != self.base {
            self.base = rung;
            self.changed_at = now;
        }
    }

    /// Tries whether the link carries `wanted_bps`, or as much of it as copies can make up.
    fn probe(&mut self, now: Instant, wanted_bps: f64) {
        let budget_bps = self.capacity.budget_bps();
        let is_careful = budget_bps < THIN_BPS && self.capacity.has_failed();
        let most = if is_careful { PROBE_MOST_CAREFUL } else { PROBE_MOST };
        let most_bps = (most * budget_bps).min(f64::from(self.settings.wire_bps_max()));
        let rate_bps = |copies: usize| f64::from(self.base.with_copies(copies).wire_bps());
        let more = (self.base.settings.copies + 1)..=COPIES_MAX;
        let within = |copies: &usize| rate_bps(*copies) <= most_bps;
        let enough = more.clone().filter(within).find(|copies| rate_bps(*copies) >= wanted_bps);
        // Where one copy is more than doubles the rate, it is sent by itself.
        let least = more.clone().next().filter(|copies| rate_bps(*copies) <= f64::from(self.settings.wire_bps_max()));
        let Some(copies) = enough.or_else(|| more.clone().rev().find(within)).or(least) else { return };
        if rate_bps(copies) <= self.capacity.budget_bps() {
            // What copies can make up is known to be carried; the rung above it is tried as it is.
            self.capacity.raise(now, wanted_bps.min(STEP * self.capacity.budget_bps()));
            return;
        }
        self.probe_copies = copies;
        self.capacity.begin_probe(now, rate_bps(copies), &self.queue);
    }

    /// What to send.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// How often to send reports on the other direction.
    #[must_use]
    pub fn report_interval(&self, now: Instant) -> Duration {
        let interval = self.base.report_interval();
        if now.saturating_duration_since(self.begun_at) < FIRST { interval.min(FIRST_REPORTS) } else { interval }
    }

    /// Whether nothing but a probe each [`STOPPED_PROBE_INTERVAL`] is to be sent, since no report has come for long.
    #[must_use]
    pub fn is_stopped(&self, now: Instant) -> bool {
        self.unanswered_since.is_some_and(|since| now.saturating_duration_since(since) >= STOPPED)
    }

    /// What is known, and done about it.
    #[must_use]
    pub fn facts(&self, now: Instant) -> RateFacts {
        RateFacts {
            lost_percent: 100.0 * self.lately.lost,
            unrepaired_percent: 100.0 * self.lately.unrepaired(self.base.settings.copies),
            mean_burst: self.lately.burst,
            queue: Duration::from_secs_f64(self.queue.least_ms().max(0.0) / 1000.0),
            rtt: self.rtt,
            wire_bps: self.ledger.sent_bps(now, Duration::from_secs(1)) as u32,
            available_bps: self.capacity.budget_bps() as u32,
            is_probing: self.capacity.is_probing(),
            why: self.why(now),
        }
    }

    fn why(&self, now: Instant) -> Why {
        let is_silent = self.unanswered_since.is_some_and(|since| now.saturating_duration_since(since) > SILENT);
        let could_be_wider = LADDER.iter().any(|rung| rung.wire_bps() > self.settings.wire_bps_max() && rung.name == RungName::L1);
        if is_silent {
            Why::Silence
        } else if self.capacity.is_draining() {
            Why::Congestion
        } else if self.reports < REPORTS_LEAST {
            Why::Beginning
        } else if f64::from(self.wanted.wire_bps()) > self.capacity.budget_bps() {
            Why::Bandwidth
        } else if could_be_wider {
            Why::Settings
        } else if self.base.settings.copies > 0 {
            Why::Loss
        } else {
            Why::Best
        }
    }
}
