//! The figures of a call, as they are told each second.

use ahoy_audio::CallbackTimes;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Figures of a call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// The call.
    pub call: String,
    /// Voice packets sent.
    pub sent: u64,
    /// Voice packets received.
    pub received: u64,
    /// Voice packets of which neither the packet nor a copy came in time.
    pub lost: u64,
    /// Voice packets that came too late to be played.
    pub late: u64,
    /// Sound made up because nothing was there to play.
    pub concealed_ms: u64,
    /// What the jitter buffer aims at.
    pub target_ms: u64,
    /// What is in the jitter buffer.
    pub buffered_ms: u64,
    /// Round-trip time, once it is known.
    pub rtt_ms: Option<f64>,
    /// The way the packets go.
    pub path: String,
    /// The longest time without a voice packet since the last figures.
    #[serde(default)]
    pub gap_ms: u64,
    /// What this device's NAT does with addresses: `open` (there is none), `endpoint-independent`, `endpoint-dependent` or `unknown`.
    #[serde(default)]
    pub mapping: String,
    /// How the router was asked to let this device's port through: `pcp`, `nat-pmp` or `upnp-igd`; `none` if it does not.
    #[serde(default)]
    pub port_mapping: String,
    /// Addresses of this device that the other side was told.
    #[serde(default)]
    pub candidates: usize,
    /// Addresses of the other side that it told.
    #[serde(default)]
    pub peer_candidates: usize,
    /// The relays in use, the one that was joined first at first.
    #[serde(default)]
    pub relays: Vec<RelayFigures>,
    /// Share of the other side's packets that did not come themselves, in percent.
    #[serde(default)]
    pub loss_percent: f32,
    /// Share of which no copy came in time either.
    #[serde(default)]
    pub residual_loss_percent: f32,
    /// Of what this side sends, the share that the other side says did not come itself, in percent.
    #[serde(default)]
    pub peer_loss_percent: f32,
    /// Packets that are lost one after the other on the way there, on average.
    #[serde(default)]
    pub burst_packets: f32,
    /// How much the delay of the other side's packets varies (RFC 3550, section 6.4.1), in milliseconds.
    #[serde(default)]
    pub jitter_ms: f32,
    /// What the packets wait on the way there because a link is full, in milliseconds.
    #[serde(default)]
    pub queueing_ms: f32,
    /// Share of the sound played that was made up, in percent.
    #[serde(default)]
    pub concealed_percent: f32,
    /// The rung of the ladder on which this side sends.
    #[serde(default)]
    pub rung: String,
    /// Why it is on that rung: `beginning`, `best`, `loss`, `bandwidth`, `congestion`, `settings` or `silence`.
    #[serde(default)]
    pub rung_reason: String,
    /// What the link there is known to carry, headers counted, in kb/s; it may be more.
    #[serde(default)]
    pub available_kbps: f32,
    /// Bitrate of the codec, copies not counted, in kb/s.
    #[serde(default)]
    pub codec_kbps: f32,
    /// Sound in a packet, in milliseconds.
    #[serde(default)]
    pub frame_ms: u32,
    /// Copies of earlier frames in a packet.
    #[serde(default)]
    pub copies: usize,
    /// Sound and reports sent, headers of QUIC, UDP and IP not counted, in kb/s.
    #[serde(default)]
    pub sent_kbps: f32,
    /// Sound received, likewise.
    #[serde(default)]
    pub received_kbps: f32,
    /// How loud the microphone is, in dB of full scale; null until it has given something.
    #[serde(default)]
    pub level_in_dbfs: Option<f32>,
    /// How loud the other side is.
    #[serde(default)]
    pub level_out_dbfs: Option<f32>,
    /// How much the echo canceller takes away of the loudspeaker's sound, in dB; null where it is off, or has nothing to do.
    #[serde(default)]
    pub echo_return_loss_db: Option<f32>,
    /// How long the processing of the microphone's sound delays it, in milliseconds.
    #[serde(default)]
    pub processing_ms: f32,
    /// Whether somebody speaks into the microphone, where its sound is processed.
    #[serde(default)]
    pub is_speaking: bool,
    /// Estimated delay from the other side's mouth to this side's ear, all devices and buffers counted, in milliseconds.
    #[serde(default)]
    pub mouth_to_ear_ms: f32,
    /// Estimated quality of what is heard here, 1 to 4.5 (ITU-T G.107).
    #[serde(default)]
    pub mos: f32,
    /// The one thing that limits the quality now, in plain words; empty: nothing does.
    #[serde(default)]
    pub limit: String,
    /// The same in one word: `nothing`, `silence`, `loss`, `bandwidth`, `jitter`, `delay`, `relay-distance`, `data-saver` or `device`.
    #[serde(default)]
    pub limit_kind: String,
    /// How long the callbacks of the sound devices took since the call began.
    #[serde(default)]
    pub callbacks: Callbacks,
}

/// What the callbacks of both devices took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Callbacks {
    /// The microphone's.
    pub capture: CallbackFigures,
    /// The loudspeaker's.
    pub playback: CallbackFigures,
}

/// What the callbacks of a device took: the system waits for them, and what takes too long is heard as a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallbackFigures {
    /// How many there were.
    pub count: u64,
    /// What 999 of 1,000 did not exceed, in microseconds.
    pub p999_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl CallbackFigures {
    /// Out of the device's own histogram.
    #[must_use]
    pub fn of(times: &CallbackTimes) -> Self {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self { count: times.count(), p999_us: us(times.quantile(0.999)), max_us: us(times.max()) }
    }
}

/// A relay that a call uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RelayFigures {
    /// Where it is.
    pub address: String,
    /// Round-trip time between the two devices through it, once it is known.
    pub rtt_ms: Option<f64>,
}
