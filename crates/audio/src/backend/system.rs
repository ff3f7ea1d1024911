//! Devices by way of cpal: what the system has, where no sound server is spoken to directly.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Device, ErrorKind, FromSample, Host, SampleFormat, SizedSample, StreamConfig, SupportedStreamConfigRange};

use super::Ended;
use crate::SAMPLE_RATE;
use crate::callback::{Callback, CaptureCallback, End, PlaybackCallback};
use crate::device::{DeviceId, DeviceInfo, DeviceList, Direction, Wanted};
use crate::link::{Order, Orders, Post};
use crate::state::DeviceState;

/// Periods to be tried, in frames at 48 kHz: 5 ms, 10 and 20; the last resort is the device's own, which may be seconds.
const PERIODS: [u32; 3] = [240, 480, 960];

/// How soon a stream that failed, or an order, is noticed.
const SUPERVISION: Duration = Duration::from_millis(50);

/// How often it is asked what the default is and whether a device that is stood in for is back, in supervisions: once in
/// half a second, since some systems open every device to answer.
const LOOK_AFTER: u32 = 10;

/// Keeps the system's library from writing to the terminal, on this thread, what it thinks of each device that is not there: its
/// answers say the same. What it has written so far is forgotten.
fn hush() {
    #[cfg(target_os = "linux")]
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA writes to the terminal");
    }
}

/// All devices.
pub(super) fn devices() -> DeviceList {
    hush();
    let host = cpal::default_host();
    let infos = |devices: Vec<Device>, default: Option<Device>| {
        let info = |device: Device| {
            let id = id_of(&device)?;
            let is_default = default.as_ref() == Some(&device);
            Some(DeviceInfo { id, name: device.to_string(), is_default, is_monitor: false })
        };
        devices.into_iter().filter_map(info).collect()
    };
    let inputs = host.input_devices().map(Iterator::collect).unwrap_or_default();
    let outputs = host.output_devices().map(Iterator::collect).unwrap_or_default();
    DeviceList { inputs: infos(inputs, host.default_input_device()), outputs: infos(outputs, host.default_output_device()) }
}

fn id_of(device: &Device) -> Option<DeviceId> {
    device.id().ok().map(|id| DeviceId::new(&id.to_string()))
}

/// Opens the device that is wanted, or what stands in for it, and keeps it open until something changes.
pub(super) fn run<E: End>(orders: &Orders, post: &Post<E>) -> Ended {
    hush();
    let host = cpal::default_host();
    let found = find(&host, E::DIRECTION, &orders.wanted());
    let opened = found.ok_or(DeviceState::Missing).and_then(|found| start(&found, post).map(|stream| (found, stream)));
    match opened {
        Ok((found, stream)) => watch(&host, orders, post, &found, &stream),
        Err(state) => {
            post.set(state);
            Ended::Failed
        }
    }
}

struct Found {
    device: Device,
    is_substitute: bool,
}

fn find(host: &Host, direction: Direction, wanted: &Wanted) -> Option<Found> {
    if let Wanted::Named(id) = wanted
        && let Some(device) = cpal::DeviceId::from_str(id.as_str()).ok().and_then(|id| host.device_by_id(&id))
    {
        return Some(Found { device, is_substitute: false });
    }
    let default = match direction {
        Direction::Input => host.default_input_device(),
        Direction::Output => host.default_output_device(),
    };
    default.map(|device| Found { device, is_substitute: *wanted != Wanted::Default })
}

/// Raised by a stream's error callback: nothing yet, gone, busy.
#[derive(Debug, Clone, Default)]
struct Trouble(Arc<AtomicU8>);

const NONE: u8 = 0;
const GONE: u8 = 1;
const BUSY: u8 = 2;

impl Trouble {
    fn state(&self) -> Option<DeviceState> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            BUSY => Some(DeviceState::Busy { reason: "it was taken over".into() }),
            _ => Some(DeviceState::Failed { reason: "it was taken away".into() }),
        }
    }

    fn callback(&self) -> impl FnMut(cpal::Error) + Send + 'static {
        let trouble = Arc::clone(&self.0);
        move |error| match error.kind() {
            // Sound goes on after these.
            ErrorKind::Xrun | ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
            ErrorKind::DeviceBusy => trouble.store(BUSY, Ordering::Relaxed),
            _ => trouble.store(GONE, Ordering::Relaxed),
        }
    }
}

struct Running {
    _stream: cpal::Stream,
    trouble: Trouble,
}

fn start<E: End>(found: &Found, post: &Post<E>) -> Result<Running, DeviceState> {
    let device = &found.device;
    let configs = Configs::of(device, E::DIRECTION).map_err(|error| state_of(&error))?;
    let trouble = Trouble::default();
    let mut refused = cpal::Error::new(ErrorKind::UnsupportedConfig);
    for config in &configs.configs {
        let (callback, end) = E::open(config.sample_rate, config.channels);
        match build(device, configs.format, *config, callback, &trouble) {
            Ok(stream) => {
                // Recording may block here until there is sound.
                stream.play().map_err(|error| state_of(&error))?;
                post.hand_over(end);
                post.runs(device.to_string(), found.is_substitute);
                return Ok(Running { _stream: stream, trouble });
            }
            Err(error) => refused = error,
        }
    }
    Err(state_of(&refused))
}

