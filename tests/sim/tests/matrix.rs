//! Every kind of network against every other: each pair connects, and each that can be direct is, soon.

use ahoy_sim::matrix::{pairs, pairs_of_luck};
use ahoy_sim::oracle::Verdict;
use ahoy_sim::pair::{Links, Outcome, Pair};
use ahoy_sim::seeds::{chosen, command, median};
use std::time::Duration;

/// By when a pair that can be direct must be.
const DIRECT_WITHIN: Duration = Duration::from_secs(3);
/// By when both must hear each other: one way through a relay, twice.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
/// By when luck must have found a path.
const LUCK_WITHIN: Duration = Duration::from_secs(30);

/// What is wrong with an outcome, whatever the pair.
fn wrong(outcome: &Outcome) -> Option<String> {
    if !outcome.is_connected() || outcome.heard_after.iter().flatten().any(|after| *after > HEARD_WITHIN) {
        return Some(format!("not connected at once: {:?}", outcome.heard_after));
    }
    outcome.violations.first().cloned()
}

fn wrong_in_the_matrix(pair: &Pair, outcome: &Outcome) -> Option<String> {
    let is_missed = outcome.verdict == Verdict::Direct && !(outcome.is_direct && outcome.direct_after.is_some());
    wrong(outcome).or(is_missed.then(|| format!("{pair} is not direct: {outcome:?}")))
}

#[test]
fn every_pair_connects_and_each_that_can_be_direct_is_soon() {
    let pairs = pairs();
    let mut failures = Vec::new();
    let (mut after, mut excess, mut direct, mut relayed) = (Vec::new(), Vec::new(), 0, 0);
    for seed in chosen(0..pairs.len() as u64, 0..3 * pairs.len() as u64) {
        let pair = &pairs[seed as usize % pairs.len()];
        let outcome = pair.call(seed, &Links::good(), DIRECT_WITHIN);
        if let Some(wrong) = wrong_in_the_matrix(pair, &outcome) {
            failures.push(format!("{pair}: {wrong}\n  {}", command("matrix", "every_pair", seed)));
        }
        *(if outcome.is_direct { &mut direct } else { &mut relayed }) += 1;
        if let (Verdict::Direct, Some(direct_after), Some(rtt)) = (outcome.verdict, outcome.direct_after, outcome.rtt) {
            after.push(direct_after);
            excess.push(direct_after.saturating_sub(2 * rtt));
        }
    }
    println!(
        "{} calls, {direct} direct, {relayed} relayed; {} had to be direct and were after {:?} (median), {:?} more than two round trips (median), {:?} (most)",
        direct + relayed,
        after.len(),
        median(&after),
        median(&excess),
        after.iter().max()
    );
    assert!(failures.is_empty(), "{} calls failed, the first:\n{}", failures.len(), failures[..failures.len().min(10)].join("\n"));
    assert!(median(&excess) < Some(Duration::from_millis(100)), "too late by {:?}", median(&excess));
}

#[test]
fn luck_finds_a_path_nearly_always() {
    let pairs = pairs_of_luck();
    let mut failures = Vec::new();
    let (mut lucky, mut unlucky) = (Vec::new(), Vec::new());
    for seed in chosen(0..5 * pairs.len() as u64, 0..40 * pairs.len() as u64) {
        let pair = &pairs[seed as usize % pairs.len()];
        let outcome = pair.call(seed, &Links::good(), LUCK_WITHIN);
        assert_eq!(outcome.verdict, Verdict::Luck, "{pair}");
        if let Some(wrong) = wrong(&outcome) {
            failures.push(format!("{pair}: {wrong}\n  {}", command("matrix", "luck", seed)));
        }
        match outcome.direct_after.filter(|_| outcome.is_direct) {
            Some(after) => lucky.push(after),
            None => unlucky.push(format!("{pair}: {}", command("matrix", "luck", seed))),
        }
    }
    let calls = lucky.len() + unlucky.len();
    println!("{} of {calls} found a path, after {:?} (median)", lucky.len(), median(&lucky));
    assert!(failures.is_empty(), "{} calls failed, the first:\n{}", failures.len(), failures[..failures.len().min(10)].join("\n"));
    assert!(
        lucky.len() * 100 >= calls * 95,
        "only {} of {calls} found a path; not:\n{}",
        lucky.len(),
        unlucky[..unlucky.len().min(10)].join("\n")
    );
}
