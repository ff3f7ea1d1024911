//! WAV files, which people choose and others made.

use crate::Target;
use std::cell::OnceCell;
use std::path::PathBuf;

pub(crate) fn targets() -> Vec<Target> {
    vec![Target { name: "wav_file", run: wav_file, seeds }]
}

/// A file of this thread's own, which goes with the thread.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-");
        Self(std::env::temp_dir().join(format!("ahoy-fuzz-{}-{thread}.wav", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that is left over harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

thread_local! {
    static SCRATCH: OnceCell<Scratch> = const { OnceCell::new() };
}

/// Any file is sound that is a number, or is refused with a reason.
fn wav_file(bytes: &[u8]) {
    SCRATCH.with(|scratch| {
        let path = &scratch.get_or_init(Scratch::new).0;
        std::fs::write(path, bytes).expect("the folder for temporary files can be written");
        match ahoy_audio::read_speech(path) {
            Ok(samples) => assert!(samples.iter().all(|sample| sample.is_finite()), "sound that is no number"),
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
    });
}

fn seeds() -> Vec<Vec<u8>> {
    const PCM: u16 = 1;
    const FLOAT: u16 = 3;
    let kinds = [
        (PCM, 1, 8_000, 8),
        (PCM, 1, 16_000, 16),
        (PCM, 2, 44_100, 16),
        (PCM, 1, 48_000, 24),
        (PCM, 2, 96_000, 32),
        (FLOAT, 1, 48_000, 32),
    ];
    kinds.iter().map(|(format, channels, rate, bits)| wav(*format, *channels, *rate, *bits)).collect()
}

/// A WAV file with a few samples, by the book.
fn wav(format: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
    let frame_bytes = channels * bits / 8;
    let data: Vec<u8> = (0..u32::from(frame_bytes) * 40).map(|index| (index * 7 % 61) as u8).collect();
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    for number in [format, channels] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * u32::from(frame_bytes)).to_le_bytes());
    for number in [frame_bytes, bits] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(b"data");
    file.extend_from_slice(&(data.len() as u32).to_le_bytes());
    file.extend_from_slice(&data);
    file
}
