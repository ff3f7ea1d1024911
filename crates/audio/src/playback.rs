//! Where sound goes: a loudspeaker, a file, or nowhere.

use std::time::{Duration, Instant};

use crate::callback::PlaybackEnd;
use crate::convert::Converter;
use crate::cushion::Cushion;
use crate::device::Wanted;
use crate::gauge::Gauge;
use crate::link::Link;
use crate::pace::{self, STALL};
use crate::reference::Reference;
use crate::tally::Tally;
use crate::timing::CallbackTimes;
use crate::virtual_device::{VirtualEnd, VirtualSpeaker};
use crate::{BLOCK_SAMPLES, Block, BlockClock, DeviceState, SAMPLE_RATE, WavError, WavWriter};

/// What a running device is given at once: 5 ms. With whole blocks their second half would be decided on 5 ms before it has to
/// be, and what comes meanwhile would come too late for it.
const SLICE_SAMPLES: usize = BLOCK_SAMPLES / 2;

/// Takes sound at the pace of 48 samples a millisecond: as a device plays it, or by the clock.
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
    link: Link<PlaybackEnd>,
    open: Option<Open>,
    /// Frames the device had taken when it last was seen to take some, and when that was.
    taken: u64,
    took: Instant,
    /// Whether it takes what is written.
    is_taking: bool,
    cushion: Cushion,
    /// Frames that should wait for it.
    target: usize,
    reference: Reference,
    tally: Tally,
    /// Runs it, if it is virtual.
    _virtual_end: Option<VirtualEnd>,
}

#[derive(Debug)]
struct Open {
    end: PlaybackEnd,
    converter: Converter,
}

#[derive(Debug)]
struct Recording {
    /// None once it failed.
    writer: Option<WavWriter>,
    error: Option<WavError>,
}

impl Playback {
    /// The default device.
    #[must_use]
    pub fn device(now: Instant) -> Self {
        Self::chosen_device(now, Wanted::Default)
    }

    /// A device. Returns at once; until the device runs, blocks go nowhere.
    #[must_use]
    pub fn chosen_device(now: Instant, wanted: Wanted) -> Self {
        Self::loudspeaker(now, Link::open(wanted), None)
    }

    /// A device that is none: see [`VirtualSpeaker`].
    #[must_use]
    pub fn virtual_device(now: Instant, speaker: &VirtualSpeaker) -> Self {
        let (end, running) = speaker.run();
        Self::loudspeaker(now, Link::to_virtual(end), Some(running))
    }

    fn loudspeaker(now: Instant, link: Link<PlaybackEnd>, virtual_end: Option<VirtualEnd>) -> Self {
        let loudspeaker = Loudspeaker {
            link,
            open: None,
            taken: 0,
            took: now,
            is_taking: false,
            cushion: Cushion::new(now),
            target: 0,
            reference: Reference::new(now),
            tally: Tally::default(),
            _virtual_end: virtual_end,
        };
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

    /// Uses another device from here on; the one before goes on until the other runs. Files stay what they are.
    pub fn choose(&self, wanted: Wanted) {
        if let Sink::Device(loudspeaker) = &self.sink {
            loudspeaker.link.choose(wanted);
        }
    }

    /// How many samples are wanted at `now`, which are then to be given to [`Playback::write`]: none, half a block, or a block
    /// by the clock. To be called until it says none, at least every time [`Playback::next_wake`] says.
    pub fn wanted(&mut self, now: Instant) -> usize {
        match &mut self.sink {
            Sink::Device(loudspeaker) => loudspeaker.wanted(now, &mut self.clock),
            Sink::File(_) | Sink::Nowhere => wanted_by(&mut self.clock, now),
        }
    }

    /// Whether anything is wanted at `now`, for who gives whole blocks: a device then has more waiting than it needs.
    pub fn wants(&mut self, now: Instant) -> bool {
        self.wanted(now) > 0
    }

    /// Takes what was wanted. Never waits.
    pub fn write(&mut self, sound: &[f32]) {
        match &mut self.sink {
            Sink::Device(loudspeaker) => loudspeaker.write(sound),
            Sink::File(recording) => recording.write(sound),
            Sink::Nowhere => {}
        }
    }

    /// When to call [`Playback::wants`] again: when the device is expected to have taken more.
    #[must_use]
    pub fn next_wake(&self, now: Instant) -> Instant {
        match &self.sink {
            Sink::Device(loudspeaker) => {
                let open = loudspeaker.open.as_ref().filter(|_| loudspeaker.is_taking);
                pace::next_wake(
                    now,
                    open.map(|open| (&*open.end.gauge, open.waiting().saturating_sub(loudspeaker.target) as u64)),
                    &self.clock,
                )
            }
            Sink::File(_) | Sink::Nowhere => self.clock.deadline(),
        }
    }

    /// Fills `block` with the next one of exactly what the device was given, if all of it was given by `until`: the
    /// reference of the echo canceller. It has no gaps: what had to be made up for want of sound is in it, and silence for
    /// the time without a device. To be called until it says no, with the time that
    /// [`Capture::recorded_until`](crate::Capture::recorded_until) tells for each block that is read, so that both keep step
    /// however late the caller is. Files and nowhere make no echo.
    pub fn take_reference(&mut self, until: Instant, block: &mut Block) -> bool {
        match &mut self.sink {
            Sink::Device(loudspeaker) => loudspeaker.take_reference(until, block),
            Sink::File(_) | Sink::Nowhere => false,
        }
    }

    /// How long sound takes from the program to the loudspeaker, as the system tells it.
    #[must_use]
    pub fn latency(&self) -> Duration {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.open.as_ref().map_or(Duration::ZERO, |open| open.end.gauge.latency()),
            Sink::File(_) | Sink::Nowhere => Duration::ZERO,
        }
    }

