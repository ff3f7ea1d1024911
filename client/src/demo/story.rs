//! What happened in the demo's call, put together from the events of both sides.

use super::DemoError;
use crate::events::{Event, Stamped};
use crate::quality::Quality;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Samples a millisecond, at the rate in which recordings are compared.
const SAMPLES_PER_MS: f64 = 48.0;

/// Whose event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// She calls.
    Alice,
    /// He answers.
    Bob,
}

/// What is known of the call so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Where each of them is registered.
    alice_at: Vec<String>,
    bob_at: Vec<String>,
    found: Option<Found>,
    ringing_ms: Option<u64>,
    connected: Option<Connected>,
    last_path: Option<String>,
    rtt_ms: Option<f64>,
    /// When alice's first sample was captured and bob's first was played, in Unix microseconds.
    captured_us: Option<u64>,
    played_us: Option<u64>,
    alice_end: Option<End>,
    bob_end: Option<End>,
}

#[derive(Debug)]
struct Found {
    at: Vec<String>,
    supernodes_asked: u16,
    look_up_ms: u64,
}

#[derive(Debug)]
struct Connected {
    path: String,
    setup_ms: u64,
}

#[derive(Debug)]
struct End {
    reason: String,
    received: u64,
    lost: u64,
    recording: Option<PathBuf>,
}

/// How the call went.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    story: &'a Story,
    found: &'a Found,
    connected: &'a Connected,
    alice_end: &'a End,
    bob_end: &'a End,
    recording: &'a Path,
    mouth_to_ear_ms: f64,
    pesq_wb: f64,
}

/// The event in a line of a client's output.
pub(super) fn parse(line: &str) -> Option<Event> {
    serde_json::from_str::<Stamped>(line).ok().map(|stamped| stamped.event)
}

/// What to tell somebody who watches.
pub(super) fn progress(event: &Event) -> Option<String> {
    Some(match event {
        Event::Calling { devices, found_at, .. } => {
            format!("  found         {devices} device{} of bob at {}", plural(*devices), found_at.join(", "))
        }
        Event::Ringing { .. } => "  ringing".to_owned(),
        Event::Connected { path, setup_ms, .. } => format!("  connected     by {path}, {setup_ms} ms after the call was placed"),
        Event::Path { kind, rtt_ms: Some(rtt_ms), .. } => format!("  path          {kind}, {rtt_ms:.1} ms there and back"),
        Event::Path { kind, .. } => format!("  path          {kind}"),
        Event::Stats(stats) => {
            format!("  talking       {} packets received, {} lost, by {}", stats.received, stats.lost, stats.path)
        }
        Event::Ended { reason, seconds, .. } => format!("  ended         {reason} after {seconds:.1} s"),
        Event::Warning { text } => format!("  warning       {text}"),
        _ => return None,
    })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Story {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Takes in an event.
    pub(super) fn hear(&mut self, side: Side, event: &Event) {
        match (side, event) {
            (Side::Alice, Event::Online { supernodes, .. }) => self.alice_at.clone_from(supernodes),
            (Side::Bob, Event::Online { supernodes, .. }) => self.bob_at.clone_from(supernodes),
            (Side::Alice, Event::Calling { supernodes_asked, found_at, look_up_ms, .. }) => {
                self.found = Some(Found { at: found_at.clone(), supernodes_asked: *supernodes_asked, look_up_ms: *look_up_ms });
            }
            (Side::Alice, Event::Ringing { after_ms, .. }) => self.ringing_ms = Some(*after_ms),
            (Side::Alice, Event::Connected { path, setup_ms, .. }) => {
                self.connected = Some(Connected { path: path.clone(), setup_ms: *setup_ms });
            }
            (Side::Alice, Event::Path { kind, rtt_ms, .. }) => {
                self.last_path = Some(kind.clone());
                self.rtt_ms = *rtt_ms;
            }
            (Side::Alice, Event::Media { play_started_us, .. }) => self.captured_us = Some(*play_started_us),
            (Side::Bob, Event::Media { record_started_us, .. }) => self.played_us = Some(*record_started_us),
            (side, Event::Ended { reason, received, lost, recording, .. }) => {
                let end =
                    End { reason: reason.clone(), received: *received, lost: *lost, recording: recording.as_ref().map(PathBuf::from) };
                *(if side == Side::Alice { &mut self.alice_end } else { &mut self.bob_end }) = Some(end);
            }
            _ => (),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.has_ended(Side::Alice) && self.has_ended(Side::Bob)
    }

    pub(super) fn has_ended(&self, side: Side) -> bool {
        match side {
            Side::Alice => self.alice_end.is_some(),
            Side::Bob => self.bob_end.is_some(),
        }
    }

    /// Complains if the call ended before it connected, or not by hanging up.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        match &self.alice_end {
            Some(end) if end.reason != "hung-up" || self.connected.is_none() => Err(DemoError::Call(end.reason.clone())),
            _ => Ok(()),
        }
    }

    /// Bob's recording.
    pub(super) fn recording(&self) -> Option<&Path> {
        self.bob_end.as_ref()?.recording.as_deref()
    }

    /// The summary; `None` if something is missing.
    pub(super) fn summary(&self, quality: Quality) -> Option<Summary<'_>> {
        let recorder_ahead_ms = (self.played_us? as f64 - self.captured_us? as f64) / 1_000.0;
        Some(Summary {
            story: self,
            found: self.found.as_ref()?,
            connected: self.connected.as_ref()?,
            alice_end: self.alice_end.as_ref()?,
            bob_end: self.bob_end.as_ref()?,
            recording: self.recording()?,
            mouth_to_ear_ms: recorder_ahead_ms + quality.delay_samples as f64 / SAMPLES_PER_MS,
            pesq_wb: f64::from(quality.pesq_wb),
        })
    }
}

