//! What comes in a call, and what comes from a disk: voice packets, reports, Opus, WAV.

use crate::Target;
use ahoy_protocol::media::{FrameDuration, ReceiverReport, VoicePacket};

pub(crate) fn targets() -> Vec<Target> {
    vec![Target { name: "sound_media_datagram", run: media_datagram, seeds: media_seeds }]
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
    let report = ReceiverReport { highest: 9, received: u64::MAX, queueing_ms: 3, target_ms: 40, echo_timestamp: 8, echo_age_ms: 1 };
    vec![packet.encode().expect("fits"), report.encode().to_vec()]
}
