//! Which seeds a test plays: a range of them, or the one that is to be played again.

use std::ops::Range;

/// The variable that names one seed.
pub const SEED: &str = "AHOY_SIM_SEED";
/// The variable that asks for all of them.
pub const FULL: &str = "AHOY_FULL";

/// The seed that is to be played again, else the first few, or all where that is asked for.
///
/// # Panics
/// If the variable holds no number.
#[must_use]
pub fn chosen(few: Range<u64>, all: Range<u64>) -> Vec<u64> {
    match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().expect("a seed is a number")],
        Err(_) if std::env::var_os(FULL).is_some() => all.collect(),
        Err(_) => few.collect(),
    }
}

/// The command that plays one seed of a test again.
#[must_use]
pub fn command(file: &str, test: &str, seed: u64) -> String {
    format!("{SEED}={seed} cargo test -p ahoy-sim --test {file} {test} -- --nocapture")
}

/// The middle of some values.
#[must_use]
pub fn median<T: Ord + Copy>(values: &[T]) -> Option<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
