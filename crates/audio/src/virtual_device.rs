//! Devices that are none, for measurements: a microphone that hears samples and a loudspeaker that keeps what it plays,
//! each sample at a time that is known exactly.
//!
//! Each is a thread that runs the callback of a real device every 5 ms, on deadlines that stand on a grid. Everything on
//! this side of the callback (the rings, the gauge, the blocks) is what a real device has, and so is the delay. The grid
//! is a [`Timeline`], which says when each sample was spoken or heard: a sample that a late thread hands over still has
//! the time of its place on the grid, as in a device that has a buffer of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::SAMPLE_RATE;
use crate::callback::{CaptureEnd, PlaybackEnd, capture, playback};

/// Samples of a period: 5 ms.
const PERIOD: usize = SAMPLE_RATE as usize / 200;

/// Samples a loudspeaker keeps: half an hour, which is 350 MB.
const KEPT_MAX: usize = 1_800 * SAMPLE_RATE as usize;

/// Silence that follows the sound of a microphone before that counts as finished: what is still on its way to a block.
const TAIL: usize = SAMPLE_RATE as usize / 20;

/// When each sample of a device was spoken or heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeline {
    start: Instant,
    /// In seconds.
    sample: f64,
}

impl Timeline {
    /// A device with an exact clock, whose sample 0 is at `start`.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self::with_drift(start, 0.0)
    }

    /// A device whose clock is fast by this many parts in a million, or slow by as many less than none.
    #[must_use]
    pub fn with_drift(start: Instant, ppm: f64) -> Self {
        Self { start, sample: 1.0 / (f64::from(SAMPLE_RATE) * (1.0 + ppm / 1e6)) }
    }

    /// When the sample with this number begins.
    #[must_use]
    pub fn time_of(&self, sample: u64) -> Instant {
        self.start + Duration::from_secs_f64(sample as f64 * self.sample)
    }

    /// The number of the sample at this time, as a fraction. Before the start it is 0.
    #[must_use]
    pub fn sample_at(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64() / self.sample
    }
}

/// A microphone that hears samples, the first at the start of its timeline, and silence after them. It becomes a capture by
/// [`Capture::virtual_device`](crate::Capture::virtual_device).
#[derive(Debug)]
pub struct VirtualMicrophone {
    samples: Vec<f32>,
    timeline: Timeline,
}

/// A loudspeaker that keeps what it plays. It becomes a playback by
/// [`Playback::virtual_device`](crate::Playback::virtual_device); this handle stays to ask.
#[derive(Debug, Clone)]
pub struct VirtualSpeaker {
    timeline: Timeline,
    played: Arc<Mutex<Vec<f32>>>,
}

/// Ends the thread of a virtual device with it.
#[derive(Debug)]
pub(crate) struct VirtualEnd {
    stop: Arc<AtomicBool>,
    is_finished: Arc<AtomicBool>,
}

impl VirtualEnd {
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Relaxed)
    }
}

impl Drop for VirtualEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl VirtualMicrophone {
    /// A microphone before which these samples are spoken.
    #[must_use]
    pub fn new(samples: Vec<f32>, timeline: Timeline) -> Self {
        Self { samples, timeline }
    }

    pub(crate) fn run(self) -> (CaptureEnd, VirtualEnd) {
        let (mut callback, end) = capture(SAMPLE_RATE, 1);
        let mut period = [0.0_f32; PERIOD];
        let running = every_period(self.timeline, move |number| {
            let begin = number * PERIOD;
            let rest = self.samples.get(begin..).unwrap_or_default();
            let count = rest.len().min(PERIOD);
            period[..count].copy_from_slice(&rest[..count]);
            period[count..].fill(0.0);
            // A period can be handed over when its last sample was spoken.
            sleep_until(self.timeline.time_of((begin + PERIOD) as u64));
            callback.run(&period, Duration::ZERO);
            begin >= self.samples.len() + TAIL
        });
        (end, running)
    }
}

impl VirtualSpeaker {
    /// A loudspeaker that begins to play at the start of the timeline.
    #[must_use]
    pub fn new(timeline: Timeline) -> Self {
        Self { timeline, played: Arc::default() }
    }

