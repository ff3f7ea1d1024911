//! What went over the wire in a call: how much of it was voice, and what else there was. For whoever asks why a call sent so much, or what happened when a
//! link changed; nothing here is judged.

use crate::call::{CallOutcome, Direction, VOICE_BYTES_MIN};
use crate::quality_rows::SETTLE_US;
use ahoy_lab::Event;
use ahoy_netlab::link::{DROPPED_US, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// First bytes of what shares a port with QUIC; see `ahoy_protocol::datagram`.
const RELAY_FRAME: u8 = 0x0f;
const PING: u8 = 0x12;
const PONG: u8 = 0x13;
/// This bit is set in every packet of QUIC.
const QUIC: u8 = 0x40;
/// This one, too, in those of a handshake.
const QUIC_LONG: u8 = 0x80;
/// Behind this header a relay's frame holds what would go directly.
const RELAY_HEADER_BYTES: u32 = 5;
/// A QUIC packet that acknowledges and carries nothing else is shorter than one with a report.
const REPORT_BYTES_MIN: u32 = 66;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    /// A packet of voice; a report may ride on it.
    Voice,
    /// A packet of voice that has gone before, by this way or another.
    Twin,
    /// A report to the sender, by itself.
    Report,
    /// Acknowledgements of the connection alone.
    Acknowledgement,
    /// A PING or PONG, by which paths are found and watched.
    Probe,
    /// Handshakes, talks with the servers, TCP.
    Other,
}

impl Content {
    const ALL: [Self; 6] = [Self::Voice, Self::Twin, Self::Report, Self::Acknowledgement, Self::Probe, Self::Other];

    fn word(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Twin => "again",
            Self::Report => "reports",
            Self::Acknowledgement => "acks",
            Self::Probe => "probes",
            Self::Other => "rest",
        }
    }

    /// What a packet is by itself; twins are told by the one before.
    fn of(row: &Row) -> Self {
        let is_relayed = row.4.0 == RELAY_FRAME;
        let (first, bytes) = if is_relayed { (row.4.1, row.1.saturating_sub(RELAY_HEADER_BYTES)) } else { (row.4.0, row.1) };
        match first {
            PING | PONG => Self::Probe,
            _ if first & (QUIC | QUIC_LONG) != QUIC => Self::Other,
            _ if bytes as usize >= VOICE_BYTES_MIN => Self::Voice,
            _ if bytes >= REPORT_BYTES_MIN => Self::Report,
            _ => Self::Acknowledgement,
        }
    }
}

/// The packets that one end of a call sent, each with what it is.
pub(crate) fn contents(direction: &Direction) -> Vec<(&Row, Content)> {
    let mut seen = BTreeSet::new();
    let of = |row: &'_ Row| match Content::of(row) {
        Content::Voice if !seen.insert(row.4.2) => Content::Twin,
        content => content,
    };
    let contents: Vec<Content> = direction.wire.rows.iter().map(of).collect();
    direction.wire.rows.iter().zip(contents).collect()
}

/// Kilobits a second of each kind of content.
#[derive(Debug, Clone, Default)]
struct Shares {
    kbps: BTreeMap<Content, f64>,
    voice: usize,
    twins: usize,
}

impl Shares {
    /// Of what was sent between two times in Unix microseconds.
    fn of(packets: &[(&Row, Content)], from_us: f64, to_us: f64) -> Self {
        let mut shares = Self::default();
        for (row, content) in packets.iter().filter(|(row, _)| (from_us..to_us).contains(&(row.0 as f64))) {
            *shares.kbps.entry(*content).or_default() += f64::from(row.1) * 8_000.0 / (to_us - from_us);
            shares.voice += usize::from(*content == Content::Voice);
            shares.twins += usize::from(*content == Content::Twin);
        }
        shares
    }

    /// Which packets of voice were sent more than once, by two ways or again, in percent.
    fn twice_percent(&self) -> f64 {
        100.0 * self.twins as f64 / self.voice.max(1) as f64
    }

    fn kbps(&self, content: Content) -> f64 {
        self.kbps.get(&content).copied().unwrap_or(0.0)
    }
}

/// What the calls that have settled sent, as lines of a table: the calls of a row, whose names differ by the seed alone, together.
pub(crate) fn table(outcomes: &[CallOutcome]) -> String {
    let mut rows: BTreeMap<String, Vec<Shares>> = BTreeMap::new();
    for outcome in outcomes {
        let name = outcome.plan.id.trim_end_matches(|character: char| character.is_ascii_digit());
        let from = outcome.changed_us.last().copied().unwrap_or(0.0) + SETTLE_US;
        let shares = outcome.directions.iter().map(|direction| {
            let packets = contents(direction);
            let begin = packets.first().map_or(0.0, |(row, _)| row.0 as f64).max(from);
            Shares::of(&packets, begin, packets.last().map_or(begin, |(row, _)| row.0 as f64))
        });
        rows.entry(name.trim_end_matches('-').to_owned()).or_default().extend(shares);
    }
    let words = Content::ALL.map(Content::word).join(" | ");
    let mut text = format!("| calls | {words} | all | of the voice twice |\n|{}\n", "---|".repeat(Content::ALL.len() + 3));
    for (name, shares) in rows {
        let mean = mean(&shares);
        let cells = Content::ALL.map(|content| format!("{:.1}", mean.kbps(content))).join(" | ");
        let _ = writeln!(text, "| {name} | {cells} | {:.0} | {:.0} % |", mean.kbps.values().sum::<f64>(), mean.twice_percent());
    }
    text
}

