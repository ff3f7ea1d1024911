//! Sound of a call: from the microphone or a file to the peer, and from the peer to the speaker or a file.
//!
//! One thread does all of it, woken by each packet and by the clock of the devices. A task of the runtime reads datagrams
//! and hands them over with the time of their arrival.

use crate::events::Stats;
use ahoy_audio::wav::{WavError, WavWriter};
use ahoy_audio::{Capture, DeviceState, Playback};
use ahoy_protocol::media::{KIND_REPORT, KIND_VOICE, REPORT_INTERVAL_MS, ReceiverReport};
use ahoy_transport::Connection;
use ahoy_voice::{BLOCK_SAMPLES, CodecError, SenderSettings, VoiceReceiver, VoiceSender};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::debug;

/// Datagrams waiting for the thread: five seconds of voice. When it is full, the newest is dropped; nothing is played that late.
const DATAGRAMS_MAX: usize = 256;
/// Notices waiting for the engine.
pub const NOTICES_MAX: usize = 64;
/// Longest sleep: stopping is noticed within this time.
const SLEEP_MOST: Duration = Duration::from_millis(10);
/// How often figures are told.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Sound louder than this counts as the other side's first (−50 dBFS).
const AUDIBLE: f32 = 0.003;
/// Most recordings with one name: `-2`, `-3`, …
const RECORDINGS_MAX: u32 = 10_000;

/// Why there is no sound.
#[derive(Debug, Error)]
pub enum MediaError {
    /// The codec.
    #[error("the codec cannot be started: {0}")]
    Codec(#[from] CodecError),
    /// The recording.
    #[error(transparent)]
    Wav(#[from] WavError),
    /// The thread.
    #[error("no thread for sound: {0}")]
    Thread(#[from] std::io::Error),
}

/// Where sound comes from and goes to.
#[derive(Debug, Clone, Default)]
pub struct MediaOptions {
    /// Samples to send instead of the microphone's, 48 kHz mono; then silence.
    pub play: Option<Arc<Vec<f32>>>,
    /// Where to record instead of playing on the speaker.
    pub record: Option<PathBuf>,
}

impl MediaOptions {
    /// Sees to it that the recording can be written, before anybody's telephone rings.
    ///
    /// # Errors
    /// As [`WavWriter::create`].
    pub fn check(&self) -> Result<(), WavError> {
        let Some(wanted) = &self.record else { return Ok(()) };
        let name = free_name(wanted);
        WavWriter::create(&name).map(drop)?;
        // What was only a try leaves nothing behind; if it cannot be removed, the recording gets the next number.
        if name.is_file() {
            let _ = std::fs::remove_file(&name);
        }
        Ok(())
    }
}

/// What the engine is told while a call runs.
#[derive(Debug)]
pub enum Notice {
    /// When the first samples were captured and played.
    Started {
        /// In Unix microseconds.
        play_started_us: u64,
        /// In Unix microseconds.
        record_started_us: u64,
    },
    /// The first sound of the other side was played, so long after the start.
    FirstSound(Duration),
    /// Figures. The engine adds call, path and round-trip time.
    Stats(Stats),
    /// Something is wrong with a device; the call goes on.
    Warning(String),
}

/// What is known at the end.
#[derive(Debug, Clone, Default)]
pub struct MediaSummary {
    /// The last figures.
    pub stats: Stats,
    /// The recording.
    pub recording: Option<PathBuf>,
    /// What went wrong at the end.
    pub warning: Option<String>,
}

/// Running sound. Dropping it stops it.
#[derive(Debug)]
pub struct Media {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<MediaSummary>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Media {
    /// Starts to send and to play on `connection`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn start(connection: Connection, options: &MediaOptions, notices: mpsc::Sender<Notice>) -> Result<Self, MediaError> {
        let start = Instant::now();
        let recording = options.record.as_deref().map(free_name);
        let writer = recording.as_deref().map(WavWriter::create).transpose()?;
        let sender = VoiceSender::new(SenderSettings::default())?;
        let receiver = VoiceReceiver::new()?;
        let play = options.play.clone();
        let (datagrams, queue) = sync_channel(DATAGRAMS_MAX);
        let reader = tokio::spawn(read(connection.clone(), datagrams));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("ahoy-media".to_owned()).spawn(move || {
            let capture = match play {
                Some(samples) => Capture::file(samples.to_vec(), start),
                None => Capture::device(start),
            };
            let playback = match writer {
                Some(writer) => Playback::file(writer, start),
                None => Playback::device(start),
            };
            let worker =
                Worker { connection, notices, sender, receiver, capture, playback, start, has_sounded: false, warned: Warned::default() };
            worker.run(&queue, &stopped, recording)
        })?;
        Ok(Self { stop, thread: Some(thread), reader })
    }

    /// Stops, and waits until a recording is whole.
    pub async fn stop(mut self) -> MediaSummary {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.abort();
        let Some(thread) = self.thread.take() else { return MediaSummary::default() };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined.ok().and_then(Result::ok).unwrap_or_default()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.abort();
    }
}

/// Hands datagrams over with the time of their arrival.
async fn read(connection: Connection, datagrams: SyncSender<(Instant, Bytes)>) {
    while let Ok(datagram) = connection.read_datagram().await {
        // Full: the thread is far behind, and would play nothing of it.
        let _ = datagrams.try_send((Instant::now(), datagram));
    }
}

/// The recording's name; with `-2`, `-3`, … where earlier calls have taken it.
fn free_name(wanted: &Path) -> PathBuf {
    let mut name = wanted.to_owned();
    let stem = wanted.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for number in 2..RECORDINGS_MAX {
        // A device such as /dev/null is never taken.
        if !name.is_file() {
            break;
        }
        let extension = wanted.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
        name = wanted.with_file_name(format!("{stem}-{number}{extension}"));
    }
    name
}

/// The thread's own.
struct Worker {
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    sender: VoiceSender,
    receiver: VoiceReceiver,
    capture: Capture,
    playback: Playback,
    start: Instant,
    has_sounded: bool,
    warned: Warned,
}

/// Device trouble that the user knows of already.
#[derive(Debug, Default)]
struct Warned {
    capture: Option<String>,
    playback: Option<String>,
}

impl Worker {
    fn run(mut self, queue: &Receiver<(Instant, Bytes)>, stop: &AtomicBool, recording: Option<PathBuf>) -> MediaSummary {
        let started_us = unix_micros(self.start);
        self.tell(Notice::Started { play_started_us: started_us, record_started_us: started_us });
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
                self.tell(Notice::Stats(self.stats()));
                self.warn_of_devices();
            }
            if self.wait(queue, now, report_due.min(stats_due)).is_err() {
                break;
            }
        }
        let stats = self.stats();
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

    fn stats(&self) -> Stats {
        let (sent, received) = (self.sender.stats(), self.receiver.stats());
        Stats {
            sent: sent.packets,
            received: received.packets,
            lost: received.lost,
            late: received.late,
            concealed_ms: received.concealed_ms,
            target_ms: received.target_ms,
            buffered_ms: received.buffered_ms,
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
    fn later_recordings_get_numbers() {
        let dir = tempfile::tempdir().expect("a folder");
        let wanted = dir.path().join("call.wav");
        assert_eq!(free_name(&wanted), wanted);
        std::fs::write(&wanted, b"").expect("writes");
        assert_eq!(free_name(&wanted), dir.path().join("call-2.wav"));
        std::fs::write(dir.path().join("call-2.wav"), b"").expect("writes");
        assert_eq!(free_name(&wanted), dir.path().join("call-3.wav"));
    }
}
