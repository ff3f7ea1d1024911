//! Whether somebody speaks: WebRTC's recurrent network over spectrum and pitch, held over the short gaps between words.

use crate::Block;
use crate::level::dbfs;
use sonora_agc2::vad_wrapper::VoiceActivityDetectorWrapper;
use sonora_simd::detect_backend;

/// The probability from which a block is taken for speech.
const SPEECH_PROBABILITY: f32 = 0.6;

/// Blocks for which speech is held: stops within a word last up to 150 ms.
const HOLD_BLOCKS: u32 = 20;

/// Under this level nothing is called speech: nobody could hear it.
const AUDIBLE_DBFS: f32 = -60.0;

/// The detector with its state.
pub(crate) struct VoiceActivity {
    detector: VoiceActivityDetectorWrapper,
    probability: f32,
    held: u32,
}

impl VoiceActivity {
    pub(crate) fn new() -> Self {
        Self { detector: VoiceActivityDetectorWrapper::new(detect_backend(), crate::SAMPLE_RATE as i32), probability: 0.0, held: 0 }
    }

    /// Looks at a block, in the scale of 16-bit samples.
    pub(crate) fn analyse(&mut self, scaled: &Block) {
        self.probability = self.detector.analyze(scaled);
        let is_audible = dbfs(scaled) - 20.0 * crate::apm::S16_SCALE.log10() > AUDIBLE_DBFS;
        if self.probability >= SPEECH_PROBABILITY && is_audible {
            self.held = HOLD_BLOCKS;
        } else {
            self.held = self.held.saturating_sub(1);
        }
    }

    /// How probable it is that the last block is speech.
    pub(crate) fn probability(&self) -> f32 {
        self.probability
    }

    pub(crate) fn is_speech(&self) -> bool {
        self.held > 0
    }
}
