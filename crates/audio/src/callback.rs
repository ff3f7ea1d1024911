//! What happens in the callbacks of devices, real and virtual: samples move between the device's memory and a ring.
//!
//! The callbacks neither lock, allocate nor log. The playback's also keeps what it gave the device, sample by sample, as
//! the reference of the echo canceller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cpal::{FromSample, Sample};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::device::Direction;
use crate::gauge::Gauge;

/// Sound a ring holds at most, as a part of a second: 200 ms, which is longer than any thread of ours should be away.
const RING_PART_OF_SECOND: u32 = 5;

/// The reference waits for the microphone's side of the same moment, which may come as late as a whole ring.
const REFERENCE_RINGS: usize = 2;

/// The period is the longest call of this many, or twice as many: what a server asks for at once when it stumbles is
/// forgotten a second later.
const PERIOD_WINDOW: usize = 100;

/// When there is nothing to play, the last sample fades by this factor a frame, to silence within 3 ms: a step would be
/// heard as a click.
const FADE: f32 = 0.97;

/// When there is sound again, it swells by this much a frame, within 2.5 ms.
const SWELL: f32 = 1.0 / 120.0;

/// Our end of an open microphone.
#[derive(Debug)]
pub(crate) struct CaptureEnd {
    pub(crate) ring: Consumer<f32>,
    pub(crate) gauge: Arc<Gauge>,
}

/// Our end of an open loudspeaker.
#[derive(Debug)]
pub(crate) struct PlaybackEnd {
    pub(crate) ring: Producer<f32>,
    /// Exactly what the device was given, at its rate.
    pub(crate) reference: Consumer<f32>,
    pub(crate) gauge: Arc<Gauge>,
}

/// The device's end of a microphone.
#[derive(Debug)]
pub(crate) struct CaptureCallback {
    ring: Producer<f32>,
    channels: usize,
    gauge: Arc<Gauge>,
    period: Period,
}

/// The device's end of a loudspeaker.
#[derive(Debug)]
pub(crate) struct PlaybackCallback {
    ring: Consumer<f32>,
    reference: Producer<f32>,
    channels: usize,
    gauge: Arc<Gauge>,
    period: Period,
    last: f32,
    /// How much of the sound is played: less than all where it begins.
    gain: f32,
    /// Before the first sound nothing can be missing.
    has_begun: bool,
}

/// The device's end of either.
#[derive(Debug)]
pub(crate) enum Callback {
    Capture(CaptureCallback),
    Playback(PlaybackCallback),
}

/// Our end of either.
pub(crate) trait End: Send + Sized + std::fmt::Debug + 'static {
    const DIRECTION: Direction;

    /// Both ends of a device with this rate and these channels.
    fn open(rate: u32, channels: u16) -> (Callback, Self);
}

impl End for CaptureEnd {
    const DIRECTION: Direction = Direction::Input;

    fn open(rate: u32, channels: u16) -> (Callback, Self) {
        let (callback, end) = capture(rate, channels);
        (Callback::Capture(callback), end)
    }
}

impl End for PlaybackEnd {
    const DIRECTION: Direction = Direction::Output;

    fn open(rate: u32, channels: u16) -> (Callback, Self) {
        let (callback, end) = playback(rate, channels);
        (Callback::Playback(callback), end)
    }
}

/// Both ends of a microphone with this rate and these channels.
pub(crate) fn capture(rate: u32, channels: u16) -> (CaptureCallback, CaptureEnd) {
    let (producer, consumer) = RingBuffer::new(ring_size(rate));
    let gauge = Arc::new(Gauge::new(rate));
    let callback =
        CaptureCallback { ring: producer, channels: channel_count(channels), gauge: Arc::clone(&gauge), period: Period::default() };
    (callback, CaptureEnd { ring: consumer, gauge })
}

/// Both ends of a loudspeaker with this rate and these channels.
pub(crate) fn playback(rate: u32, channels: u16) -> (PlaybackCallback, PlaybackEnd) {
    let (producer, consumer) = RingBuffer::new(ring_size(rate));
    let (played, reference) = RingBuffer::new(ring_size(rate) * REFERENCE_RINGS);
    let gauge = Arc::new(Gauge::new(rate));
    let callback = PlaybackCallback {
        ring: consumer,
        reference: played,
        channels: channel_count(channels),
        gauge: Arc::clone(&gauge),
        period: Period::default(),
        last: 0.0,
        gain: 0.0,
        has_begun: false,
    };
    (callback, PlaybackEnd { ring: producer, reference, gauge })
}

