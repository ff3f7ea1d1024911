//! QUIC datagrams of a call: voice packets and receiver reports.
//!
//! A voice packet holds a frame of Opus and up to three copies of the frames before it (RFC 2198's idea):
//!
//! ```text
//!  0       1               3               5
//! +-------+---------------+---------------+----------------------- - -
//! | kind  | duration,     | sequence      | timestamp     | length, frame | length, frame (the one before) | …
//! | (1)   | copies (1)    | number (2)    | (2)           | 1–2 bytes
//! +-------+---------------+---------------+----------------------- - -
//! ```
//! Copies stand in falling order of sequence number, directly before the packet's own, and have its duration.
//! A length below 128 takes one byte; else two, the first with its top bit set.
//!
//! A receiver report may stand in front of a voice packet in the same datagram, under a kind of its own: on a thin link the headers of a
//! datagram cost more than the report.

use thiserror::Error;

/// First byte of a voice packet.
pub const KIND_VOICE: u8 = 1;
/// First byte of a receiver report.
pub const KIND_REPORT: u8 = 2;
/// First byte of a receiver report that a voice packet, with its own first byte, follows.
pub const KIND_REPORT_AND_VOICE: u8 = 3;

/// Most copies in a packet.
pub const COPIES_MAX: usize = 3;
/// Longest frame of Opus that is read or written, in bytes (RFC 6716 allows 1275).
pub const FRAME_BYTES_MAX: usize = 1000;
/// Longest voice packet: what fits a QUIC datagram at the smallest MTU.
pub const PACKET_BYTES_MAX: usize = 1150;
/// Unit of timestamps, in microseconds.
pub const TIMESTAMP_UNIT_US: u64 = 2500;

/// Why bytes are not a media datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed media datagram")]
pub struct MediaError;

/// How much sound a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameDuration {
    /// 10 ms.
    Ms10,
    /// 20 ms.
    Ms20,
    /// 40 ms.
    Ms40,
    /// 60 ms.
    Ms60,
    /// 120 ms.
    Ms120,
}

impl FrameDuration {
    /// In milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u32 {
        match self {
            Self::Ms10 => 10,
            Self::Ms20 => 20,
            Self::Ms40 => 40,
            Self::Ms60 => 60,
            Self::Ms120 => 120,
        }
    }

    /// In units of timestamps.
    #[must_use]
    pub fn as_timestamp(self) -> u16 {
        match self {
            Self::Ms10 => 4,
            Self::Ms20 => 8,
            Self::Ms40 => 16,
            Self::Ms60 => 24,
            Self::Ms120 => 48,
        }
    }

    /// In samples at 48 kHz.
    #[must_use]
    pub fn as_samples(self) -> usize {
        self.as_millis() as usize * 48
    }

    fn code(self) -> u8 {
        match self {
            Self::Ms10 => 0,
            Self::Ms20 => 1,
            Self::Ms40 => 2,
            Self::Ms60 => 3,
            Self::Ms120 => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Ms10, Self::Ms20, Self::Ms40, Self::Ms60, Self::Ms120].get(usize::from(code)).copied()
    }
}

/// A voice packet, with its frames borrowed from the datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoicePacket<'a> {
    /// Counts packets, and wraps.
    pub sequence: u16,
    /// When the frame's first sample was captured, in [`TIMESTAMP_UNIT_US`] from an origin of the sender's; wraps.
    pub timestamp: u16,
    /// Of each frame in the packet.
    pub duration: FrameDuration,
    /// The packet's own frame, then copies of the ones before it, newest first: 1 to 1 + [`COPIES_MAX`].
    pub frames: Vec<&'a [u8]>,
}

