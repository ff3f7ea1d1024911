//! The receiving thread of a call: from the connection through jitter buffer and decoder to the loudspeaker, or what stands for it.
//!
//! It runs by the loudspeaker's clock: packets wait in a queue, with the time of their arrival, until a block is to be played. It makes the
//! reports that the sending thread takes along, and once a second the figures of the call.

use super::controls::Fader;
use super::figures::{Figures, Moment};
use super::gaps::Gaps;
use super::shared::Shared;
use super::trouble::{DeviceRole, Trouble};
use super::{Change, Go, MediaSummary, Notice, SLEEP_MOST, tone};
use crate::events::{CallbackFigures, Stats};
use ahoy_audio::wav::{WavError, WavWriter};
use ahoy_audio::{LevelMeter, Playback, VirtualSpeaker};
use ahoy_protocol::media::VoicePacket;
use ahoy_transport::{Connection, PathKind, PathStatus};
use ahoy_voice::{BLOCK_SAMPLES, VoiceReceiver};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// How often figures are told.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the loudspeaker is looked at.
const DEVICE_INTERVAL: Duration = Duration::from_millis(100);
/// Sound louder than this counts as the other side's first (−50 dBFS).
const AUDIBLE: f32 = 0.003;

/// A datagram with voice in it, and when it came.
pub(super) type Arrival = (Instant, Bytes);

/// What receiving needs, made before the call is answered.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) receiver: VoiceReceiver,
    /// Where the ringback is, for a caller.
    pub(super) ringback: Option<usize>,
    pub(super) shared: Arc<Shared>,
}

impl Ready {
    /// Keeps an open loudspeaker running until the call is answered: with the ringback for a caller, else with silence.
    pub(super) fn idle(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.shared.with_playback(|playback| playback.wants(now)) {
            if let Some(from) = &mut self.ringback {
                tone::ringback(*from, &mut block);
                *from += BLOCK_SAMPLES;
                let gain = self.shared.controls.speaker_gain();
                Fader::new(gain).apply(gain, &mut block);
            }
            self.shared.with_playback(|playback| playback.write(&block));
        }
    }
}

/// The thread's own.
pub(super) struct Receiving {
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    shared: Arc<Shared>,
    receiver: VoiceReceiver,
    fader: Fader,
    level: LevelMeter,
    start: Instant,
    report_due: Instant,
    stats_due: Instant,
    device_due: Instant,
    has_sounded: bool,
    /// What it has played is written at the end.
    virtual_speaker: Option<(VirtualSpeaker, WavWriter)>,
    bytes: u64,
    newest: Option<Bytes>,
    path: watch::Receiver<PathStatus>,
    figures: Figures,
    gaps: Gaps,
    trouble: Trouble,
}

impl Receiving {
    /// Everything that `ready` had, on a connection from `go` on.
    pub(super) fn new(ready: Ready, go: Go, writer: Option<WavWriter>) -> Self {
        let Ready { receiver, shared, ringback: _ } = ready;
        let start = go.start;
        let mut virtual_speaker = None;
        match (writer, go.timeline) {
            (Some(writer), Some(timeline)) => {
                let speaker = VirtualSpeaker::new(timeline);
                shared.put_playback(Playback::virtual_device(start, &speaker));
                virtual_speaker = Some((speaker, writer));
            }
            (Some(writer), None) => shared.put_playback(Playback::file(writer, start)),
            (None, _) if shared.is_echo() => shared.put_playback(Playback::discard(start)),
            (None, _) => {}
        }
        Self {
            connection: go.connection,
            notices: go.notices,
            fader: Fader::new(shared.controls.speaker_gain()),
            shared,
            receiver,
            level: LevelMeter::default(),
            start,
            report_due: start,
            stats_due: start + STATS_INTERVAL,
            device_due: start,
            has_sounded: false,
            virtual_speaker,
            bytes: 0,
            newest: None,
            path: go.path,
            figures: Figures::new(start),
            gaps: Gaps::default(),
            trouble: Trouble::default(),
        }
    }

