//! What each way of sending speech is worth: PESQ-WB by settings and loss, with what it costs on the wire. The ladder's bitrates were chosen by it.
//!
//! `cargo run --release -p ahoy-voice --example rungs VOICE.wav … --loss=clean,r20,b50 RATE/MS+COPIES …`: recordings of 48 kHz; `r` is random loss, `b`
//! recorded loss, in percent; `14000/40+2` is 14 kb/s in frames of 40 ms with two copies. From 40 kb/s on the encoder is tuned for low delay, with a
//! `v` at the end for speech.

#![allow(clippy::expect_used, reason = "whoever runs it sees what is wrong")]

use std::path::Path;

#[path = "../tests/simulation/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod simulation;

use ahoy_protocol::media::FrameDuration;
use ahoy_voice::rate::DATAGRAM_OVERHEAD_BYTES;
use ahoy_voice::{Application, SenderSettings};
use simulation::{Call, Random};

/// Seconds of each recording.
const SECONDS: usize = 17;
/// Losses of each voice.
const SEEDS: u64 = 2;
/// Kind, duration and copies, sequence number, timestamp.
const VOICE_HEADER_BYTES: usize = 6;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut voices = Vec::new();
    let mut losses = vec!["clean".to_owned()];
    for arg in &args {
        if let Some(list) = arg.strip_prefix("--loss=") {
            losses = list.split(',').map(str::to_owned).collect();
        } else if arg.ends_with(".wav") {
            voices.push(read(Path::new(arg)));
        } else {
            row(&voices, &losses, arg);
        }
    }
}

fn read(path: &Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path).expect("a file");
    reader.samples::<i16>().map(|sample| f32::from(sample.expect("whole")) / 32_768.0).take(48_000 * SECONDS).collect()
}

fn row(voices: &[Vec<f32>], losses: &[String], arg: &str) {
    let (rate, rest) = arg.split_once('/').expect("RATE/MS+COPIES");
    let (ms, copies) = rest.split_once('+').expect("MS+COPIES");
    let bitrate: u32 = rate.parse().expect("bits per second");
    let duration = match ms {
        "10" => FrameDuration::Ms10,
        "20" => FrameDuration::Ms20,
        "40" => FrameDuration::Ms40,
        "60" => FrameDuration::Ms60,
        _ => FrameDuration::Ms120,
    };
    let is_voip = copies.ends_with('v');
    let copies: usize = copies.trim_end_matches('v').parse().expect("copies");
    let application = if bitrate >= 40_000 && !is_voip { Application::LowDelay } else { Application::Voip };
    let settings = SenderSettings { bitrate, duration, copies, application, complexity: 10 };
    let frame = (bitrate * duration.as_millis()).div_ceil(8_000) as usize;
    let bytes = DATAGRAM_OVERHEAD_BYTES + VOICE_HEADER_BYTES + (1 + copies) * (1 + frame + usize::from(frame > 127));
    let mut line = format!("{arg:>14} {:5.1} kb/s", bytes as f64 * 8.0 / f64::from(duration.as_millis()));
    for loss in losses {
        let mut sum = 0.0;
        let mut count = 0;
        let mut lost = 0;
        for (index, spoken) in voices.iter().enumerate() {
            for seed in 0..SEEDS {
                let heard = hear(settings, loss, seed + SEEDS * index as u64, spoken);
                sum += simulation::quality(spoken, &heard.sound);
                lost += heard.stats.lost;
                count += 1;
                if loss == "clean" {
                    break;
                }
            }
        }
        line += &format!("  {loss} {:.2} ({lost})", sum / count as f32);
    }
    println!("{line}");
}

fn hear(settings: SenderSettings, loss: &str, seed: u64, spoken: &[f32]) -> simulation::Heard {
    let mut random = Random::new(seed);
    if let Some(percent) = loss.strip_prefix('r') {
        let share: f64 = percent.parse::<f64>().expect("percent") / 100.0;
        Call::over(move |_, sent_ms| if random.unit() < share { vec![] } else { vec![sent_ms + 25.0] }).with(settings).speak(spoken)
    } else if let Some(percent) = loss.strip_prefix('b') {
        let lost = simulation::loss_pattern(&format!("lossgen_{percent}.txt"));
        let from = [0, 2_503, 5_003, 1_259][seed as usize % 4];
        Call::over(move |packet, sent_ms| if lost[(packet + from) % lost.len()] { vec![] } else { vec![sent_ms + 25.0] })
            .with(settings)
            .speak(spoken)
    } else {
        Call::over(|_, sent_ms| vec![sent_ms + 25.0]).with(settings).speak(spoken)
    }
}
