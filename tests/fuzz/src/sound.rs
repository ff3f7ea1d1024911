//! What comes in a call, and what comes from a disk: voice packets, reports, Opus.

use crate::Target;
use ahoy_codec::{DECODED_SAMPLES_MAX, Decoder};
use ahoy_protocol::media::{FrameDuration, ReceiverReport, VoicePacket};
use ahoy_voice::{BLOCK_SAMPLES, SenderSettings, VoiceReceiver, VoiceSender};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target { name: "sound_media_datagram", run: media_datagram, seeds: media_seeds },
        Target { name: "sound_opus", run: opus, seeds: opus_seeds },
        Target { name: "sound_receiver", run: receiver, seeds: receiver_seeds },
        Target { name: "sound_report", run: report, seeds: report_seeds },
    ]
}

/// Both decoders on the same bytes; what decodes encodes to the bytes that it came from.
fn media_datagram(bytes: &[u8]) {
    if let Ok(packet) = VoicePacket::decode(bytes) {
        let again = packet.encode().expect("what was within its limits stays within them");
        let read = VoicePacket::decode(&again).expect("what was written can be read");
        // Copies that do not fit beside their lengths are left out; the packet's own frame never is.
        assert_eq!(read.frames[0], packet.frames[0]);
        assert_eq!((read.sequence, read.timestamp, read.duration), (packet.sequence, packet.timestamp, packet.duration));
    }
    if let Ok(report) = ReceiverReport::decode(bytes) {
        assert_eq!(report.encode(), bytes);
    }
}

fn media_seeds() -> Vec<Vec<u8>> {
    let (long, short) = ([7; 300], [1, 2, 3]);
    let packet = VoicePacket { sequence: 9, timestamp: 72, duration: FrameDuration::Ms20, frames: vec![&short, &long, &short] };
    let report = ReceiverReport {
        highest: 9,
        received: u64::MAX,
        queueing_ms: 3,
        queueing_max_ms: 9,
        concealed: 0,
        target_ms: 40,
        echo_timestamp: 8,
        echo_age_ms: 1,
    };
    vec![packet.encode().expect("fits"), report.encode().to_vec()]
}

/// A packet of Opus, and one more after it: sound that is a number, and no more of it than there may be.
fn opus(bytes: &[u8]) {
    let mut decoder = Decoder::new().expect("libopus has memory");
    for _ in 0..2 {
        if let Ok(samples) = decoder.decode(bytes) {
            assert!(samples.len() <= DECODED_SAMPLES_MAX);
            assert!(samples.iter().all(|sample| sample.is_finite()), "sound that is no number");
        }
    }
}

/// Half a second of a voice that rises, as packets.
fn speech() -> &'static Vec<Vec<u8>> {
    static SPEECH: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SPEECH.get_or_init(|| {
        let mut sender = VoiceSender::new(SenderSettings::default()).expect("the default settings are valid");
        let mut phase = 0.0_f32;
        let mut packets = Vec::new();
        for index in 0..50 {
            let mut block = [0.0; BLOCK_SAMPLES];
            for sample in &mut block {
                phase += (120.0 + 4.0 * index as f32) / 48_000.0;
                *sample = 0.3 * (std::f32::consts::TAU * phase).sin() * (std::f32::consts::TAU * phase * 3.0).cos();
            }
            packets.extend(sender.push(&block));
        }
        packets
    })
}

fn opus_seeds() -> Vec<Vec<u8>> {
    let frames = speech().iter().filter_map(|packet| Some(VoicePacket::decode(packet).ok()?.frames[0].to_vec()));
    frames.step_by(3).take(8).collect()
}

/// First instant of every run: what a receiver does depends on differences alone.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Most datagrams of one run, each with up to 320 ms until the next.
const DATAGRAMS_MAX: usize = 40;

/// Reads the input as datagrams, each after its length (two bytes) and the time until the next (one byte): whatever comes in whatever order, each 10 ms
/// have their block, which is sound that is a number.
fn receiver(bytes: &[u8]) {
    let mut receiver = VoiceReceiver::new().expect("libopus has memory");
    let (mut now, mut rest, mut block) = (start(), bytes, [0.0; BLOCK_SAMPLES]);
    for _ in 0..DATAGRAMS_MAX {
        let Some((&[high, low, blocks], after)) = rest.split_first_chunk() else { break };
        let len = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (datagram, after) = after.split_at(len);
        rest = after;
        let _ = receiver.handle_datagram(now, datagram);
        for _ in 0..blocks % 33 {
            now += Duration::from_millis(10);
            receiver.pull(now, &mut block);
            assert!(block.iter().all(|sample| sample.is_finite()), "sound that is no number");
            if let Some(report) = receiver.report(now) {
                assert_eq!(ReceiverReport::decode(&report.encode()), Ok(report));
            }
        }
    }
    let _ = receiver.stats();
}

fn receiver_seeds() -> Vec<Vec<u8>> {
    let framed = |(index, packet): (usize, &Vec<u8>)| {
        let len = u16::try_from(packet.len()).expect("packets are short");
        [&len.to_be_bytes()[..], &[if index % 7 == 3 { 5 } else { 2 }], packet].concat()
    };
    let in_order: Vec<Vec<u8>> = speech().iter().enumerate().map(framed).take(16).collect();
    let with_gaps: Vec<Vec<u8>> =
        in_order.iter().enumerate().filter(|(index, _)| index % 5 != 2).map(|(_, packet)| packet.clone()).collect();
    let reversed: Vec<Vec<u8>> = in_order.iter().rev().cloned().collect();
    [in_order, with_gaps, reversed].iter().map(|packets| packets.concat()).collect()
}

/// Reports back to back at a sender that goes on sending.
fn report(bytes: &[u8]) {
    let mut sender = VoiceSender::new(SenderSettings::default()).expect("the default settings are valid");
    let block = [0.1; BLOCK_SAMPLES];
    for chunk in bytes.chunks(ReceiverReport::BYTES).take(DATAGRAMS_MAX) {
        if let Ok(report) = ReceiverReport::decode(chunk) {
            sender.handle_report(&report);
        }
        if let Some(packet) = sender.push(&block) {
            assert!(VoicePacket::decode(&packet).is_ok(), "a packet that nobody can read");
        }
    }
    let _ = sender.stats();
}

fn report_seeds() -> Vec<Vec<u8>> {
    let report = |highest: u16| ReceiverReport {
        highest,
        received: u64::MAX,
        queueing_ms: 3,
        queueing_max_ms: 9,
        concealed: 0,
        target_ms: 40,
        echo_timestamp: 8,
        echo_age_ms: 1,
    };
    let encoded: Vec<[u8; ReceiverReport::BYTES]> = [0, 5, 10, 65_535, 9].iter().map(|highest| report(*highest).encode()).collect();
    vec![encoded.concat()]
}
