//! Measures how long sound takes between two sources of a sound server: plays chirps on a sink, listens at two sources and
//! finds the lag between them by correlation.
//!
//! `sound-delay SINK REFERENCE HEARD SECONDS [FROM TO]`: for null sinks A and B, and a program that records from A's
//! monitor and plays on B, `sound-delay A A.monitor B.monitor 10`. With FROM and TO, a loop of blocks of this crate passes
//! the sound from one to the other, which is what the devices alone take. Prints JSON.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ahoy_audio::{BLOCK_SAMPLES, Block, Capture, DeviceId, DeviceState, Playback, Wanted};

/// Between two chirps, and how long one is, in samples: 500 and 100 ms.
const INTERVAL: usize = 24_000;
const CHIRP: usize = 4_800;

/// The longest lag that is looked for: 400 ms.
const LAG_MAX: usize = 19_200;

fn device(name: &str) -> Wanted {
    Wanted::Named(DeviceId::new(&format!("pulseaudio:{name}")))
}

/// From 300 to 3,500 Hz, which any speech codec keeps.
fn chirp(index: usize) -> f32 {
    let at = index % INTERVAL;
    if at >= CHIRP {
        return 0.0;
    }
    let (seconds, length) = (at as f32 / 48_000.0, CHIRP as f32 / 48_000.0);
    let phase = std::f32::consts::TAU * (300.0 * seconds + (3_500.0 - 300.0) * seconds * seconds / (2.0 * length));
    let window = (std::f32::consts::PI * at as f32 / CHIRP as f32).sin();
    phase.sin() * window * 0.5
}

/// What a source gives, each sample at its place on the clock.
struct Track {
    capture: Capture,
    samples: Vec<f32>,
    /// Where the blocks say sample 0 is.
    origins: Vec<f64>,
}

impl Track {
    fn new(now: Instant, source: &str) -> Self {
        Self { capture: Capture::chosen_device(now, device(source)), samples: Vec::new(), origins: Vec::new() }
    }

    fn listen(&mut self, start: Instant, now: Instant) {
        let mut block = [0.0; BLOCK_SAMPLES];
        while self.capture.read(now, &mut block) {
            if !matches!(self.capture.state(), DeviceState::Running { .. }) {
                continue;
            }
            self.samples.extend(block);
            let until = self.capture.recorded_until(now).saturating_duration_since(start).as_secs_f64() * 48_000.0;
            self.origins.push(until - self.samples.len() as f64);
        }
    }

    fn origin(&self) -> f64 {
        let mut origins = self.origins[self.origins.len() / 4..].to_vec();
        origins.sort_by(f64::total_cmp);
        origins[origins.len() / 2]
    }
}

/// Passes sound on, block by block.
fn pass(from: &str, to: &str, stop: &AtomicBool) {
    let now = Instant::now();
    let (mut capture, mut playback) = (Capture::chosen_device(now, device(from)), Playback::chosen_device(now, device(to)));
    let mut waiting: Vec<Block> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let mut block = [0.0; BLOCK_SAMPLES];
        while capture.read(now, &mut block) {
            waiting.push(block);
        }
        while playback.wants(now) {
            let next = if waiting.is_empty() { [0.0; BLOCK_SAMPLES] } else { waiting.remove(0) };
            playback.write(&next);
        }
        if waiting.len() > 1 {
            waiting.remove(0);
        }
        let wake = capture.next_wake(now).min(playback.next_wake(now));
        thread::sleep(wake.saturating_duration_since(Instant::now()));
    }
    eprintln!(
        "pass: latency {:?} in, {:?} out, delay {:?}; {} overruns, {} underruns; callbacks {} {}, p99.9 {:?} {:?}",
        capture.latency(),
        playback.latency(),
        playback.delay(),
        capture.overruns(),
        playback.underruns(),
        capture.callback_times().count(),
        playback.callback_times().count(),
        capture.callback_times().quantile(0.999),
        playback.callback_times().quantile(0.999)
    );
}

