//! From sound to packets.

use std::ptr::NonNull;

use opusic_sys as opus;

use crate::error::describe;
use crate::{BLOCK_SAMPLES, Error, SAMPLE_RATE};

/// Longest packet that is made, in bytes: libopus says 1275 are enough for any frame of up to 20 ms, and no rate of
/// speech comes near with longer ones.
pub const PACKET_BYTES_MAX: usize = 1275;

/// What the encoder is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// Speech: intelligible at low rates, 6.5 ms of look-ahead.
    Voip,
    /// Least delay: 2.5 ms of look-ahead, good from 40 kb/s up.
    LowDelay,
}

impl Application {
    fn code(self) -> i32 {
        match self {
            Self::Voip => opus::OPUS_APPLICATION_VOIP,
            Self::LowDelay => opus::OPUS_APPLICATION_RESTRICTED_LOWDELAY,
        }
    }
}

/// How the bitrate is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateControl {
    /// Every packet has the same length: lengths tell a listener on the wire nothing about what is said.
    Constant,
    /// Packets are as long as what they hold needs; the rate is kept on average.
    Variable,
}

/// Which band of frequencies is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bandwidth {
    /// The encoder chooses by the bitrate.
    Auto,
    /// Up to 8 kHz. To be forced below 10 kb/s, where the encoder would go lower and the decoder's enhancer, which
    /// knows wideband only, would be idle.
    Wideband,
    /// Up to 12 kHz.
    SuperWideband,
    /// Up to 20 kHz.
    Fullband,
}

impl Bandwidth {
    fn code(self) -> i32 {
        match self {
            Self::Auto => opus::OPUS_AUTO,
            Self::Wideband => opus::OPUS_BANDWIDTH_WIDEBAND,
            Self::SuperWideband => opus::OPUS_BANDWIDTH_SUPERWIDEBAND,
            Self::Fullband => opus::OPUS_BANDWIDTH_FULLBAND,
        }
    }
}

/// How much sound is in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameLength {
    /// 10 ms.
    Ms10,
    /// 20 ms.
    Ms20,
    /// 40 ms.
    Ms40,
    /// 60 ms.
    Ms60,
    /// 120 ms.
    Ms120,
}

impl FrameLength {
    /// In samples.
    #[must_use]
    pub fn samples(self) -> usize {
        let blocks = match self {
            Self::Ms10 => 1,
            Self::Ms20 => 2,
            Self::Ms40 => 4,
            Self::Ms60 => 6,
            Self::Ms120 => 12,
        };
        blocks * BLOCK_SAMPLES
    }
}

/// How to encode. All but the application and the frame length can be changed between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// What the encoder is tuned for.
    pub application: Application,
    /// Bits per second, 6,000 to 510,000.
    pub bitrate: u32,
    /// 0 (cheap) to 10 (best).
    pub complexity: u8,
    /// How the bitrate is kept.
    pub rate_control: RateControl,
    /// Which band of frequencies is kept.
    pub bandwidth: Bandwidth,
    /// How much sound is in a packet.
    pub frame_length: FrameLength,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self {
            application: Application::Voip,
            bitrate: 24_000,
            complexity: 10,
            rate_control: RateControl::Constant,
            bandwidth: Bandwidth::Auto,
            frame_length: FrameLength::Ms20,
        }
    }
}

/// An Opus encoder of mono speech.
#[derive(Debug)]
pub struct Encoder {
    state: NonNull<opus::OpusEncoder>,
    settings: EncoderSettings,
    input: Vec<f32>,
    packet: Vec<u8>,
}

// SAFETY: the state is reachable through this value alone, and libopus keeps nothing that belongs to a thread.
unsafe impl Send for Encoder {}

impl Encoder {
    /// An encoder with `settings`.
    ///
    /// # Errors
    /// [`Error::Setup`] if libopus refuses them, or has no memory.
    pub fn new(settings: EncoderSettings) -> Result<Self, Error> {
        let mut code = opus::OPUS_OK;
        // SAFETY: `code` outlives the call; the other arguments are plain numbers, which libopus checks.
        let state = unsafe { opus::opus_encoder_create(SAMPLE_RATE as i32, 1, settings.application.code(), &raw mut code) };
        let state = NonNull::new(state).ok_or_else(|| Error::Setup(describe(code)))?;
        let samples = settings.frame_length.samples();
        let mut encoder = Self { state, settings, input: vec![0.0; samples], packet: vec![0; PACKET_BYTES_MAX] };
        encoder.set(opus::OPUS_SET_SIGNAL_REQUEST, opus::OPUS_SIGNAL_VOICE)?;
        encoder.apply(settings)?;
        Ok(encoder)
    }

