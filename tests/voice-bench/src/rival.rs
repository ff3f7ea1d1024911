//! What others do against loss, over the very same packets: Opus with classic concealment, as Mumble and Tox send, and Opus with in-band FEC, as WebRTC
//! sends. Both in favour of the rival: no network but the losses, a buffer of 60 ms that is never too short, and nothing is ever late.

use crate::signal::{self, RATE_HZ};
use opusic_sys as opus;
use std::path::Path;
use std::ptr::NonNull;

/// A packet of all rivals: 20 ms.
const FRAME: usize = RATE_HZ / 50;
/// Long enough for any packet at these rates.
const PACKET_BYTES_MAX: usize = 1_275;

/// A way of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rival {
    /// 24 kb/s, constant, no redundancy, classic concealment.
    Plain,
    /// 32 kb/s, variable, with low-bitrate redundancy of the frame before (LBRR), told the true share of loss.
    Fec,
}

impl Rival {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Fec];

    /// The name in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain Opus, classic PLC",
            Self::Fec => "Opus, in-band FEC",
        }
    }

    /// A short name, for files.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Fec => "fec",
        }
    }

    fn bitrate(self) -> i32 {
        match self {
            Self::Plain => 24_000,
            Self::Fec => 32_000,
        }
    }
}

/// What a listener hears of a file whose packets are lost by a pattern; written at 48 kHz. `first` is the character of the pattern that the first packet meets;
/// packets before the pattern's begin arrive. Only so many seconds are heard.
pub(crate) fn hear(
    rival: Rival,
    speech: &Path,
    seconds: f64,
    pattern: &str,
    first: i64,
    loss_percent: u32,
    to: &Path,
) -> Result<(), String> {
    let pattern = pattern.as_bytes();
    let is_lost = |packet: usize| {
        let at = first + packet as i64;
        at >= 0 && !pattern.is_empty() && pattern[at as usize % pattern.len()] == b'1'
    };
    let mut speech = signal::read(speech)?;
    speech.truncate((seconds * RATE_HZ as f64) as usize);
    let mut encoder = Encoder::new(rival, loss_percent)?;
    let packets: Vec<Vec<u8>> = speech.chunks_exact(FRAME).map(|frame| encoder.encode(frame)).collect::<Result<_, _>>()?;
    let mut decoder = Decoder::new()?;
    let mut heard = Vec::with_capacity(speech.len());
    for (number, packet) in packets.iter().enumerate() {
        let next = packets.get(number + 1).filter(|_| rival == Rival::Fec && !is_lost(number + 1));
        let frame = match (is_lost(number), next) {
            (false, _) => decoder.decode(Some(packet), false)?,
            (true, Some(next)) => decoder.decode(Some(next), true)?,
            (true, None) => decoder.decode(None, false)?,
        };
        heard.extend_from_slice(&frame);
    }
    signal::write(to, &heard, RATE_HZ)
}

struct Encoder(NonNull<opus::OpusEncoder>);
struct Decoder(NonNull<opus::OpusDecoder>);

impl Encoder {
    /// With the settings under which each rival sounds best: an encoder of full complexity, and wideband, as ours is at these rates.
    fn new(rival: Rival, loss_percent: u32) -> Result<Self, String> {
        let mut code = opus::OPUS_OK;
        // SAFETY: `code` outlives the call; the other arguments are plain numbers.
        let state = unsafe { opus::opus_encoder_create(RATE_HZ as i32, 1, opus::OPUS_APPLICATION_VOIP, &raw mut code) };
        let encoder = Self(NonNull::new(state).ok_or("no encoder")?);
        let is_fec = rival == Rival::Fec;
        for (request, value) in [
            (opus::OPUS_SET_BITRATE_REQUEST, rival.bitrate()),
            (opus::OPUS_SET_VBR_REQUEST, i32::from(is_fec)),
            (opus::OPUS_SET_COMPLEXITY_REQUEST, 10),
            (opus::OPUS_SET_SIGNAL_REQUEST, opus::OPUS_SIGNAL_VOICE),
            (opus::OPUS_SET_BANDWIDTH_REQUEST, opus::OPUS_BANDWIDTH_WIDEBAND),
            (opus::OPUS_SET_INBAND_FEC_REQUEST, i32::from(is_fec)),
            (opus::OPUS_SET_PACKET_LOSS_PERC_REQUEST, if is_fec { loss_percent as i32 } else { 0 }),
        ] {
            // SAFETY: the state is valid as long as `encoder`, and each of these requests takes one 32-bit integer.
            let code = unsafe { opus::opus_encoder_ctl(encoder.0.as_ptr(), request, value) };
            if code != opus::OPUS_OK {
                return Err(format!("the encoder refuses {request}: {code}"));
            }
        }
        Ok(encoder)
    }

    fn encode(&mut self, frame: &[f32]) -> Result<Vec<u8>, String> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        // SAFETY: libopus reads the frame's samples and writes at most as many bytes as the packet has.
        let written = unsafe {
            opus::opus_encode_float(self.0.as_ptr(), frame.as_ptr(), frame.len() as i32, packet.as_mut_ptr(), packet.len() as i32)
        };
        packet.truncate(usize::try_from(written).map_err(|_| format!("the encoder fails: {written}"))?);
        Ok(packet)
    }
}

impl Decoder {
    /// With the classic concealment, which is what a decoder of no complexity has.
    fn new() -> Result<Self, String> {
        let mut code = opus::OPUS_OK;
        // SAFETY: `code` outlives the call; the other arguments are plain numbers.
        let state = unsafe { opus::opus_decoder_create(RATE_HZ as i32, 1, &raw mut code) };
        Ok(Self(NonNull::new(state).ok_or("no decoder")?))
    }

    /// The frame of a packet; with `is_fec` the one before it; without a packet what may have been there.
    fn decode(&mut self, packet: Option<&[u8]>, is_fec: bool) -> Result<Vec<f32>, String> {
        let mut frame = vec![0.0; FRAME];
        let (bytes, length) = packet.map_or((std::ptr::null(), 0), |packet| (packet.as_ptr(), packet.len() as i32));
        // SAFETY: the packet is readable for its length, or null with none; libopus writes at most FRAME samples.
        let written =
            unsafe { opus::opus_decode_float(self.0.as_ptr(), bytes, length, frame.as_mut_ptr(), FRAME as i32, i32::from(is_fec)) };
        if written == FRAME as i32 { Ok(frame) } else { Err(format!("the decoder fails: {written}")) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and nothing uses it after this.
        unsafe { opus::opus_encoder_destroy(self.0.as_ptr()) }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and nothing uses it after this.
        unsafe { opus::opus_decoder_destroy(self.0.as_ptr()) }
    }
}