fn mean(all: &[Shares]) -> Shares {
    let mut mean = Shares::default();
    for shares in all {
        for (content, kbps) in &shares.kbps {
            *mean.kbps.entry(*content).or_default() += kbps / all.len() as f64;
        }
        mean.voice += shares.voice;
        mean.twins += shares.twins;
    }
    mean
}

/// A call second by second, both directions: what was sent, how long it queued, and what the sender made of it.
pub(crate) fn by_second(outcome: &CallOutcome) -> String {
    let mut text = String::new();
    for (direction, way) in outcome.directions.iter().zip(["caller to callee", "callee to caller"]) {
        let changes: Vec<String> =
            outcome.changed_us.iter().map(|us| format!("{:.1}", (us - direction.play_started_us) / SECOND_US)).collect();
        let _ = writeln!(text, "{way}; the link changed at second {}", changes.join(", "));
        let contents = Content::ALL.map(|content| format!("{:>8}", content.word())).join(" ");
        let _ = writeln!(text, "   s {contents}      all  lost  full queue  | {}", TOLD.map(|(name, ..)| format!("{name:>8}")).join(" "));
        write_seconds(&mut text, direction);
    }
    text
}

const SECOND_US: f64 = 1e6;
/// What the programs tell of themselves: the heading, the field, and whether the sender tells it, or the receiver.
const TOLD: [(&str, &str, bool); 10] = [
    ("rung", "rung", true),
    ("frame", "frame_ms", true),
    ("copies", "copies", true),
    ("opus", "codec_kbps", true),
    ("room", "available_kbps", true),
    ("queue", "queueing_ms", true),
    ("loss", "peer_loss_percent", true),
    ("wait", "target_ms", false),
    ("made up", "concealed_percent", false),
    ("path", "path", true),
];

fn write_seconds(text: &mut String, direction: &Direction) {
    let packets = contents(direction);
    let (Some((first, _)), Some((last, _))) = (packets.first(), packets.last()) else { return };
    // What the link takes where nothing queues.
    let least_us = packets.iter().map(|(row, _)| row.2).filter(|took_us| *took_us >= 0).min().unwrap_or(0);
    for second in 0..((last.0 - first.0) as f64 / SECOND_US) as usize {
        let from = first.0 as f64 + second as f64 * SECOND_US;
        let within: Vec<_> = packets.iter().copied().filter(|(row, _)| (from..from + SECOND_US).contains(&(row.0 as f64))).collect();
        let shares = Shares::of(&within, from, from + SECOND_US);
        let contents = Content::ALL.map(|content| format!("{:>8.1}", shares.kbps(content))).join(" ");
        let all: f64 = shares.kbps.values().sum();
        let count = |is_it: fn(i64) -> bool| within.iter().filter(|(row, _)| is_it(row.2)).count();
        let (lost, dropped) = (count(|took_us| took_us < 0), count(|took_us| took_us == DROPPED_US));
        let queue_ms = within.iter().map(|(row, _)| (row.2 - least_us) / 1_000).max().unwrap_or(0).max(0);
        let told = |events: &[Event]| events.iter().find(|event| event.is("stats") && event.t_ms() * 1_000.0 >= from + SECOND_US).cloned();
        let (sender, receiver) = (told(&direction.sender), told(&direction.receiver));
        let cells = TOLD.map(|(_, field, is_senders)| {
            let value = if is_senders { &sender } else { &receiver }.as_ref().and_then(|event| event.0.get(field));
            let cell = value.map_or(String::new(), |value| {
                value.as_f64().map_or_else(|| value.as_str().unwrap_or("").to_owned(), |number| format!("{number:.1}"))
            });
            format!("{cell:>8}")
        });
        let at = (from - direction.play_started_us) / SECOND_US;
        let _ = writeln!(text, "{at:>4.0} {contents} {all:>8.1} {lost:>5} {dropped:>5} {queue_ms:>5}  | {}", cells.join(" "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ahoy_netlab::link::Marks;

    #[test]
    fn a_packet_that_goes_two_ways_is_voice_once() {
        let row = |at, tail| Row(at, 150, 0, 1, Marks(0x4a, 0, tail));
        let wire = ahoy_netlab::link::Summary { rows: vec![row(0, 1), row(10, 1), row(20_000, 2)], ..Default::default() };
        let direction = Direction { wire, ..Direction::default() };
        let contents: Vec<Content> = contents(&direction).into_iter().map(|(_, content)| content).collect();
        assert_eq!(contents, [Content::Voice, Content::Twin, Content::Voice]);
    }

    #[test]
    fn packets_are_told_apart_directly_and_behind_a_relays_header() {
        let content = |bytes, first, sixth| Content::of(&Row(0, bytes, 0, 1, Marks(first, sixth, 0)));
        assert_eq!(content(62, PING, 9), Content::Probe);
        assert_eq!(content(62 + RELAY_HEADER_BYTES, RELAY_FRAME, PING), Content::Probe);
        assert_eq!(content(150, 0x4a, 9), Content::Voice);
        assert_eq!(content(94, RELAY_FRAME, 0x4a), Content::Report);
        assert_eq!(content(60, 0x4a, 9), Content::Acknowledgement);
        assert_eq!(content(1_200, 0xc3, 9), Content::Other);
        assert_eq!(content(52, 0, 0), Content::Other);
    }
}
