//! The thread of a call's sound: it waits with everything at hand until the call is answered, and then sends, plays and counts.

use super::{MediaSummary, Notice};
use crate::events::Stats;
use ahoy_audio::wav::WavWriter;
use ahoy_audio::{Capture, DeviceState, Playback};
use ahoy_protocol::media::{KIND_REPORT, KIND_VOICE, REPORT_INTERVAL_MS, ReceiverReport};
use ahoy_transport::Connection;
use ahoy_voice::{BLOCK_SAMPLES, Block, VoiceReceiver, VoiceSender};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tracing::debug;

/// What the microphone heard directly before the answer and is sent with it, where it was open: the first packet leaves so much sooner.
const LEAD: Duration = Duration::from_millis(10);
/// Longest sleep: stopping is noticed within this time.
const SLEEP_MOST: Duration = Duration::from_millis(10);
/// How often figures are told.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Sound louder than this counts as the other side's first (−50 dBFS).
const AUDIBLE: f32 = 0.003;

/// What a call's sound needs, made before the call is answered.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) sender: VoiceSender,
    pub(super) receiver: VoiceReceiver,
    /// What is sent instead of the microphone's sound.
    pub(super) samples: Option<Vec<f32>>,
    /// Whether the microphone is, or what stands for it would be, open before the answer.
    pub(super) is_early: bool,
    /// Devices that are open already.
    pub(super) capture: Option<Capture>,
    /// What the microphone heard last.
    pub(super) heard: Option<Block>,
    pub(super) playback: Option<Playback>,
}

/// What the answer brings.
#[derive(Debug)]
pub(super) struct Go {
    pub(super) connection: Connection,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) writer: Option<WavWriter>,
    pub(super) start: Instant,
}

