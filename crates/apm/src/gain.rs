//! Gain control and the limiter, WebRTC's AGC2: the speech level is brought to the same loudness for everybody, slowly, and only as far
//! as the noise allows; the limiter bends what would clip.

use crate::Block;
use crate::apm::{S16_SCALE, crossfade};
use crate::level::{SILENCE_DBFS, power_to_dbfs};
use sonora_agc2::adaptive_digital_gain_controller::{AdaptiveDigitalGainController, FrameInfo};
use sonora_agc2::common::{ADJACENT_SPEECH_FRAMES_THRESHOLD, SATURATION_PROTECTOR_INITIAL_HEADROOM_DB, float_s16_to_dbfs};
use sonora_agc2::limiter::Limiter;
use sonora_agc2::noise_level_estimator::NoiseLevelEstimator;
use sonora_agc2::saturation_protector::SaturationProtector;
use sonora_agc2::speech_level_estimator::{AdaptiveDigitalConfig, SpeechLevelEstimator};

/// How the gain is chosen. It starts at none, so that turning it on is not a jump, and may rise by 30 dB: beyond that a
/// microphone is broken or turned away, and what would be amplified is the room.
const CONFIG: AdaptiveDigitalConfig = AdaptiveDigitalConfig {
    headroom_db: 5.0,
    max_gain_db: 30.0,
    initial_gain_db: 0.0,
    max_gain_change_db_per_second: 6.0,
    max_output_noise_level_dbfs: -50.0,
};

/// The adaptive gain with its estimators.
struct Controller {
    speech: SpeechLevelEstimator,
    noise: NoiseLevelEstimator,
    protector: SaturationProtector,
    gain: AdaptiveDigitalGainController,
}

impl Controller {
    fn new() -> Self {
        Self {
            speech: SpeechLevelEstimator::new(&CONFIG, ADJACENT_SPEECH_FRAMES_THRESHOLD),
            noise: NoiseLevelEstimator::default(),
            protector: SaturationProtector::new(SATURATION_PROTECTOR_INITIAL_HEADROOM_DB, ADJACENT_SPEECH_FRAMES_THRESHOLD),
            gain: AdaptiveDigitalGainController::new(CONFIG, ADJACENT_SPEECH_FRAMES_THRESHOLD),
        }
    }

    fn process(&mut self, scaled: &mut Block, speech_probability: f32, limiter_dbfs: f32) {
        let peak_dbfs = float_s16_to_dbfs(scaled.iter().fold(0.0, |peak: f32, sample| peak.max(sample.abs())));
        let rms_dbfs = float_s16_to_dbfs(crate::level::power(scaled).sqrt());
        let noise_rms_dbfs = self.noise.analyze(&[&scaled[..]]);
        self.speech.update(rms_dbfs, speech_probability);
        self.protector.analyze(speech_probability, peak_dbfs, self.speech.level_dbfs());
        let info = FrameInfo {
            speech_probability,
            speech_level_dbfs: self.speech.level_dbfs(),
            speech_level_reliable: self.speech.is_confident(),
            noise_rms_dbfs,
            headroom_db: self.protector.headroom_db(),
            limiter_envelope_dbfs: limiter_dbfs,
        };
        self.gain.process(&info, &mut [&mut scaled[..]]);
    }
}

/// The end of the chain: gain, if wanted, and limiter, always.
pub(crate) struct GainStage {
    controller: Option<Controller>,
    is_wanted: bool,
    limiter: Limiter,
    faded: Block,
}

impl GainStage {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            controller: is_on.then(Controller::new),
            is_wanted: is_on,
            limiter: Limiter::new(crate::BLOCK_SAMPLES),
            faded: [0.0; crate::BLOCK_SAMPLES],
        }
    }

    pub(crate) fn set(&mut self, is_on: bool) {
        self.is_wanted = is_on;
        if is_on && self.controller.is_none() {
            self.controller = Some(Controller::new());
        }
    }

    /// Another microphone: what was learned of the level is of no use.
    pub(crate) fn reset(&mut self) {
        if self.is_wanted {
            self.controller = Some(Controller::new());
        }
    }

    /// Works on a block in the scale of 16-bit samples.
    pub(crate) fn process(&mut self, scaled: &mut Block, speech_probability: f32) {
        let limiter_dbfs = power_to_dbfs((self.limiter.last_audio_level() / S16_SCALE).powi(2)).max(SILENCE_DBFS);
        if let Some(controller) = &mut self.controller {
            self.faded = *scaled;
            controller.process(scaled, speech_probability, limiter_dbfs);
            if !self.is_wanted {
                crossfade(scaled, &self.faded);
                self.controller = None;
            }
        }
        self.limiter.process(&mut [&mut scaled[..]]);
    }
}
