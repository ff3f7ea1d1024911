//! Plays a far end in a simulated room and writes what goes in and comes out, for scoring by models of listening:
//!
//! `echo-room FAR.wav NEAR.wav|- OUT_DIR [t60=0.2] [delay=60] [echo=-6] [seed=1] [seconds=30] [near-from=0] [noise=moderate]
//! [gain=off] [aec=on] [drift=0] [distort=off] [jump=80] [hint=MS] [noise-dbfs=-65] [course=on]`
//!
//! writes `far.wav`, `microphone.wav` and `processed.wav` (48 kHz, mono, 16 bits) into the folder and prints one line of
//! figures. The recordings must be of 48 kHz; they are repeated until the time is full.

use ahoy_apm::testing::{DelayJump, Hint, Scene};
use ahoy_apm::{Apm, ApmSettings, NoiseLevel, SAMPLE_RATE};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [far, near, folder, options @ ..] = &arguments[..] else {
        eprintln!("usage: echo-room FAR.wav NEAR.wav|- OUT_DIR [name=value ...]");
        std::process::exit(2);
    };
    let options: BTreeMap<&str, &str> = options.iter().filter_map(|option| option.split_once('=')).collect();
    let number = |name: &str, default: f64| options.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
    let is_on = |name: &str| options.get(name) == Some(&"on");

    let samples = (number("seconds", 30.0) * f64::from(SAMPLE_RATE)) as usize;
    let far: Vec<f32> = read(Path::new(far)).into_iter().cycle().take(samples).collect();
    let near = if near == "-" { Vec::new() } else { near_end(&read(Path::new(near)), samples, number("near-from", 0.0)) };
    let mut scene = Scene::desk(number("t60", 0.2), number("seed", 1.0) as u64);
    scene.delay_ms = number("delay", 60.0);
    scene.echo_db = (options.get("echo") != Some(&"none")).then(|| number("echo", -6.0));
    scene.noise_dbfs = number("noise-dbfs", -65.0);
    scene.drift_ppm = number("drift", 0.0);
    scene.is_distorting = is_on("distort");
    let jump_ms = number("jump", 0.0);
    scene.jump = (jump_ms != 0.0).then(|| DelayJump { at_s: number("seconds", 30.0) / 2.0, delay_ms: scene.delay_ms + jump_ms });

    let noise = match options.get("noise") {
        Some(&"off") => NoiseLevel::Off,
        Some(&"high") => NoiseLevel::High,
        _ => NoiseLevel::Moderate,
    };
    let recording = scene.record(&far, &near);
    let mut apm = Apm::new(ApmSettings { echo: options.get("aec") != Some(&"off"), noise, gain: is_on("gain") });
    let started = Instant::now();
    let processed = recording.process(&mut apm, options.get("hint").map_or(Hint::Queues, |_| Hint::Fixed(number("hint", 0.0) as u32)));
    let micros = started.elapsed().as_secs_f64() * 1e6 / (processed.len() as f64 / 480.0);

    let folder = Path::new(folder);
    write(&folder.join("far.wav"), &recording.far);
    write(&folder.join("microphone.wav"), &recording.microphone);
    write(&folder.join("processed.wav"), &processed);
    if is_on("course") {
        let seconds = (0..number("seconds", 30.0) as u32).map(f64::from);
        let course: Vec<_> = seconds.map(|from| format!("{:.0}", recording.erle_db(&processed, from, from + 1.0))).collect();
        println!("erle second by second: {}", course.join(" "));
    }
    let middle = number("seconds", 30.0) / 2.0;
    println!(
        "erle 0-3 s {:.1}, from 3 s {:.1}, 3 s from the middle {:.1}; 5 s later {:.1}; reported {:?}; {micros:.0} us a block",
        recording.erle_db(&processed, 0.0, 3.0),
        recording.erle_db(&processed, 3.0, 1e6),
        recording.erle_db(&processed, middle, middle + 3.0),
        recording.erle_db(&processed, middle + 5.0, 1e6),
        apm.facts().erle_db,
    );
}

/// The near end's speech, from a second on.
fn near_end(speech: &[f32], samples: usize, from_s: f64) -> Vec<f32> {
    let silence = ((from_s * f64::from(SAMPLE_RATE)) as usize).min(samples);
    std::iter::repeat_n(0.0, silence).chain(speech.iter().copied().cycle()).take(samples).collect()
}

fn read(path: &Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(reader.spec().sample_rate, SAMPLE_RATE, "{} must be of 48 kHz", path.display());
    reader.samples::<i16>().map(|sample| f32::from(sample.expect("a whole file of 16 bits")) / 32_768.0).collect()
}

fn write(path: &Path, samples: &[f32]) {
    let spec = hound::WavSpec { channels: 1, sample_rate: SAMPLE_RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for sample in samples {
        writer.write_sample((sample * 32_767.0).round().clamp(-32_768.0, 32_767.0) as i16).expect("the disk takes the file");
    }
    writer.finalize().expect("the disk takes the file");
}
