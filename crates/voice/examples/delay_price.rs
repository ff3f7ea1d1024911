//! What the jitter buffer costs on made-up networks, seed by seed, beside a rival's rule on the same ones: how far a limit is
//! from what luck does.
//!
//! `cargo run --release -p ahoy-voice --example delay_price [FIRST SEED] [SEEDS] [SECONDS]`

use std::time::Instant;

use ahoy_voice::testing::{Playout, Price, Trace, Weather, play, play_neteq};

/// How often a small device asks for sound.
const PULL_MS: f64 = 5.0;
const PACKET_MS: u32 = 20;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (first, seeds, seconds) = (number(&numbers, 0, 1_000), number(&numbers, 1, 24), number(&numbers, 2, 300));
    for weather in Weather::ALL {
        let prices: Vec<(Price, Price)> =
            (first..first + seeds).map(|seed| price(weather, seed, seconds as u32, (seed - first) as f64 / seeds as f64)).collect();
        let mean = |of: &dyn Fn(&(Price, Price)) -> f64| prices.iter().map(of).sum::<f64>() / prices.len() as f64;
        let spread = |of: &dyn Fn(&(Price, Price)) -> f64| {
            let middle = mean(of);
            (mean(&|price| (of(price) - middle).powi(2))).sqrt()
        };
        let (ours, rival) = (mean(&|price| price.0.j()), mean(&|price| price.1.j()));
        println!(
            "{:18} J {ours:6.1} ± {:4.1} a seed ({:5.1} ms, {:4.2} % late), the rival's {rival:6.1}: {:2.0} %",
            weather.name(),
            spread(&|price| price.0.j()),
            mean(&|price| price.0.delay_ms),
            mean(&|price| price.0.late_percent),
            100.0 * ours / rival
        );
    }
}

fn number(numbers: &[u64], index: usize, otherwise: u64) -> u64 {
    numbers.get(index).copied().unwrap_or(otherwise)
}

/// Ours and the rival's, at a phase between packets and pulls that is a part of a pull.
fn price(weather: Weather, seed: u64, seconds: u32, phase: f64) -> (Price, Price) {
    let trace = Trace::new(weather, seed, seconds, PACKET_MS);
    let playout = Playout { pull_ms: PULL_MS, ..Playout::at_phase(PULL_MS * phase) };
    (play(Instant::now(), &trace, playout, |_, _, _| {}).0, play_neteq(&trace))
}
