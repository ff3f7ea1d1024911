//! Whatever comes, in whatever order, the receiver keeps its bounds and gives blocks.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use ahoy_protocol::media::{FrameDuration, PACKET_BYTES_MAX, VoicePacket};
use ahoy_voice::{BLOCK_SAMPLES, SenderSettings, VoiceReceiver, VoiceSender};
use proptest::prelude::*;

/// What happens next in a hostile call.
#[derive(Debug, Clone)]
enum Event {
    /// Bytes that stand for nothing, or for anything.
    Bytes(Vec<u8>),
    /// A packet with fields of any value.
    Packet { sequence: u16, timestamp: u16, duration: usize, frames: Vec<Vec<u8>> },
    /// A packet of the real sender, which may come again and out of order.
    Real(usize),
    /// Blocks are asked for.
    Pull(usize),
    /// A report is asked for.
    Report,
    /// Time passes, in milliseconds, or seems to go back.
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let frame = proptest::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(Event::Bytes),
        (any::<u16>(), any::<u16>(), 0..5_usize, proptest::collection::vec(frame, 1..4))
            .prop_map(|(sequence, timestamp, duration, frames)| Event::Packet { sequence, timestamp, duration, frames }),
        (0..100_usize).prop_map(Event::Real),
        (0..100_usize).prop_map(Event::Real),
        (1..8_usize).prop_map(Event::Pull),
        Just(Event::Report),
        prop_oneof![0..30_i64, Just(5_000), Just(200_000), -100..0_i64].prop_map(Event::Pass),
    ]
}

fn real_packets() -> Vec<Vec<u8>> {
    let mut sender = VoiceSender::new(SenderSettings::default()).unwrap();
    (0..200_usize)
        .filter_map(|block| {
            let sound: [f32; BLOCK_SAMPLES] = std::array::from_fn(|index| ((block * 480 + index) as f32 * 0.02).sin() * 0.3);
            sender.push(&sound)
        })
        .collect()
}

fn encode(sequence: u16, timestamp: u16, duration: usize, frames: &[Vec<u8>]) -> Vec<u8> {
    let durations = [FrameDuration::Ms10, FrameDuration::Ms20, FrameDuration::Ms40, FrameDuration::Ms60, FrameDuration::Ms120];
    let frames = frames.iter().map(Vec::as_slice).collect();
    VoicePacket { sequence, timestamp, duration: durations[duration], frames }.encode().unwrap()
}

fn run(events: Vec<Event>, real: &[Vec<u8>]) {
    let mut receiver = VoiceReceiver::new().unwrap();
    let epoch = Instant::now();
    let mut now_ms = 1_000_i64;
    let mut block = [0.0; BLOCK_SAMPLES];
    for event in events {
        let now = epoch + Duration::from_millis(now_ms.unsigned_abs());
        match event {
            Event::Bytes(bytes) => _ = receiver.handle_datagram(now, &bytes),
            Event::Packet { sequence, timestamp, duration, frames } => {
                receiver.handle_datagram(now, &encode(sequence, timestamp, duration, &frames)).unwrap();
            }
            Event::Real(index) => receiver.handle_datagram(now, &real[index]).unwrap(),
            Event::Pull(blocks) => {
                for _ in 0..blocks {
                    block.fill(f32::NAN);
                    receiver.pull(now, &mut block);
                    assert!(block.iter().all(|sample| sample.abs() <= 1.0));
                }
            }
            Event::Report => _ = receiver.report(now),
            Event::Pass(ms) => now_ms = (now_ms + ms).max(0),
        }
        assert!(receiver.stats().buffered_ms <= 300 * 60 + 1_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_any_packets_is_survived(events in proptest::collection::vec(event(), 1..200)) {
        let real = real_packets();
        run(events, &real);
    }
}

#[test]
fn a_flood_of_packets_is_kept_within_bounds() {
    let mut receiver = VoiceReceiver::new().unwrap();
    let epoch = Instant::now();
    let frame = vec![0x55; PACKET_BYTES_MAX - 200];
    for index in 0..20_000_u32 {
        // All at once, each further ahead.
        let datagram = encode(index as u16, (index * 8) as u16, 1, std::slice::from_ref(&frame));
        receiver.handle_datagram(epoch + Duration::from_micros(u64::from(index)), &datagram).unwrap();
        assert!(receiver.stats().buffered_ms <= 3_100);
    }
}