/// Where `reference` is found in `heard`, and how well it fits there.
fn lag(reference: &[f32], heard: &[f32]) -> (usize, f32) {
    let energy = |sound: &[f32]| sound.iter().map(|sample| sample * sample).sum::<f32>();
    let own = energy(reference);
    let correlation = |lag: usize| {
        let there = &heard[lag..lag + reference.len()];
        let sum: f32 = reference.iter().zip(there).map(|(one, other)| one * other).sum();
        sum / (own * energy(there)).sqrt().max(1e-9)
    };
    let best = |lags: &mut dyn Iterator<Item = usize>| {
        lags.map(|lag| (lag, correlation(lag))).fold((0, 0.0), |best, next| if next.1 > best.1 { next } else { best })
    };
    // The highest tone of a chirp has 14 samples.
    let (near, _) = best(&mut (0..LAG_MAX).step_by(4));
    best(&mut (near.saturating_sub(4)..near + 5))
}

/// The first chirp of a stretch.
fn first_chirp(sound: &[f32]) -> Option<usize> {
    let loud = sound.iter().position(|sample| sample.abs() > 0.2)?;
    loud.checked_sub(CHIRP / 4)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sink, reference, heard, seconds, through @ ..] = &arguments[..] else {
        eprintln!("usage: sound-delay SINK REFERENCE HEARD SECONDS [FROM TO]");
        std::process::exit(2);
    };
    let stop = Arc::new(AtomicBool::new(false));
    let passing = match through {
        [from, to] => {
            let (from, to, stop) = (from.clone(), to.clone(), Arc::clone(&stop));
            Some(thread::spawn(move || pass(&from, &to, &stop)))
        }
        _ => None,
    };
    let start = Instant::now();
    let end = start + Duration::from_secs_f32(seconds.parse().unwrap());
    let mut playback = Playback::chosen_device(start, device(sink));
    let mut tracks = [Track::new(start, reference), Track::new(start, heard)];
    let mut played = 0;
    while Instant::now() < end {
        let now = Instant::now();
        while playback.wants(now) {
            let mut block = [0.0; BLOCK_SAMPLES];
            for sample in &mut block {
                *sample = chirp(played);
                played += 1;
            }
            playback.write(&block);
        }
        for track in &mut tracks {
            track.listen(start, now);
        }
        thread::sleep(Duration::from_millis(2));
    }
    stop.store(true, Ordering::Relaxed);
    if let Some(passing) = passing {
        passing.join().unwrap();
    }
    let [reference, heard] = tracks;
    let shift = (reference.origin() - heard.origin()) / 48.0;
    let mut lags: Vec<f64> = Vec::new();
    // The beginning is where devices settle.
    let mut at = 3 * INTERVAL;
    while at + INTERVAL + LAG_MAX < reference.samples.len() && at + INTERVAL + LAG_MAX < heard.samples.len() {
        let Some(begin) = first_chirp(&reference.samples[at..at + INTERVAL]).map(|begin| at + begin) else {
            at += INTERVAL;
            continue;
        };
        let piece = &reference.samples[begin..(begin + CHIRP).min(reference.samples.len())];
        let Some(there) = heard.samples.get(begin..begin + LAG_MAX + 2 * CHIRP) else { break };
        let (samples, correlation) = lag(piece, there);
        if correlation > 0.5 {
            lags.push(samples as f64 / 48.0 - shift);
        }
        at += INTERVAL;
    }
    lags.sort_by(f64::total_cmp);
    let quantile = |part: f64| lags.get(((lags.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "{{\"chirps\":{},\"delay_ms\":{{\"p50\":{:.2},\"p95\":{:.2},\"min\":{:.2},\"max\":{:.2}}}}}",
        lags.len(),
        quantile(0.5),
        quantile(0.95),
        quantile(0.0),
        quantile(1.0)
    );
}
