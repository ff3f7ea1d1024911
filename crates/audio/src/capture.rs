//! Where blocks come from: a microphone, a file, or silence.

use std::time::{Duration, Instant};

use crate::callback::CaptureEnd;
use crate::convert::Converter;
use crate::device::Wanted;
use crate::fade::FadeIn;
use crate::gauge::Gauge;
use crate::link::Link;
use crate::pace::{self, STALL};
use crate::tally::Tally;
use crate::timing::CallbackTimes;
use crate::virtual_device::{VirtualEnd, VirtualMicrophone};
use crate::{BLOCK_SAMPLES, Block, BlockClock, DeviceState, SAMPLE_RATE};

/// A device that was just opened hands over at once what it had recorded before anybody asked, and stumbles until the system has
/// settled: for so long …
const SETTLING: Duration = Duration::from_millis(250);

/// … what it gave longer ago than this is dropped. Sent all at once, it would look like a network that trembles.
const BACKLOG_MAX: Duration = Duration::from_millis(20);

/// Gives blocks at the pace of 10 ms: as a device records them, or by the clock.
#[derive(Debug)]
pub struct Capture {
    source: Source,
    clock: BlockClock,
}

#[derive(Debug)]
enum Source {
    Device(Box<Microphone>),
    File { samples: Vec<f32>, position: usize },
    Silence,
}

#[derive(Debug)]
struct Microphone {
    link: Link<CaptureEnd>,
    open: Option<Open>,
    /// When it last gave a block, or when it was asked for the first.
    heard: Instant,
    /// Whether any block came of it so far.
    has_begun: bool,
    /// When the device gave the last sample of the block that was read last.
    recorded_until: Instant,
    scratch: Vec<f32>,
    fade: FadeIn,
    tally: Tally,
    /// What runs it, if it is virtual.
    virtual_end: Option<VirtualEnd>,
}

#[derive(Debug)]
struct Open {
    end: CaptureEnd,
    converter: Converter,
    /// Frames that were taken from the ring.
    taken: u64,
    /// When the first of them were.
    began: Option<Instant>,
}

impl Capture {
    /// The default device.
    #[must_use]
    pub fn device(now: Instant) -> Self {
        Self::chosen_device(now, Wanted::Default)
    }

    /// A device. Returns at once, and is silent until the device runs.
    #[must_use]
    pub fn chosen_device(now: Instant, wanted: Wanted) -> Self {
        Self::microphone(now, Link::open(wanted), None)
    }

    /// A device that is none: see [`VirtualMicrophone`].
    #[must_use]
    pub fn virtual_device(now: Instant, microphone: VirtualMicrophone) -> Self {
        let (end, running) = microphone.run();
        Self::microphone(now, Link::to_virtual(end), Some(running))
    }

    fn microphone(now: Instant, link: Link<CaptureEnd>, virtual_end: Option<VirtualEnd>) -> Self {
        let microphone = Microphone {
            link,
            open: None,
            heard: now,
            has_begun: false,
            recorded_until: now,
            scratch: Vec::new(),
            fade: FadeIn::default(),
            tally: Tally::default(),
            virtual_end,
        };
        Self { source: Source::Device(Box::new(microphone)), clock: BlockClock::new(now) }
    }

    /// Samples as [`read_speech`](crate::read_speech) gives them, from `start` on, then silence.
    #[must_use]
    pub fn file(samples: Vec<f32>, start: Instant) -> Self {
        Self { source: Source::File { samples, position: 0 }, clock: BlockClock::new(start) }
    }

    /// Silence, from `start` on.
    #[must_use]
    pub fn silence(start: Instant) -> Self {
        Self { source: Source::Silence, clock: BlockClock::new(start) }
    }

    /// Uses another device from here on; the one before goes on until the other runs. Files and silence stay what they are.
    pub fn choose(&self, wanted: Wanted) {
        if let Source::Device(microphone) = &self.source {
            microphone.link.choose(wanted);
        }
    }

