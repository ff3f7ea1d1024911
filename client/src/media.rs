//! Sound of a call: from the microphone or a file to the peer, and from the peer to the speaker or a file.
//!
//! ```text
//! microphone ─► [send]: processing, codec, copies ──────────────► connection
//!                  ▲ reports of both sides                            │
//! loudspeaker ◄─ [receive]: jitter buffer, decoder ◄── queue ◄─ task: reader
//! ```
//! Two threads, each woken by the clock of its own device: what one of them waits for, or takes long over, is no delay of the other, and a
//! machine with two cores encodes while it decodes. A task of the runtime reads datagrams and hands them over with the time of their arrival.
//! Threads, codec and devices are made ready while it rings, so that nothing has to be begun when the call is answered but the sound itself.

mod controls;
mod figures;
mod gaps;
mod ladder;
mod priority;
mod processor;
mod receive;
mod ring;
mod send;
mod shared;
mod tape;
mod test;
mod tone;
mod trouble;

pub use controls::{Controls, VOLUME_DEFAULT, VOLUME_MAX};
pub use ring::Ring;
pub use test::{SoundTest, TestStep};
pub use trouble::DeviceRole;

use crate::events::Stats;
use crate::sound::{Processing, SoundSettings};
use ahoy_audio::wav::{WavError, WavWriter};
use ahoy_audio::{Capture, DeviceId, Playback, Timeline, Wanted};
use ahoy_protocol::media::{KIND_REPORT_AND_VOICE, MediaDatagram, ReceiverReport};
use ahoy_transport::{Connection, PathStatus};
use ahoy_voice::{CodecError, DelaySettings, SenderSettings, VoiceReceiver, VoiceSender};
use processor::Processor;
use receive::{Arrival, Receiving};
use send::Sending;
use shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::debug;

/// Datagrams waiting for the receiving thread: five seconds of voice. When it is full, the newest is dropped; nothing is played that late.
const DATAGRAMS_MAX: usize = 256;
/// Reports waiting for the sending thread: three seconds of them. When it is full, the newest is dropped; the next says all that it said.
const REPORTS_MAX: usize = 32;
/// Changes of devices and processing waiting for a thread: it takes them with the next block. When it is full, the newest is dropped.
const CHANGES_MAX: usize = 8;
/// Virtual devices begin so long after the answer: their threads are there by then.
const VIRTUAL_LEAD: Duration = Duration::from_millis(20);
/// Longest sleep of the threads: stopping is noticed within this time.
const SLEEP_MOST: Duration = Duration::from_millis(10);
/// How long the first packets are waited for above the fastest, in milliseconds. By the time of the answer the way has been used for
/// as long as it rang; the buffer waits for the second packet in any case, and what the network holds up in the first word is played
/// in full a little later. A longer wait would be heard in every first word, needed or not.
const WAIT_FIRST_MS: f64 = 10.0;
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
    /// The microphone, where it is not the one of the settings.
    pub microphone: Option<String>,
    /// The speaker, likewise.
    pub speaker: Option<String>,
    /// Whether to play the other side's own words back to it, instead of all that.
    pub is_echo: bool,
    /// Whether the files stand behind virtual devices, with all that a device's sound goes through: for measurements.
    pub is_virtual: bool,
}

impl MediaOptions {
    /// Whether somebody sits there who hears what is played.
    #[must_use]
    pub fn uses_devices(&self) -> bool {
        self.record.is_none() && !self.is_echo
    }

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
    Stats(Box<Stats>),
    /// A device is there, or is not.
    Device {
        /// Which.
        role: DeviceRole,
        /// How it is.
        state: &'static str,
        /// Its name, if it runs.
        name: Option<String>,
    },
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
    microphone: Microphone,
    shared: Arc<Shared>,
    recording: Arc<OnceLock<PathBuf>>,
    queues: Queues,
    changes: Changes,
    answer_sending: SyncSender<Go>,
    answer_receiving: SyncSender<(Go, Option<WavWriter>)>,
    sending: JoinHandle<()>,
    receiving: JoinHandle<MediaSummary>,
}

/// What the answer brings to a thread.
#[derive(Debug)]
struct Go {
    connection: Connection,
    notices: mpsc::Sender<Notice>,
    path: watch::Receiver<PathStatus>,
    start: Instant,
    /// Of virtual devices.
    timeline: Option<Timeline>,
}

