//! A test recording that plays itself back, so that people hear what others would hear of them.
//!
//! It records for a while, tells how loud it is meanwhile, and then plays what it recorded. It has no thread, no device
//! and no clock: who runs it has a capture and a playback, and calls [`SoundCheck::handle_time`] when
//! [`SoundCheck::next_wake`] says.

use std::time::{Duration, Instant};

use crate::{BLOCK_SAMPLES, Block, Capture, Level, LevelMeter, Playback};

/// Longest recording that is made, in blocks: half a minute, which is 6 MB.
const BLOCKS_MAX: usize = 3_000;

/// Blocks between two levels: a tenth of a second.
const LEVEL_BLOCKS: usize = 10;

/// Blocks of silence that follow the recording, so that all of it is heard before the devices are closed: 200 ms.
const TAIL_BLOCKS: usize = 20;

/// What happens in a test recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SoundCheckEvent {
    /// How loud the last tenth of a second was at the microphone, ten times a second.
    Recording(Level),
    /// It is recorded and will be played; all of it was as loud as this.
    Recorded(Level),
    /// How loud the last tenth of a second was at the loudspeaker.
    Playing(Level),
    /// It was played.
    Finished,
}

/// A test recording that plays itself back.
#[derive(Debug)]
pub struct SoundCheck {
    blocks: usize,
    recording: Vec<Block>,
    played: usize,
    stage: Stage,
    whole: LevelMeter,
    meter: LevelMeter,
    metered: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Recording,
    Playing,
    Finished,
}

impl SoundCheck {
    /// A recording of this length, half a minute at most.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let blocks = usize::try_from(length.as_millis() / 10).unwrap_or(BLOCKS_MAX).clamp(1, BLOCKS_MAX);
        Self {
            blocks,
            recording: Vec::with_capacity(blocks),
            played: 0,
            stage: Stage::Recording,
            whole: LevelMeter::default(),
            meter: LevelMeter::default(),
            metered: 0,
        }
    }

    /// Records or plays what is due, and tells what happened.
    pub fn handle_time(&mut self, now: Instant, capture: &mut Capture, playback: &mut Playback) -> Vec<SoundCheckEvent> {
        let mut events = Vec::new();
        let mut block = [0.0; BLOCK_SAMPLES];
        // What is heard while it plays is forgotten.
        while capture.read(now, &mut block) {
            if self.stage == Stage::Recording {
                self.record(&block, &mut events);
            }
        }
        while playback.wants(now) {
            block.fill(0.0);
            if self.stage == Stage::Playing {
                self.play(&mut block, &mut events);
            }
            playback.write(&block);
        }
        events
    }

    /// When to call [`SoundCheck::handle_time`] again.
    #[must_use]
    pub fn next_wake(&self, now: Instant, capture: &Capture, playback: &Playback) -> Instant {
        capture.next_wake(now).min(playback.next_wake(now))
    }

    /// What was recorded so far.
    #[must_use]
    pub fn recording(&self) -> &[f32] {
        self.recording.as_flattened()
    }

    /// Whether all of it was played.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    fn record(&mut self, block: &Block, events: &mut Vec<SoundCheckEvent>) {
        self.recording.push(*block);
        self.whole.push(block);
        if let Some(level) = self.meter(block) {
            events.push(SoundCheckEvent::Recording(level));
        }
        if self.recording.len() == self.blocks {
            (self.stage, self.metered) = (Stage::Playing, 0);
            self.meter.take();
            events.push(SoundCheckEvent::Recorded(self.whole.take()));
        }
    }

    fn play(&mut self, block: &mut Block, events: &mut Vec<SoundCheckEvent>) {
        if let Some(recorded) = self.recording.get(self.played) {
            *block = *recorded;
            if let Some(level) = self.meter(block) {
                events.push(SoundCheckEvent::Playing(level));
            }
        }
        self.played += 1;
        if self.played == self.recording.len() + TAIL_BLOCKS {
            self.stage = Stage::Finished;
            events.push(SoundCheckEvent::Finished);
        }
    }

    fn meter(&mut self, block: &Block) -> Option<Level> {
        self.meter.push(block);
        self.metered += 1;
        self.metered.is_multiple_of(LEVEL_BLOCKS).then(|| self.meter.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{WavWriter, read_speech};

    #[test]
    fn what_was_said_is_played_back_with_levels_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heard.wav");
        let start = Instant::now();
        let said: Vec<f32> = (0..48_000).map(|index| (index as f32 / 48.0 * std::f32::consts::TAU).sin() * 0.5).collect();
        let mut capture = Capture::file(said.clone(), start);
        let mut playback = Playback::file(WavWriter::create(&path).unwrap(), start);
        let mut check = SoundCheck::new(Duration::from_millis(500));
        let (mut events, mut now) = (Vec::new(), start);
        while !check.is_finished() && now < start + Duration::from_secs(10) {
            events.extend(check.handle_time(now, &mut capture, &mut playback));
            now = check.next_wake(now, &capture, &playback);
        }
        playback.finish().unwrap();
        assert_eq!(check.recording(), &said[..24_000]);
        let count = |wanted: fn(&SoundCheckEvent) -> bool| events.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, SoundCheckEvent::Recording(level) if (level.rms_dbfs + 9.0).abs() < 0.1)), 5);
        assert_eq!(count(|event| matches!(event, SoundCheckEvent::Recorded(_) | SoundCheckEvent::Finished)), 2);
        assert_eq!(count(|event| matches!(event, SoundCheckEvent::Playing(_))), 5);
        let heard = read_speech(&path).unwrap();
        assert!(Level::of(&heard[..23_000]).rms_dbfs < -90.0 && Level::of(&heard[24_960..48_000]).rms_dbfs > -9.2);
    }
}