fn ring_size(rate: u32) -> usize {
    (rate / RING_PART_OF_SECOND) as usize
}

fn channel_count(channels: u16) -> usize {
    usize::from(channels).max(1)
}

impl CaptureCallback {
    /// Takes what the device recorded; `latency` is how long ago the last of it was at the microphone.
    pub(crate) fn run<T: Sample>(&mut self, data: &[T], latency: Duration)
    where
        f32: FromSample<T>,
    {
        without_allocation(|| {
            let begun = Instant::now();
            let frames = data.len() / self.channels;
            let room = frames.min(self.ring.slots());
            if let Ok(chunk) = self.ring.write_chunk_uninit(room) {
                chunk.fill_from_iter(data.chunks_exact(self.channels).map(mono));
            }
            if room < frames {
                self.gauge.slip(frames - room);
            }
            self.gauge.set_latency(latency);
            self.gauge.set_period(self.period.longest(frames));
            self.gauge.beat(begun, frames, self.gauge.frames() + frames as u64);
            self.gauge.took(begun.elapsed());
        });
    }
}

fn mono<T: Sample>(frame: &[T]) -> f32
where
    f32: FromSample<T>,
{
    frame.iter().map(|sample| f32::from_sample(*sample)).sum::<f32>() / frame.len() as f32
}

impl PlaybackCallback {
    /// Gives the device what it is to play; `latency` is how long it takes until the first of it is heard.
    pub(crate) fn run<T: Sample + FromSample<f32>>(&mut self, data: &mut [T], latency: Duration) {
        without_allocation(|| {
            let begun = Instant::now();
            let frames = data.len() / self.channels;
            let waiting = self.ring.slots();
            let there = frames.min(waiting);
            self.fill(data, there);
            self.has_begun |= there > 0;
            if self.has_begun {
                self.gauge.spare(waiting - there);
                if there < frames {
                    self.gauge.slip(frames - there);
                }
                // What a server asks for before says how much it keeps, not how often it asks.
                self.gauge.set_period(self.period.longest(frames));
            }
            self.gauge.set_latency(latency);
            self.gauge.beat(begun, frames, self.gauge.frames());
            self.gauge.took(begun.elapsed());
        });
    }

    /// The device was silent for this many frames, or will be, whatever there is to play.
    pub(crate) fn skip(&mut self, frames: usize) {
        if frames == 0 {
            return;
        }
        without_allocation(|| {
            for _ in 0..frames {
                let _ = self.reference.push(0.0);
            }
            (self.last, self.gain) = (0.0, 0.0);
            self.gauge.beat(Instant::now(), frames, self.gauge.frames());
        });
    }

    /// Plays `there` frames of the ring, and a fade to silence after them.
    fn fill<T: Sample + FromSample<f32>>(&mut self, data: &mut [T], there: usize) {
        let mut frames = data.chunks_mut(self.channels);
        if let Ok(chunk) = self.ring.read_chunk(there) {
            // The frames are second, since a zip takes from its first before it finds its second empty.
            for (sample, frame) in chunk.into_iter().zip(frames.by_ref()) {
                self.gain = (self.gain + SWELL).min(1.0);
                self.last = sample.clamp(-1.0, 1.0) * self.gain;
                frame.fill(T::from_sample(self.last));
                // There is no room only when nobody takes the reference, who then does without.
                let _ = self.reference.push(self.last);
            }
        }
        for frame in frames {
            self.gain = 0.0;
            self.last *= FADE;
            frame.fill(T::from_sample(self.last));
            let _ = self.reference.push(self.last);
        }
    }
}

/// The longest of the latest calls.
#[derive(Debug, Default)]
struct Period {
    calls: usize,
    longest: usize,
    longest_before: usize,
}

impl Period {
    fn longest(&mut self, frames: usize) -> usize {
        if self.calls == PERIOD_WINDOW {
            *self = Self { calls: 0, longest: 0, longest_before: self.longest };
        }
        self.calls += 1;
        self.longest = self.longest.max(frames);
        self.longest.max(self.longest_before)
    }
}

#[cfg(not(test))]
fn without_allocation<T>(what: impl FnOnce() -> T) -> T {
    what()
}