impl<'a> VoicePacket<'a> {
    /// The packet as bytes. Copies that would make it longer than [`PACKET_BYTES_MAX`] are left out.
    ///
    /// # Errors
    /// [`MediaError`] without a frame, or with one longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, MediaError> {
        let own = self.frames.first().ok_or(MediaError)?;
        if own.len() > FRAME_BYTES_MAX {
            return Err(MediaError);
        }
        let mut bytes = vec![KIND_VOICE, 0];
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        put_frame(&mut bytes, own);
        let mut copies = 0;
        for copy in self.frames.iter().skip(1).take(COPIES_MAX) {
            if copy.len() > FRAME_BYTES_MAX || bytes.len() + copy.len() + 2 > PACKET_BYTES_MAX {
                break;
            }
            put_frame(&mut bytes, copy);
            copies += 1;
        }
        bytes[1] = self.duration.code() << 4 | copies;
        Ok(bytes)
    }

    /// The packet that `bytes` stand for.
    ///
    /// # Errors
    /// [`MediaError`] if they stand for none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MediaError> {
        let (header, mut rest) = bytes.split_at_checked(6).ok_or(MediaError)?;
        if header[0] != KIND_VOICE || bytes.len() > PACKET_BYTES_MAX {
            return Err(MediaError);
        }
        let duration = FrameDuration::from_code(header[1] >> 4).ok_or(MediaError)?;
        let copies = usize::from(header[1] & 0x0f);
        if copies > COPIES_MAX {
            return Err(MediaError);
        }
        let mut frames = Vec::with_capacity(1 + copies);
        for _ in 0..=copies {
            frames.push(take_frame(&mut rest)?);
        }
        if !rest.is_empty() {
            return Err(MediaError);
        }
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Ok(Self { sequence: number(2), timestamp: number(4), duration, frames })
    }
}

fn put_frame(bytes: &mut Vec<u8>, frame: &[u8]) {
    // Frames are at most FRAME_BYTES_MAX long, so both bytes of a length suffice.
    let len = frame.len();
    if len >= 128 {
        bytes.push(0x80 | (len >> 8) as u8);
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(frame);
}

fn take_frame<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], MediaError> {
    let (&first, mut after) = rest.split_first().ok_or(MediaError)?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let (&second, tail) = after.split_first().ok_or(MediaError)?;
        len = usize::from(first & 0x7f) << 8 | usize::from(second);
        after = tail;
        if len < 128 {
            return Err(MediaError);
        }
    }
    if len > FRAME_BYTES_MAX {
        return Err(MediaError);
    }
    let (frame, tail) = after.split_at_checked(len).ok_or(MediaError)?;
    *rest = tail;
    Ok(frame)
}

/// What a receiver tells the sender, every [`REPORT_INTERVAL_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverReport {
    /// Highest sequence number that came.
    pub highest: u16,
    /// Which of the 64 packets up to `highest` came themselves, whatever came as copies: bit 0 is `highest`.
    pub received: u64,
    /// Queueing delay: the least one-way delay since the last report above the least of the last 30 s, in milliseconds.
    pub queueing_ms: u16,
    /// The greatest one-way delay since the last report above the same least, in milliseconds.
    pub queueing_max_ms: u16,
    /// How much of the sound played since the last report was made up: 255 stands for all.
    pub concealed: u8,
    /// What the jitter buffer aims at, in milliseconds.
    pub target_ms: u16,
    /// The sender's timestamp of the newest packet, to be sent back.
    pub echo_timestamp: u16,
    /// How long ago the newest packet came, in milliseconds.
    pub echo_age_ms: u16,
}

/// Time between two reports, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 100;

impl ReceiverReport {
    /// Length of a report.
    pub const BYTES: usize = 22;

    /// The report as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = KIND_REPORT;
        bytes[1..3].copy_from_slice(&self.highest.to_be_bytes());
        bytes[3..11].copy_from_slice(&self.received.to_be_bytes());
        bytes[11..13].copy_from_slice(&self.queueing_ms.to_be_bytes());
        bytes[13..15].copy_from_slice(&self.target_ms.to_be_bytes());
        bytes[15..17].copy_from_slice(&self.echo_timestamp.to_be_bytes());
        bytes[17..19].copy_from_slice(&self.echo_age_ms.to_be_bytes());
        bytes[19..21].copy_from_slice(&self.queueing_max_ms.to_be_bytes());
        bytes[21] = self.concealed;
        bytes
    }

    /// The report that `bytes` stand for.
    ///
    /// # Errors
    /// [`MediaError`] if they stand for none.
    pub fn decode(bytes: &[u8]) -> Result<Self, MediaError> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().map_err(|_| MediaError)?;
        if bytes[0] != KIND_REPORT {
            return Err(MediaError);
        }
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut received = [0; 8];
        received.copy_from_slice(&bytes[3..11]);
        Ok(Self {
            highest: number(1),
            received: u64::from_be_bytes(received),
            queueing_ms: number(11),
            target_ms: number(13),
            echo_timestamp: number(15),
            echo_age_ms: number(17),
            queueing_max_ms: number(19),
            concealed: bytes[21],
        })
    }

    /// A datagram of this report and, behind it, a voice packet; `None` if it would be longer than [`PACKET_BYTES_MAX`].
    #[must_use]
    pub fn encode_with(&self, voice: &[u8]) -> Option<Vec<u8>> {
        if Self::BYTES + voice.len() > PACKET_BYTES_MAX {
            return None;
        }
        let mut bytes = self.encode().to_vec();
        bytes[0] = KIND_REPORT_AND_VOICE;
        bytes.extend_from_slice(voice);
        Some(bytes)
    }
}

