//! What the chain does to somebody who talks alone, stage by stage: speech quality against what went in (PESQ-WB), and time.
//!
//! `near-end SPEECH.wav ... [noise-dbfs=-65]`
//!
//! The recordings must be of 48 kHz; each is repeated until it fills half a minute, of which the last third is judged, for gain control takes
//! its time. The loudspeaker is silent. A whole line of stages is timed five times, and the least is printed.

use ahoy_apm::testing::{Hint, Recording, Scene};
use ahoy_apm::{Apm, ApmSettings, BLOCK_SAMPLES, NoiseLevel, SAMPLE_RATE};
use std::time::Instant;

const NOTHING: ApmSettings = ApmSettings { echo: false, noise: NoiseLevel::Off, gain: false };

/// Seconds that are processed, and from when on they are judged.
const LENGTH_S: usize = 30;
const JUDGED_FROM_S: usize = 20;

/// Times that a chain is run to find the least time.
const RUNS: usize = 5;

fn main() {
    let mut noise_dbfs = -65.0;
    for argument in std::env::args().skip(1) {
        if let Some(value) = argument.strip_prefix("noise-dbfs=") {
            noise_dbfs = value.parse().expect("noise-dbfs is a number");
        } else {
            judge(&argument, noise_dbfs);
        }
    }
}

fn judge(path: &str, noise_dbfs: f64) {
    let samples = LENGTH_S * SAMPLE_RATE as usize;
    let speech: Vec<f32> = read(path).into_iter().cycle().take(samples).collect();
    let scene = Scene { echo_db: None, noise_dbfs, ..Scene::desk(0.2, 1) };
    let recording = scene.record(&vec![0.0; samples], &speech);
    println!("{path}, noise of {noise_dbfs} dBFS: microphone {:.2}", pesq(&speech, &recording.microphone, 0));
    for (name, settings) in [
        ("high-pass, limiter, levels, voice activity", NOTHING),
        ("with echo canceller", ApmSettings { echo: true, ..NOTHING }),
        ("with noise suppressor, moderate", ApmSettings { noise: NoiseLevel::Moderate, ..NOTHING }),
        ("with noise suppressor, high", ApmSettings { noise: NoiseLevel::High, ..NOTHING }),
        ("with gain", ApmSettings { gain: true, ..NOTHING }),
        ("with all", ApmSettings::default()),
    ] {
        let (out, delay, micros) = run(&recording, settings);
        println!("  {name:44} PESQ-WB {:.2}, delay {delay} samples, {micros:.0} us a block", pesq(&speech, &out, delay));
    }
}

fn run(recording: &Recording, settings: ApmSettings) -> (Vec<f32>, usize, f64) {
    let mut least = f64::INFINITY;
    let mut out = Vec::new();
    let mut delay = 0;
    for _ in 0..RUNS {
        let mut apm = Apm::new(settings);
        let started = Instant::now();
        out = recording.process(&mut apm, Hint::Queues);
        least = least.min(started.elapsed().as_secs_f64());
        delay = (apm.delay().as_secs_f64() * f64::from(SAMPLE_RATE)).round() as usize;
    }
    (out, delay, least * 1e6 * BLOCK_SAMPLES as f64 / recording.far.len() as f64)
}

/// PESQ-WB of the judged part, both signals at the level that it expects.
fn pesq(reference: &[f32], degraded: &[f32], delay: usize) -> f32 {
    let from = JUDGED_FROM_S * SAMPLE_RATE as usize;
    let to = reference.len() - 1_000;
    pesq::pesq_wb(&judged(&reference[from..to]), &judged(&degraded[from + delay..to + delay])).expect("speech can be judged")
}

/// At 16 kHz, 16 bits and -26 dBFS.
fn judged(samples: &[f32]) -> Vec<i16> {
    const HALF: usize = 48;
    // Down by 6 dB at 7.8 kHz, a windowed sinc.
    let taps: Vec<f64> = (0..=2 * HALF)
        .map(|i| {
            let x = std::f64::consts::PI * (i as f64 - HALF as f64);
            let sinc = if x == 0.0 { 0.325 } else { (0.325 * x).sin() / x };
            sinc * (0.5 + 0.5 * (x / (HALF as f64 + 1.0)).cos())
        })
        .collect();
    let low: Vec<f64> = samples
        .windows(taps.len())
        .step_by(3)
        .map(|window| window.iter().zip(&taps).map(|(sample, tap)| f64::from(*sample) * tap).sum())
        .collect();
    let power = low.iter().map(|sample| sample * sample).sum::<f64>() / low.len() as f64;
    let scale = 32_768.0 * 0.05 / power.sqrt();
    low.iter().map(|sample| (scale * sample).round().clamp(-32_768.0, 32_767.0) as i16).collect()
}

fn read(path: &str) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(reader.spec().sample_rate, SAMPLE_RATE, "{path} must be of 48 kHz");
    reader.samples::<i16>().map(|sample| f32::from(sample.expect("a whole file of 16 bits")) / 32_768.0).collect()
}