    /// When each of [`VirtualSpeaker::played`] was heard.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Everything that was played so far, from the start of the timeline on; of what is longer than half an hour, the
    /// beginning.
    #[must_use]
    pub fn played(&self) -> Vec<f32> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn run(&self) -> (PlaybackEnd, VirtualEnd) {
        let (mut callback, end) = playback(SAMPLE_RATE, 1);
        let (timeline, played) = (self.timeline, Arc::clone(&self.played));
        let mut period = [0.0_f32; PERIOD];
        let running = every_period(timeline, move |number| {
            // A period is taken when its first sample is to be heard.
            sleep_until(timeline.time_of((number * PERIOD) as u64));
            callback.run(&mut period, Duration::ZERO);
            let mut played = played.lock().unwrap_or_else(PoisonError::into_inner);
            if played.len() < KEPT_MAX {
                played.extend_from_slice(&period);
            }
            false
        });
        (end, running)
    }
}

/// Does `what` with the number of each period in turn, which waits for its time and says whether all is finished.
fn every_period(timeline: Timeline, mut what: impl FnMut(usize) -> bool + Send + 'static) -> VirtualEnd {
    let end = VirtualEnd { stop: Arc::default(), is_finished: Arc::default() };
    let (stop, is_finished) = (Arc::clone(&end.stop), Arc::clone(&end.is_finished));
    let run = move || {
        sleep_until(timeline.start);
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if what(number) {
                is_finished.store(true, Ordering::Relaxed);
            }
        }
    };
    // Where no thread can be had, the device moves nothing, as a broken one would.
    if let Err(error) = thread::Builder::new().name("virtual device".into()).spawn(run) {
        tracing::warn!(%error, "a virtual device does not run");
    }
    end
}

fn sleep_until(deadline: Instant) {
    let now = Instant::now();
    if deadline > now {
        thread::sleep(deadline - now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BLOCK_SAMPLES, Capture, Playback};

    /// A click that no fade hides, in the middle of a block.
    const CLICK: usize = 24_100;

    fn pass_through(seconds: f32, click: usize) -> (Timeline, VirtualSpeaker, Capture, Playback) {
        let timeline = Timeline::new(Instant::now() + Duration::from_millis(20));
        let mut samples = vec![0.0; (seconds * SAMPLE_RATE as f32) as usize];
        samples[click] = 1.0;
        let speaker = VirtualSpeaker::new(timeline);
        let now = Instant::now();
        let mut capture = Capture::virtual_device(now, VirtualMicrophone::new(samples, timeline));
        let mut playback = Playback::virtual_device(now, &speaker);
        let (mut block, mut latest) = ([0.0; BLOCK_SAMPLES], [0.0; BLOCK_SAMPLES]);
        while !capture.is_finished() {
            let now = Instant::now();
            while capture.read(now, &mut block) {
                latest = block;
            }
            while playback.wants(now) {
                playback.write(&std::mem::replace(&mut latest, [0.0; BLOCK_SAMPLES]));
            }
            let wake = capture.next_wake(now).min(playback.next_wake(now));
            thread::sleep(wake.saturating_duration_since(Instant::now()));
        }
        (timeline, speaker, capture, playback)
    }

    #[test]
    fn the_delay_between_two_virtual_devices_is_known_to_the_sample_and_callbacks_do_not_allocate() {
        // A machine under load may lose the block with the click.
        let found = (0..5).find_map(|_| {
            let (timeline, speaker, capture, playback) = pass_through(0.8, CLICK);
            let at = speaker.played().iter().position(|sample| *sample > 0.9)?;
            Some((
                speaker.timeline().time_of(at as u64) - timeline.time_of(CLICK as u64),
                capture.callback_times(),
                playback.callback_times(),
            ))
        });
        let (delay, recording, playing) = found.expect("the click came through once in five tries");
        println!("{delay:?}; callbacks p99.9 {:?} {:?}", recording.quantile(0.999), playing.quantile(0.999));
        assert!(delay > Duration::from_millis(5), "a period is over before it is read: {delay:?}");
        assert!(recording.count() > 100 && playing.count() > 100);
    }

    #[test]
    fn a_fast_clock_has_more_samples_in_the_same_time() {
        let start = Instant::now();
        let (exact, fast) = (Timeline::new(start), Timeline::with_drift(start, 200.0));
        let hour = start + Duration::from_secs(3_600);
        assert!((fast.sample_at(hour) - exact.sample_at(hour) - 34_560.0).abs() < 0.1);
        assert_eq!(exact.time_of(48_000), start + Duration::from_secs(1));
    }
}
