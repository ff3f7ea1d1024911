//! The calls of the past: what each was like, kept in the home.
//!
//! While a call runs, its figures are added up here; what is kept at its end is one small object. Nothing of what was said is in it.

use crate::events::Stats;
use serde::{Deserialize, Serialize};

/// Calls that are kept. A busy person has ten a day, so that is three months; with it, the file has some hundred kilobytes.
pub const CALLS_MAX: usize = 1_000;

/// A call of the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CallRecord {
    /// The call.
    pub call: String,
    /// With whom, or who was called.
    pub with: String,
    /// `outgoing` or `incoming`.
    pub direction: String,
    /// When it was placed, or came in, in Unix milliseconds.
    pub began_ms: u64,
    /// How long it was connected.
    pub seconds: f64,
    /// Why it ended.
    pub reason: String,
    /// The ways that the packets took, in the order in which they first did.
    pub paths: Vec<String>,
    /// Round-trip time on average, if it was known.
    pub rtt_ms: Option<f64>,
    /// Voice packets sent.
    pub sent: u64,
    /// Voice packets received.
    pub received: u64,
    /// Voice packets of which neither the packet nor a copy came in time.
    pub lost: u64,
    /// Share of the other side's packets that did not come themselves, on average, in percent.
    pub loss_percent: f32,
    /// Share of the sound played that was made up, in percent.
    pub concealed_percent: f32,
    /// What the jitter buffer aimed at, on average.
    pub target_ms: u64,
    /// The longest time without a voice packet.
    pub gap_ms: u64,
    /// The rungs of the ladder on which this side sent, in the order in which they first were.
    pub rungs: Vec<String>,
    /// Sent on average, in kb/s.
    pub sent_kbps: f32,
    /// Received on average, in kb/s.
    pub received_kbps: f32,
    /// Estimated quality on average, 1 to 4.5 (ITU-T G.107); 0 where nothing was heard.
    pub mos: f32,
    /// At its worst.
    pub mos_min: f32,
    /// What limited it for the longest time, in plain words; empty: nothing did.
    pub limit: String,
}

/// Different limits that are told apart in one call; there are hardly more.
const LIMITS_MAX: usize = 16;
/// Different ways and rungs that are kept of one call; there are hardly more.
const WORDS_MAX: usize = 16;

/// The figures of a call that runs, added up.
#[derive(Debug, Default)]
pub struct CallFigures {
    last: Stats,
    seconds: u32,
    rtt_ms: f64,
    rtts: u32,
    target_ms: u64,
    gap_ms: u64,
    loss_percent: f32,
    sent_kbps: f32,
    received_kbps: f32,
    mos: f32,
    moses: u32,
    mos_min: f32,
    paths: Vec<String>,
    rungs: Vec<String>,
    /// Each limit, and for how many seconds.
    limits: Vec<(String, u32)>,
}

impl CallFigures {
    /// Adds the figures of a second.
    pub fn add(&mut self, stats: &Stats) {
        self.seconds += 1;
        if let Some(rtt_ms) = stats.rtt_ms {
            self.rtt_ms += rtt_ms;
            self.rtts += 1;
        }
        self.target_ms += stats.target_ms;
        self.gap_ms = self.gap_ms.max(stats.gap_ms);
        self.loss_percent += stats.loss_percent;
        self.sent_kbps += stats.sent_kbps;
        self.received_kbps += stats.received_kbps;
        if stats.mos > 0.0 {
            self.mos += stats.mos;
            self.mos_min = if self.moses == 0 { stats.mos } else { self.mos_min.min(stats.mos) };
            self.moses += 1;
        }
        add_word(&mut self.paths, &stats.path);
        add_word(&mut self.rungs, &stats.rung);
        let known = self.limits.iter().position(|(limit, _)| *limit == stats.limit);
        match known {
            Some(index) => self.limits[index].1 += 1,
            None if self.limits.len() < LIMITS_MAX => self.limits.push((stats.limit.clone(), 1)),
            None => {}
        }
        self.last = stats.clone();
    }