    /// How long it takes until a block that is written at this moment is heard: what waits before it, and the device.
    #[must_use]
    pub fn delay(&self) -> Duration {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.open.as_ref().map_or(Duration::ZERO, Open::waiting_time) + self.latency(),
            Sink::File(_) | Sink::Nowhere => Duration::ZERO,
        }
    }

    /// How what stands behind it is. A recording that can no longer be written has failed.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.link.state(),
            Sink::File(recording) => match &recording.error {
                Some(error) => DeviceState::Failed { reason: error.to_string() },
                None => DeviceState::Virtual,
            },
            Sink::Nowhere => DeviceState::Virtual,
        }
    }

    /// Whether the default stands in for a device that was chosen and is not there.
    #[must_use]
    pub fn is_substitute(&self) -> bool {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.link.is_substitute(),
            Sink::File(_) | Sink::Nowhere => false,
        }
    }

    /// Samples that the device wanted and that were not there.
    #[must_use]
    pub fn underruns(&self) -> u64 {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.tally.slipped(loudspeaker.gauge()),
            Sink::File(_) | Sink::Nowhere => 0,
        }
    }

    /// How long the device's callback took, each time.
    #[must_use]
    pub fn callback_times(&self) -> CallbackTimes {
        match &self.sink {
            Sink::Device(loudspeaker) => loudspeaker.tally.times(loudspeaker.gauge()),
            Sink::File(_) | Sink::Nowhere => CallbackTimes::default(),
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

/// A block, when it is due.
fn wanted_by(clock: &mut BlockClock, now: Instant) -> usize {
    if clock.is_due(now) { BLOCK_SAMPLES } else { 0 }
}

impl Recording {
    fn write(&mut self, sound: &[f32]) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.write(sound) {
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
    fn wanted(&mut self, now: Instant, clock: &mut BlockClock) -> usize {
        self.take_end(now);
        if let Some(open) = &mut self.open {
            self.reference.drain(&mut open.end);
            let taken = open.end.gauge.frames();
            if taken != self.taken {
                (self.taken, self.took) = (taken, now);
            }
            self.is_taking = now.saturating_duration_since(self.took) < STALL;
            if self.is_taking {
                *clock = BlockClock::new(now);
                self.target = self.cushion.target(now, &open.end.gauge);
                return if open.waiting() < self.target { SLICE_SAMPLES } else { 0 };
            }
        }
        let wanted = wanted_by(clock, now);
        if wanted > 0 {
            self.reference.push_silence(now);
        }
        wanted
    }

    fn take_end(&mut self, now: Instant) {
        let Some(end) = self.link.take_end() else { return };
        if let Some(open) = self.open.take() {
            self.tally.close(&open.end.gauge);
        }
        self.reference.restart(end.gauge.rate);
        self.cushion.restart(now);
        (self.taken, self.took) = (0, now);
        self.open = Converter::new(SAMPLE_RATE, end.gauge.rate).ok().map(|converter| Open { end, converter });
    }

    fn write(&mut self, sound: &[f32]) {
        if let Some(open) = self.open.as_mut().filter(|_| self.is_taking) {
            open.write(sound);
        }
    }

    fn take_reference(&mut self, until: Instant, block: &mut Block) -> bool {
        if let Some(open) = &mut self.open {
            self.reference.drain(&mut open.end);
        }
        self.reference.pop(until, block)
    }

    fn gauge(&self) -> Option<&Gauge> {
        self.open.as_ref().map(|open| &*open.end.gauge)
    }
}

impl Open {
    fn write(&mut self, sound: &[f32]) {
        self.converter.push(sound);
        while let Some(sample) = self.converter.pop_sample() {
            // There is no room only when the device takes nothing.
            let _ = self.end.ring.push(sample);
        }
    }

    /// Samples in the ring.
    fn waiting(&self) -> usize {
        self.end.ring.buffer().capacity() - self.end.ring.slots()
    }

    fn waiting_time(&self) -> Duration {
        Duration::from_secs_f64(self.waiting() as f64 / f64::from(self.end.gauge.rate.max(1)))
    }
}
