//! The sending thread of a call: from the microphone, or what stands for it, through processing and codec to the connection.
//!
//! It runs by the microphone's clock. Reports of this side's receiver ride on its packets, and those of the other side steer the ladder.

use super::controls::Fader;
use super::ladder::Ladder;
use super::processor::Processor;
use super::shared::{SendFacts, Shared};
use super::trouble::{DeviceRole, Trouble};
use super::{Change, Go, Notice, SLEEP_MOST};
use crate::events::CallbackFigures;
use crate::sound::Processing;
use ahoy_audio::{Capture, LevelMeter, VirtualMicrophone, Wanted};
use ahoy_protocol::media::ReceiverReport;
use ahoy_transport::Connection;
use ahoy_voice::{BLOCK_SAMPLES, Block, VoiceSender};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::debug;

/// What the microphone heard directly before the answer and is sent with it, where it was open: the first packet leaves so much sooner.
pub(super) const LEAD: Duration = Duration::from_millis(10);
/// How often facts are written down for the statistics.
const FACTS_INTERVAL: Duration = Duration::from_millis(250);

/// What sending needs, made before the call is answered.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) sender: VoiceSender,
    /// What is sent instead of the microphone's sound.
    pub(super) samples: Option<Vec<f32>>,
    /// Whether the microphone is, or what stands for it would be, open before the answer.
    pub(super) is_early: bool,
    /// The microphone, where it is open already.
    pub(super) capture: Option<Capture>,
    /// Which microphone.
    pub(super) wanted: Wanted,
    /// What it heard last.
    pub(super) heard: Option<Block>,
    /// What is done to its sound; files are sent as they are.
    pub(super) processor: Option<Processor>,
    /// Whether little is to be spent.
    pub(super) data_saver: bool,
    pub(super) shared: Arc<Shared>,
}

impl Ready {
    /// Keeps an open microphone running until the call is answered: what is heard is forgotten, but for the last of it.
    pub(super) fn idle(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        let Some(capture) = &mut self.capture else { return };
        while capture.read(now, &mut block) {
            if let Some(processor) = &mut self.processor {
                // While it rings, the ringback teaches the echo canceller the room.
                processor.process(now, capture, &self.shared, &mut block);
            }
            self.heard = Some(block);
        }
    }
}

/// The thread's own.
pub(super) struct Sending {
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    shared: Arc<Shared>,
    sender: VoiceSender,
    ladder: Ladder,
    capture: Capture,
    processor: Option<Processor>,
    fader: Fader,
    level: LevelMeter,
    bytes: u64,
    facts_due: Instant,
    trouble: Trouble,
}

impl Sending {
    /// Everything that `ready` had, on a connection from `go` on.
    pub(super) fn new(ready: Ready, go: Go) -> Self {
        let Ready { mut sender, samples, is_early, capture, wanted, heard, processor, data_saver, shared } = ready;
        let captured_from = captured_from(go.start, is_early);
        let capture = match (samples, go.timeline) {
            (Some(samples), Some(timeline)) => Capture::virtual_device(go.start, VirtualMicrophone::new(samples, timeline)),
            (Some(samples), None) => Capture::file(samples, captured_from),
            (None, _) if shared.is_echo() => Capture::silence(captured_from),
            (None, _) => capture.unwrap_or_else(|| Capture::chosen_device(go.start, wanted)),
        };
        let ladder = Ladder::new(go.start, data_saver, go.path, go.connection.rtt());
        shared.set_report_interval(ladder.report_interval(go.start));
        sender.configure(ladder.settings());
        let gain = shared.controls.microphone_gain();
        let mut sending = Self {
            connection: go.connection,
            notices: go.notices,
            shared,
            sender,
            ladder,
            capture,
            processor,
            fader: Fader::new(gain),
            level: LevelMeter::default(),
            bytes: 0,
            facts_due: go.start,
            trouble: Trouble::default(),
        };
        if let Some(mut block) = heard {
            // It is the beginning of a packet.
            sending.fader.apply(gain, &mut block);
            sending.push(go.start, &block);
        }
        sending
    }

