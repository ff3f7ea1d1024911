//! Speech and levels for the tests.
#![allow(dead_code)]

use ahoy_apm::SAMPLE_RATE;
use std::path::Path;

pub(crate) const ALICE: &str = "alice.wav";
pub(crate) const BOB: &str = "bob.wav";

/// The first seconds of a voice.
pub(crate) fn speech(name: &str, length_s: f64) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/speech").join(name);
    let samples = hound::WavReader::open(path).expect("the sample speech is there").into_samples::<i16>();
    samples.take(seconds(length_s)).map(|sample| f32::from(sample.expect("a whole file")) / 32_768.0).collect()
}

/// The samples of a time.
pub(crate) fn seconds(time_s: f64) -> usize {
    (time_s * f64::from(SAMPLE_RATE)) as usize
}

pub(crate) fn level_dbfs(samples: &[f32]) -> f64 {
    10.0 * (samples.iter().map(|sample| f64::from(sample * sample)).sum::<f64>() / samples.len() as f64).max(1e-12).log10()
}
