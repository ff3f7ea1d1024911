//! Sound of a call: from the microphone or a file to the peer, and from the peer to the speaker or a file.
//!
//! One thread does all of it, woken by each packet and by the clock of the devices. A task of the runtime reads datagrams
//! and hands them over with the time of their arrival. The thread, the codec and the devices are made ready while it rings, so that
//! nothing has to be begun when the call is answered but the sound itself.

mod worker;

use crate::events::Stats;
use ahoy_audio::wav::{WavError, WavWriter};
use ahoy_audio::{Capture, Playback};
use ahoy_transport::Connection;
use ahoy_voice::{CodecError, DelaySettings, SenderSettings, VoiceReceiver, VoiceSender};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;
use worker::{Go, Ready, Worker};

/// Datagrams waiting for the thread: five seconds of voice. When it is full, the newest is dropped; nothing is played that late.
const DATAGRAMS_MAX: usize = 256;
/// How long the first packets are waited for above the fastest, in milliseconds. By the time of the answer the way has been used for
/// as long as it rang, and what its packets do there is learned within a few hundred milliseconds; the first word should not wait longer.
const WAIT_FIRST_MS: f64 = 35.0;
/// Notices waiting for the engine.
pub const NOTICES_MAX: usize = 64;
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

/// When the microphone is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Microphone {
    /// While it rings at the other side: the caller wants to be heard.
    Early,
    /// At the answer: nobody opens the microphone of somebody who has not taken the call.
    AtAnswer,
}

/// Sound that is ready for the answer. Dropping it gives up.
#[derive(Debug)]
pub struct Prepared {
    options: MediaOptions,
    stop: Arc<AtomicBool>,
    answer: SyncSender<Go>,
    datagrams: SyncSender<(Instant, Bytes)>,
    recording: Arc<OnceLock<PathBuf>>,
    thread: JoinHandle<MediaSummary>,
}

impl Prepared {
    /// Makes ready what takes time.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn new(options: &MediaOptions, microphone: Microphone) -> Result<Self, MediaError> {
        let now = Instant::now();
        let is_early = microphone == Microphone::Early;
        let mut ready = Ready {
            sender: VoiceSender::new(SenderSettings::default())?,
            receiver: VoiceReceiver::with_delay(DelaySettings { start_ms: WAIT_FIRST_MS, ..DelaySettings::default() })?,
            samples: None,
            is_early,
            capture: (is_early && options.play.is_none()).then(|| Capture::device(now)),
            heard: None,
            playback: options.record.is_none().then(|| Playback::device(now)),
        };
        let (datagrams, queue) = sync_channel(DATAGRAMS_MAX);
        let (answer, answered) = sync_channel(1);
        let (stop, recording) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::<PathBuf>::new()));
        let (stopped, named, play) = (stop.clone(), recording.clone(), options.play.clone());
        let thread = std::thread::Builder::new().name("ahoy-media".to_owned()).spawn(move || {
            ready.samples = play.map(|samples| samples.to_vec());
            let Some(go) = ready.wait(&answered) else { return MediaSummary::default() };
            Worker::new(ready, go).run(&queue, &stopped, named.get().cloned())
        })?;
        Ok(Self { options: options.clone(), stop, answer, datagrams, recording, thread })
    }

    /// Starts to send and to play on `connection`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn start(self, connection: Connection, notices: mpsc::Sender<Notice>) -> Result<Media, MediaError> {
        let start = Instant::now();
        let writer = match self.options.record.as_deref().map(free_name) {
            Some(name) => {
                let writer = WavWriter::create(&name)?;
                let _ = self.recording.set(name);
                Some(writer)
            }
            None => None,
        };
        let reader = tokio::spawn(read(connection.clone(), self.datagrams));
        // The thread waits for nothing else; if it had ended, there is no sound, which stopping it finds out.
        let _ = self.answer.try_send(Go { connection, notices, writer, start });
        Ok(Media { stop: self.stop, thread: Some(self.thread), reader })
    }
}

/// Running sound. Dropping it stops it.
#[derive(Debug)]
pub struct Media {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<MediaSummary>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Media {
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
