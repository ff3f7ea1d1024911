//! What is done to the microphone's sound before it is coded, with what the loudspeaker plays as the reference.
//!
//! The canceller gets, for each block of the microphone, exactly what the loudspeaker had been given by then, so that both keep step however
//! late the threads are.

use super::shared::Shared;
use crate::sound::{NoiseSuppression, Processing};
use ahoy_apm::{Apm, ApmFacts, ApmSettings, NoiseLevel};
use ahoy_audio::Capture;
use ahoy_voice::{BLOCK_SAMPLES, Block};
use std::time::{Duration, Instant};

/// The processing of one microphone.
pub(super) struct Processor {
    apm: Apm,
    /// Without a loudspeaker there is no echo.
    has_speaker: bool,
    /// What of the loudspeaker's sound is in the microphone's.
    reference: Block,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Processor").field("settings", &self.apm.settings()).finish_non_exhaustive()
    }
}

impl Processor {
    pub(super) fn new(processing: Processing, has_speaker: bool) -> Self {
        Self { apm: Apm::new(settings(processing, has_speaker)), has_speaker, reference: [0.0; BLOCK_SAMPLES] }
    }

    pub(super) fn configure(&mut self, processing: Processing) {
        self.apm.configure(settings(processing, self.has_speaker));
    }

    /// Another microphone or loudspeaker is in use.
    pub(super) fn reset(&mut self) {
        self.apm.reset();
    }

    /// Changes what was just read from `capture`.
    pub(super) fn process(&mut self, now: Instant, capture: &Capture, shared: &Shared, block: &mut Block) {
        let mut between = capture.latency();
        if self.has_speaker {
            let recorded_until = capture.recorded_until(now);
            while shared.take_reference(recorded_until, &mut self.reference) {
                self.apm.render(&self.reference);
            }
            between += shared.speaker_latency();
            if shared.take_speaker_change() {
                self.apm.reset();
            }
        }
        self.apm.capture(block, u32::try_from(between.as_millis()).unwrap_or(u32::MAX));
    }

    /// How long it delays what is said.
    pub(super) fn delay(&self) -> Duration {
        self.apm.delay()
    }

    pub(super) fn facts(&self) -> ApmFacts {
        self.apm.facts()
    }
}

fn settings(processing: Processing, has_speaker: bool) -> ApmSettings {
    ApmSettings {
        echo: processing.echo_canceller && has_speaker,
        noise: match processing.noise_suppression {
            NoiseSuppression::Off => NoiseLevel::Off,
            NoiseSuppression::Moderate => NoiseLevel::Moderate,
            NoiseSuppression::High => NoiseLevel::High,
        },
        gain: processing.gain_control,
    }
}
