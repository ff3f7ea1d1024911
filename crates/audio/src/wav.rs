//! WAV files: speech to be sent, and recordings of what was heard.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader, WavSpec};
use thiserror::Error;

use crate::convert::convert_all;
use crate::{BLOCK_SAMPLES, SAMPLE_RATE};

/// Rates that are read, in hertz.
pub const SAMPLE_RATES: [u32; 6] = [8_000, 16_000, 22_050, 44_100, 48_000, 96_000];

/// Longest file that is read, in seconds: an hour takes 700 MB of memory once it is converted.
pub const SECONDS_MAX: u32 = 3_600;

/// Samples after which a recording's header is brought up to date: a second, which is all that a program that is killed
/// loses of it.
const FLUSH_AFTER: usize = 100 * BLOCK_SAMPLES;

/// Why a WAV file cannot be read or written. Each text is a sentence that names the file and says what to do.
#[derive(Debug, Error)]
pub enum WavError {
    /// There is no such file.
    #[error("there is no file {}; check the path", .0.display())]
    NotFound(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; check that it is a file and that you may read it", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{} is not a WAV file; convert it to WAV first", .0.display())]
    NotWav(PathBuf),
    /// The file holds no sound.
    #[error("{} is empty; record it again", .0.display())]
    Empty(PathBuf),
    /// The file ends before the length its header names.
    #[error("{} is truncated; copy or record it again", .0.display())]
    Truncated(PathBuf),
    /// The header makes no sense.
    #[error("the header of {path} is damaged ({reason}); convert or record it again", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: &'static str,
    },
    /// The sample rate is none that is supported.
    #[error("{path} has a sample rate of {rate} Hz; convert it to 8, 16, 22.05, 44.1, 48 or 96 kHz", path = .path.display())]
    UnsupportedRate {
        /// The file.
        path: PathBuf,
        /// Its rate.
        rate: u32,
    },
    /// There are too many channels.
    #[error("{path} has {channels} channels; convert it to one or two", path = .path.display())]
    UnsupportedChannels {
        /// The file.
        path: PathBuf,
        /// How many it has.
        channels: u16,
    },
    /// The samples are of a kind that is not supported.
    #[error("{path} holds {format}; convert it to whole numbers of 8, 16, 24 or 32 bits or to floats of 32 bits", path = .path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What it holds.
        format: String,
    },
    /// The file is too long.
    #[error("{path} is longer than {} minutes; split it", SECONDS_MAX / 60, path = .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}; check that the folder exists, that you may write there and that there is space", path = .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The sound of a WAV file, at 48 kHz, mixed down to mono.
///
/// # Errors
/// If there is no such file, or it holds nothing that can be played.
pub fn read_speech(path: &Path) -> Result<Vec<f32>, WavError> {
    let mut reader = open(path)?;
    let spec = reader.spec();
    check(path, spec, reader.duration())?;
    let mono = read_mono(path, &mut reader, spec)?;
    let sound = convert_all(mono, spec.sample_rate, SAMPLE_RATE);
    sound.map_err(|_| WavError::UnsupportedRate { path: path.into(), rate: spec.sample_rate })
}

fn open(path: &Path) -> Result<WavReader<BufReader<File>>, WavError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => WavError::NotFound(path.into()),
        _ => WavError::Unreadable { path: path.into(), source },
    };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut beginning = Vec::new();
    file.by_ref().take(12).read_to_end(&mut beginning).map_err(unreadable)?;
    if beginning.is_empty() {
        return Err(WavError::Empty(path.into()));
    }
    if !is_wav(&beginning) {
        return Err(WavError::NotWav(path.into()));
    }
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    WavReader::new(file).map_err(|error| explain(path, error))
}

/// Whether a file that begins like this claims to be a WAV file, as far as it goes.
fn is_wav(beginning: &[u8]) -> bool {
    let matches = |from: usize, tag: &[u8]| beginning.iter().skip(from).zip(tag).all(|(one, other)| one == other);
    beginning.len() >= 4 && matches(0, b"RIFF") && matches(8, b"WAVE")
}