impl Ready {
    /// Waits for the answer, and keeps open devices running meanwhile: silence is played, and what is heard is forgotten but for the last of it. `None` if none comes.
    pub(super) fn wait(&mut self, answer: &Receiver<Go>) -> Option<Go> {
        loop {
            match answer.recv_timeout(SLEEP_MOST) {
                Ok(go) => {
                    self.idle(go.start);
                    return Some(go);
                }
                Err(RecvTimeoutError::Timeout) => self.idle(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn idle(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.playback.as_mut().is_some_and(|playback| playback.wants(now)) {
            if let Some(playback) = &mut self.playback {
                playback.write(&[0.0; BLOCK_SAMPLES]);
            }
        }
        while self.capture.as_mut().is_some_and(|capture| capture.read(now, &mut block)) {
            self.heard = Some(block);
        }
    }
}

/// The longest time without a voice packet.
#[derive(Debug, Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
}

impl Gaps {
    fn handle_packet(&mut self, at: Instant) {
        if let Some(last) = self.last {
            self.longest = self.longest.max(at.saturating_duration_since(last));
        }
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    /// The longest one since this was asked last, with the one that goes on.
    fn take_longest(&mut self, now: Instant) -> Duration {
        let open = self.last.map(|last| now.saturating_duration_since(last)).unwrap_or_default();
        std::mem::take(&mut self.longest).max(open)
    }
}

/// The thread's own.
pub(super) struct Worker {
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    sender: VoiceSender,
    receiver: VoiceReceiver,
    capture: Capture,
    playback: Playback,
    start: Instant,
    captured_from: Instant,
    has_sounded: bool,
    gaps: Gaps,
    warned: Warned,
}

/// Device trouble that the user knows of already.
#[derive(Debug, Default)]
struct Warned {
    capture: Option<String>,
    playback: Option<String>,
}

impl Worker {
    /// Everything that `ready` had, on a connection from `go` on.
    pub(super) fn new(ready: Ready, go: Go) -> Self {
        let Ready { mut sender, receiver, samples, is_early, capture, heard, playback } = ready;
        let Go { connection, notices, writer, start } = go;
        let captured_from = if is_early { start.checked_sub(LEAD).unwrap_or(start) } else { start };
        let capture = match samples {
            Some(samples) => Capture::file(samples, captured_from),
            None => capture.unwrap_or_else(|| Capture::device(start)),
        };
        if let Some(block) = heard {
            // It is the first half of a packet.
            let _ = sender.push(&block);
        }
        let playback = match writer {
            Some(writer) => Playback::file(writer, start),
            None => playback.unwrap_or_else(|| Playback::device(start)),
        };
        let (gaps, warned) = (Gaps::default(), Warned::default());
        Self { connection, notices, sender, receiver, capture, playback, start, captured_from, has_sounded: false, gaps, warned }
    }

    pub(super) fn run(mut self, queue: &Receiver<(Instant, Bytes)>, stop: &AtomicBool, recording: Option<PathBuf>) -> MediaSummary {
        self.tell(Notice::Started { play_started_us: unix_micros(self.captured_from), record_started_us: unix_micros(self.start) });
        let mut report_due = self.start;
        let mut stats_due = self.start + STATS_INTERVAL;
        while !stop.load(Ordering::Relaxed) && !self.connection.is_closed() {
            let now = Instant::now();
            self.send_due(now);
            self.play_due(now);
            if report_due <= now {
                report_due = now + Duration::from_millis(REPORT_INTERVAL_MS);
                self.report(now);
            }
            if stats_due <= now {
                stats_due += STATS_INTERVAL;
                let stats = self.stats(now);
                self.tell(Notice::Stats(stats));
                self.warn_of_devices();
            }
            if self.wait(queue, now, report_due.min(stats_due)).is_err() {
                break;
            }
        }
        let stats = self.stats(Instant::now());
        match self.playback.finish() {
            Ok(()) => MediaSummary { stats, recording, warning: None },
            Err(error) => MediaSummary { stats, recording: None, warning: Some(format!("the recording is not whole: {error}")) },
        }
    }

    /// Sends every block that has been captured.
    fn send_due(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.capture.read(now, &mut block) {
            if let Some(datagram) = self.sender.push(&block)
                && let Err(error) = self.connection.send_datagram(datagram.into())
            {
                debug!(%error, "a voice packet was not sent");
            }
        }
    }

    /// Plays every block that is due.
    fn play_due(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.playback.wants(now) {
            self.receiver.pull(now, &mut block);
            self.playback.write(&block);
            if !self.has_sounded && block.iter().any(|sample| sample.abs() > AUDIBLE) {
                self.has_sounded = true;
                self.tell(Notice::FirstSound(now - self.start));
            }
        }
    }

    fn report(&mut self, now: Instant) {
        if let Some(report) = self.receiver.report(now) {
            // The connection's end is noticed by the loop.
            let _ = self.connection.send_datagram(Bytes::copy_from_slice(&report.encode()));
        }
    }

    /// Sleeps until something is due, or takes what has come. `Err`: nothing comes any more.
    fn wait(&mut self, queue: &Receiver<(Instant, Bytes)>, now: Instant, due: Instant) -> Result<(), ()> {
        let wake = self.capture.next_wake(now).min(self.playback.next_wake(now)).min(due);
        match queue.recv_timeout(wake.saturating_duration_since(now).min(SLEEP_MOST)) {
            Ok((at, datagram)) => {
                self.handle(at, &datagram);
                while let Ok((at, datagram)) = queue.try_recv() {
                    self.handle(at, &datagram);
                }
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    fn handle(&mut self, at: Instant, datagram: &[u8]) {
        match datagram.first() {
            Some(&KIND_VOICE) => {
                self.gaps.handle_packet(at);
                if self.receiver.handle_datagram(at, datagram).is_err() {
                    debug!("a malformed voice packet was dropped");
                }
            }
            Some(&KIND_REPORT) => {
                if let Ok(report) = ReceiverReport::decode(datagram) {
                    self.sender.handle_report(&report);
                }
            }
            Some(_) | None => debug!("a datagram of unknown kind was dropped"),
        }
    }

    fn stats(&mut self, now: Instant) -> Stats {
        let gap = self.gaps.take_longest(now);
        let (sent, received) = (self.sender.stats(), self.receiver.stats());
        Stats {
            sent: sent.packets,
            received: received.packets,
            lost: received.lost,
            late: received.late,
            concealed_ms: received.concealed_ms,
            target_ms: received.target_ms,
            buffered_ms: received.buffered_ms,
            gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
            rtt_ms: Some(self.connection.rtt().as_secs_f64() * 1000.0),
            ..Stats::default()
        }
    }

    /// Tells once of each trouble with a device.
    fn warn_of_devices(&mut self) {
        let (capture, playback) = (trouble(&self.capture.state()), trouble(&self.playback.state()));
        if capture.is_some() && capture != self.warned.capture {
            self.tell(Notice::Warning(format!("the other side hears silence: {}", capture.clone().unwrap_or_default())));
        }
        if playback.is_some() && playback != self.warned.playback {
            self.tell(Notice::Warning(format!("nothing is played: {}", playback.clone().unwrap_or_default())));
        }
        self.warned = Warned { capture, playback };
    }

    fn tell(&self, notice: Notice) {
        // Full: the engine is behind; figures come again in a second.
        let _ = self.notices.try_send(notice);
    }
}

fn trouble(state: &DeviceState) -> Option<String> {
    match state {
        DeviceState::Virtual | DeviceState::Starting | DeviceState::Running { .. } => None,
        DeviceState::Missing | DeviceState::Busy { .. } | DeviceState::Failed { .. } => Some(state.to_string()),
    }
}

/// The wall-clock time of an instant, as far as this machine's clocks agree.
fn unix_micros(at: Instant) -> u64 {
    let ago = at.elapsed();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(ago).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_told_once_and_one_that_goes_on_each_time() {
        let (mut gaps, start) = (Gaps::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(gaps.take_longest(at(500)), Duration::ZERO);
        for ms in [1_000, 1_020, 1_300, 1_320] {
            gaps.handle_packet(at(ms));
        }
        assert_eq!(gaps.take_longest(at(1_330)), Duration::from_millis(280));
        assert_eq!(gaps.take_longest(at(1_340)), Duration::from_millis(20));
        assert_eq!(gaps.take_longest(at(3_320)), Duration::from_millis(2_000));
    }
}
