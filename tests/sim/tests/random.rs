//! Calls that chance made, with all that may befall them.

use ahoy_sim::scenario::Scenario;
use ahoy_sim::seeds::{chosen, command};

#[test]
fn calls_survive_what_befalls_them() {
    let mut failures = Vec::new();
    let (mut direct, mut relayed) = (0, 0);
    for seed in chosen(0..300, 0..10_000) {
        let scenario = Scenario::of(seed);
        let report = scenario.play();
        *(if report.is_direct { &mut direct } else { &mut relayed }) += 1;
        if !report.wrong.is_empty() {
            let wrong = report.wrong.join("\n  ");
            failures.push(format!("seed {seed}: {}\n  {wrong}\n  {}", scenario.describe(), command("random", "calls_survive", seed)));
        }
    }
    for failure in &failures {
        println!("{failure}\n");
    }
    println!("{} calls, {direct} direct in the end, {relayed} relayed", direct + relayed);
    assert!(failures.is_empty(), "{} calls failed", failures.len());
}

#[test]
fn one_seed_plays_the_same_way_twice() {
    for seed in 0..10 {
        let plays = [0, 1].map(|_| {
            let scenario = Scenario::of(seed);
            let mut world = scenario.world();
            world.answer();
            world.run_until(scenario.over_at);
            (world.network.carried(), world.hosts.each_ref().map(|host| (host.ear.count(), host.routes.clone())))
        });
        assert_eq!(format!("{:?}", plays[0]), format!("{:?}", plays[1]), "seed {seed}");
    }
}
