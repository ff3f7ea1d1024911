//! What a receiver tells: reports for the sender, facts for people.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use ahoy_protocol::media::{FrameDuration, MediaError, ReceiverReport, VoicePacket};
use ahoy_voice::testing::Hum;
use ahoy_voice::{BLOCK_SAMPLES, DelaySettings, VoiceReceiver};

/// A receiver of a hum, packet by packet in virtual time.
struct Listener {
    epoch: Instant,
    now_ms: u64,
    sequence: u16,
    timestamp: u16,
    receiver: VoiceReceiver<Hum>,
}

impl Listener {
    fn new() -> Self {
        let receiver = VoiceReceiver::with_decoder(DelaySettings::default(), Hum::default());
        Self { epoch: Instant::now(), now_ms: 0, sequence: 65_500, timestamp: 65_000, receiver }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_millis(self.now_ms)
    }

    /// A packet is sent with as many copies, and comes at once or never; then its time passes.
    fn packet(&mut self, duration: FrameDuration, copies: usize, is_lost: bool) {
        let frame = [duration.as_millis() as u8];
        let frames = vec![&frame[..]; 1 + copies];
        let packet = VoicePacket { sequence: self.sequence, timestamp: self.timestamp, duration, frames };
        if !is_lost {
            self.receiver.handle_voice(self.now(), &packet);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(duration.as_timestamp());
        self.pass(duration.as_millis() / 10);
    }

    fn pass(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.receiver.pull(self.now(), &mut [0.0; BLOCK_SAMPLES]);
            self.now_ms += 10;
        }
    }

    fn report(&mut self) -> ReceiverReport {
        self.receiver.report(self.now()).unwrap()
    }
}

#[test]
fn reports_tell_of_packets_and_not_of_the_copies_that_repair_them() {
    let mut listener = Listener::new();
    for packet in 0..100 {
        listener.packet(FrameDuration::Ms20, 2, packet % 5 == 2);
    }
    let report = listener.report();
    assert_eq!(report.received.count_zeros(), 13, "{:b}", report.received);
    assert_eq!(report.highest, 65_500_u16.wrapping_add(99));
    let stats = listener.receiver.stats();
    assert_eq!((stats.lost, stats.recovered), (0, 20), "{stats:?}");
    assert_eq!((stats.packets_expected, stats.packets_lost, stats.loss_bursts), (76, 15, 15));
    assert!((stats.packet_loss_percent() - 19.7).abs() < 0.1 && (stats.burst_packets() - 1.0).abs() < 1e-6);
}

#[test]
fn reports_tell_how_much_was_made_up_and_how_long_queues_were() {
    let mut listener = Listener::new();
    for _ in 0..100 {
        listener.packet(FrameDuration::Ms20, 0, false);
    }
    let report = listener.report();
    assert_eq!((report.queueing_ms, report.queueing_max_ms, report.concealed), (0, 0, 0));
    for packet in 0..10 {
        listener.packet(FrameDuration::Ms20, 0, packet % 2 == 1);
    }
    let concealed = listener.report().concealed;
    assert!((100..=160).contains(&concealed), "about half of 255: {concealed}");
    // Packets stay away for a second, and then come late by 30 ms.
    listener.pass(100);
    assert_eq!(listener.report().concealed, 255);
    listener.timestamp = listener.timestamp.wrapping_add(400 - 12);
    listener.sequence = listener.sequence.wrapping_add(50);
    listener.packet(FrameDuration::Ms20, 0, false);
    let report = listener.report();
    assert_eq!((report.queueing_ms, report.queueing_max_ms), (30, 30));
    let stats = listener.receiver.stats();
    assert!(stats.concealed_ms <= 350 && stats.comfort_noise_ms >= 700, "{stats:?}");
}

#[test]
fn frames_may_change_their_duration_at_any_packet() {
    let mut listener = Listener::new();
    let durations =
        [FrameDuration::Ms20, FrameDuration::Ms60, FrameDuration::Ms120, FrameDuration::Ms10, FrameDuration::Ms40, FrameDuration::Ms20];
    for duration in durations {
        for packet in 0..100 {
            // Copies have the packet's own duration, so the first packets after a change have none.
            listener.packet(duration, packet.min(1), false);
        }
    }
    let stats = listener.receiver.stats();
    assert_eq!((stats.lost, stats.late, stats.concealed_ms, stats.jumps), (0, 0, 0, 0), "{stats:?}");
}

#[test]
fn a_packet_handed_over_after_the_pull_that_needed_it_teaches_the_buffer_to_wait() {
    let mut receiver = VoiceReceiver::with_decoder(DelaySettings::default(), Hum::default());
    let epoch = Instant::now();
    let frame = [10];
    for index in 0..3_000_u64 {
        let at = |ms: f64| epoch + Duration::from_secs_f64((index as f64 * 10.0 + ms) / 1000.0);
        // It comes 4 ms before the pull; the thread that reads the network brings it 1 ms after.
        receiver.pull(at(5.0), &mut [0.0; BLOCK_SAMPLES]);
        let packet =
            VoicePacket { sequence: index as u16, timestamp: (index * 4) as u16, duration: FrameDuration::Ms10, frames: vec![&frame] };
        receiver.handle_voice(at(1.0), &packet);
    }
    let stats = receiver.stats();
    assert!(stats.late <= 2 && stats.concealed_ms <= 50, "{stats:?}");
}

#[test]
fn a_datagram_with_a_report_in_front_is_voice_and_a_report_alone_is_none() {
    let mut listener = Listener::new();
    listener.packet(FrameDuration::Ms20, 0, false);
    let report = listener.report();
    let frame = [20];
    let voice = VoicePacket { sequence: 65_501, timestamp: 65_008, duration: FrameDuration::Ms20, frames: vec![&frame] };
    let both = report.encode_with(&voice.encode().unwrap()).unwrap();
    let now = listener.now();
    assert_eq!(listener.receiver.handle_datagram(now, &both), Ok(()));
    assert_eq!(listener.receiver.handle_datagram(now, &report.encode()), Err(MediaError));
    assert_eq!((listener.receiver.stats().packets, listener.receiver.stats().malformed), (2, 1));
}
