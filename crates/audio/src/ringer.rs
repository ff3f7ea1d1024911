//! What rings when somebody calls, on a device of its own: a headset that lies on the table rings for nobody.

use std::f32::consts::TAU;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::state::SharedState;
use crate::{BLOCK_SAMPLES, Block, DeviceState, Playback, SAMPLE_RATE, Wanted};

/// A ring: this long, of which the strokes take the beginning and silence the rest.
const RING_SAMPLES: usize = 3 * SAMPLE_RATE as usize;

/// The strokes of a ring, as on a small bell: when, and how high. Two falling thirds, as two words would be spoken.
const STROKES: [(f32, f32); 4] = [(0.0, 784.0), (0.18, 659.3), (0.55, 784.0), (0.73, 659.3)];

/// The partials of a stroke: the frequency as a multiple of the lowest, how loud, and how soon it is gone, in seconds.
const PARTIALS: [(f32, f32, f32); 3] = [(1.0, 0.22, 0.30), (2.0, 0.10, 0.18), (3.01, 0.05, 0.09)];

/// A stroke swells in this time, in seconds: at once it would click.
const ATTACK_S: f32 = 0.004;

/// When the ringing is ended, it fades so fast, in blocks: 30 ms.
const FADE_BLOCKS: usize = 3;

/// How long the end may take to be heard, before the device is closed.
const TAIL: Duration = Duration::from_millis(100);

/// Choices of a device that the thread has not seen, at most: it looks every few milliseconds.
const CHOICES_MAX: usize = 8;

/// The sound of ringing, over and over.
#[derive(Debug, Clone)]
pub struct RingTone {
    ring: Vec<f32>,
    position: usize,
}

impl Default for RingTone {
    fn default() -> Self {
        Self { ring: (0..RING_SAMPLES).map(sample).collect(), position: 0 }
    }
}

fn sample(index: usize) -> f32 {
    let at = index as f32 / SAMPLE_RATE as f32;
    STROKES.iter().map(|(begin, hertz)| stroke(at - begin, *hertz)).sum()
}

/// A stroke of this height, so many seconds after it began.
fn stroke(since: f32, hertz: f32) -> f32 {
    if since < 0.0 {
        return 0.0;
    }
    let swell = (since / ATTACK_S).min(1.0);
    let partial =
        |(multiple, loudness, decay): &(f32, f32, f32)| (since * hertz * multiple * TAU).sin() * loudness * (-since / decay).exp();
    PARTIALS.iter().map(partial).sum::<f32>() * swell
}

impl RingTone {
    /// Fills `block` with what comes next.
    pub fn fill(&mut self, block: &mut Block) {
        for sample in block {
            *sample = self.ring[self.position];
            self.position = (self.position + 1) % self.ring.len();
        }
    }
}

/// Rings until it is dropped.
#[derive(Debug)]
pub struct Ringer {
    state: SharedState,
    /// Its going ends the ringing.
    orders: SyncSender<Wanted>,
}

impl Ringer {
    /// Rings on this device. Returns at once.
    #[must_use]
    pub fn ring(wanted: Wanted) -> Self {
        Self::ring_on(Playback::chosen_device(Instant::now(), wanted))
    }

    /// Rings on this playback.
    #[must_use]
    pub fn ring_on(playback: Playback) -> Self {
        let (orders, chosen) = sync_channel(CHOICES_MAX);
        let state = SharedState::new(playback.state());
        let told = state.clone();
        let spawned = std::thread::Builder::new().name("ringer".into()).spawn(move || run(playback, &chosen, &told));
        if let Err(error) = spawned {
            state.set(DeviceState::Failed { reason: error.to_string() });
        }
        Self { state, orders }
    }

    /// Rings on another device from here on.
    pub fn choose(&self, wanted: Wanted) {
        // Full or ended: whoever chooses that fast has not heard any of them.
        let _ = self.orders.try_send(wanted);
    }

    /// How the device is.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        self.state.get()
    }
}

fn run(mut playback: Playback, chosen: &Receiver<Wanted>, state: &SharedState) {
    let mut tone = RingTone::default();
    loop {
        let now = Instant::now();
        play(&mut playback, now, |block| tone.fill(block));
        state.set(playback.state());
        match chosen.recv_timeout(playback.next_wake(now).saturating_duration_since(now)) {
            Ok(wanted) => playback.choose(wanted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    fade_out(&mut playback, &mut tone);
}

fn fade_out(playback: &mut Playback, tone: &mut RingTone) {
    let end = Instant::now() + TAIL + playback.delay().min(TAIL);
    let mut left = FADE_BLOCKS * BLOCK_SAMPLES;
    loop {
        let now = Instant::now();
        if now >= end {
            return;
        }
        play(playback, now, |block| {
            tone.fill(block);
            for sample in block {
                left = left.saturating_sub(1);
                *sample *= left as f32 / (FADE_BLOCKS * BLOCK_SAMPLES) as f32;
            }
        });
        std::thread::sleep(playback.next_wake(now).min(end).saturating_duration_since(now));
    }
}

fn play(playback: &mut Playback, now: Instant, mut fill: impl FnMut(&mut Block)) {
    let mut block = [0.0; BLOCK_SAMPLES];
    while playback.wants(now) {
        fill(&mut block);
        playback.write(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Timeline, VirtualSpeaker};

    #[test]
    fn a_ring_is_loud_is_not_clipped_ends_in_silence_and_comes_again() {
        let mut tone = RingTone::default();
        let mut sound = Vec::new();
        for _ in 0..2 * RING_SAMPLES / BLOCK_SAMPLES {
            let mut block = [0.0; BLOCK_SAMPLES];
            tone.fill(&mut block);
            sound.extend(block);
        }
        let second = SAMPLE_RATE as usize;
        let level = Level::of(&sound[..second]);
        assert!(level.peak_dbfs < -3.0 && level.rms_dbfs > -25.0, "{level:?}");
        assert!(Level::of(&sound[RING_SAMPLES - second / 2..RING_SAMPLES]).peak_dbfs < -55.0);
        assert_eq!(sound[..RING_SAMPLES], sound[RING_SAMPLES..]);
    }

    #[test]
    fn ringing_fades_when_it_is_ended() {
        let start = Instant::now();
        let speaker = VirtualSpeaker::new(Timeline::new(start));
        let ringer = Ringer::ring_on(Playback::virtual_device(start, &speaker));
        let is_heard = || Level::of(&speaker.played()).peak_dbfs > -20.0;
        while !is_heard() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_heard());
        drop(ringer);
        let is_silent = || speaker.played().iter().rev().take(480).all(|sample| *sample == 0.0);
        while !is_silent() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let played = speaker.played();
        assert!(is_silent());
        let step = played.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(step < 0.1, "no clicks: {step}");
    }
}
