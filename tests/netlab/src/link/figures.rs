//! What went over a link in one direction: counts, and each packet where that is asked for.

use super::Fate;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Packets that are remembered one by one: an hour of two hundred a second. Later ones are counted only.
const ROWS_MAX: usize = 720_000;

/// Stands where the time on the link would, of a packet that was lost on the way.
pub const LOST_US: i64 = -1;
/// The same of a packet for which the queue was full.
pub const DROPPED_US: i64 = -2;

/// A packet: when it came in, in Unix microseconds; its bytes, IP headers counted; how long it took on the link, in microseconds, or a negative number if it
/// did not come out; to which of the ports it went, counted from 0; and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row(pub u64, pub u32, pub i64, pub usize, pub Marks);

/// What tells a packet apart: the first byte of what UDP carries, by which protocols that share a port are known (RFC 9443), the sixth, which is the first one
/// behind a relay's header, and the last four, by which a packet is known again that goes another way, too. All are 0 in what is no UDP, and where there are
/// fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marks(pub u8, pub u8, pub u32);

impl Marks {
    /// Of an IPv4 packet, which may have padding behind it.
    #[must_use]
    pub fn of_ipv4(packet: &[u8]) -> Self {
        const UDP: u8 = 17;
        const UDP_HEADER_BYTES: usize = 8;
        let (Some([first, _, length @ ..]), Some(&UDP)) = (packet.first_chunk::<4>(), packet.get(9)) else { return Self::default() };
        let begin = usize::from(first & 0x0f) * 4 + UDP_HEADER_BYTES;
        let payload = packet.get(begin..usize::from(u16::from_be_bytes(*length))).unwrap_or_default();
        let at = |place: usize| payload.get(place).copied().unwrap_or(0);
        Self(at(0), at(5), payload.last_chunk().map_or(0, |last| u32::from_be_bytes(*last)))
    }
}

/// Counts since they began.
#[derive(Debug)]
pub struct Figures {
    began: Instant,
    packets: u64,
    ip_bytes: u64,
    lost: u64,
    dropped: u64,
    queued_ms: Vec<f32>,
    rows: Option<Vec<Row>>,
}

/// The figures as they are told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How long was counted.
    pub seconds: f64,
    /// Packets that were sent into the link.
    pub packets: u64,
    /// Their bytes, IP headers counted.
    pub ip_bytes: u64,
    /// The same as a rate.
    pub kbps: f64,
    /// Packets that were lost on the way.
    pub lost: u64,
    /// Packets for which the queue was full.
    pub dropped: u64,
    /// How long packets waited for the bottleneck.
    pub queue_p50_ms: f64,
    /// The same, of one in twenty.
    pub queue_p95_ms: f64,
    /// The same, at most.
    pub queue_max_ms: f64,
    /// The packets one by one, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
}

impl Figures {
    /// Counts from `now` on; remembers each packet if `is_logging`.
    #[must_use]
    pub fn new(now: Instant, is_logging: bool) -> Self {
        let rows = is_logging.then(Vec::new);
        Self { began: now, packets: 0, ip_bytes: 0, lost: 0, dropped: 0, queued_ms: Vec::new(), rows }
    }

    /// Counts what came in as so many packets at once and goes to a port.
    pub fn add(&mut self, now: Instant, to: usize, packets: usize, ip_bytes: usize, marks: Marks, fate: Fate) {
        self.packets += packets as u64;
        self.ip_bytes += ip_bytes as u64;
        let took_us = match fate {
            Fate::Lost => {
                self.lost += packets as u64;
                LOST_US
            }
            Fate::Dropped => {
                self.dropped += packets as u64;
                DROPPED_US
            }
            Fate::Passes { queued, due } => {
                if self.queued_ms.len() < ROWS_MAX {
                    self.queued_ms.push(queued.as_secs_f32() * 1_000.0);
                }
                due.saturating_duration_since(now).as_micros() as i64
            }
        };
        if let Some(rows) = self.rows.as_mut().filter(|rows| rows.len() < ROWS_MAX) {
            let came_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros() as u64;
            rows.push(Row(came_us, ip_bytes as u32, took_us, to, marks));
        }
    }

    /// What was counted until `now`.
    #[must_use]
    pub fn summary(&self, now: Instant) -> Summary {
        let mut queued = self.queued_ms.clone();
        queued.sort_by(f32::total_cmp);
        let at = |share: f64| queued.get((queued.len().saturating_sub(1) as f64 * share).round() as usize).copied().unwrap_or(0.0).into();
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        Summary {
            seconds,
            packets: self.packets,
            ip_bytes: self.ip_bytes,
            kbps: self.ip_bytes as f64 * 8.0 / 1_000.0 / seconds.max(f64::EPSILON),
            lost: self.lost,
            dropped: self.dropped,
            queue_p50_ms: at(0.5),
            queue_p95_ms: at(0.95),
            queue_max_ms: at(1.0),
            rows: self.rows.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_their_fate_and_by_the_second() {
        let now = Instant::now();
        let mut figures = Figures::new(now, true);
        let passes = |queued| Fate::Passes { queued: Duration::from_millis(queued), due: now + Duration::from_millis(25) };
        for fate in [passes(0), passes(10), passes(30), Fate::Lost, Fate::Dropped] {
            figures.add(now, 0, 1, 100, Marks::default(), fate);
        }
        let summary = figures.summary(now + Duration::from_secs(2));
        assert_eq!((summary.packets, summary.lost, summary.dropped, summary.ip_bytes), (5, 1, 1, 500));
        assert!((summary.kbps - 2.0).abs() < 1e-6);
        assert_eq!((summary.queue_p50_ms, summary.queue_max_ms), (10.0, 30.0));
        assert_eq!(summary.rows.iter().map(|row| row.2).collect::<Vec<_>>(), [25_000, 25_000, 25_000, LOST_US, DROPPED_US]);
    }

    #[test]
    fn marks_are_those_of_what_udp_carries_and_of_nothing_else() {
        let packet = |protocol: u8, payload: &[u8]| {
            let mut packet = vec![0u8; 28];
            (packet[0], packet[3], packet[9]) = (0x45, 28 + payload.len() as u8, protocol);
            packet.extend_from_slice(payload);
            // Padding of a short frame.
            packet.push(9);
            packet
        };
        assert_eq!(Marks::of_ipv4(&packet(17, &[0x0f, 1, 2, 3, 4, 0x41])), Marks(0x0f, 0x41, 0x0203_0441));
        assert_eq!(Marks::of_ipv4(&packet(17, &[0x0f])), Marks(0x0f, 0, 0));
        assert_eq!(Marks::of_ipv4(&packet(6, &[0x0f, 1, 2, 3, 4, 0x41])), Marks::default());
        assert_eq!(Marks::of_ipv4(&[]), Marks::default());
    }
}
