//! Where blocks go: a loudspeaker, a file, or nowhere.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rtrb::Producer;

use crate::convert::Converter;
use crate::stream::{End, Link};
use crate::{BLOCK_SAMPLES, Block, BlockClock, DeviceState, SAMPLE_RATE, WavError, WavWriter};

/// A device that takes nothing for this long is left to itself, and blocks go nowhere, until it does.
const STALL: Duration = Duration::from_millis(100);

/// How often a device is looked at.
const POLL: Duration = Duration::from_micros(2_500);

/// Most sound that waits for the device, in blocks: more is delay for nothing.
const WAITING_MAX: usize = 6;

/// What waits besides the device's own period, in blocks, until the device has run out of sound once: the time until it
/// is looked at again. Each time it runs out, the threads here are slower than that, and a block is added.
const CUSHION: usize = 1;

/// Takes blocks at the pace of 10 ms: as a device plays them, or by the clock.
#[derive(Debug)]
pub struct Playback {
    sink: Sink,
    clock: BlockClock,
}

#[derive(Debug)]
enum Sink {
    Device(Box<Loudspeaker>),
    File(Box<Recording>),
    Nowhere,
}

#[derive(Debug)]
struct Loudspeaker {
    link: Link<Producer<f32>>,
    open: Option<(End<Producer<f32>>, Converter)>,
    /// Frames the device had taken when it last was seen to take some, and when that was.
    taken: u64,
    took: Instant,
    /// In blocks.
    cushion: usize,
    /// Frames it had to do without when that was last looked at; none before sound was there for the first time.
    slipped: Option<u64>,
}

#[derive(Debug)]
struct Recording {
    /// None once it failed.
    writer: Option<WavWriter>,
    error: Option<WavError>,
}

impl Playback {
    /// The default device. Returns at once; until the device runs, blocks go nowhere.
    #[must_use]
    pub fn device(now: Instant) -> Self {
        let loudspeaker = Loudspeaker { link: Link::output(), open: None, taken: 0, took: now, cushion: CUSHION, slipped: None };
        Self { sink: Sink::Device(Box::new(loudspeaker)), clock: BlockClock::new(now) }
    }

    /// A recording, from `start` on.
    #[must_use]
    pub fn file(writer: WavWriter, start: Instant) -> Self {
        Self { sink: Sink::File(Box::new(Recording { writer: Some(writer), error: None })), clock: BlockClock::new(start) }
    }

    /// Nowhere, at the pace of the clock from `start` on.
    #[must_use]
    pub fn discard(start: Instant) -> Self {
        Self { sink: Sink::Nowhere, clock: BlockClock::new(start) }
    }

    /// Whether a block is wanted at `now`, which is then to be given to [`Playback::write`]. To be called until it says
    /// no, at least every time [`Playback::next_wake`] says.
    pub fn wants(&mut self, now: Instant) -> bool {
        match &mut self.sink {
            Sink::Device(loudspeaker) => loudspeaker.wants(now, &mut self.clock),
            Sink::File(_) | Sink::Nowhere => self.clock.is_due(now),
        }
    }

    /// Takes the block that was wanted. Never waits.
    pub fn write(&mut self, block: &Block) {
        match &mut self.sink {
            Sink::Device(loudspeaker) => loudspeaker.write(block),
            Sink::File(recording) => recording.write(block),
            Sink::Nowhere => {}
        }
    }

    /// When to call [`Playback::wants`] again.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Instant {
        match self.sink {
            Sink::Device(_) => now + POLL,
            Sink::File(_) | Sink::Nowhere => self.clock.deadline(),
        }
    }

    /// How what stands behind it is. A recording that can no longer be written has failed.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.link.state.get(),
            Sink::File(recording) => match &recording.error {
                Some(error) => DeviceState::Failed { reason: error.to_string() },
                None => DeviceState::Virtual,
            },
            Sink::Nowhere => DeviceState::Virtual,
        }
    }

    /// Samples that the device wanted and that were not there.
    #[must_use]
    pub fn underruns(&self) -> u64 {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.open.as_ref().map_or(0, |(end, _)| end.pulse.slipped.load(Ordering::Relaxed)),
            Sink::File(_) | Sink::Nowhere => 0,
        }
    }

    /// Ends it; a recording is completed.
    ///
    /// # Errors
    /// If the recording could not be written, then or at any time before.
    pub fn finish(self) -> Result<(), WavError> {
        match self.sink {
            Sink::File(recording) => recording.finish(),
            Sink::Device(_) | Sink::Nowhere => Ok(()),
        }
    }
}

impl Recording {
    fn write(&mut self, block: &Block) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.write(block) {
            // The call goes on; the error is shown in the state, and returned at the end.
            self.error = Some(error);
            self.writer = None;
        }
    }

    fn finish(self) -> Result<(), WavError> {
        match (self.error, self.writer) {
            (Some(error), _) => Err(error),
            (None, Some(writer)) => writer.finish(),
            (None, None) => Ok(()),
        }
    }
}

impl Loudspeaker {
    fn wants(&mut self, now: Instant, clock: &mut BlockClock) -> bool {
        if let Some(end) = self.link.take_end() {
            self.open = Converter::new(SAMPLE_RATE, end.rate).ok().map(|converter| (end, converter));
            (self.taken, self.took, self.slipped) = (0, now, None);
        }
        if let Some((end, _)) = &self.open {
            let taken = end.pulse.frames.load(Ordering::Relaxed);
            if taken != self.taken {
                (self.taken, self.took) = (taken, now);
            }
            if now.saturating_duration_since(self.took) < STALL {
                *clock = BlockClock::new(now);
                let wants = waiting(end) < target(end, self.cushion);
                let slipped = end.pulse.slipped.load(Ordering::Relaxed);
                match self.slipped {
                    None if wants => {}
                    Some(before) if slipped > before => {
                        self.cushion = (self.cushion + 1).min(WAITING_MAX);
                        self.slipped = None;
                    }
                    None | Some(_) => self.slipped = Some(slipped),
                }
                return wants;
            }
        }
        clock.is_due(now)
    }

    fn write(&mut self, block: &Block) {
        let Some((end, converter)) = &mut self.open else { return };
        converter.push(block);
        while let Some(sample) = converter.pop_sample() {
            // There is no room only when the device takes nothing.
            let _ = end.ring.push(sample);
        }
    }
}

/// Samples in the ring.
fn waiting(end: &End<Producer<f32>>) -> usize {
    end.ring.buffer().capacity() - end.ring.slots()
}

/// How many samples should be in the ring: what the device takes at once, and a cushion.
fn target(end: &End<Producer<f32>>, cushion: usize) -> usize {
    let block = BLOCK_SAMPLES * end.rate as usize / SAMPLE_RATE as usize;
    let at_once = end.pulse.frames_max.load(Ordering::Relaxed);
    (at_once.max(block) + cushion * block).min(WAITING_MAX * block)
}
