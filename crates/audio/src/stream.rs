//! An open device: its stream, the ring between its callback and us, and the thread that opens it.
//!
//! Opening a device can take seconds, so each has a thread for it, which also notices when the device goes and tries
//! again. The callbacks, which the system calls when sound is due, neither lock nor allocate nor log: they move samples
//! between the device's memory and a ring.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpal::traits::{DeviceTrait, StreamTrait};
use cpal::{Device, ErrorKind, FromSample, Sample, SampleFormat, SizedSample, StreamConfig};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::device::{Configs, Direction, default_device, state_of};
use crate::state::{DeviceState, SharedState};

/// Sound a ring holds at most, as a part of a second: 200 ms, which is longer than any thread of ours should be away.
const RING_PART_OF_SECOND: u32 = 5;

/// Between two attempts to open a device that is missing, busy or failed.
const RETRY: Duration = Duration::from_secs(1);

/// How soon a stream that failed is noticed.
const SUPERVISION: Duration = Duration::from_millis(100);

/// What a callback tells.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Frames that went through the callback.
    pub(crate) frames: AtomicU64,
    /// Most frames in one call.
    pub(crate) frames_max: AtomicUsize,
    /// Frames that were wanted and not there, or there and had no room.
    pub(crate) slipped: AtomicU64,
}

impl Pulse {
    fn beat(&self, frames: usize) {
        self.frames.fetch_add(frames as u64, Ordering::Relaxed);
        self.frames_max.fetch_max(frames, Ordering::Relaxed);
    }
}

/// Our end of an open device.
#[derive(Debug)]
pub(crate) struct End<R> {
    pub(crate) ring: R,
    /// In hertz.
    pub(crate) rate: u32,
    pub(crate) pulse: Arc<Pulse>,
}

/// A device that its thread keeps open as long as this lives.
#[derive(Debug)]
pub(crate) struct Link<R> {
    pub(crate) state: SharedState,
    /// The newest end, until it is taken.
    end: Arc<Mutex<Option<End<R>>>>,
    /// Its going tells the thread to end.
    _stop: SyncSender<()>,
}

impl<R> Link<R> {
    /// The end of a stream that was opened since the last call.
    pub(crate) fn take_end(&self) -> Option<End<R>> {
        // Whoever holds this is about to put an end in; it will be there next time.
        self.end.try_lock().ok()?.take()
    }
}

impl Link<Consumer<f32>> {
    pub(crate) fn input() -> Self {
        link(Direction::Input, open_input)
    }
}

impl Link<Producer<f32>> {
    pub(crate) fn output() -> Self {
        link(Direction::Output, open_output)
    }
}

/// Raised by a stream's error callback.
type Broken = Arc<AtomicBool>;

type Open<R> = fn(&Device, &Configs, &Broken) -> Result<(cpal::Stream, End<R>), cpal::Error>;

fn link<R: Send + 'static>(direction: Direction, open: Open<R>) -> Link<R> {
    // Nothing is ever sent through it.
    let (stop, stopped) = sync_channel(0);
    let link = Link { state: SharedState::starting(), end: Arc::default(), _stop: stop };
    let (state, end) = (link.state.clone(), Arc::clone(&link.end));
    let supervisor = Supervisor { direction, open, state: state.clone(), end, stopped };
    let spawned = std::thread::Builder::new().name("sound device".into()).spawn(move || supervisor.run());
    if let Err(error) = spawned {
        state.set(DeviceState::Failed { reason: error.to_string() });
    }
    link
}

/// What the thread of a device does.
struct Supervisor<R> {
    direction: Direction,
    open: Open<R>,
    state: SharedState,
    end: Arc<Mutex<Option<End<R>>>>,
    stopped: Receiver<()>,
}

impl<R> Supervisor<R> {
    fn run(self) {
        loop {
            let broken = Broken::default();
            match self.start(&broken) {
                Ok(stream) => {
                    if self.watch(&broken) {
                        return;
                    }
                    drop(stream);
                    self.set(DeviceState::Failed { reason: "it was taken away".into() });
                }
                Err(state) => self.set(state),
            }
            if self.wait(RETRY) {
                return;
            }
        }
    }

    fn start(&self, broken: &Broken) -> Result<cpal::Stream, DeviceState> {
        let device = default_device(self.direction).ok_or(DeviceState::Missing)?;
        let configs = Configs::of(&device, self.direction).map_err(|error| state_of(&error))?;
        let (stream, end) = (self.open)(&device, &configs, broken).map_err(|error| state_of(&error))?;
        // Recording from an idle sink may block here for two seconds.
        stream.play().map_err(|error| state_of(&error))?;
        if let Ok(mut slot) = self.end.lock() {
            *slot = Some(end);
        }
        self.set(DeviceState::Running { name: device.to_string() });
        Ok(stream)
    }

