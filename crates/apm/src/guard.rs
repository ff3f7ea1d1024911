//! The half-duplex guard: until a fresh canceller is known to cancel, what is sent while the far end talks is 12 dB quieter.
//!
//! After a device changed, the echo comes over a path that the canceller has yet to learn. For that second or two the far
//! end would hear itself. The guard ends when 500 ms of echo came out 6 dB quieter than they went in, when the microphone hears
//! nothing of the loudspeaker (a headset), or after a time: a call that stays half-duplex is worse than an echo.

use crate::Block;
use crate::erle::Window;

/// The gain while the guard is up and the far end talks: -12 dB.
const GUARDED_GAIN: f32 = 0.251;

/// The ratio at which the canceller is taken to have converged: 6 dB.
const CONVERGED: f32 = 4.0;

/// Windows of 100 ms in a row that prove it.
const WINDOWS: u32 = 5;

/// Windows of the far end's talking after which the guard gives up.
const WINDOWS_MAX: u32 = 30;

/// The guard. It is down at first: when a call begins, the canceller's own suppressor is strict enough, and with a headset the first words
/// would suffer for nothing.
pub(crate) struct Guard {
    state: State,
    gain: f32,
}

enum State {
    Up { windows: u32, quiet: u32, heard: u32, microphone: f32, left: f32 },
    Down,
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self { state: State::Down, gain: 1.0 }
    }

    /// The canceller is a fresh one.
    pub(crate) fn raise(&mut self) {
        self.state = State::Up { windows: 0, quiet: 0, heard: 0, microphone: 0.0, left: 0.0 };
    }

    /// There is no canceller to wait for.
    pub(crate) fn lower(&mut self) {
        self.state = State::Down;
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// A window in which the far end talked.
    pub(crate) fn handle_window(&mut self, window: Window) {
        let State::Up { windows, quiet, heard, microphone, left } = &mut self.state else { return };
        *windows += 1;
        match window {
            Window::Quiet => *quiet += 1,
            Window::Heard { microphone: more, left: rest } => {
                *quiet = 0;
                *heard += 1;
                *microphone += more;
                *left += rest;
            }
        }
        let mut is_over = *quiet >= WINDOWS || *windows >= WINDOWS_MAX;
        if *heard >= WINDOWS {
            is_over |= *microphone >= CONVERGED * *left;
            (*heard, *microphone, *left) = (0, 0.0, 0.0);
        }
        if is_over {
            self.state = State::Down;
        }
    }

    /// Attenuates a block, if it has to be, without a step.
    pub(crate) fn process(&mut self, block: &mut Block, is_far_end_talking: bool) {
        let target = if self.is_up() && is_far_end_talking { GUARDED_GAIN } else { 1.0 };
        if self.gain == 1.0 && target == 1.0 {
            return;
        }
        let step = (target - self.gain) / block.len() as f32;
        for sample in block {
            self.gain += step;
            *sample *= self.gain;
        }
        self.gain = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK_SAMPLES;

    const ECHO: Window = Window::Heard { microphone: 1.0, left: 0.9 };
    const CANCELLED: Window = Window::Heard { microphone: 1.0, left: 0.01 };

    fn raised() -> Guard {
        let mut guard = Guard::new();
        guard.raise();
        guard
    }

    fn gain(guard: &mut Guard, is_far_end_talking: bool) -> f32 {
        let mut block = [1.0; BLOCK_SAMPLES];
        guard.process(&mut block, is_far_end_talking);
        guard.process(&mut block, is_far_end_talking);
        guard.gain
    }

    #[test]
    fn it_attenuates_while_the_far_end_talks_and_only_then() {
        let mut guard = raised();
        assert_eq!(gain(&mut guard, true), GUARDED_GAIN);
        assert_eq!(gain(&mut guard, false), 1.0);
    }

    #[test]
    fn it_ends_when_the_canceller_has_converged() {
        let mut guard = raised();
        (0..20).for_each(|_| guard.handle_window(ECHO));
        assert!(guard.is_up());
        (0..5).for_each(|_| guard.handle_window(CANCELLED));
        assert!(!guard.is_up());
        assert_eq!(gain(&mut guard, true), 1.0);
    }

    #[test]
    fn it_ends_with_a_headset_and_after_a_time() {
        let mut guard = raised();
        (0..WINDOWS).for_each(|_| guard.handle_window(Window::Quiet));
        assert!(!guard.is_up());
        guard.raise();
        (0..WINDOWS_MAX).for_each(|_| guard.handle_window(ECHO));
        assert!(!guard.is_up());
    }

    #[test]
    fn it_goes_up_and_down_without_a_step() {
        let mut guard = raised();
        let mut block = [1.0; BLOCK_SAMPLES];
        guard.process(&mut block, true);
        assert!(block.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.002));
    }
}
