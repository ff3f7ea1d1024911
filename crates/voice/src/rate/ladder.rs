//! The rungs: what can be sent, and what each costs on the wire.
//!
//! Low bitrates with copies beat high ones without as soon as packets are lost, since the decoder's enhancer makes 15 kb/s sound like 24, and
//! nothing makes up for a lost word. Bitrates were chosen by PESQ-WB of four voices at a constant rate under random and recorded loss; the
//! sums below say why they are not higher.

use std::time::Duration;

use ahoy_codec::Application;
use ahoy_protocol::media::{FrameDuration, REPORT_INTERVAL_MS, ReceiverReport};

use crate::SenderSettings;

/// What a voice packet costs on the wire besides itself: IPv4 20, UDP 8, QUIC's short header 1, connection identifier 4, packet number 2, the
/// datagram frame's type and length 2 to 3, authentication tag 16, and 6 to 7 of the acknowledgement that rides on nearly every packet, since
/// the other side speaks as often. IPv6 adds 20, a relay 5.
pub const DATAGRAM_OVERHEAD_BYTES: usize = 60;

/// Kind, duration and copies, sequence number, timestamp.
const VOICE_HEADER_BYTES: usize = 6;

/// With every third packet of 40 ms, reports are as frequent as they can be useful, and cost 1.5 kb/s.
const REPORTS_AT_40_MS: Duration = Duration::from_millis(120);
/// And with every third of 60 ms…
const REPORTS_AT_60_MS: Duration = Duration::from_millis(180);
/// … but on the floor with every third of 120 ms, where they cost 0.5 of 16 kb/s.
const REPORTS_ON_THE_FLOOR: Duration = Duration::from_millis(360);
/// Beside two copies and more there is no room for more frequent ones. A report tells of 64 packets, so that none is left out.
const REPORTS_BESIDE_COPIES: Duration = Duration::from_millis(200);

/// Where half of them are lost, they are sent with every fourth packet.
const REPORTS_IN_HEAVY_LOSS: Duration = Duration::from_millis(160);

/// Names of the rungs, for people and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RungName {
    /// The floor: frames of 120 ms, whose headers cost 4 kb/s instead of 9.
    N2,
    /// A narrow link: frames of 40 or 60 ms.
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
            FrameDuration::Ms40 if self.settings.copies < 3 => REPORTS_BESIDE_COPIES,
            FrameDuration::Ms40 => REPORTS_IN_HEAVY_LOSS,
            FrameDuration::Ms60 => REPORTS_AT_60_MS,
            FrameDuration::Ms120 => REPORTS_ON_THE_FLOOR,
        }
    }

    /// The same with other copies.
    #[must_use]
    pub(crate) fn with_copies(self, copies: usize) -> Self {
        Self { settings: SenderSettings { copies, ..self.settings }, ..self }
    }
}

/// The local network's. Bandwidth costs nothing there: PESQ-WB is 4.25 at 48 kb/s, 4.36 at 64 and 4.45 at 96, and the whole band is heard.
pub(crate) const LAN: Rung = Rung {
    name: RungName::L0,
    settings: SenderSettings {
        bitrate: 96_000,
        duration: FrameDuration::Ms10,
        copies: 0,
        application: Application::LowDelay,
        complexity: 10,
    },
};

/// Where a call begins on a path that may be thin, or lose much: it sounds well, and a link of 16 kb/s takes a second to queue a second of it.
pub(crate) const START: Rung = Rung::new(RungName::N1, FrameDuration::Ms40, 16_000, 0);

/// Where a call begins on a path whose round trip says that it is not thin.
pub(crate) const CLEAN: Rung = Rung::new(RungName::L1, FrameDuration::Ms20, 24_000, 0);

/// The least there is: 10.5 kb/s on the wire.
pub(crate) const FLOOR: Rung = Rung::new(RungName::N2, FrameDuration::Ms120, 6_000, 0);

/// Every rung. With two copies and more, 40 ms in a packet halve the headers, and what that leaves makes speech much better than 20 ms can be at
/// 60 kb/s: under 20 % random and bursty loss PESQ-WB is 3.8 and 3.0 against 3.2 and 2.4. It takes 60 ms longer; where the path is long already,
/// the shorter frames are chosen. A third copy is worth more than a higher bitrate from about 40 % on: at 50 % and 60 kb/s 2.1 against 1.9.
/// Where 16 kb/s are all there is, 8 kb/s in frames of 120 ms sound better and cost less than 6 kb/s in frames of 60: 2.7 against 2.3.
pub(crate) const LADDER: [Rung; 26] = [
    LAN,
    CLEAN,
    Rung::new(RungName::L2, FrameDuration::Ms20, 14_000, 1),
    Rung::new(RungName::L2, FrameDuration::Ms40, 16_000, 1),
    Rung::new(RungName::L3, FrameDuration::Ms20, 10_400, 2),
    Rung::new(RungName::L3, FrameDuration::Ms40, 13_600, 2),
    Rung::new(RungName::L4, FrameDuration::Ms20, 10_400, 3),
    Rung::new(RungName::L4, FrameDuration::Ms40, 12_800, 3),
    Rung::new(RungName::L4, FrameDuration::Ms40, 10_200, 3),
    Rung::new(RungName::N1, FrameDuration::Ms40, 24_000, 0),
    START,
    Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 0),
    Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms40, 12_000, 2),
    Rung::new(RungName::N1, FrameDuration::Ms60, 16_000, 0),
    Rung::new(RungName::N1, FrameDuration::Ms60, 12_000, 0),
    Rung::new(RungName::N1, FrameDuration::Ms60, 12_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms60, 8_000, 1),
    Rung::new(RungName::N1, FrameDuration::Ms60, 12_000, 2),
    Rung::new(RungName::N1, FrameDuration::Ms60, 8_000, 2),
    Rung::new(RungName::N2, FrameDuration::Ms120, 12_000, 1),
    Rung::new(RungName::N2, FrameDuration::Ms120, 8_000, 1),
    Rung::new(RungName::N2, FrameDuration::Ms120, 12_000, 0),
    Rung::new(RungName::N2, FrameDuration::Ms120, 10_000, 0),
    Rung::new(RungName::N2, FrameDuration::Ms120, 8_000, 0),
    FLOOR,
];
