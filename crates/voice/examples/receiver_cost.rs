//! What receiving costs: the time that a receiver takes for ten milliseconds of sound, by rung and loss.
//!
//! `cargo run --release -p ahoy-voice --example receiver_cost`

use std::time::{Duration, Instant};

use ahoy_voice::testing::Random;
use ahoy_voice::{BLOCK_SAMPLES, Block, SenderSettings, VoiceReceiver, VoiceSender};

/// A minute of sound.
const BLOCKS: usize = 6_000;

fn main() {
    for (bitrate, copies, loss) in
        [(24_000, 0, 0.0), (24_000, 0, 0.2), (16_000, 1, 0.1), (12_000, 2, 0.0), (12_000, 2, 0.3), (48_000, 0, 0.0)]
    {
        let settings = SenderSettings { bitrate, copies, ..SenderSettings::default() };
        let (mean, greatest) = cost(settings, loss);
        println!(
            "{:2} kb/s, {copies} copies, {:2.0} % lost: {:6.1} µs for 10 ms on average, {:6.1} at most",
            bitrate / 1000,
            loss * 100.0,
            mean.as_secs_f64() * 1e6,
            greatest.as_secs_f64() * 1e6
        );
    }
}

/// The mean and the greatest time of a pull with the packets before it.
fn cost(settings: SenderSettings, loss: f64) -> (Duration, Duration) {
    let mut sender = VoiceSender::new(settings).expect("the settings are valid");
    let mut receiver = VoiceReceiver::new().expect("libopus has memory");
    let (mut random, epoch) = (Random::new(1), Instant::now());
    let (mut sum, mut greatest) = (Duration::ZERO, Duration::ZERO);
    let mut heard: Block = [0.0; BLOCK_SAMPLES];
    for block in 0..BLOCKS {
        let spoken = voice(block);
        let datagram = sender.push(&spoken).filter(|_| random.unit() >= loss);
        let now = epoch + Duration::from_millis(block as u64 * 10);
        let begin = Instant::now();
        if let Some(datagram) = datagram {
            let _ = receiver.handle_datagram(now, &datagram);
        }
        receiver.pull(now, &mut heard);
        let took = Instant::now() - begin;
        sum += took;
        greatest = greatest.max(took);
    }
    (sum / BLOCKS as u32, greatest)
}

/// A voice whose pitch wanders, with pauses.
fn voice(block: usize) -> Block {
    std::array::from_fn(|index| {
        let at = (block * BLOCK_SAMPLES + index) as f32 / 48_000.0;
        let phase = std::f32::consts::TAU * (140.0 * at + 3.0 * (at * 2.0).sin());
        let loudness = (at * 3.0).sin().max(0.0);
        (1..=8).map(|harmonic| (phase * harmonic as f32).sin() / harmonic as f32).sum::<f32>() * 0.15 * loudness
    })
}