    pub(super) fn run(mut self, reports: &Receiver<(Instant, ReceiverReport)>, changes: &Receiver<Change>) {
        while !self.shared.is_stopped() && !self.connection.is_closed() {
            let now = Instant::now();
            while let Ok(change) = changes.try_recv() {
                self.change(change);
            }
            while let Ok((at, report)) = reports.try_recv() {
                self.sender.handle_report(&report);
                self.ladder.handle_report(at, &report);
            }
            if let Some(settings) = self.ladder.tick(now, self.connection.rtt()) {
                self.sender.configure(settings);
            }
            self.shared.set_report_interval(self.ladder.report_interval(now));
            self.sender.set_stopped(self.ladder.is_stopped(now));
            self.send_due(now);
            if self.facts_due <= now {
                self.facts_due = now + FACTS_INTERVAL;
                self.write_facts(now);
                self.watch_device();
            }
            let wake = self.capture.next_wake(now);
            std::thread::park_timeout(wake.saturating_duration_since(Instant::now()).min(SLEEP_MOST));
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Device(wanted) => self.capture.choose(wanted),
            Change::Processing(processing) => self.process(processing),
        }
    }

    fn process(&mut self, processing: Processing) {
        if let Some(processor) = &mut self.processor {
            processor.configure(processing);
        }
    }

    /// Sends every block that has been captured.
    fn send_due(&mut self, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.capture.read(now, &mut block) {
            self.shared.say(&mut block);
            if let Some(processor) = &mut self.processor {
                processor.process(now, &self.capture, &self.shared, &mut block);
            }
            self.level.push(&block);
            self.fader.apply(self.shared.controls.microphone_gain(), &mut block);
            self.push(now, &block);
        }
    }

    /// Encodes a block, and sends what that completes, with the report that waits.
    fn push(&mut self, now: Instant, block: &Block) {
        if let Some(report) = self.shared.take_report(now) {
            self.ladder.handle_own_report(&report);
            self.sender.attach_report(report);
        }
        if let Some(datagram) = self.sender.push(block) {
            self.ladder.handle_sent(now, self.sender.last_sequence(), datagram.len());
            self.send(datagram);
        }
    }

    fn send(&mut self, datagram: Vec<u8>) {
        self.bytes += datagram.len() as u64;
        // The connection's end is noticed by the loop.
        if let Err(error) = self.connection.send_datagram(Bytes::from(datagram)) {
            debug!(%error, "a packet of sound was not sent");
        }
    }

    fn write_facts(&mut self, now: Instant) {
        let settings = self.sender.settings();
        self.shared.put_facts(SendFacts {
            packets: self.sender.stats().packets,
            bytes: self.bytes,
            level_dbfs: Some(self.level.take().rms_dbfs),
            settings,
            processing: self.processor.as_ref().map(Processor::facts),
            delay: self.delay(),
            ladder: self.ladder.facts(now),
            device_slips: self.capture.overruns(),
            callbacks: CallbackFigures::of(&self.capture.callback_times()),
        });
    }

    /// From the microphone to the connection.
    fn delay(&self) -> Duration {
        let processing = self.processor.as_ref().map(Processor::delay).unwrap_or_default();
        self.capture.latency() + processing + Duration::from_millis(u64::from(self.sender.delay_ms()))
    }

    fn watch_device(&mut self) {
        for notice in self.trouble.notice(DeviceRole::Microphone, &self.capture.state()) {
            if let (Notice::Device { state: "running", .. }, Some(processor)) = (&notice, &mut self.processor) {
                processor.reset();
            }
            // Full: the engine is behind; the figures say it too.
            let _ = self.notices.try_send(notice);
        }
    }
}

/// When the first sample that is sent was captured.
pub(super) fn captured_from(start: Instant, is_early: bool) -> Instant {
    if is_early { start.checked_sub(LEAD).unwrap_or(start) } else { start }
}