    /// Fills `block` with the next one, if there is one at `now`. Never waits. To be called until it says no, at least
    /// every time [`Capture::next_wake`] says.
    pub fn read(&mut self, now: Instant, block: &mut Block) -> bool {
        match &mut self.source {
            Source::Device(microphone) => return microphone.read(now, block, &mut self.clock),
            Source::File { .. } | Source::Silence if !self.clock.is_due(now) => return false,
            Source::File { samples, position } => read_samples(samples, position, block),
            Source::Silence => block.fill(0.0),
        }
        true
    }

    /// When to call [`Capture::read`] again: when the device is expected to have more.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Instant {
        match &self.source {
            Source::Device(microphone) => {
                let open = microphone.open.as_ref().filter(|_| microphone.is_giving(now));
                pace::next_wake(now, open.map(|open| (&*open.end.gauge, open.missing())), &self.clock)
            }
            Source::File { .. } | Source::Silence => self.clock.deadline(),
        }
    }

    /// When the device gave the last sample of the block that was read last: what the loudspeaker had been given by then
    /// may be heard in the block. To be handed to [`Playback::take_reference`](crate::Playback::take_reference).
    #[must_use]
    pub fn recorded_until(&self, now: Instant) -> Instant {
        match &self.source {
            Source::Device(microphone) => microphone.recorded_until,
            Source::File { .. } | Source::Silence => now,
        }
    }

    /// How long sound takes from the microphone to the program, as the system tells it.
    #[must_use]
    pub fn latency(&self) -> Duration {
        match &self.source {
            Source::Device(microphone) => microphone.open.as_ref().map_or(Duration::ZERO, |open| open.end.gauge.latency()),
            Source::File { .. } | Source::Silence => Duration::ZERO,
        }
    }

    /// How long ago the last sample of the block that was read last was at the microphone.
    #[must_use]
    pub fn delay(&self, now: Instant) -> Duration {
        self.latency() + now.saturating_duration_since(self.recorded_until(now))
    }

    /// Whether all of a file has been read. Devices and silence have no end; a virtual one's is that of its sound.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.source {
            Source::File { samples, position } => *position >= samples.len(),
            Source::Device(microphone) => microphone.virtual_end.as_ref().is_some_and(VirtualEnd::is_finished),
            Source::Silence => false,
        }
    }

    /// How what stands behind it is.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match &self.source {
            Source::Device(microphone) => microphone.link.state(),
            Source::File { .. } | Source::Silence => DeviceState::Virtual,
        }
    }

    /// Whether the default stands in for a device that was chosen and is not there.
    #[must_use]
    pub fn is_substitute(&self) -> bool {
        match &self.source {
            Source::Device(microphone) => microphone.link.is_substitute(),
            Source::File { .. } | Source::Silence => false,
        }
    }

    /// Samples that were lost because nobody read them in time.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        match &self.source {
            Source::Device(microphone) => microphone.tally.slipped(microphone.gauge()),
            Source::File { .. } | Source::Silence => 0,
        }
    }

    /// How long the device's callback took, each time.
    #[must_use]
    pub fn callback_times(&self) -> CallbackTimes {
        match &self.source {
            Source::Device(microphone) => microphone.tally.times(microphone.gauge()),
            Source::File { .. } | Source::Silence => CallbackTimes::default(),
        }
    }
}

fn read_samples(samples: &[f32], position: &mut usize, block: &mut Block) {
    let rest = samples.get(*position..).unwrap_or_default();
    let len = rest.len().min(BLOCK_SAMPLES);
    block[..len].copy_from_slice(&rest[..len]);
    block[len..].fill(0.0);
    *position += len;
}

