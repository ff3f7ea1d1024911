//! What the user can turn while a call runs: mute, hold, push-to-talk and volume.
//!
//! The threads of sound read it at each block; nobody waits for anybody. Changes take ten milliseconds to fade, so that none is heard as a click.

use crate::events::Event;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Loudest that sound can be played, in percent of how it came: twice as loud, for soft voices on soft loudspeakers.
pub const VOLUME_MAX: u8 = 200;
/// How loud sound is played unless the user says otherwise, in percent.
pub const VOLUME_DEFAULT: u8 = 100;

/// What the user can turn.
#[derive(Debug)]
pub struct Controls {
    is_muted: AtomicBool,
    is_held: AtomicBool,
    is_push_to_talk: AtomicBool,
    is_talking: AtomicBool,
    volume: AtomicU8,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            is_muted: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            is_push_to_talk: AtomicBool::new(false),
            is_talking: AtomicBool::new(false),
            volume: AtomicU8::new(VOLUME_DEFAULT),
        }
    }
}

impl Controls {
    /// Whether the microphone is muted.
    pub fn mute(&self, is_muted: bool) {
        self.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Whether the call is held by this side: nothing is said, nothing is heard.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Whether the microphone is open only while the user presses a key.
    pub fn push_to_talk(&self, is_on: bool) {
        self.is_push_to_talk.store(is_on, Ordering::Relaxed);
    }

    /// Whether that key is pressed.
    pub fn talk(&self, is_talking: bool) {
        self.is_talking.store(is_talking, Ordering::Relaxed);
    }

    /// How loud sound is played, in percent; above [`VOLUME_MAX`] it is that.
    pub fn set_volume(&self, percent: u8) {
        self.volume.store(percent.min(VOLUME_MAX), Ordering::Relaxed);
    }

    /// How loud sound is played, in percent.
    #[must_use]
    pub fn volume(&self) -> u8 {
        self.volume.load(Ordering::Relaxed)
    }

    /// Whether this side holds the call.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Whether the microphone is muted.
    #[must_use]
    pub fn is_muted(&self) -> bool {
        self.is_muted.load(Ordering::Relaxed)
    }

    /// How they are, as an event.
    #[must_use]
    pub fn event(&self) -> Event {
        Event::Controls {
            muted: self.is_muted(),
            volume: self.volume(),
            push_to_talk: self.is_push_to_talk.load(Ordering::Relaxed),
            talking: self.is_talking.load(Ordering::Relaxed),
        }
    }

    /// What belonged to a call ends with it; volume and push-to-talk stay.
    pub fn end_call(&self) {
        self.mute(false);
        self.hold(false);
        self.talk(false);
    }

    /// How much of the microphone is sent.
    pub(super) fn microphone_gain(&self) -> f32 {
        let is_waiting = self.is_push_to_talk.load(Ordering::Relaxed) && !self.is_talking.load(Ordering::Relaxed);
        if self.is_muted() || self.is_held() || is_waiting { 0.0 } else { 1.0 }
    }

    /// How much of what came is played.
    pub(super) fn speaker_gain(&self) -> f32 {
        if self.is_held() { 0.0 } else { f32::from(self.volume()) / 100.0 }
    }
}

/// Brings blocks to a gain, within one block.
#[derive(Debug)]
pub(super) struct Fader {
    gain: f32,
}

impl Fader {
    pub(super) fn new(gain: f32) -> Self {
        Self { gain }
    }

    pub(super) fn apply(&mut self, gain: f32, sound: &mut [f32]) {
        let from = std::mem::replace(&mut self.gain, gain);
        if from == 1.0 && gain == 1.0 {
            return;
        }
        let step = (gain - from) / sound.len() as f32;
        for (index, sample) in sound.iter_mut().enumerate() {
            *sample = (*sample * (from + step * (index + 1) as f32)).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_voice::BLOCK_SAMPLES;

    #[test]
    fn muting_fades_within_a_block_and_then_nothing_is_left() {
        let (controls, mut fader) = (Controls::default(), Fader::new(1.0));
        controls.mute(true);
        let mut block = [0.5; BLOCK_SAMPLES];
        fader.apply(controls.microphone_gain(), &mut block);
        assert!(block[0] > 0.49 && block[BLOCK_SAMPLES - 1] == 0.0);
        assert!(block.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.01), "no step is heard");
        let mut block = [0.5; BLOCK_SAMPLES];
        fader.apply(controls.microphone_gain(), &mut block);
        assert_eq!(block, [0.0; BLOCK_SAMPLES]);
    }

    #[test]
    fn with_push_to_talk_the_microphone_is_open_while_the_key_is_pressed() {
        let controls = Controls::default();
        controls.push_to_talk(true);
        assert_eq!(controls.microphone_gain(), 0.0);
        controls.talk(true);
        assert_eq!(controls.microphone_gain(), 1.0);
        controls.mute(true);
        assert_eq!(controls.microphone_gain(), 0.0, "mute counts before the key");
    }

    #[test]
    fn a_held_call_is_silent_both_ways_and_goes_on_as_it_was() {
        let controls = Controls::default();
        controls.set_volume(50);
        controls.hold(true);
        assert_eq!((controls.microphone_gain(), controls.speaker_gain()), (0.0, 0.0));
        controls.hold(false);
        assert_eq!((controls.microphone_gain(), controls.speaker_gain()), (1.0, 0.5));
        controls.end_call();
        assert_eq!(controls.volume(), 50);
    }

    #[test]
    fn sound_at_its_loudest_is_limited() {
        let mut block = [0.9; BLOCK_SAMPLES];
        Fader::new(2.0).apply(2.0, &mut block);
        assert_eq!(block, [1.0; BLOCK_SAMPLES]);
    }
}
