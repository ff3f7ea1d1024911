//! What tests of sound need: a call goes in real time, and a machine that is busy with something else makes it stumble.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a call that stumbled is repeated.
const TRIES: usize = 5;

/// Until the guard is dropped, no other test of the same program that asks for it runs. Cargo runs one test program after another.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that would disturb the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats `attempt` until its score is at least `enough`, but not too often. Returns the best score.
pub fn best_of_tries(enough: f32, mut attempt: impl FnMut() -> f32) -> f32 {
    let mut best = f32::MIN;
    for number in 1..=TRIES {
        let score = attempt();
        println!("try {number}: {score}");
        best = best.max(score);
        if best >= enough {
            break;
        }
    }
    best
}