/// Watches over a stream until it breaks, another device is wanted, or there is a better one.
fn watch<E: End>(host: &Host, orders: &Orders, post: &Post<E>, found: &Found, running: &Running) -> Ended {
    let mut looks = 0;
    loop {
        match orders.wait(SUPERVISION) {
            Order::GoOn => {}
            Order::Change => return Ended::Changed,
            Order::Stop => return Ended::Stopped,
        }
        if let Some(state) = running.trouble.state() {
            post.set(state);
            return Ended::Failed;
        }
        looks += 1;
        if looks % LOOK_AFTER == 0 && is_outdated(host, E::DIRECTION, &orders.wanted(), found) {
            return Ended::Changed;
        }
    }
}

/// Whether another device should be open than the one that is.
fn is_outdated(host: &Host, direction: Direction, wanted: &Wanted, found: &Found) -> bool {
    if *wanted != Wanted::Default && !found.is_substitute {
        return false;
    }
    find(host, direction, wanted).is_some_and(|better| better.device != found.device || better.is_substitute != found.is_substitute)
}

/// How a device could be opened, best first.
#[derive(Debug)]
struct Configs {
    format: SampleFormat,
    configs: Vec<StreamConfig>,
}

impl Configs {
    fn of(device: &Device, direction: Direction) -> Result<Self, cpal::Error> {
        let preferred = match direction {
            Direction::Input => device.default_input_config()?,
            Direction::Output => device.default_output_config()?,
        };
        let ranges: Vec<SupportedStreamConfigRange> = match direction {
            Direction::Input => device.supported_input_configs().map(Iterator::collect),
            Direction::Output => device.supported_output_configs().map(Iterator::collect),
        }
        .unwrap_or_default();
        let format = preferred.sample_format();
        let takes_our_rate = ranges.iter().any(|range| {
            range.channels() == preferred.channels()
                && range.sample_format() == format
                && (range.min_sample_rate()..=range.max_sample_rate()).contains(&SAMPLE_RATE)
        });
        let sample_rate = if takes_our_rate { SAMPLE_RATE } else { preferred.sample_rate() };
        let config = |buffer_size| StreamConfig { channels: preferred.channels(), sample_rate, buffer_size };
        let fixed = PERIODS.iter().map(|frames| BufferSize::Fixed(frames * sample_rate / SAMPLE_RATE));
        Ok(Self { format, configs: fixed.chain([BufferSize::Default]).map(config).collect() })
    }
}

/// Calls a generic function with the type of a sample format.
macro_rules! for_format {
    ($format:expr, $build:ident($($argument:expr),*)) => {
        match $format {
            SampleFormat::F32 => $build::<f32>($($argument),*),
            SampleFormat::F64 => $build::<f64>($($argument),*),
            SampleFormat::I8 => $build::<i8>($($argument),*),
            SampleFormat::I16 => $build::<i16>($($argument),*),
            SampleFormat::I24 => $build::<cpal::I24>($($argument),*),
            SampleFormat::I32 => $build::<i32>($($argument),*),
            SampleFormat::U8 => $build::<u8>($($argument),*),
            SampleFormat::U16 => $build::<u16>($($argument),*),
            SampleFormat::U24 => $build::<cpal::U24>($($argument),*),
            SampleFormat::U32 => $build::<u32>($($argument),*),
            _ => Err(cpal::Error::new(ErrorKind::UnsupportedConfig)),
        }
    };
}

fn build(
    device: &Device,
    format: SampleFormat,
    config: StreamConfig,
    callback: Callback,
    trouble: &Trouble,
) -> Result<cpal::Stream, cpal::Error> {
    match callback {
        Callback::Capture(callback) => for_format!(format, build_input(device, config, callback, trouble)),
        Callback::Playback(callback) => for_format!(format, build_output(device, config, callback, trouble)),
    }
}

fn build_input<T>(
    device: &Device,
    config: StreamConfig,
    mut callback: CaptureCallback,
    trouble: &Trouble,
) -> Result<cpal::Stream, cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let run = move |data: &[T], info: &cpal::InputCallbackInfo| {
        let at = info.timestamp();
        callback.run(data, at.callback.saturating_duration_since(at.capture));
    };
    device.build_input_stream(config, run, trouble.callback(), None)
}

fn build_output<T>(
    device: &Device,
    config: StreamConfig,
    mut callback: PlaybackCallback,
    trouble: &Trouble,
) -> Result<cpal::Stream, cpal::Error>
where
    T: SizedSample + FromSample<f32>,
{
    let run = move |data: &mut [T], info: &cpal::OutputCallbackInfo| {
        let at = info.timestamp();
        callback.run(data, at.playback.saturating_duration_since(at.callback));
    };
    device.build_output_stream(config, run, trouble.callback(), None)
}

/// What an error means for the user.
fn state_of(error: &cpal::Error) -> DeviceState {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::DeviceBusy => DeviceState::Busy { reason },
        ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => DeviceState::Missing,
        _ => DeviceState::Failed { reason },
    }
}
