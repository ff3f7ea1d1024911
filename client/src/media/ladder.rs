//! The ladder: how speech is coded and protected, as what comes back says; and the circuit breaker.

use ahoy_protocol::datagram::RELAY_HEADER_BYTES;
use ahoy_protocol::media::ReceiverReport;
use ahoy_transport::{PathKind, PathStatus};
use ahoy_voice::SenderSettings;
use ahoy_voice::rate::{DATAGRAM_OVERHEAD_BYTES, RateController, RateFacts, RateSettings, Rung};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the path's round-trip time is looked at.
const PATH_INTERVAL: Duration = Duration::from_millis(500);

/// What is known of it.
#[derive(Debug, Clone, Default)]
pub(super) struct LadderFacts {
    /// The rung's name.
    pub(super) rung: &'static str,
    /// What the controller knows.
    pub(super) rate: Option<RateFacts>,
}

/// Steers one call's sending direction.
#[derive(Debug)]
pub(super) struct Ladder {
    controller: RateController,
    path: watch::Receiver<PathStatus>,
    path_due: Instant,
    kind: Option<PathKind>,
    rung: Rung,
}

impl Ladder {
    /// For a call whose path's round trip has been measured while it rang.
    pub(super) fn new(now: Instant, data_saver: bool, path: watch::Receiver<PathStatus>, rtt: Duration) -> Self {
        let controller = RateController::new(now, RateSettings { data_saver, ..RateSettings::default() });
        let rung = controller.rung();
        let mut ladder = Self { controller, path, path_due: now, kind: None, rung };
        ladder.tick(now, rtt);
        ladder
    }

    /// How speech is to be coded and protected.
    pub(super) fn settings(&self) -> SenderSettings {
        self.rung.settings
    }

    /// How often the other side is to hear of its packets.
    pub(super) fn report_interval(&self, now: Instant) -> Duration {
        self.controller.report_interval(now)
    }

    pub(super) fn handle_report(&mut self, at: Instant, report: &ReceiverReport) {
        self.controller.handle_report(at, report);
    }

    /// What this side tells the other of its packets.
    pub(super) fn handle_own_report(&mut self, report: &ReceiverReport) {
        self.controller.handle_own_report(report);
    }

    /// Time has passed: other settings, if there are to be any.
    pub(super) fn tick(&mut self, now: Instant, rtt: Duration) -> Option<SenderSettings> {
        let has_moved = self.path.has_changed().unwrap_or(false);
        if has_moved || self.path_due <= now {
            self.path_due = now + PATH_INTERVAL;
            let path = *self.path.borrow_and_update();
            let is_other = self.kind.replace(path.kind).is_some_and(|before| before != path.kind);
            let is_relayed = matches!(path.kind, PathKind::Relay | PathKind::RelayTcp);
            self.controller.handle_path(now, rtt, is_relayed, is_other);
        }
        let rung = self.controller.tick(now)?;
        self.rung = rung;
        Some(rung.settings)
    }

    /// A datagram of so many bytes was sent.
    pub(super) fn handle_sent(&mut self, now: Instant, sequence: u16, bytes: usize) {
        let is_relayed = matches!(self.kind, Some(PathKind::Relay | PathKind::RelayTcp));
        let relay = if is_relayed { RELAY_HEADER_BYTES } else { 0 };
        self.controller.handle_sent(now, sequence, bytes + DATAGRAM_OVERHEAD_BYTES + relay);
    }

    /// Whether nothing has come back for so long that next to nothing may be sent.
    pub(super) fn is_stopped(&self, now: Instant) -> bool {
        self.controller.is_stopped(now)
    }

    pub(super) fn facts(&self, now: Instant) -> LadderFacts {
        LadderFacts { rung: self.rung.name.as_str(), rate: Some(self.controller.facts(now)) }
    }
}
