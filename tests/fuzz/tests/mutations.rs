//! Replays the corpus, then runs every target on seeded mutations for a bounded time.
//!
//! `AHOY_FUZZ_SECONDS` sets the time of each target, `AHOY_FUZZ_TARGET` picks one, `AHOY_FUZZ_SEED` another sequence of inputs.
//! An input that shows a defect is written to a file, whose path the failure names; put it into the corpus, then mend the defect.

use ahoy_fuzz::mutate::Mutator;
use ahoy_fuzz::{Target, corpus, targets};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time of each target where nothing else is said: long enough to find what a careless decoder does, short enough to do it always.
const SECONDS: u64 = 5;
/// The first of the sequence of inputs where nothing else is said.
const SEED: u64 = 1876;

#[test]
fn every_target_withstands_its_corpus() {
    let mut replayed = 0;
    for target in targets() {
        for (path, input) in corpus_of(&target) {
            assert!(withstands(&target, &input), "{} shows a defect in {}", path.display(), target.name);
            replayed += 1;
        }
    }
    assert!(replayed >= targets().len(), "the corpus is not there: run the example `seed` of this package");
}

#[test]
fn every_target_withstands_seeded_mutations() {
    let targets = wanted();
    let time = Duration::from_secs(number("AHOY_FUZZ_SECONDS", SECONDS));
    let seed = number("AHOY_FUZZ_SEED", SEED);
    let next = Mutex::new(targets.iter());
    let findings = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(target) = next.lock().expect("no target panics with the lock").next() else { return };
                    let found = search(target, seed, time);
                    findings.lock().expect("no target panics with the lock").extend(found);
                }
            });
        }
    });
    let findings = findings.into_inner().expect("no target panics with the lock");
    assert!(findings.is_empty(), "defects; the inputs are in:\n{}", findings.join("\n"));
}

/// Runs `target` for `time`; where a defect shows, the file with its input.
fn search(target: &Target, seed: u64, time: Duration) -> Option<String> {
    // From files, not from `seeds`, some of which are sealed anew each time: the same seed shall give the same inputs.
    let seeds = corpus_of(target).into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(seed, seeds);
    let (began, mut runs) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        let input = mutator.next_input();
        if !withstands(target, &input) {
            return Some(keep(target, &input));
        }
        runs += 1;
    }
    println!("{:<28} {runs:>9} inputs in {} s", target.name, time.as_secs());
    None
}

fn withstands(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok()
}

fn keep(target: &Target, input: &[u8]) -> String {
    let number = ahoy_identity::sha256(&[input]);
    let name = format!("{}-{:02x}{:02x}{:02x}{:02x}", target.name, number[0], number[1], number[2], number[3]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, input).expect("the folder for tests' files can be written");
    path.display().to_string()
}

fn corpus_of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(corpus().join(target.name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("the corpus can be read"))).collect()
}

fn wanted() -> Vec<Target> {
    let only = std::env::var("AHOY_FUZZ_TARGET").ok();
    let wanted: Vec<Target> = targets().into_iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)).collect();
    assert!(!wanted.is_empty(), "there is no target called {}", only.unwrap_or_default());
    wanted
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}