/// What a media datagram holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDatagram<'a> {
    /// What the other side's receiver says.
    pub report: Option<ReceiverReport>,
    /// Its voice.
    pub voice: Option<VoicePacket<'a>>,
}

impl<'a> MediaDatagram<'a> {
    /// The datagram that `bytes` stand for.
    ///
    /// # Errors
    /// [`MediaError`] if they stand for none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MediaError> {
        match *bytes.first().ok_or(MediaError)? {
            KIND_VOICE => Ok(Self { report: None, voice: Some(VoicePacket::decode(bytes)?) }),
            KIND_REPORT => Ok(Self { report: Some(ReceiverReport::decode(bytes)?), voice: None }),
            KIND_REPORT_AND_VOICE => {
                let (report, voice) = bytes.split_at_checked(ReceiverReport::BYTES).ok_or(MediaError)?;
                let mut report: [u8; ReceiverReport::BYTES] = report.try_into().map_err(|_| MediaError)?;
                report[0] = KIND_REPORT;
                Ok(Self { report: Some(ReceiverReport::decode(&report)?), voice: Some(VoicePacket::decode(voice)?) })
            }
            _ => Err(MediaError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet<'a>(frames: Vec<&'a [u8]>) -> VoicePacket<'a> {
        VoicePacket { sequence: 65535, timestamp: 7, duration: FrameDuration::Ms20, frames }
    }

    #[test]
    fn a_packet_with_copies_reads_back() {
        let long = vec![5; 300];
        let sent = packet(vec![&long, &[1, 2, 3], &[]]);
        assert_eq!(VoicePacket::decode(&sent.encode().expect("fits")), Ok(sent));
    }

    #[test]
    fn copies_that_do_not_fit_are_left_out() {
        let long = vec![5; 800];
        let bytes = packet(vec![&long, &long, &long]).encode().expect("fits");
        assert_eq!(VoicePacket::decode(&bytes).expect("valid").frames.len(), 1);
    }

    #[test]
    fn truncated_and_extended_packets_are_refused() {
        let bytes = packet(vec![&[1, 2, 3], &[4]]).encode().expect("fits");
        for len in 0..bytes.len() {
            assert!(VoicePacket::decode(&bytes[..len]).is_err());
        }
        assert!(VoicePacket::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_report_reads_back() {
        let report = a_report();
        assert_eq!(ReceiverReport::decode(&report.encode()), Ok(report));
    }

    fn a_report() -> ReceiverReport {
        ReceiverReport {
            highest: 9,
            received: u64::MAX - 4,
            queueing_ms: 3,
            queueing_max_ms: 700,
            concealed: 17,
            target_ms: 40,
            echo_timestamp: 8,
            echo_age_ms: 1,
        }
    }

    #[test]
    fn a_report_and_a_voice_packet_share_a_datagram() {
        let (report, voice) = (a_report(), packet(vec![&[1, 2, 3], &[4]]));
        let bytes = report.encode_with(&voice.encode().expect("fits")).expect("fits");
        assert_eq!(MediaDatagram::decode(&bytes), Ok(MediaDatagram { report: Some(report), voice: Some(voice) }));
        for len in 0..bytes.len() {
            assert!(MediaDatagram::decode(&bytes[..len]).is_err());
        }
        assert_eq!(report.encode_with(&[0; PACKET_BYTES_MAX]), None);
    }

    #[test]
    fn each_kind_of_datagram_is_told_apart() {
        let (report, voice) = (a_report(), packet(vec![&[7]]).encode().expect("fits"));
        assert!(matches!(MediaDatagram::decode(&voice), Ok(MediaDatagram { report: None, voice: Some(_) })));
        assert_eq!(MediaDatagram::decode(&report.encode()), Ok(MediaDatagram { report: Some(report), voice: None }));
        assert_eq!(MediaDatagram::decode(&[9, 1, 2]), Err(MediaError));
    }
}
