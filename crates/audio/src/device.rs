//! Which devices there are, and how they are to be opened.

use cpal::traits::{DeviceTrait, HostTrait};
use cpal::{BufferSize, Device, ErrorKind, Host, SampleFormat, StreamConfig, SupportedStreamConfigRange};

use crate::{SAMPLE_RATE, state::DeviceState};

/// Periods to be tried, in frames at 48 kHz; the last resort is the device's own. 10 ms is the shortest that sound
/// servers keep without gaps; their own choice may be two seconds.
const PERIODS: [u32; 2] = [480, 960];

/// Which way sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Input,
    Output,
}

/// The names of the default devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceNames {
    /// What is recorded from, if there is anything.
    pub input: Option<String>,
    /// What is played on, if there is anything.
    pub output: Option<String>,
}

/// Asks the system for its default devices. This may take a moment: a sound server may have to be started.
#[must_use]
pub fn default_device_names() -> DeviceNames {
    let name = |direction| default_device(direction).map(|device| device.to_string());
    DeviceNames { input: name(Direction::Input), output: name(Direction::Output) }
}

pub(crate) fn default_device(direction: Direction) -> Option<Device> {
    let host = host();
    match direction {
        Direction::Input => host.default_input_device(),
        Direction::Output => host.default_output_device(),
    }
}

/// The sound server of a desktop, which lets programs share devices, or else what the system has.
fn host() -> Host {
    #[cfg(target_os = "linux")]
    if cpal::available_hosts().contains(&cpal::HostId::PulseAudio)
        && let Ok(host) = cpal::host_from_id(cpal::HostId::PulseAudio)
    {
        return host;
    }
    cpal::default_host()
}

/// How a device could be opened, best first.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) format: SampleFormat,
    pub(crate) configs: Vec<StreamConfig>,
}

impl Configs {
    pub(crate) fn of(device: &Device, direction: Direction) -> Result<Self, cpal::Error> {
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

/// What an error means for the user.
pub(crate) fn state_of(error: &cpal::Error) -> DeviceState {
    let reason = error.to_string();
    match error.kind() {
        ErrorKind::DeviceBusy => DeviceState::Busy { reason },
        ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => DeviceState::Missing,
        _ => DeviceState::Failed { reason },
    }
}
