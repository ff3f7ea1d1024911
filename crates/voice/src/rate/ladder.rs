//! The rungs: what can be sent, and what each costs on the wire.
//!
//! Low bitrates with copies beat high ones without as soon as packets are lost, since the decoder's enhancer makes 15 kb/s sound like 24, and
//! nothing makes up for a lost word. Bitrates were chosen by PESQ-WB of four voices at a constant rate under random and recorded loss; the
//! sums below say why they are not higher.

use std::time::Duration;

use ahoy_codec::Application;
use ahoy_protocol::media::{FrameDuration, REPORT_INTERVAL_MS, ReceiverReport};

use crate::SenderSettings;

/// What a voice packet costs on the wire besides itself: IPv4 20, UDP 8, QUIC's short header 1, connection identifier 4, packet number 1 to 2,
/// the datagram frame's type and length 3, authentication tag 16; and acknowledgements, a few bytes in every tenth packet. IPv6 adds 20, a
/// relay 5.
pub const DATAGRAM_OVERHEAD_BYTES: usize = 56;

/// Kind, duration and copies, sequence number, timestamp.
const VOICE_HEADER_BYTES: usize = 6;

/// With every third packet of 40 ms, reports are as frequent as they can be useful, and cost 1.5 kb/s.
const REPORTS_AT_40_MS: Duration = Duration::from_millis(120);
/// And with every third of 60 ms…
const REPORTS_AT_60_MS: Duration = Duration::from_millis(180);
/// … but on the floor with every eighth, where they cost 0.4 of 16 kb/s.
const REPORTS_ON_THE_FLOOR: Duration = Duration::from_millis(480);
/// What counts as the floor, in bytes on the wire: 8 kb/s without copies.
const FLOOR_BYTES: usize = DATAGRAM_OVERHEAD_BYTES + VOICE_HEADER_BYTES + 61;
/// Beside two copies and more there is no room for more frequent ones. A report tells of 64 packets, so that none is left out.
const REPORTS_BESIDE_COPIES: Duration = Duration::from_millis(200);

/// Names of the rungs, for people and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RungName {
    /// The floor: 6 or 8 kb/s in frames of 60 ms.
    N2,
    /// A narrow link: frames of 40 ms, or of 60 ms with copies.
    N1,
    /// Very lossy: three copies.
    L4,
    /// Lossy: two copies.
    L3,
    /// Some loss: one copy.
    L2,
    /// A clean path.
    L1,
    /// A local network: frames of 10 ms, least delay.
    L0,
}

impl RungName {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::N1 => "N1",
            Self::N2 => "N2",
        }
    }
}

impl std::fmt::Display for RungName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// What it is called.
    pub name: RungName,
    /// How speech is encoded and protected.
    pub settings: SenderSettings,
}

impl Rung {
    const fn new(name: RungName, duration: FrameDuration, bitrate: u32, copies: usize) -> Self {
        let settings = SenderSettings { bitrate, duration, copies, application: Application::Voip, complexity: 10 };
        Self { name, settings }
    }

    /// Bytes of its packets on the wire.
    #[must_use]
    pub fn wire_bytes(self) -> usize {
        let frame = (self.settings.bitrate / 1_000 * self.settings.duration.as_millis()).div_ceil(8) as usize
            + (self.settings.bitrate % 1_000 * self.settings.duration.as_millis()).div_ceil(8_000) as usize;
        let length = if frame < 128 { 1 } else { 2 };
        DATAGRAM_OVERHEAD_BYTES + VOICE_HEADER_BYTES + (1 + self.settings.copies) * (length + frame)
    }

    /// Bits per second on the wire at IPv4, with the reports that ride along.
    #[must_use]
    pub fn wire_bps(self) -> u32 {
        let packets = self.wire_bytes() as u32 * 8_000 / self.settings.duration.as_millis();
        packets + ReceiverReport::BYTES as u32 * 8_000 / self.report_interval().as_millis() as u32
    }

    /// How often reports on the other direction are sent beside it.
    #[must_use]
    pub fn report_interval(self) -> Duration {
        match self.settings.duration {
            FrameDuration::Ms10 | FrameDuration::Ms20 if self.settings.copies < 2 => Duration::from_millis(REPORT_INTERVAL_MS),
            FrameDuration::Ms10 | FrameDuration::Ms20 => REPORTS_BESIDE_COPIES,
            FrameDuration::Ms40 if self.settings.copies < 2 => REPORTS_AT_40_MS,
            FrameDuration::Ms40 => REPORTS_BESIDE_COPIES,
            FrameDuration::Ms60 if self.wire_bytes() > FLOOR_BYTES => REPORTS_AT_60_MS,
            FrameDuration::Ms60 => REPORTS_ON_THE_FLOOR,
        }
    }

    /// The same with other copies.
    #[must_use]
    pub(crate) fn with_copies(self, copies: usize) -> Self {
        Self { settings: SenderSettings { copies, ..self.settings }, ..self }
    }
}

/// The local network's.
pub(crate) const LAN: Rung = Rung {
    name: RungName::L0,
    settings: SenderSettings {
        bitrate: 48_000,
        duration: FrameDuration::Ms10,
        copies: 0,
        application: Application::LowDelay,
        complexity: 10,
    },
};

/// Where a call begins on a path of which the round trip says nothing bad.
pub(crate) const START: Rung = Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 0);

/// Where a call begins on a path whose round trip says that it is not thin.
pub(crate) const CLEAN: Rung = Rung::new(RungName::L1, FrameDuration::Ms20, 24_000, 0);

/// The least there is, and where a call begins on a path that may be thin.
pub(crate) const FLOOR: Rung = Rung::new(RungName::N2, FrameDuration::Ms60, 6_000, 0);

/// Every rung. With two copies and more, 40 ms in a packet halve the headers, and what that leaves makes speech much better than 20 ms can be at
/// 60 kb/s: under 20 % random and bursty loss PESQ-WB is 4.1 and 3.0 against 3.6 and 2.5. It takes 60 ms longer; where the path is long already,
/// the shorter frames are chosen.
pub(crate) const LADDER: [Rung; 21] = [
    LAN,
    CLEAN,
    Rung::new(RungName::L2, FrameDuration::Ms20, 16_000, 1),
    Rung::new(RungName::L3, FrameDuration::Ms20, 10_800, 2),
    Rung::new(RungName::L3, FrameDuration::Ms40, 14_800, 2),
    Rung::new(RungName::L4, FrameDuration::Ms20, 10_800, 3),
    Rung::new(RungName::L4, FrameDuration::Ms40, 14_000, 3),
    Rung::new(RungName::N1, FrameDuration::Ms40, 24_000, 0),
    Rung::new(RungName::N1, FrameDuration::Ms40, 16_000, 0),
    START,
    Rung::new(RungName::N1, FrameDuration::Ms40, 16_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 2),
    Rung::new(RungName::N1, FrameDuration::Ms60, 16_000, 0),
    Rung::new(RungName::N1, FrameDuration::Ms60, 12_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms60, 8_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms60, 8_000, 2),
    Rung::new(RungName::N2, FrameDuration::Ms60, 12_000, 0),
    Rung::new(RungName::N2, FrameDuration::Ms60, 8_000, 0),
    Rung::new(RungName::N2, FrameDuration::Ms60, 6_000, 1),
    FLOOR,
];
