//! WAV files of every kind, and captures and playbacks made of them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ahoy_audio::{BLOCK_SAMPLES, Capture, DeviceState, Playback, WavError, WavWriter, read_speech};
use hound::{SampleFormat, WavSpec};
use tempfile::TempDir;

const TONE_HZ: f32 = 1_000.0;

fn tone(rate: u32, index: u32) -> f32 {
    (index as f32 / rate as f32 * TAU * TONE_HZ).sin() * 0.5
}

/// A tone of half a second in a file of a kind; the other channel, if there is one, holds the same.
fn write(path: &Path, rate: u32, channels: u16, bits: u16, format: SampleFormat) {
    let spec = WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format: format };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for index in 0..rate / 2 {
        let sample = tone(rate, index);
        for _ in 0..channels {
            match format {
                SampleFormat::Float => writer.write_sample(sample).unwrap(),
                SampleFormat::Int => writer.write_sample((f64::from(sample) * f64::from(1_u32 << (bits - 1))) as i32).unwrap(),
            }
        }
    }
    writer.finalize().unwrap();
}

/// How many times a second the sound rises through zero.
fn frequency(sound: &[f32]) -> f32 {
    let rises = sound.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
    rises as f32 * 48_000.0 / sound.len() as f32
}

fn loudness(sound: &[f32]) -> f32 {
    (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len() as f32).sqrt()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn holding(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.file(name), bytes).unwrap();
        self.file(name)
    }
}

#[test]
fn every_kind_of_file_reads_as_the_same_tone_at_the_same_length() {
    let folder = Folder::new();
    let kinds =
        [(8, SampleFormat::Int), (16, SampleFormat::Int), (24, SampleFormat::Int), (32, SampleFormat::Int), (32, SampleFormat::Float)];
    for rate in [8_000, 16_000, 22_050, 44_100, 48_000, 96_000] {
        for channels in [1, 2] {
            for (bits, format) in kinds {
                let path = folder.file("tone.wav");
                write(&path, rate, channels, bits, format);
                let sound = read_speech(&path).unwrap();
                let kind = format!("{rate} Hz, {channels} channels, {bits} bits, {format:?}");
                assert!(sound.len().abs_diff(24_000) <= 3, "{kind}: {} samples", sound.len());
                let middle = &sound[2_400..21_600];
                assert!((frequency(middle) - TONE_HZ).abs() < 4.0, "{kind}: {} Hz", frequency(middle));
                assert!((loudness(middle) - 0.5 / f32::sqrt(2.0)).abs() < 0.01, "{kind}: {}", loudness(middle));
            }
        }
    }
}