/// What changes on a running thread.
#[derive(Debug)]
enum Change {
    /// Its device.
    Device(Wanted),
    /// What is done to the microphone's sound.
    Processing(Processing),
}

/// The ways to the threads.
#[derive(Debug, Clone)]
struct Changes {
    sending: SyncSender<Change>,
    receiving: SyncSender<Change>,
}

/// Where the reader puts what comes.
#[derive(Debug, Clone)]
struct Queues {
    voice: SyncSender<Arrival>,
    reports: SyncSender<(Instant, ReceiverReport)>,
}

impl Prepared {
    /// Makes ready what takes time.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn new(
        options: &MediaOptions,
        sound: &SoundSettings,
        controls: &Arc<Controls>,
        microphone: Microphone,
    ) -> Result<Self, MediaError> {
        let now = Instant::now();
        let is_early = microphone == Microphone::Early;
        let has_microphone = options.play.is_none() && !options.is_echo;
        let has_speaker = options.record.is_none() && !options.is_echo;
        let is_processed = has_microphone || options.is_virtual;
        let wanted_microphone = wanted(options.microphone.as_deref().or(sound.devices.microphone.as_deref()));
        let wanted_speaker = wanted(options.speaker.as_deref().or(sound.devices.speaker.as_deref()));
        let playback = has_speaker.then(|| Playback::chosen_device(now, wanted_speaker));
        let shared = Arc::new(Shared::new(controls.clone(), playback, options.is_echo));
        let mut send = send::Ready {
            sender: VoiceSender::new(SenderSettings::default())?,
            samples: None,
            is_early,
            capture: (is_early && has_microphone).then(|| Capture::chosen_device(now, wanted_microphone.clone())),
            wanted: wanted_microphone,
            heard: None,
            processor: is_processed.then(|| Processor::new(sound.processing, has_speaker || options.is_virtual)),
            data_saver: sound.data_saver,
            shared: shared.clone(),
        };
        let mut receive = receive::Ready {
            receiver: VoiceReceiver::with_delay(DelaySettings { start_ms: WAIT_FIRST_MS, ..DelaySettings::default() })?,
            ringback: is_early.then_some(0),
            shared: shared.clone(),
        };
        let (voice, voices) = sync_channel(DATAGRAMS_MAX);
        let (reports, reported) = sync_channel(REPORTS_MAX);
        let (change_sending, sending_changes) = sync_channel(CHANGES_MAX);
        let (change_receiving, receiving_changes) = sync_channel(CHANGES_MAX);
        let (answer_sending, answered) = sync_channel(1);
        let play = options.play.clone();
        let sending = spawn("ahoy-send", move || {
            send.samples = play.map(|samples| samples.to_vec());
            if let Some(go) = wait(&answered, |now| send.idle(now)) {
                Sending::new(send, go).run(&reported, &sending_changes);
            }
        })?;
        let (answer_receiving, answered) = sync_channel(1);
        let recording = Arc::new(OnceLock::<PathBuf>::new());
        let named = recording.clone();
        let receiving = spawn("ahoy-receive", move || {
            let Some((go, writer)) = wait(&answered, |now| receive.idle(now)) else { return MediaSummary::default() };
            Receiving::new(receive, go, writer).run(&voices, &receiving_changes, named.get().cloned())
        })?;
        let (queues, changes) = (Queues { voice, reports }, Changes { sending: change_sending, receiving: change_receiving });
        let options = options.clone();
        Ok(Self { options, microphone, shared, recording, queues, changes, answer_sending, answer_receiving, sending, receiving })
    }

    /// Starts to send and to play on `connection`, whose packets go by `path`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn start(
        self,
        connection: Connection,
        path: watch::Receiver<PathStatus>,
        notices: mpsc::Sender<Notice>,
    ) -> Result<Media, MediaError> {
        let start = Instant::now();
        let writer = match self.options.record.as_deref().map(free_name) {
            Some(name) => {
                let writer = WavWriter::create(&name)?;
                let _ = self.recording.set(name);
                Some(writer)
            }
            None => None,
        };
        let reader = tokio::spawn(read(connection.clone(), self.queues));
        let timeline = self.options.is_virtual.then(|| Timeline::new(start + VIRTUAL_LEAD));
        let captured_from = send::captured_from(start, self.microphone == Microphone::Early);
        let begin = |real| unix_micros(timeline.map_or(real, |timeline| timeline.time_of(0)));
        let _ = notices.try_send(Notice::Started { play_started_us: begin(captured_from), record_started_us: begin(start) });
        let go = || Go { connection: connection.clone(), notices: notices.clone(), path: path.clone(), start, timeline };
        // The threads wait for nothing else; if one had ended, there is no sound, which stopping it finds out.
        let _ = self.answer_receiving.try_send((go(), writer));
        let _ = self.answer_sending.try_send(go());
        let (sending, receiving) = (Some(self.sending), Some(self.receiving));
        Ok(Media { shared: self.shared, changes: self.changes, sending, receiving, reader })
    }
}

