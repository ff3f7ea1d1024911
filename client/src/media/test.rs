//! A test of the sound devices: some seconds are recorded, with a meter, and played back.

use super::trouble::DeviceRole;
use super::{SLEEP_MOST, wanted};
use crate::events::Event;
use ahoy_audio::{Capture, DeviceState, Playback, SoundCheck, SoundCheckEvent};
use ahoy_voice::BLOCK_SAMPLES;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a device may take to open.
const OPEN_TIME: Duration = Duration::from_secs(5);
/// Steps waiting to be shown: those of a whole test of half a minute.
const STEPS_MAX: usize = 1_024;

/// What a test has to tell.
#[derive(Debug)]
pub enum TestStep {
    /// What happens.
    Event(Event),
    /// It does not work: why.
    Failed(String),
}

/// A test that runs. Dropping it ends it.
#[derive(Debug)]
pub struct SoundTest {
    steps: mpsc::Receiver<TestStep>,
    is_over: Arc<AtomicBool>,
}

impl SoundTest {
    /// Records from one device and plays on the other; `None` is the system's default.
    ///
    /// # Errors
    /// If the system gives no thread for it.
    pub fn start(microphone: Option<&str>, speaker: Option<&str>, length: Duration) -> std::io::Result<Self> {
        let (told, steps) = mpsc::channel(STEPS_MAX);
        let is_over = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let (capture, playback) = (Capture::chosen_device(now, wanted(microphone)), Playback::chosen_device(now, wanted(speaker)));
        let bench = Bench { capture, playback, told, is_over: is_over.clone() };
        std::thread::Builder::new().name("ahoy-test-sound".to_owned()).spawn(move || bench.run(length))?;
        Ok(Self { steps, is_over })
    }

    /// What happens next; `None` at the end.
    pub async fn next(&mut self) -> Option<TestStep> {
        self.steps.recv().await
    }
}

impl Drop for SoundTest {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The thread's own.
struct Bench {
    capture: Capture,
    playback: Playback,
    told: mpsc::Sender<TestStep>,
    is_over: Arc<AtomicBool>,
}

impl Bench {
    fn run(mut self, length: Duration) {
        match self.open() {
            Ok((microphone, speaker)) => {
                let is_heard = speaker.is_some();
                self.check(length, microphone, speaker);
                if !is_heard {
                    self.tell(TestStep::Failed(format!("{}: {}", DeviceRole::Speaker.without(), self.playback.state())));
                }
            }
            Err(reason) => self.tell(TestStep::Failed(reason)),
        }
    }

    /// The names of both, once they run; a speaker need not.
    fn open(&mut self) -> Result<(String, Option<String>), String> {
        let begin = Instant::now();
        let mut block = [0.0; BLOCK_SAMPLES];
        loop {
            let now = Instant::now();
            while self.capture.read(now, &mut block) {}
            while self.playback.wants(now) {
                self.playback.write(&[0.0; BLOCK_SAMPLES]);
            }
            let is_late = now - begin > OPEN_TIME || self.is_over.load(Ordering::Relaxed);
            match (self.capture.state(), self.playback.state()) {
                (DeviceState::Running { name }, DeviceState::Running { name: speaker }) => return Ok((name, Some(speaker))),
                (DeviceState::Running { name }, _) if is_late => return Ok((name, None)),
                (state, _) if is_late => return Err(format!("nothing is recorded: {state}")),
                _ => sleep_until(now, self.capture.next_wake(now).min(self.playback.next_wake(now))),
            }
        }
    }

    fn check(&mut self, length: Duration, microphone: String, speaker: Option<String>) {
        let mut check = SoundCheck::new(length);
        while !check.is_finished() && !self.is_over.load(Ordering::Relaxed) {
            let now = Instant::now();
            for event in check.handle_time(now, &mut self.capture, &mut self.playback) {
                match event {
                    SoundCheckEvent::Recording(level) => {
                        self.tell(TestStep::Event(Event::Level { level_dbfs: level.rms_dbfs, peak_dbfs: level.peak_dbfs }));
                    }
                    SoundCheckEvent::Recorded(level) => self.tell(TestStep::Event(Event::TestSound {
                        microphone: microphone.clone(),
                        speaker: speaker.clone(),
                        seconds: check.recording().len() as f64 / f64::from(ahoy_audio::SAMPLE_RATE),
                        peak_dbfs: level.peak_dbfs,
                        level_dbfs: level.rms_dbfs,
                    })),
                    SoundCheckEvent::Playing(_) | SoundCheckEvent::Finished => {}
                }
            }
            sleep_until(now, check.next_wake(now, &self.capture, &self.playback));
        }
    }

    fn tell(&self, step: TestStep) {
        // Full: nobody looks.
        let _ = self.told.try_send(step);
    }
}

fn sleep_until(now: Instant, wake: Instant) {
    std::thread::sleep(wake.saturating_duration_since(now).min(SLEEP_MOST));
}