fn explain(path: &Path, error: hound::Error) -> WavError {
    let path = path.to_path_buf();
    match error {
        // Hound says "failed to read enough bytes" with a kind of its own.
        hound::Error::IoError(source) if matches!(source.kind(), ErrorKind::UnexpectedEof | ErrorKind::Other) => WavError::Truncated(path),
        hound::Error::IoError(source) => WavError::Unreadable { path, source },
        hound::Error::FormatError(reason) => WavError::Damaged { path, reason },
        hound::Error::Unsupported => WavError::UnsupportedFormat { path, format: "compressed sound".into() },
        hound::Error::TooWide | hound::Error::InvalidSampleFormat | hound::Error::UnfinishedSample => {
            WavError::Damaged { path, reason: "samples that do not fit its format" }
        }
    }
}

fn check(path: &Path, spec: WavSpec, frames: u32) -> Result<(), WavError> {
    if !SAMPLE_RATES.contains(&spec.sample_rate) {
        return Err(WavError::UnsupportedRate { path: path.into(), rate: spec.sample_rate });
    }
    if !(1..=2).contains(&spec.channels) {
        return Err(WavError::UnsupportedChannels { path: path.into(), channels: spec.channels });
    }
    let kind = match (spec.sample_format, spec.bits_per_sample) {
        (SampleFormat::Int, 8 | 16 | 24 | 32) | (SampleFormat::Float, 32) => None,
        (SampleFormat::Int, _) => Some("whole numbers"),
        (SampleFormat::Float, _) => Some("floats"),
    };
    if let Some(kind) = kind {
        return Err(WavError::UnsupportedFormat { path: path.into(), format: format!("{kind} of {} bits", spec.bits_per_sample) });
    }
    if frames == 0 {
        return Err(WavError::Empty(path.into()));
    }
    if frames / spec.sample_rate >= SECONDS_MAX {
        return Err(WavError::TooLong { path: path.into() });
    }
    Ok(())
}

fn read_mono(path: &Path, reader: &mut WavReader<BufReader<File>>, spec: WavSpec) -> Result<Vec<f32>, WavError> {
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect(),
        SampleFormat::Int => {
            let full_scale = f64::from(1_u32 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|sample| sample.map(|sample| sample as f32 / full_scale)).collect()
        }
    };
    let samples = samples.map_err(|error| explain(path, error))?;
    let channels = usize::from(spec.channels);
    let mixed = samples.chunks_exact(channels).map(|frame| {
        let mono = frame.iter().sum::<f32>() / channels as f32;
        // Floats in files may be anything.
        if mono.is_finite() { mono.clamp(-1.0, 1.0) } else { 0.0 }
    });
    Ok(mixed.collect())
}

/// Records sound into a WAV file of 48 kHz, mono, 16 bits. The header is brought up to date every second, so that the
/// file can be read even if the program is killed.
pub struct WavWriter {
    path: PathBuf,
    writer: hound::WavWriter<BufWriter<File>>,
    since_flush: usize,
}

impl std::fmt::Debug for WavWriter {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("WavWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl WavWriter {
    /// Begins a recording; an existing file is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, WavError> {
        let spec = WavSpec { channels: 1, sample_rate: SAMPLE_RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let writer = hound::WavWriter::create(path, spec).map_err(|error| unwritable(path, error))?;
        let mut writer = Self { path: path.into(), writer, since_flush: 0 };
        writer.flush()?;
        Ok(writer)
    }

    /// Appends sound.
    ///
    /// # Errors
    /// If the file cannot be written any more, or has grown to the 4 GB a WAV file can have.
    pub fn write(&mut self, sound: &[f32]) -> Result<(), WavError> {
        for sample in sound {
            // A float that is no number becomes zero by this cast.
            let sample = (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
            self.writer.write_sample(sample).map_err(|error| unwritable(&self.path, error))?;
        }
        self.since_flush += sound.len();
        if self.since_flush >= FLUSH_AFTER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WavError> {
        self.since_flush = 0;
        self.writer.flush().map_err(|error| unwritable(&self.path, error))
    }

    /// Ends the recording. Without this, a part of its last second may be missing.
    ///
    /// # Errors
    /// If the file cannot be written any more.
    pub fn finish(self) -> Result<(), WavError> {
        let path = self.path;
        self.writer.finalize().map_err(|error| unwritable(&path, error))
    }
}

fn unwritable(path: &Path, error: hound::Error) -> WavError {
    let source = match error {
        hound::Error::IoError(source) => source,
        other => std::io::Error::other(other.to_string()),
    };
    WavError::Unwritable { path: path.into(), source }
}