impl Summary<'_> {
    /// Bob's recording.
    pub(super) fn recording(&self) -> &Path {
        self.recording
    }

    /// The event that ends the output for programs.
    pub(super) fn event(&self) -> Event {
        Event::Summary {
            pesq_wb: round(self.pesq_wb, 3),
            setup_ms: self.connected.setup_ms,
            mouth_to_ear_ms: round(self.mouth_to_ear_ms, 1),
            lost: self.lost(),
            first_path: self.connected.path.clone(),
            last_path: self.last_path().to_owned(),
        }
    }

    /// The table that ends the output for people. `names` tells what the demo calls each address.
    pub(super) fn table(&self, names: &[(String, String)]) -> String {
        let named = |addresses: &[String]| addresses.iter().map(|address| name(address, names)).collect::<Vec<_>>().join(", ");
        let mut rows = vec![("bob is at", named(&self.story.bob_at))];
        if !self.story.alice_at.is_empty() {
            rows.insert(0, ("alice is at", named(&self.story.alice_at)));
        }
        let Found { at, supernodes_asked, look_up_ms } = self.found;
        let asked = usize::from(*supernodes_asked);
        rows.push(("bob was found", format!("at {}, through {asked} supernode{} in {look_up_ms} ms", named(at), plural(asked))));
        let rtt = self.story.rtt_ms.map(|rtt_ms| format!(", {rtt_ms:.1} ms there and back")).unwrap_or_default();
        rows.push(("path", format!("first {}, last {}{rtt}", self.connected.path, self.last_path())));
        let ringing = self.story.ringing_ms.map(|ringing_ms| format!(", ringing after {ringing_ms} ms")).unwrap_or_default();
        rows.push(("set-up", format!("{} ms{ringing}", self.connected.setup_ms)));
        rows.push(("mouth to ear", format!("{:.0} ms", self.mouth_to_ear_ms)));
        rows.push(("packets lost", format!("{} of {}", self.lost(), self.lost() + self.received())));
        rows.push(("speech quality", format!("{:.2} of 4.64 (PESQ wideband)", self.pesq_wb)));
        rows.iter().fold(String::new(), |mut table, (label, value)| {
            let _ = writeln!(table, "  {label:<15} {value}");
            table
        })
    }

    fn lost(&self) -> u64 {
        self.alice_end.lost + self.bob_end.lost
    }

    fn received(&self) -> u64 {
        self.alice_end.received + self.bob_end.received
    }

    fn last_path(&self) -> &str {
        self.story.last_path.as_deref().unwrap_or(&self.connected.path)
    }
}

