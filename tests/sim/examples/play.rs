//! Plays the random scenario of one seed and tells what its agents do: `cargo run -p ahoy-sim --example play -- SEED [UNTIL_SECONDS]`. With AHOY_SIM_TRACE set it tells each probe.

use ahoy_sim::scenario::Scenario;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The simulated time, for the log.
static NOW_MS: AtomicU64 = AtomicU64::new(0);

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let now_ms = NOW_MS.load(Ordering::Relaxed);
        write!(writer, "{:3}.{:03}", now_ms / 1000, now_ms % 1000)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let seed = arguments.next().expect("a seed");
    let until = arguments.next().map(Duration::from_secs);
    let is_traced = std::env::var_os("AHOY_SIM_TRACE").is_some();
    let level = if is_traced { LevelFilter::TRACE } else { LevelFilter::DEBUG };
    tracing_subscriber::fmt().with_timer(SimulatedTime).with_max_level(level).with_target(false).with_level(false).with_ansi(false).init();
    let scenario = Scenario::of(seed);
    println!("{}", scenario.describe());
    let mut world = scenario.world();
    let end = until.unwrap_or(scenario.ends_at());
    let mut is_answered = false;
    while world.now() < end {
        if !is_answered && world.now() >= ahoy_sim::world::ANSWER_AT {
            is_answered = true;
            world.answer();
        }
        NOW_MS.fetch_add(1, Ordering::Relaxed);
        world.run(Duration::from_millis(1));
    }
    println!("{:#?}", scenario.judge(&world));
    for (name, host) in ["caller", "callee"].into_iter().zip(&world.hosts) {
        println!("{name}: {:?}", host.agent().stats());
        println!("  gaps: {:.3?}", host.ear.gaps(Duration::from_millis(300)).collect::<Vec<_>>());
    }
}