    /// Waits until the stream is broken, or everything is to end, in which case it says true.
    fn watch(&self, broken: &Broken) -> bool {
        while !broken.load(Ordering::Relaxed) {
            if self.wait(SUPERVISION) {
                return true;
            }
        }
        false
    }

    fn wait(&self, duration: Duration) -> bool {
        self.stopped.recv_timeout(duration) != Err(RecvTimeoutError::Timeout)
    }

    fn set(&self, state: DeviceState) {
        if state != self.state.get() {
            tracing::debug!(direction = ?self.direction, %state, "sound device");
            self.state.set(state);
        }
    }
}

fn error_callback(broken: &Broken) -> impl FnMut(cpal::Error) + Send + 'static {
    let broken = Arc::clone(broken);
    move |error| match error.kind() {
        // Sound goes on after these.
        ErrorKind::Xrun | ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
        _ => broken.store(true, Ordering::Relaxed),
    }
}

/// Opens with the first configuration the device takes.
fn open_first<S>(configs: &Configs, open: impl Fn(StreamConfig) -> Result<S, cpal::Error>) -> Result<S, cpal::Error> {
    let mut refused = cpal::Error::new(ErrorKind::UnsupportedConfig);
    for config in &configs.configs {
        match open(*config) {
            Ok(opened) => return Ok(opened),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Calls a generic function with the type of a sample format.
macro_rules! for_format {
    ($format:expr, $open:ident($($argument:expr),*)) => {
        match $format {
            SampleFormat::F32 => $open::<f32>($($argument),*),
            SampleFormat::F64 => $open::<f64>($($argument),*),
            SampleFormat::I8 => $open::<i8>($($argument),*),
            SampleFormat::I16 => $open::<i16>($($argument),*),
            SampleFormat::I24 => $open::<cpal::I24>($($argument),*),
            SampleFormat::I32 => $open::<i32>($($argument),*),
            SampleFormat::U8 => $open::<u8>($($argument),*),
            SampleFormat::U16 => $open::<u16>($($argument),*),
            SampleFormat::U24 => $open::<cpal::U24>($($argument),*),
            SampleFormat::U32 => $open::<u32>($($argument),*),
            _ => Err(cpal::Error::new(ErrorKind::UnsupportedConfig)),
        }
    };
}

fn open_input(device: &Device, configs: &Configs, broken: &Broken) -> Result<(cpal::Stream, End<Consumer<f32>>), cpal::Error> {
    open_first(configs, |config| for_format!(configs.format, input_of(device, config, broken)))
}

fn input_of<T>(device: &Device, config: StreamConfig, broken: &Broken) -> Result<(cpal::Stream, End<Consumer<f32>>), cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let (mut ring, end) = RingBuffer::new((config.sample_rate / RING_PART_OF_SECOND) as usize);
    let pulse = Arc::new(Pulse::default());
    let beating = Arc::clone(&pulse);
    let channels = usize::from(config.channels).max(1);
    let callback = move |data: &[T], _: &cpal::InputCallbackInfo| {
        for frame in data.chunks_exact(channels) {
            let mono = frame.iter().map(|sample| f32::from_sample(*sample)).sum::<f32>() / channels as f32;
            if ring.push(mono).is_err() {
                beating.slipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        beating.beat(data.len() / channels);
    };
    let stream = device.build_input_stream(config, callback, error_callback(broken), None)?;
    Ok((stream, End { ring: end, rate: config.sample_rate, pulse }))
}

fn open_output(device: &Device, configs: &Configs, broken: &Broken) -> Result<(cpal::Stream, End<Producer<f32>>), cpal::Error> {
    open_first(configs, |config| for_format!(configs.format, output_of(device, config, broken)))
}

fn output_of<T>(device: &Device, config: StreamConfig, broken: &Broken) -> Result<(cpal::Stream, End<Producer<f32>>), cpal::Error>
where
    T: SizedSample + FromSample<f32>,
{
    let (end, mut ring) = RingBuffer::<f32>::new((config.sample_rate / RING_PART_OF_SECOND) as usize);
    let pulse = Arc::new(Pulse::default());
    let beating = Arc::clone(&pulse);
    let channels = usize::from(config.channels).max(1);
    let callback = move |data: &mut [T], _: &cpal::OutputCallbackInfo| {
        for frame in data.chunks_mut(channels) {
            let sample = ring.pop().unwrap_or_else(|_| {
                beating.slipped.fetch_add(1, Ordering::Relaxed);
                0.0
            });
            frame.fill(T::from_sample(sample));
        }
        beating.beat(data.len() / channels);
    };
    let stream = device.build_output_stream(config, callback, error_callback(broken), None)?;
    Ok((stream, End { ring: end, rate: config.sample_rate, pulse }))
}