fn name(address: &str, names: &[(String, String)]) -> String {
    match names.iter().find(|(known, _)| known == address) {
        Some((_, name)) => format!("{name} ({address})"),
        None => address.to_owned(),
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected_story() -> Story {
        let mut story = Story::new();
        let call = || "c".to_owned();
        let hub = || "127.0.0.1:7".to_owned();
        let device = "d".to_owned();
        story.hear(Side::Bob, &Event::Online { name: "bob".into(), device: device.clone(), supernodes: vec![hub()] });
        let calling =
            Event::Calling { call: call(), to: "bob".into(), devices: 1, supernodes_asked: 2, found_at: vec![hub()], look_up_ms: 9 };
        story.hear(Side::Alice, &calling);
        story.hear(Side::Alice, &Event::Ringing { call: call(), device, after_ms: 80 });
        story.hear(Side::Alice, &Event::Connected { call: call(), with: "bob".into(), path: "relay".into(), setup_ms: 120 });
        story.hear(Side::Alice, &Event::Path { call: call(), kind: "direct".into(), rtt_ms: Some(0.4) });
        story.hear(Side::Alice, &Event::Media { call: call(), play_started_us: 1_000_000, record_started_us: 0 });
        story.hear(Side::Bob, &Event::Media { call: call(), play_started_us: 0, record_started_us: 1_010_000 });
        story
    }

    fn ended(reason: &str, recording: Option<&str>) -> Event {
        let recording = recording.map(str::to_owned);
        Event::Ended { call: "c".into(), with: "x".into(), reason: reason.into(), seconds: 18.0, received: 899, lost: 1, recording }
    }

    #[test]
    fn the_summary_adds_both_sides_and_measures_from_mouth_to_ear() {
        let mut story = connected_story();
        assert!(story.is_connected() && !story.is_over());
        story.hear(Side::Alice, &ended("hung-up", None));
        story.hear(Side::Bob, &ended("hung-up", Some("/tmp/r.wav")));
        assert!(story.is_over() && story.check().is_ok());
        let summary = story.summary(Quality { pesq_wb: 4.25, delay_samples: 48 * 50 }).expect("all is known");
        assert_eq!(
            summary.event(),
            Event::Summary {
                pesq_wb: 4.25,
                setup_ms: 120,
                mouth_to_ear_ms: 60.0,
                lost: 2,
                first_path: "relay".into(),
                last_path: "direct".into()
            }
        );
        let table = summary.table(&[("127.0.0.1:7".into(), "supernode 2".into())]);
        for part in ["supernode 2 (127.0.0.1:7)", "through 2 supernodes", "first relay, last direct", "2 of 1800", "60 ms", "4.25"] {
            assert!(table.contains(part), "{part:?} is not in\n{table}");
        }
    }

    #[test]
    fn a_call_that_does_not_end_by_hanging_up_has_failed() {
        let mut story = connected_story();
        story.hear(Side::Alice, &ended("lost", None));
        assert!(matches!(story.check(), Err(DemoError::Call(reason)) if reason == "lost"));
    }

    #[test]
    fn without_a_recording_there_is_no_summary() {
        let mut story = connected_story();
        story.hear(Side::Alice, &ended("hung-up", None));
        story.hear(Side::Bob, &ended("hung-up", None));
        assert!(story.summary(Quality { pesq_wb: 4.25, delay_samples: 0 }).is_none());
    }
}