    pub(super) fn run(mut self, voice: &Receiver<Arrival>, changes: &Receiver<Change>, recording: Option<PathBuf>) -> MediaSummary {
        while !self.shared.is_stopped() && !self.connection.is_closed() {
            let now = Instant::now();
            while let Ok(Change::Device(wanted)) = changes.try_recv() {
                self.shared.with_playback(|playback| playback.choose(wanted));
            }
            while let Ok((at, datagram)) = voice.try_recv() {
                self.handle(at, datagram);
            }
            self.play_due(now);
            self.report(now);
            if self.device_due <= now {
                self.device_due = now + DEVICE_INTERVAL;
                self.watch_device();
            }
            if self.stats_due <= now {
                self.stats_due += STATS_INTERVAL;
                let stats = self.stats(now);
                self.tell(Notice::Stats(Box::new(stats)));
            }
            let wake = self.shared.with_playback(|playback| Some(playback.next_wake(now))).unwrap_or(now + SLEEP_MOST);
            let wake = wake.min(self.stats_due);
            std::thread::park_timeout(wake.saturating_duration_since(Instant::now()).min(SLEEP_MOST));
        }
        let stats = self.stats(Instant::now());
        match self.shared.take_playback().map_or(Ok(()), Playback::finish).and_then(|()| self.keep_virtual()) {
            Ok(()) => MediaSummary { stats, recording, warning: None },
            Err(error) => MediaSummary { stats, recording: None, warning: Some(format!("the recording is not whole: {error}")) },
        }
    }

    fn keep_virtual(&mut self) -> Result<(), WavError> {
        let Some((speaker, mut writer)) = self.virtual_speaker.take() else { return Ok(()) };
        for block in speaker.played().as_chunks::<BLOCK_SAMPLES>().0 {
            writer.write(block)?;
        }
        writer.finish()
    }

    fn handle(&mut self, at: Instant, datagram: Bytes) {
        self.gaps.handle_packet(at);
        self.bytes += datagram.len() as u64;
        if self.receiver.handle_datagram(at, &datagram).is_err() {
            debug!("a malformed voice packet was dropped");
        }
        self.newest = Some(datagram);
    }

    /// Plays everything that is due.
    fn play_due(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        loop {
            let wanted = self.shared.with_playback(|playback| playback.wanted(now));
            let sound = &mut block[..wanted];
            if sound.is_empty() {
                return;
            }
            self.receiver.pull_samples(now, sound);
            self.shared.hear(sound);
            self.level.push(sound);
            self.fader.apply(self.shared.controls.speaker_gain(), sound);
            self.shared.with_playback(|playback| playback.write(sound));
            if !self.has_sounded && sound.iter().any(|sample| sample.abs() > AUDIBLE) {
                self.has_sounded = true;
                self.tell(Notice::FirstSound(now - self.start));
            }
        }
    }

    /// Leaves a report for the sending thread, once the one before has been sent.
    fn report(&mut self, now: Instant) {
        if self.report_due > now || !self.shared.wants_report() {
            return;
        }
        self.report_due = now + self.shared.report_interval();
        if let Some(report) = self.receiver.report(now) {
            self.shared.put_report(now, report);
        }
    }

    fn stats(&mut self, now: Instant) -> Stats {
        let newest = self.newest.as_ref().and_then(|datagram| VoicePacket::decode(datagram).ok());
        let (speaker_delay, speaker_slips, speaker_callbacks) =
            self.shared.with_playback(|playback| (playback.delay(), playback.underruns(), playback.callback_times()));
        let moment = Moment {
            now,
            sent: self.shared.facts(),
            received: self.receiver.stats(),
            received_bytes: self.bytes,
            newest,
            gap: self.gaps.take_longest(now),
            rtt: self.connection.rtt(),
            is_relayed: matches!(self.path.borrow().kind, PathKind::Relay | PathKind::RelayTcp),
            level_dbfs: self.level.take().rms_dbfs,
            speaker_delay,
            speaker_slips,
            speaker_callbacks: CallbackFigures::of(&speaker_callbacks),
            lacks_device: self.trouble.is_there(),
        };
        self.figures.take(&moment)
    }

    fn watch_device(&mut self) {
        let Some(state) = self.shared.with_playback(|playback| Some(playback.state())) else { return };
        for notice in self.trouble.notice(DeviceRole::Speaker, &state) {
            if let Notice::Device { state: "running", .. } = notice {
                self.shared.change_speaker();
            }
            self.tell(notice);
        }
    }

    fn tell(&self, notice: Notice) {
        // Full: the engine is behind; figures come again in a second.
        let _ = self.notices.try_send(notice);
    }
}