impl Microphone {
    fn is_giving(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) < STALL
    }

    fn read(&mut self, now: Instant, block: &mut Block, clock: &mut BlockClock) -> bool {
        self.take_end();
        if let Some(open) = &mut self.open {
            open.take(now, &mut self.scratch);
            if open.converter.pop(block) {
                self.has_begun = true;
                (self.heard, self.recorded_until) = (now, open.recorded_until(now));
                *clock = BlockClock::new(now);
                self.fade.apply(block);
                return true;
            }
        }
        if self.is_giving(now) {
            return false;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            // Nobody waits for the silence of the time before.
            *clock = BlockClock::new(now);
        }
        if !clock.is_due(now) {
            return false;
        }
        block.fill(0.0);
        self.recorded_until = now;
        self.fade.begin();
        true
    }

    fn take_end(&mut self) {
        let Some(end) = self.link.take_end() else { return };
        if let Some(open) = self.open.take() {
            self.tally.close(&open.end.gauge);
        }
        self.open = Converter::new(end.gauge.rate, SAMPLE_RATE).ok().map(|converter| Open { end, converter, taken: 0, began: None });
        self.fade.begin();
    }

    fn gauge(&self) -> Option<&Gauge> {
        self.open.as_ref().map(|open| &*open.end.gauge)
    }
}

impl Open {
    fn take(&mut self, now: Instant, scratch: &mut Vec<f32>) {
        scratch.resize(self.end.ring.slots(), 0.0);
        if scratch.is_empty() || self.end.ring.pop_entire_slice(scratch).is_err() {
            return;
        }
        self.taken += scratch.len() as u64;
        let is_settling = now.saturating_duration_since(*self.began.get_or_insert(now)) < SETTLING;
        let kept = if is_settling { (BACKLOG_MAX.as_secs_f64() * f64::from(self.end.gauge.rate)) as usize } else { usize::MAX };
        self.converter.push(&scratch[scratch.len().saturating_sub(kept)..]);
    }

    /// Frames that the device must have given before there is a block.
    fn missing(&self) -> u64 {
        let missing =
            BLOCK_SAMPLES.saturating_sub(self.converter.waiting()) as u64 * u64::from(self.end.gauge.rate) / u64::from(SAMPLE_RATE);
        (self.taken + self.end.gauge.slipped() + missing).saturating_sub(self.end.gauge.frames())
    }

    /// When the device gave the last sample that left the converter.
    fn recorded_until(&self, now: Instant) -> Instant {
        let waiting = self.converter.waiting() as u64 * u64::from(self.end.gauge.rate) / u64::from(SAMPLE_RATE);
        let frame = (self.taken + self.end.gauge.slipped()).saturating_sub(waiting);
        self.end.gauge.time_of(frame).map_or(now, |at| at.min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::{CaptureCallback, capture};

    fn opened(now: Instant) -> (CaptureCallback, Capture) {
        let (callback, end) = capture(SAMPLE_RATE, 1);
        (callback, Capture::microphone(now, Link::to_virtual(end), None))
    }

    fn blocks(capture: &mut Capture, now: Instant) -> usize {
        std::iter::from_fn(|| capture.read(now, &mut [0.0; BLOCK_SAMPLES]).then_some(())).count()
    }

    #[test]
    fn the_silence_of_a_device_that_is_being_opened_comes_block_by_block() {
        let now = Instant::now();
        let (_callback, mut capture) = opened(now);
        assert_eq!(blocks(&mut capture, now + STALL / 2), 0, "it may begin at any moment");
        let counts = [0, 9, 10, 20].map(|ms| blocks(&mut capture, now + STALL + Duration::from_millis(ms)));
        assert_eq!(counts, [1, 0, 1, 1]);
    }

    #[test]
    fn what_a_device_had_recorded_before_it_was_opened_is_dropped_and_nothing_later() {
        let now = Instant::now();
        let (mut callback, mut capture) = opened(now);
        callback.run(&[0.5_f32; 18 * BLOCK_SAMPLES], Duration::ZERO);
        assert_eq!(blocks(&mut capture, now), 2);
        for later in 1..100 {
            callback.run(&[0.5_f32; BLOCK_SAMPLES], Duration::ZERO);
            assert_eq!(blocks(&mut capture, now + Duration::from_millis(10) * later), 1);
        }
        callback.run(&[0.5_f32; 10 * BLOCK_SAMPLES], Duration::ZERO);
        assert_eq!(blocks(&mut capture, now + Duration::from_secs(2)), 10, "a thread that was late loses nothing");
    }
}