/// A thread of sound.
fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        priority::raise();
        work()
    })
}

/// Waits for the answer, and has `idle` done meanwhile, up to the moment of the answer. `None` if none comes.
fn wait<T>(answer: &Receiver<T>, mut idle: impl FnMut(Instant)) -> Option<T> {
    loop {
        let answered = answer.recv_timeout(SLEEP_MOST);
        idle(Instant::now());
        match answered {
            Ok(answered) => return Some(answered),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Running sound. Dropping it stops it.
#[derive(Debug)]
pub struct Media {
    shared: Arc<Shared>,
    changes: Changes,
    sending: Option<JoinHandle<()>>,
    receiving: Option<JoinHandle<MediaSummary>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Media {
    /// Stops, and waits until a recording is whole.
    pub async fn stop(mut self) -> MediaSummary {
        self.tell_stop();
        let (Some(sending), Some(receiving)) = (self.sending.take(), self.receiving.take()) else { return MediaSummary::default() };
        let joined = tokio::task::spawn_blocking(move || (sending.join(), receiving.join())).await;
        joined.ok().and_then(|(_, summary)| summary.ok()).unwrap_or_default()
    }

    /// Uses another device from here on; `None` is the system's default. Where a file stands for the device, nothing changes.
    pub fn choose(&self, role: DeviceRole, name: Option<&str>) {
        let change = Change::Device(wanted(name));
        // Full: the user turns faster than sound runs; the last choice is kept for the next call.
        let _ = match role {
            DeviceRole::Microphone => self.changes.sending.try_send(change),
            DeviceRole::Speaker => self.changes.receiving.try_send(change),
        };
    }

    /// Does this to the microphone's sound from here on.
    pub fn process(&self, processing: Processing) {
        let _ = self.changes.sending.try_send(Change::Processing(processing));
    }

    fn tell_stop(&self) {
        self.shared.stop();
        self.reader.abort();
        for thread in [self.sending.as_ref().map(JoinHandle::thread), self.receiving.as_ref().map(JoinHandle::thread)].into_iter().flatten()
        {
            thread.unpark();
        }
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.tell_stop();
    }
}

/// Hands datagrams over with the time of their arrival: voice to the receiving thread, reports to the sending one.
async fn read(connection: Connection, queues: Queues) {
    while let Ok(datagram) = connection.read_datagram().await {
        let now = Instant::now();
        let Ok(MediaDatagram { report, voice }) = MediaDatagram::decode(&datagram) else {
            debug!("a malformed packet of sound was dropped");
            continue;
        };
        let has_voice = voice.is_some();
        // Full: the thread is far behind, and would use nothing of it.
        if let Some(report) = report {
            let _ = queues.reports.try_send((now, report));
        }
        if has_voice {
            let is_behind_report = datagram.first() == Some(&KIND_REPORT_AND_VOICE);
            let voice = if is_behind_report { datagram.slice(ReceiverReport::BYTES..) } else { datagram };
            let _ = queues.voice.try_send((now, voice));
        }
    }
}

/// The device of that name; without one, the system's default.
fn wanted(name: Option<&str>) -> Wanted {
    name.map_or(Wanted::Default, |name| Wanted::Named(DeviceId::new(name)))
}

/// The wall-clock time of an instant, as far as this machine's clocks agree.
fn unix_micros(at: Instant) -> u64 {
    let ago = at.elapsed();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(ago).as_micros()).unwrap_or(u64::MAX)
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