#[test]
fn two_channels_are_mixed_in_equal_parts() {
    let folder = Folder::new();
    let path = folder.file("stereo.wav");
    let spec = WavSpec { channels: 2, sample_rate: 48_000, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = hound::WavWriter::create(&path, spec).unwrap();
    for _ in 0..1_000 {
        writer.write_sample(16_384_i16).unwrap();
        writer.write_sample(-8_192_i16).unwrap();
    }
    writer.finalize().unwrap();
    assert!(read_speech(&path).unwrap().iter().all(|sample| (sample - 0.125).abs() < 1e-4));
}

#[test]
fn the_header_of_many_channel_formats_is_read_too() {
    // WAVE_FORMAT_EXTENSIBLE, 16 bits, mono, four samples.
    let mut bytes = b"RIFF\x44\0\0\0WAVEfmt \x28\0\0\0\xfe\xff\x01\0".to_vec();
    bytes.extend_from_slice(&48_000_u32.to_le_bytes());
    bytes.extend_from_slice(&96_000_u32.to_le_bytes());
    bytes.extend_from_slice(b"\x02\0\x10\0\x16\0\x10\0\x04\0\0\0");
    bytes.extend_from_slice(b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    bytes.extend_from_slice(b"data\x08\0\0\0\0\0\0\x40\0\x80\0\0");
    let path = Folder::new();
    assert_eq!(read_speech(&path.holding("extensible.wav", &bytes)).unwrap(), [0.0, 0.5, -1.0, 0.0]);
}

#[test]
fn what_cannot_be_played_says_why_and_what_to_do() {
    let folder = Folder::new();
    let sentence = |path: &Path| read_speech(path).unwrap_err().to_string();
    let named = |name: &str, what: &str| format!("{}{what}", folder.file(name).display());

    let missing = folder.file("missing.wav");
    assert!(matches!(read_speech(&missing), Err(WavError::NotFound(_))));
    assert_eq!(sentence(&missing), format!("there is no file {}; check the path", missing.display()));

    let empty = folder.holding("empty.wav", b"");
    assert_eq!(sentence(&empty), named("empty.wav", " is empty; record it again"));

    let text = folder.holding("text.wav", b"Mr. Watson, come here, I want to see you.");
    assert_eq!(sentence(&text), named("text.wav", " is not a WAV file; convert it to WAV first"));
    assert!(matches!(read_speech(&folder.holding("short.wav", b"RI")), Err(WavError::NotWav(_))));

    write(&folder.file("whole.wav"), 48_000, 1, 16, SampleFormat::Int);
    let whole = std::fs::read(folder.file("whole.wav")).unwrap();
    for end in [6, 20, 40, 1_000, whole.len() - 1] {
        let cut = folder.holding("cut.wav", &whole[..end]);
        assert_eq!(sentence(&cut), named("cut.wav", " is truncated; copy or record it again"), "after {end} bytes");
    }

    write(&folder.file("rate.wav"), 11_025, 1, 16, SampleFormat::Int);
    let says = " has a sample rate of 11025 Hz; convert it to 8, 16, 22.05, 44.1, 48 or 96 kHz";
    assert_eq!(sentence(&folder.file("rate.wav")), named("rate.wav", says));

    write(&folder.file("six.wav"), 48_000, 6, 16, SampleFormat::Int);
    assert_eq!(sentence(&folder.file("six.wav")), named("six.wav", " has 6 channels; convert it to one or two"));

    // The same file with a format tag of compressed sound (A-law).
    let mut compressed = whole.clone();
    compressed[20] = 6;
    let says = " holds compressed sound; convert it to whole numbers of 8, 16, 24 or 32 bits or to floats of 32 bits";
    assert_eq!(sentence(&folder.holding("alaw.wav", &compressed)), named("alaw.wav", says));

    let mut damaged = whole.clone();
    damaged[22] = 0;
    assert!(matches!(read_speech(&folder.holding("damaged.wav", &damaged)), Err(WavError::Damaged { .. })));

    let mut no_sound = whole[..44].to_vec();
    no_sound[40..44].fill(0);
    assert!(matches!(read_speech(&folder.holding("nothing.wav", &no_sound)), Err(WavError::Empty(_))));

    // A directory is none.
    assert!(matches!(read_speech(folder.0.path()), Err(WavError::Unreadable { .. })));
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    let folder = Folder::new();
    write(&folder.file("long.wav"), 8_000, 1, 8, SampleFormat::Int);
    let mut bytes = std::fs::read(folder.file("long.wav")).unwrap();
    bytes[40..44].copy_from_slice(&(8_000_u32 * 3_600).to_le_bytes());
    let says = read_speech(&folder.holding("long.wav", &bytes)).unwrap_err().to_string();
    assert!(says.ends_with("is longer than 60 minutes; split it"), "{says}");
}

#[test]
fn damaged_files_of_every_kind_are_refused_without_a_panic() {
    let folder = Folder::new();
    write(&folder.file("whole.wav"), 8_000, 2, 24, SampleFormat::Int);
    let whole = std::fs::read(folder.file("whole.wav")).unwrap()[..400].to_vec();
    for at in 0..60 {
        for byte in [0, 1, 3, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            let _ = read_speech(&folder.holding("damaged.wav", &bytes));
        }
    }
}

#[test]
fn a_recording_reads_back_and_can_be_read_when_it_was_never_finished() {
    let folder = Folder::new();
    let path = folder.file("recording.wav");
    let sound: Vec<f32> = (0..96_000).map(|index| tone(48_000, index)).collect();
    let mut writer = WavWriter::create(&path).unwrap();
    for block in sound.chunks(BLOCK_SAMPLES) {
        writer.write(block).unwrap();
    }
    writer.finish().unwrap();
    let read = read_speech(&path).unwrap();
    assert_eq!(read.len(), sound.len());
    assert!(read.iter().zip(&sound).all(|(one, other)| (one - other).abs() < 1e-4));

    let mut killed = WavWriter::create(&path).unwrap();
    killed.write(&sound[..72_000]).unwrap();
    // What a killed program leaves is what is on disk at this point.
    let left = read_speech(&path).unwrap();
    assert!(left.len() >= 48_000, "{} samples", left.len());
    drop(killed);
}

#[test]
fn a_recording_that_cannot_be_made_says_so() {
    let says = WavWriter::create(Path::new("/no/such/folder/recording.wav")).unwrap_err().to_string();
    assert!(says.starts_with("cannot write /no/such/folder/recording.wav: "), "{says}");
}

#[test]
fn a_file_is_read_at_the_pace_of_the_clock_and_is_silence_after_its_end() {
    let start = Instant::now();
    let mut capture = Capture::file(vec![0.25; 1_000], start);
    let mut block = [1.0; BLOCK_SAMPLES];
    assert_eq!(capture.state(), DeviceState::Virtual);
    assert!(capture.read(start, &mut block) && block == [0.25; BLOCK_SAMPLES]);
    assert!(!capture.read(start + Duration::from_millis(9), &mut block));
    assert_eq!(capture.next_wake(start), start + Duration::from_millis(10));
    let later = start + Duration::from_millis(20);
    assert!(capture.read(later, &mut block) && !capture.is_finished());
    assert!(capture.read(later, &mut block) && capture.is_finished());
    assert_eq!((block[39], block[40]), (0.25, 0.0));
    assert!(!capture.read(later, &mut block));
    assert!(capture.read(start + Duration::from_millis(30), &mut block) && block == [0.0; BLOCK_SAMPLES]);
}

#[test]
fn a_recording_takes_a_block_whenever_one_is_due() {
    let folder = Folder::new();
    let start = Instant::now();
    let mut playback = Playback::file(WavWriter::create(&folder.file("heard.wav")).unwrap(), start);
    for ms in 0..1_000 {
        while playback.wants(start + Duration::from_millis(ms)) {
            playback.write(&[0.5; BLOCK_SAMPLES]);
        }
    }
    playback.finish().unwrap();
    assert_eq!(read_speech(&folder.file("heard.wav")).unwrap().len(), 48_000);
}
