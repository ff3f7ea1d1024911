//! WAV files for tests: tones and noise to play, recordings to look at, and the sample speech.

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use std::path::{Path, PathBuf};

/// The sample speech of the project.
#[must_use]
pub fn sample_speech() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/speech/alice.wav")
}

/// A sample format in which a WAV file can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Samples a second.
    pub rate_hz: u32,
    /// Channels.
    pub channels: u16,
    /// Bits of a sample.
    pub bits: u16,
    /// True for floating point.
    pub float: bool,
}

impl Format {
    /// Every combination that plays: 8, 16, 44.1, 48 and 96 kHz, one and two channels, 16, 24 and 32 bits, and floats.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut formats = Vec::new();
        for rate_hz in [8_000, 16_000, 44_100, 48_000, 96_000] {
            for channels in [1, 2] {
                for (bits, float) in [(16, false), (24, false), (32, false), (32, true)] {
                    formats.push(Self { rate_hz, channels, bits, float });
                }
            }
        }
        formats
    }

    fn spec(self) -> WavSpec {
        let sample_format = if self.float { SampleFormat::Float } else { SampleFormat::Int };
        WavSpec { channels: self.channels, sample_rate: self.rate_hz, bits_per_sample: self.bits, sample_format }
    }
}

/// Writes a sine tone at half of full scale.
///
/// # Panics
/// If the file cannot be written.
pub fn write_tone(path: &Path, format: Format, hertz: f32, seconds: f32) {
    let mut writer = WavWriter::create(path, format.spec()).expect("the test's folder can be written");
    for i in 0..(format.rate_hz as f32 * seconds) as u32 {
        let sample = 0.5 * (std::f32::consts::TAU * hertz * i as f32 / format.rate_hz as f32).sin();
        for _ in 0..format.channels {
            let written = if format.float {
                writer.write_sample(sample)
            } else {
                writer.write_sample((f64::from(sample) * f64::from((1u64 << (format.bits - 1)) as u32)) as i32)
            };
            written.expect("the sample fits the format");
        }
    }
    writer.finalize().expect("the test's folder can be written");
}

/// Writes samples as a file of 48 kHz, one channel and 16 bits.
///
/// # Panics
/// If the file cannot be written.
pub fn write_mono(path: &Path, samples: &[f32]) {
    let format = Format { rate_hz: 48_000, channels: 1, bits: 16, float: false };
    let mut writer = WavWriter::create(path, format.spec()).expect("the test's folder can be written");
    for sample in samples {
        writer.write_sample((sample * f32::from(i16::MAX)) as i16).expect("the sample fits the format");
    }
    writer.finalize().expect("the test's folder can be written");
}

/// Writes a valid file without a single sample.
///
/// # Panics
/// If the file cannot be written.
pub fn write_empty(path: &Path) {
    let format = Format { rate_hz: 48_000, channels: 1, bits: 16, float: false };
    WavWriter::create(path, format.spec()).and_then(WavWriter::finalize).expect("the test's folder can be written");
}

/// The samples of a file, the mean of its channels.
///
/// # Panics
/// If it is not a WAV file.
#[must_use]
pub fn read_mono(path: &Path) -> Vec<f32> {
    let mut reader = WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let spec = reader.spec();
    let full_scale = (1u64 << (spec.bits_per_sample - 1)) as f32;
    let samples: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().map(|sample| sample.expect("a whole file")).collect(),
        SampleFormat::Int => reader.samples::<i32>().map(|sample| sample.expect("a whole file") as f32 / full_scale).collect(),
    };
    samples.chunks_exact(usize::from(spec.channels)).map(|frame| frame.iter().sum::<f32>() / f32::from(spec.channels)).collect()
}

/// The sample rate of a file.
///
/// # Panics
/// If it is not a WAV file.
#[must_use]
pub fn rate_hz(path: &Path) -> u32 {
    WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).spec().sample_rate
}

/// The frequency of a recorded tone: the median distance between rising zero crossings where the signal is loud, so that silence before and after it and
/// concealed gaps in it do not count. `None` if there is no tone.
#[must_use]
pub fn tone_hz(samples: &[f32], rate_hz: u32) -> Option<f32> {
    const LOUD: f32 = 0.1;
    let mut distances = Vec::new();
    let mut last: Option<f32> = None;
    let mut peak = 0.0f32;
    for (i, pair) in samples.windows(2).enumerate() {
        peak = peak.max(pair[1].abs());
        if pair[0] < 0.0 && pair[1] >= 0.0 {
            let here = i as f32 + pair[0] / (pair[0] - pair[1]);
            if let Some(before) = last.filter(|_| peak > LOUD) {
                distances.push(here - before);
            }
            last = Some(here);
            peak = 0.0;
        }
    }
    distances.sort_by(f32::total_cmp);
    let median = *distances.get(distances.len() / 2)?;
    Some(rate_hz as f32 / median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_read_back_from_every_format() {
        let folder = tempfile::tempdir().unwrap();
        for format in Format::all() {
            let path = folder.path().join("tone.wav");
            write_tone(&path, format, 440.0, 0.3);
            let tone = tone_hz(&read_mono(&path), rate_hz(&path)).unwrap();
            assert!((tone - 440.0).abs() < 2.0, "{format:?}: {tone}");
        }
    }

    #[test]
    fn silence_is_no_tone() {
        assert_eq!(tone_hz(&[0.0; 1_000], 48_000), None);
    }
}
