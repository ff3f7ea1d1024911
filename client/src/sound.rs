//! How a device sounds, as its user wants it: which devices, what is done to the microphone's sound, how loud.

use crate::media::VOLUME_DEFAULT;

/// What the user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundSettings {
    /// Which devices.
    pub devices: Devices,
    /// What is done to the microphone's sound.
    pub processing: Processing,
    /// How loud the other side is played, in percent.
    pub volume: u8,
    /// How loud it rings, in percent; 0: it does not.
    pub ring_volume: u8,
    /// Whether the microphone is open only while a key is pressed.
    pub push_to_talk: bool,
    /// Whether calls spend as little as they can, at some loss of quality.
    pub data_saver: bool,
}

impl Default for SoundSettings {
    fn default() -> Self {
        Self {
            devices: Devices::default(),
            processing: Processing::default(),
            volume: VOLUME_DEFAULT,
            ring_volume: VOLUME_DEFAULT,
            push_to_talk: false,
            data_saver: false,
        }
    }
}

/// Which devices are used, by the names that `ahoy devices` lists; `None`: the system's default, whichever that is at the time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// What is heard by the other side.
    pub microphone: Option<String>,
    /// What plays the other side.
    pub speaker: Option<String>,
    /// What rings.
    pub ringer: Option<String>,
}

/// What is done to the microphone's sound. Files are sent as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processing {
    /// Whether the loudspeaker's sound is taken out of it.
    pub echo_canceller: bool,
    /// How much of steady noise is taken out.
    pub noise_suppression: NoiseSuppression,
    /// Whether soft voices are made louder and loud ones softer.
    pub gain_control: bool,
}

impl Default for Processing {
    fn default() -> Self {
        Self { echo_canceller: true, noise_suppression: NoiseSuppression::Moderate, gain_control: true }
    }
}

/// How much of steady noise is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseSuppression {
    /// Nothing.
    Off,
    /// What does not harm the voice.
    Moderate,
    /// More, at some harm to the voice.
    High,
}
