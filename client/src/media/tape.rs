//! The tape of the echo service: it records ten seconds, beeps, plays them back, beeps, and records again, until somebody hangs up.

use super::tone;
use ahoy_voice::{BLOCK_SAMPLES, Block};

/// Length of a recording, in blocks of 10 ms.
const RECORDED: usize = 1_000;
/// Length of the beep between recording and playing, in blocks.
const BEEP: usize = 20;
/// Pause around a beep, in blocks, so that it stands apart from speech.
const PAUSE: usize = 20;

/// What the tape does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Recording,
    /// A beep with pauses around it; this many blocks of it have been given.
    BeepThenPlay(usize),
    /// This many blocks have been played.
    Playing(usize),
    BeepThenRecord(usize),
}

/// A tape in both directions of a call.
#[derive(Debug)]
pub(super) struct Tape {
    phase: Phase,
    recorded: Vec<f32>,
}

impl Tape {
    /// An empty one: it begins with a beep, which says that it listens.
    pub(super) fn new() -> Self {
        Self { phase: Phase::BeepThenRecord(0), recorded: Vec::with_capacity(RECORDED * BLOCK_SAMPLES) }
    }

    /// Takes what the caller says.
    pub(super) fn hear(&mut self, sound: &[f32]) {
        if self.phase != Phase::Recording {
            return;
        }
        self.recorded.extend_from_slice(sound);
        if self.recorded.len() >= RECORDED * BLOCK_SAMPLES {
            self.phase = Phase::BeepThenPlay(0);
        }
    }

    /// Gives what the caller is to hear next.
    pub(super) fn say(&mut self, block: &mut Block) {
        block.fill(0.0);
        match &mut self.phase {
            Phase::Recording => {}
            Phase::BeepThenPlay(given) => {
                beep(*given, block);
                *given += 1;
                if *given >= PAUSE + BEEP + PAUSE {
                    self.phase = Phase::Playing(0);
                }
            }
            Phase::Playing(played) => {
                let recorded = self.recorded.as_chunks().0;
                if let Some(recorded) = recorded.get(*played) {
                    *block = *recorded;
                }
                *played += 1;
                if *played >= recorded.len() {
                    self.recorded.clear();
                    self.phase = Phase::BeepThenRecord(0);
                }
            }
            Phase::BeepThenRecord(given) => {
                beep(*given, block);
                *given += 1;
                if *given >= PAUSE + BEEP + PAUSE {
                    self.phase = Phase::Recording;
                }
            }
        }
    }
}

/// The beep, behind its pause.
fn beep(given: usize, block: &mut Block) {
    if let Some(from) = given.checked_sub(PAUSE).filter(|from| *from < BEEP) {
        tone::beep(from * BLOCK_SAMPLES, BEEP * BLOCK_SAMPLES, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tape: &mut Tape, blocks: usize) -> Vec<Block> {
        let mut block = [0.0; BLOCK_SAMPLES];
        (0..blocks)
            .map(|_| {
                tape.say(&mut block);
                block
            })
            .collect()
    }

    fn is_silent(blocks: &[Block]) -> bool {
        blocks.iter().flatten().all(|sample| *sample == 0.0)
    }

    #[test]
    fn ten_seconds_come_back_between_two_beeps_again_and_again() {
        let mut tape = Tape::new();
        let between = PAUSE + BEEP + PAUSE;
        assert!(!is_silent(&said(&mut tape, between)), "a beep says that it listens");
        for round in 1..=2 {
            let level = 0.1 * round as f32;
            for _ in 0..RECORDED {
                tape.hear(&[level; BLOCK_SAMPLES]);
                assert!(tape.recorded.len() <= RECORDED * BLOCK_SAMPLES);
            }
            let beep = said(&mut tape, between);
            assert!(is_silent(&beep[..PAUSE]) && !is_silent(&beep[PAUSE..PAUSE + BEEP]) && is_silent(&beep[PAUSE + BEEP..]));
            // What is said meanwhile is not recorded.
            tape.hear(&[0.9; BLOCK_SAMPLES]);
            assert!(said(&mut tape, RECORDED).iter().all(|block| *block == [level; BLOCK_SAMPLES]));
            assert!(!is_silent(&said(&mut tape, between)));
        }
    }
}
