//! Where blocks come from: a microphone, a file, or silence.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtrb::Consumer;

use crate::convert::Converter;
use crate::stream::{End, Link};
use crate::{BLOCK_SAMPLES, Block, BlockClock, DeviceState, SAMPLE_RATE};

/// A device that gives nothing for this long is replaced by silence until it does.
const STALL: Duration = Duration::from_millis(100);

/// How often a device is looked at.
const POLL: Duration = Duration::from_micros(2_500);

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
    link: Link<Consumer<f32>>,
    open: Option<(End<Consumer<f32>>, Converter)>,
    /// When it last gave a block.
    heard: Instant,
    scratch: Vec<f32>,
}

impl Capture {
    /// The default device. Returns at once, and is silent until the device runs.
    #[must_use]
    pub fn device(now: Instant) -> Self {
        let microphone = Microphone { link: Link::input(), open: None, heard: now, scratch: Vec::new() };
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

    /// When to call [`Capture::read`] again.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Instant {
        match self.source {
            Source::Device(_) => now + POLL,
            Source::File { .. } | Source::Silence => self.clock.deadline(),
        }
    }

    /// Whether all of a file has been read. Devices and silence have no end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.source {
            Source::File { samples, position } => *position >= samples.len(),
            Source::Device(_) | Source::Silence => false,
        }
    }

    /// How what stands behind it is.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match &self.source {
            Source::Device(microphone) => microphone.link.state.get(),
            Source::File { .. } | Source::Silence => DeviceState::Virtual,
        }
    }

    /// Samples that were lost because nobody read them in time.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        match &self.source {
            Source::Device(microphone) => microphone.open.as_ref().map_or(0, |(end, _)| end.pulse.slipped.load(Ordering::Relaxed)),
            Source::File { .. } | Source::Silence => 0,
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
    fn read(&mut self, now: Instant, block: &mut Block, clock: &mut BlockClock) -> bool {
        if let Some(end) = self.link.take_end() {
            self.open = Converter::new(end.rate, SAMPLE_RATE).ok().map(|converter| (end, converter));
        }
        if let Some((end, converter)) = &mut self.open {
            self.scratch.resize(end.ring.slots(), 0.0);
            if end.ring.pop_entire_slice(&mut self.scratch).is_ok() {
                converter.push(&self.scratch);
            }
            if converter.pop(block) {
                self.heard = now;
                *clock = BlockClock::new(now);
                return true;
            }
        }
        if now.saturating_duration_since(self.heard) < STALL || !clock.is_due(now) {
            return false;
        }
        block.fill(0.0);
        true
    }
}
