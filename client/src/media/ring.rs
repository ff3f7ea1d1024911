//! The ring of an incoming call, on a device of its own: whoever wears a headset may want to hear it in the room.

use super::controls::Fader;
use super::{SLEEP_MOST, wanted};
use ahoy_audio::{Playback, RingTone};
use ahoy_voice::BLOCK_SAMPLES;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the end may take to be heard, before the device is closed.
const TAIL: Duration = Duration::from_millis(100);

/// A ring. Dropping it fades it out.
#[derive(Debug)]
pub struct Ring {
    is_over: Arc<AtomicBool>,
}

impl Ring {
    /// Rings on the device of that name, or the system's default, at so many percent. `None` if the system gives no thread for it.
    #[must_use]
    pub fn start(device: Option<&str>, percent: u8) -> Option<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (stopped, playback) = (is_over.clone(), Playback::chosen_device(Instant::now(), wanted(device)));
        let ring = move || ring(playback, f32::from(percent) / 100.0, &stopped);
        std::thread::Builder::new().name("ahoy-ring".to_owned()).spawn(ring).ok()?;
        Some(Self { is_over })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn ring(mut playback: Playback, gain: f32, is_over: &AtomicBool) {
    let (mut tone, mut fader, mut block) = (RingTone::default(), Fader::new(gain), [0.0; BLOCK_SAMPLES]);
    let mut end = None;
    loop {
        let now = Instant::now();
        if is_over.load(Ordering::Relaxed) && end.is_none() {
            end = Some(now + TAIL + playback.delay().min(TAIL));
        }
        if end.is_some_and(|end| end <= now) {
            return;
        }
        while playback.wants(now) {
            tone.fill(&mut block);
            fader.apply(if end.is_some() { 0.0 } else { gain }, &mut block);
            playback.write(&block);
        }
        std::thread::park_timeout(playback.next_wake(now).saturating_duration_since(Instant::now()).min(SLEEP_MOST));
    }
}