/// In this crate's tests, whatever allocates in a callback ends the test program.
#[cfg(test)]
fn without_allocation<T>(what: impl FnOnce() -> T) -> T {
    assert_no_alloc::assert_no_alloc(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: assert_no_alloc::AllocDisabler = assert_no_alloc::AllocDisabler;

    fn play(callback: &mut PlaybackCallback, frames: usize) -> Vec<f32> {
        let mut data = vec![[9.0_f32; 2]; frames];
        callback.run(data.as_flattened_mut(), Duration::ZERO);
        assert!(data.iter().all(|frame| frame[0] == frame[1]));
        data.iter().map(|frame| frame[0]).collect()
    }

    fn reference(end: &mut PlaybackEnd) -> Vec<f32> {
        std::iter::from_fn(|| end.reference.pop().ok()).collect()
    }

    #[test]
    fn channels_are_mixed_and_what_has_no_room_is_counted() {
        let (mut callback, mut end) = capture(48_000, 2);
        callback.run(&[i16::MAX, 0, 0, i16::MIN], Duration::ZERO);
        let heard: Vec<f32> = std::iter::from_fn(|| end.ring.pop().ok()).collect();
        assert!((heard[0] - 0.5).abs() < 1e-4 && heard[1] == -0.5, "{heard:?}");
        callback.run(&vec![0.0_f32; 2 * 9_700], Duration::ZERO);
        assert_eq!(end.gauge.slipped(), 100);
        assert_eq!(end.gauge.frames(), 9_702);
    }

    #[test]
    fn the_reference_is_what_was_played_slips_included() {
        let (mut callback, mut end) = playback(48_000, 2);
        let mut played = play(&mut callback, 240);
        assert_eq!(end.gauge.slipped(), 0, "nothing was missing before there was anything");
        for index in 0..300 {
            end.ring.push(0.5 + index as f32 / 1_000.0).unwrap();
        }
        played.extend(play(&mut callback, 240));
        played.extend(play(&mut callback, 240));
        assert_eq!(end.gauge.slipped(), 180);
        assert_eq!(end.gauge.take_spare_min(), Some(0));
        assert_eq!(played, reference(&mut end));
        assert!(played[240] < 0.01, "it swells");
        assert!((played[360] - 0.62).abs() < 1e-6 && (played[539] - 0.799).abs() < 1e-6);
        assert!(played[540..].windows(2).all(|pair| pair[1] < pair[0]), "it fades");
        assert!(played[719] < 0.01, "to silence");
    }

    #[test]
    fn silence_of_the_device_itself_is_in_the_reference_and_is_no_slip() {
        let (mut callback, mut end) = playback(48_000, 1);
        end.ring.push(0.5).unwrap();
        callback.skip(100);
        assert_eq!((end.gauge.slipped(), end.gauge.frames()), (0, 100));
        assert_eq!(reference(&mut end), [0.0; 100]);
        assert_eq!(end.ring.buffer().capacity() - end.ring.slots(), 1, "what waits goes on waiting");
    }

    #[test]
    fn sound_that_goes_on_neither_swells_nor_fades_from_one_call_to_the_next() {
        let (mut callback, mut end) = playback(48_000, 1);
        for _ in 0..1_200 {
            end.ring.push(0.5).unwrap();
        }
        let mut played = vec![0.0; 1_200];
        for period in played.chunks_mut(120) {
            // A server says with each request for how long its device was dry, which is as a rule not at all.
            callback.skip(0);
            callback.run(period, Duration::ZERO);
        }
        assert!(played[120..].iter().all(|sample| *sample == 0.5));
    }

    #[test]
    fn what_is_too_loud_is_clipped_in_the_reference_as_on_the_device() {
        let (mut callback, mut end) = playback(48_000, 1);
        for _ in 0..200 {
            end.ring.push(2.0).unwrap();
        }
        let mut data = [0_i16; 200];
        callback.run(&mut data, Duration::ZERO);
        assert_eq!((data[199], reference(&mut end)[199]), (i16::MAX, 1.0));
    }

    #[test]
    fn the_period_forgets_what_was_asked_for_once() {
        let mut period = Period::default();
        assert_eq!(period.longest(960), 960);
        let later: Vec<usize> = (0..2 * PERIOD_WINDOW).map(|_| period.longest(240)).collect();
        assert_eq!((later[0], later[later.len() - 1]), (960, 240));
    }
}