    /// What they say of the whole call. `record` holds who, when and how it ended; `stats` are the last figures of its sound.
    #[must_use]
    pub fn complete(&self, record: CallRecord, stats: &Stats) -> CallRecord {
        let average = |sum: f32, count: u32| if count == 0 { 0.0 } else { sum / count as f32 };
        let played_ms = record.seconds * 1_000.0;
        let concealed = if played_ms > 0.0 { (100.0 * stats.concealed_ms as f64 / played_ms).min(100.0) as f32 } else { 0.0 };
        CallRecord {
            rtt_ms: (self.rtts > 0).then(|| self.rtt_ms / f64::from(self.rtts)),
            sent: stats.sent,
            received: stats.received,
            lost: stats.lost,
            loss_percent: average(self.loss_percent, self.seconds),
            concealed_percent: concealed,
            target_ms: self.target_ms.checked_div(u64::from(self.seconds)).unwrap_or_default(),
            gap_ms: self.gap_ms.max(stats.gap_ms),
            sent_kbps: average(self.sent_kbps, self.seconds),
            received_kbps: average(self.received_kbps, self.seconds),
            mos: average(self.mos, self.moses),
            mos_min: self.mos_min,
            paths: self.paths.clone(),
            rungs: self.rungs.clone(),
            limit: self.limits.iter().max_by_key(|(_, seconds)| *seconds).map(|(limit, _)| limit.clone()).unwrap_or_default(),
            ..record
        }
    }
}

fn add_word(words: &mut Vec<String>, word: &str) {
    if !word.is_empty() && words.len() < WORDS_MAX && !words.iter().any(|known| known == word) {
        words.push(word.to_owned());
    }
}

impl CallRecord {
    /// As a person wants to read it.
    #[must_use]
    pub fn sentence(&self) -> String {
        let who = if self.direction == "incoming" { format!("from {}", self.with) } else { format!("to {}", self.with) };
        let began = date(self.began_ms);
        if self.seconds <= 0.0 {
            return format!("{began}  {who}: {}", self.reason);
        }
        let quality = if self.mos > 0.0 { format!(", quality {:.1} of 4.5", self.mos) } else { String::new() };
        let limit = if self.limit.is_empty() { String::new() } else { format!("; {}", self.limit) };
        let rtt = self.rtt_ms.map(|rtt_ms| format!(", {rtt_ms:.0} ms there and back")).unwrap_or_default();
        let path = self.paths.join(", then ");
        format!("{began}  {who}: {} after {:.0} s, {path}{rtt}{quality}{limit}", self.reason, self.seconds)
    }
}

/// Unix milliseconds as a date and a time of day in UTC (Howard Hinnant's `civil_from_days`).
fn date(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3_600, of_day % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(mos: f32, limit: &str, path: &str) -> Stats {
        Stats { mos, limit: limit.into(), path: path.into(), rtt_ms: Some(20.0), target_ms: 30, ..Stats::default() }
    }

    #[test]
    fn a_call_is_kept_as_its_averages_its_worst_and_what_limited_it_longest() {
        let mut figures = CallFigures::default();
        for stats in [second(4.4, "", "relay"), second(3.0, "loss", "relay"), second(4.0, "loss", "direct"), second(4.2, "", "relay")] {
            figures.add(&stats);
        }
        figures.add(&second(3.4, "loss", "direct"));
        let record = CallRecord { seconds: 5.0, with: "bob".into(), ..CallRecord::default() };
        let stats = Stats { received: 250, lost: 2, concealed_ms: 50, ..Stats::default() };
        let record = figures.complete(record, &stats);
        assert!((record.mos - 3.8).abs() < 0.001 && record.mos_min == 3.0, "{record:?}");
        assert_eq!((record.limit.as_str(), record.paths.join(" ")), ("loss", "relay direct".to_owned()));
        assert_eq!((record.received, record.lost, record.target_ms, record.rtt_ms), (250, 2, 30, Some(20.0)));
        assert!((record.concealed_percent - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_call_that_never_connected_has_nothing_to_average() {
        let record = CallFigures::default().complete(CallRecord { reason: "missed".into(), ..CallRecord::default() }, &Stats::default());
        assert_eq!((record.mos, record.target_ms, record.rtt_ms), (0.0, 0, None));
        assert!(record.sentence().ends_with("missed"));
    }

    #[test]
    fn times_are_told_as_dates() {
        for (unix_ms, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_767_225_599_000, "2025-12-31 23:59 UTC"),
            (1_795_383_720_000, "2026-11-22 21:42 UTC"),
        ] {
            assert_eq!(date(unix_ms), text);
        }
    }
}
