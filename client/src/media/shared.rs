//! What the two threads of a call's sound, and whoever stops them, have in common.
//!
//! Everything in here is set in an instant and read in an instant: no lock is held while something is computed or sent.

use super::controls::Controls;
use super::ladder::LadderFacts;
use super::tape::Tape;
use crate::events::CallbackFigures;
use ahoy_apm::ApmFacts;
use ahoy_audio::Playback;
use ahoy_protocol::media::{REPORT_INTERVAL_MS, ReceiverReport};
use ahoy_voice::{Block, SenderSettings};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the sending thread knows of its direction.
#[derive(Debug, Clone)]
pub(super) struct SendFacts {
    /// Voice packets sent.
    pub(super) packets: u64,
    /// Bytes of datagrams sent.
    pub(super) bytes: u64,
    /// How loud what is sent is, before it is muted.
    pub(super) level_dbfs: Option<f32>,
    /// How speech is coded and protected.
    pub(super) settings: SenderSettings,
    /// What is known of the microphone's sound.
    pub(super) processing: Option<ApmFacts>,
    /// From the microphone to the connection.
    pub(super) delay: Duration,
    /// What steers it.
    pub(super) ladder: LadderFacts,
    /// Samples of the microphone that nobody took in time.
    pub(super) device_slips: u64,
    /// How long its callbacks took.
    pub(super) callbacks: CallbackFigures,
}

impl Default for SendFacts {
    fn default() -> Self {
        Self {
            packets: 0,
            bytes: 0,
            level_dbfs: None,
            settings: SenderSettings::default(),
            processing: None,
            delay: Duration::ZERO,
            ladder: LadderFacts::default(),
            device_slips: 0,
            callbacks: CallbackFigures::default(),
        }
    }
}

/// Shared by the threads of one call's sound.
#[derive(Debug)]
pub(super) struct Shared {
    is_stopped: AtomicBool,
    pub(super) controls: Arc<Controls>,
    /// The receiving thread writes to it; the sending one asks what it was given, for the echo canceller. Both hold it for microseconds.
    playback: Mutex<Option<Playback>>,
    has_another_speaker: AtomicBool,
    /// The newest report of this side's receiver, and when it was made, until a voice packet takes it along.
    report: Mutex<Option<(Instant, ReceiverReport)>>,
    report_interval_ms: AtomicU64,
    facts: Mutex<SendFacts>,
    /// Of the echo service.
    tape: Option<Mutex<Tape>>,
}

impl Shared {
    pub(super) fn new(controls: Arc<Controls>, playback: Option<Playback>, is_echo: bool) -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            controls,
            playback: Mutex::new(playback),
            has_another_speaker: AtomicBool::new(false),
            report: Mutex::default(),
            report_interval_ms: AtomicU64::new(REPORT_INTERVAL_MS),
            facts: Mutex::default(),
            tape: is_echo.then(|| Mutex::new(Tape::new())),
        }
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// What plays from here on.
    pub(super) fn put_playback(&self, playback: Playback) {
        *lock(&self.playback) = Some(playback);
    }

    pub(super) fn take_playback(&self) -> Option<Playback> {
        lock(&self.playback).take()
    }

    /// Asks or tells the playback something, if there is one yet.
    pub(super) fn with_playback<T: Default>(&self, what: impl FnOnce(&mut Playback) -> T) -> T {
        lock(&self.playback).as_mut().map(what).unwrap_or_default()
    }

    /// Fills `block` with the next one that the loudspeaker was given, if all of it was given by `until`.
    pub(super) fn take_reference(&self, until: Instant, block: &mut Block) -> bool {
        self.with_playback(|playback| playback.take_reference(until, block))
    }

    /// How long sound takes from the program to the loudspeaker.
    pub(super) fn speaker_latency(&self) -> Duration {
        self.with_playback(|playback| playback.latency())
    }

    /// Another loudspeaker plays: the echo is another.
    pub(super) fn change_speaker(&self) {
        self.has_another_speaker.store(true, Ordering::Relaxed);
    }

    /// Says so once.
    pub(super) fn take_speaker_change(&self) -> bool {
        self.has_another_speaker.swap(false, Ordering::Relaxed)
    }

    /// How often the other side is to hear of its packets.
    pub(super) fn report_interval(&self) -> Duration {
        Duration::from_millis(self.report_interval_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set_report_interval(&self, interval: Duration) {
        self.report_interval_ms.store(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the report before has been taken, so that another would not push it out.
    pub(super) fn wants_report(&self) -> bool {
        lock(&self.report).is_none()
    }

    pub(super) fn put_report(&self, now: Instant, report: ReceiverReport) {
        *lock(&self.report) = Some((now, report));
    }

    /// The report that waits, made older by the time it has waited.
    pub(super) fn take_report(&self, now: Instant) -> Option<ReceiverReport> {
        let (made, mut report) = lock(&self.report).take()?;
        let age_ms = u16::try_from(now.saturating_duration_since(made).as_millis()).unwrap_or(u16::MAX);
        report.echo_age_ms = report.echo_age_ms.saturating_add(age_ms);
        Some(report)
    }

    pub(super) fn put_facts(&self, facts: SendFacts) {
        *lock(&self.facts) = facts;
    }

    pub(super) fn facts(&self) -> SendFacts {
        lock(&self.facts).clone()
    }

    pub(super) fn is_echo(&self) -> bool {
        self.tape.is_some()
    }

    /// To the tape, if there is one.
    pub(super) fn hear(&self, sound: &[f32]) {
        if let Some(tape) = &self.tape {
            lock(tape).hear(sound);
        }
    }

    /// From the tape, if there is one.
    pub(super) fn say(&self, block: &mut Block) {
        if let Some(tape) = &self.tape {
            lock(tape).say(block);
        }
    }
}

/// A thread that panicked left whole values behind: each is replaced at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_once_and_says_how_long_it_has_waited() {
        let (shared, now) = (Shared::new(Arc::default(), None, false), Instant::now());
        let report = ReceiverReport {
            highest: 1,
            received: 1,
            queueing_ms: 0,
            queueing_max_ms: 0,
            concealed: 0,
            target_ms: 5,
            echo_timestamp: 0,
            echo_age_ms: 3,
        };
        assert!(shared.wants_report());
        shared.put_report(now, report);
        assert!(!shared.wants_report());
        let later = now + Duration::from_millis(40);
        assert_eq!(shared.take_report(later).map(|report| report.echo_age_ms), Some(43));
        assert_eq!(shared.take_report(later), None);
    }
}