    /// What it encodes with.
    #[must_use]
    pub fn settings(&self) -> EncoderSettings {
        self.settings
    }

    /// Changes settings without a gap. Another application means another encoder and is taken over by
    /// [`Encoder::new`] only.
    ///
    /// # Errors
    /// [`Error::Setup`] if libopus refuses them; the earlier ones stay for what was not yet changed.
    pub fn configure(&mut self, settings: EncoderSettings) -> Result<(), Error> {
        if settings.application != self.settings.application {
            *self = Self::new(settings)?;
            return Ok(());
        }
        self.apply(settings)
    }

    fn apply(&mut self, settings: EncoderSettings) -> Result<(), Error> {
        let bitrate = i32::try_from(settings.bitrate).map_err(|_| Error::Setup(describe(opus::OPUS_BAD_ARG)))?;
        self.set(opus::OPUS_SET_BITRATE_REQUEST, bitrate)?;
        self.set(opus::OPUS_SET_COMPLEXITY_REQUEST, i32::from(settings.complexity))?;
        self.set(opus::OPUS_SET_VBR_REQUEST, i32::from(settings.rate_control == RateControl::Variable))?;
        self.set(opus::OPUS_SET_BANDWIDTH_REQUEST, settings.bandwidth.code())?;
        self.input.resize(settings.frame_length.samples(), 0.0);
        self.settings = settings;
        Ok(())
    }

    /// By how many samples decoded sound lags behind what was encoded.
    ///
    /// # Panics
    /// Never: every encoder answers.
    #[must_use]
    pub fn lookahead(&self) -> usize {
        let mut samples: i32 = 0;
        // SAFETY: the state is valid as long as `self`, and this request writes one 32-bit integer, which outlives it.
        let code = unsafe { opus::opus_encoder_ctl(self.state.as_ptr(), opus::OPUS_GET_LOOKAHEAD_REQUEST, &raw mut samples) };
        assert_eq!(code, opus::OPUS_OK, "an encoder knows its look-ahead");
        usize::try_from(samples).expect("a look-ahead is not negative")
    }

    /// The packet of one frame, valid until the next. Samples that are not finite count as silence.
    ///
    /// # Errors
    /// [`Error::FrameLength`] if `samples` are not one frame; [`Error::Encode`] if libopus fails.
    pub fn encode(&mut self, samples: &[f32]) -> Result<&[u8], Error> {
        if samples.len() != self.input.len() {
            return Err(Error::FrameLength { given: samples.len(), expected: self.input.len() });
        }
        for (to, from) in self.input.iter_mut().zip(samples) {
            *to = if from.is_finite() { from.clamp(-1.0, 1.0) } else { 0.0 };
        }
        // SAFETY: the state is valid as long as `self`; libopus reads `input.len()` samples (one channel) and writes at
        // most `packet.len()` bytes, both of which are passed along.
        let written = unsafe {
            opus::opus_encode_float(
                self.state.as_ptr(),
                self.input.as_ptr(),
                self.input.len() as i32,
                self.packet.as_mut_ptr(),
                self.packet.len() as i32,
            )
        };
        let bytes = usize::try_from(written).map_err(|_| Error::Encode(describe(written)))?;
        self.packet.get(..bytes).ok_or_else(|| Error::Encode(describe(opus::OPUS_INTERNAL_ERROR)))
    }

    pub(crate) fn set(&mut self, request: i32, value: i32) -> Result<(), Error> {
        // SAFETY: the state is valid as long as `self`, and every request passed here takes one 32-bit integer.
        let code = unsafe { opus::opus_encoder_ctl(self.state.as_ptr(), request, value) };
        if code == opus::OPUS_OK { Ok(()) } else { Err(Error::Setup(describe(code))) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and nothing uses it after this.
        unsafe { opus::opus_encoder_destroy(self.state.as_ptr()) }
    }
}
