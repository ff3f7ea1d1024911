//! The chain: high-pass filter, echo canceller, noise suppressor, half-duplex guard, gain and limiter; and the facts about it.

use crate::delay_watch::DelayWatch;
use crate::echo::{ECHO_DELAY, EchoStage};
use crate::erle::ErleMeter;
use crate::gain::GainStage;
use crate::guard::Guard;
use crate::high_pass::HighPass;
use crate::level::{Meter, power};
use crate::noise::NoiseStage;
use crate::voice_activity::VoiceActivity;
use crate::{BLOCK_SAMPLES, Block, SAMPLE_RATE};
use std::time::Duration;

/// From samples between -1 and 1 to the scale of 16-bit samples, which the parts of WebRTC count in.
pub(crate) const S16_SCALE: f32 = 32_768.0;

/// How much noise is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoiseLevel {
    /// None.
    Off,
    /// By up to 12 dB: speech keeps its colour, the room is still there.
    #[default]
    Moderate,
    /// By up to 20 dB: for loud places.
    High,
}

impl NoiseLevel {
    /// The least gain.
    pub(crate) fn floor(self) -> Option<f32> {
        match self {
            Self::Off => None,
            Self::Moderate => Some(0.25),
            Self::High => Some(0.1),
        }
    }
}

/// What is done to the microphone's sound. The high-pass filter and the limiter always work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApmSettings {
    /// Whether the echo of the loudspeaker is cancelled.
    pub echo: bool,
    /// How much noise is suppressed.
    pub noise: NoiseLevel,
    /// Whether the loudness of speech is evened out.
    pub gain: bool,
}

impl Default for ApmSettings {
    fn default() -> Self {
        Self { echo: true, noise: NoiseLevel::Moderate, gain: true }
    }
}

/// What is known about the microphone's sound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ApmFacts {
    /// Echo return loss enhancement of the last seconds in which the far end talked, in decibels; `None` while no echo was heard,
    /// and without the canceller.
    pub erle_db: Option<f32>,
    /// The level of the microphone.
    pub level_dbfs_in: f32,
    /// The level of what is sent.
    pub level_dbfs_out: f32,
    /// Whether somebody speaks at the near end.
    pub is_speech: bool,
    /// Whether what is sent is quietened while the far end talks, because the canceller has yet to converge.
    pub is_guarded: bool,
    /// How long the processing delays what is sent.
    pub delay: Duration,
}

/// The processing of one microphone and the loudspeaker next to it.
pub struct Apm {
    settings: ApmSettings,
    high_pass: HighPass,
    echo: EchoStage,
    delay_watch: DelayWatch,
    erle: ErleMeter,
    guard: Guard,
    noise: NoiseStage,
    voice_activity: VoiceActivity,
    gain: GainStage,
    input: Meter,
    output: Meter,
    scaled: Block,
}

impl Apm {
    /// A chain that has learned nothing yet.
    #[must_use]
    pub fn new(settings: ApmSettings) -> Self {
        Self {
            settings,
            high_pass: HighPass::new(),
            echo: EchoStage::new(settings.echo),
            delay_watch: DelayWatch::default(),
            erle: ErleMeter::new(),
            guard: Guard::new(),
            noise: NoiseStage::new(settings.noise),
            voice_activity: VoiceActivity::new(),
            gain: GainStage::new(settings.gain),
            input: Meter::new(),
            output: Meter::new(),
            scaled: [0.0; BLOCK_SAMPLES],
        }
    }

    /// Changes what is done, while a call runs: what is turned on or off fades, and what stays keeps what it has learned.
    pub fn configure(&mut self, settings: ApmSettings) {
        if settings.echo != self.echo.is_on() {
            self.echo.set(settings.echo);
            self.forget_echo();
        }
        self.noise.set(settings.noise);
        self.gain.set(settings.gain);
        self.settings = settings;
    }

    /// What is done.
    #[must_use]
    pub fn settings(&self) -> ApmSettings {
        self.settings
    }

    /// Another microphone or loudspeaker is in use: the echo's path and the speech's level are learned anew.
    pub fn reset(&mut self) {
        if self.settings.echo {
            self.echo.set(true);
        }
        self.forget_echo();
        self.gain.reset();
    }

    fn forget_echo(&mut self) {
        self.erle = ErleMeter::new();
        if self.echo.is_on() {
            self.guard.raise();
        } else {
            self.guard.lower();
        }
    }

    /// What the loudspeaker plays, block by block: the very samples, silence too.
    pub fn render(&mut self, block: &Block) {
        self.echo.render(block);
        self.erle.render(block);
    }

    /// Processes what the microphone heard. `delay_ms` is how long ago, about, the loudspeaker was given what is in this block as an
    /// echo, that is the playback's queue and the capture's together. It is the canceller's first guess; and when it jumps, the
    /// canceller starts again, which is quicker than letting it find out.
    pub fn capture(&mut self, block: &mut Block, delay_ms: u32) {
        self.input.update(block);
        if self.delay_watch.has_jumped(delay_ms) && self.settings.echo {
            self.echo.set(true);
            self.forget_echo();
        }
        self.high_pass.process(block);
        let microphone = power(block);
        self.echo.process(block, delay_ms);
        if let Some(window) = self.erle.capture(microphone, power(block)) {
            self.guard.handle_window(window);
        }
        self.noise.process(block);
        self.guard.process(block, self.erle.is_far_end_talking());
        self.scaled.iter_mut().zip(block.iter()).for_each(|(scaled, sample)| *scaled = sample * S16_SCALE);
        self.voice_activity.analyse(&self.scaled);
        self.gain.process(&mut self.scaled, self.voice_activity.probability());
        block.iter_mut().zip(&self.scaled).for_each(|(sample, scaled)| *sample = scaled / S16_SCALE);
        self.output.update(block);
    }

    /// How long what is said is delayed: nothing but for the echo canceller.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let samples = if self.echo.is_on() { ECHO_DELAY } else { 0 };
        Duration::from_secs_f64(samples as f64 / f64::from(SAMPLE_RATE))
    }

    /// What is known now.
    #[must_use]
    pub fn facts(&self) -> ApmFacts {
        ApmFacts {
            erle_db: if self.echo.is_on() { self.erle.erle_db() } else { None },
            level_dbfs_in: self.input.level_dbfs(),
            level_dbfs_out: self.output.level_dbfs(),
            is_speech: self.voice_activity.is_speech(),
            is_guarded: self.guard.is_up(),
            delay: self.delay(),
        }
    }
}

/// Goes from what is in a block to another within its 10 ms, and leaves the result in the first.
pub(crate) fn crossfade(block: &mut Block, to: &Block) {
    for (i, (sample, to)) in block.iter_mut().zip(to).enumerate() {
        *sample += (to - *sample) * (i as f32 + 0.5) / BLOCK_SAMPLES as f32;
    }
}
