//! Sequence numbers and timestamps that do not wrap.
//!
//! On the wire both have 16 bits: timestamps come round every 164 s. A packet is placed where it is nearest to what
//! the time since the last one lets expect, so that an outage of any length leaves it where it belongs. A packet far
//! from there is believed when a second one agrees with it: the sender began anew, or slept.

use ahoy_protocol::media::{TIMESTAMP_UNIT_US, VoicePacket};

/// Units of timestamps in a millisecond.
const UNITS_PER_MS: f64 = 1000.0 / TIMESTAMP_UNIT_US as f64;

/// Further than this from where it is expected, a packet is doubted: 3 s, in units of timestamps. Networks hold
/// packets back for a second or two; who holds them for longer might as well have begun anew.
const JUMP_UNITS: i64 = 1200;

/// Nearer than this to a doubted packet, a second one confirms it: 1 s, in units of timestamps.
const CONFIRM_UNITS: i64 = 400;

/// A packet's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: i64,
    /// In units of timestamps.
    pub(crate) timestamp: i64,
}

/// Where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// On the timeline.
    Here(Place),
    /// On another one, which begins here; everything before is void.
    Anew(Place),
    /// Nowhere, unless the next packet agrees with it.
    Doubtful,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    place: Place,
    arrival_ms: f64,
}

impl Anchor {
    fn beginning(arrival_ms: f64, packet: &VoicePacket<'_>) -> Self {
        Self { place: Place { sequence: i64::from(packet.sequence), timestamp: i64::from(packet.timestamp) }, arrival_ms }
    }

    /// The packet's place nearest to the one expected at `now_ms`, and how far off that is.
    fn place(&self, now_ms: f64, packet: &VoicePacket<'_>) -> (Place, i64) {
        let elapsed = ((now_ms - self.arrival_ms) * UNITS_PER_MS).round() as i64;
        let expected = self.place.timestamp + elapsed;
        let timestamp = nearest(expected, packet.timestamp);
        let frames = (timestamp - self.place.timestamp) / i64::from(packet.duration.as_timestamp());
        let sequence = nearest(self.place.sequence + frames, packet.sequence);
        (Place { sequence, timestamp }, timestamp - expected)
    }
}

/// The number nearest to `expected` that ends in the 16 bits of `wire`.
fn nearest(expected: i64, wire: u16) -> i64 {
    expected + i64::from(wire.wrapping_sub(expected as u16) as i16)
}

/// Places packets.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    newest: Option<Anchor>,
    doubted: Option<Anchor>,
}

impl Timeline {
    pub(crate) fn place(&mut self, now_ms: f64, packet: &VoicePacket<'_>) -> Placed {
        let Some(newest) = self.newest else {
            let anchor = Anchor::beginning(now_ms, packet);
            self.newest = Some(anchor);
            return Placed::Anew(anchor.place);
        };
        let (place, off) = newest.place(now_ms, packet);
        if off.abs() <= JUMP_UNITS {
            self.doubted = None;
            if place.timestamp > newest.place.timestamp {
                self.newest = Some(Anchor { place, arrival_ms: now_ms });
            }
            return Placed::Here(place);
        }
        self.doubt(now_ms, packet)
    }

    fn doubt(&mut self, now_ms: f64, packet: &VoicePacket<'_>) -> Placed {
        let confirmed = self.doubted.is_some_and(|doubted| doubted.place(now_ms, packet).1.abs() <= CONFIRM_UNITS);
        let anchor = Anchor::beginning(now_ms, packet);
        if confirmed {
            *self = Self { newest: Some(anchor), doubted: None };
            return Placed::Anew(anchor.place);
        }
        self.doubted = Some(anchor);
        Placed::Doubtful
    }
}

#[cfg(test)]
mod tests {
    use ahoy_protocol::media::FrameDuration;

    use super::*;

    fn packet(sequence: u64, timestamp: u64) -> VoicePacket<'static> {
        VoicePacket { sequence: sequence as u16, timestamp: timestamp as u16, duration: FrameDuration::Ms20, frames: vec![&[1]] }
    }

    fn here(sequence: i64, timestamp: i64) -> Placed {
        Placed::Here(Place { sequence, timestamp })
    }

    #[test]
    fn numbers_go_on_past_their_wrap() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.place(0.0, &packet(65_530, 65_530)), Placed::Anew(Place { sequence: 65_530, timestamp: 65_530 }));
        for step in 1..40_000_u64 {
            let placed = timeline.place(step as f64 * 20.0, &packet(65_530 + step, 65_530 + step * 8));
            assert_eq!(placed, here(65_530 + step as i64, 65_530 + step as i64 * 8));
        }
    }

    #[test]
    fn a_packet_after_ten_minutes_of_nothing_is_where_it_belongs() {
        let mut timeline = Timeline::default();
        timeline.place(0.0, &packet(0, 0));
        assert_eq!(timeline.place(600_003.0, &packet(30_000, 240_000)), here(30_000, 240_000));
    }

    #[test]
    fn an_earlier_packet_that_comes_later_is_placed_before() {
        let mut timeline = Timeline::default();
        timeline.place(0.0, &packet(0, 0));
        timeline.place(20.0, &packet(1, 8));
        assert_eq!(timeline.place(21.0, &packet(65_535, 65_528)), here(-1, -8));
    }

    #[test]
    fn a_sender_that_began_anew_is_believed_at_its_second_packet() {
        let mut timeline = Timeline::default();
        timeline.place(0.0, &packet(9, 9_000));
        assert_eq!(timeline.place(20.0, &packet(0, 0)), Placed::Doubtful);
        assert_eq!(timeline.place(40.0, &packet(1, 8)), Placed::Anew(Place { sequence: 1, timestamp: 8 }));
        assert_eq!(timeline.place(60.0, &packet(2, 16)), here(2, 16));
    }

    #[test]
    fn a_single_stray_packet_changes_nothing() {
        let mut timeline = Timeline::default();
        timeline.place(0.0, &packet(9, 9_000));
        assert_eq!(timeline.place(20.0, &packet(77, 30_000)), Placed::Doubtful);
        assert_eq!(timeline.place(21.0, &packet(10, 9_008)), here(10, 9_008));
        assert_eq!(timeline.place(40.0, &packet(88, 50_000)), Placed::Doubtful);
    }
}
