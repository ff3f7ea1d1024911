//! What was sent, and which of it arrived.
//!
//! Reports overlap, and get lost and reordered themselves; the ledger takes what each of them adds. From it come the share of packets lost, how
//! they bunch, and what would have been lost had each packet carried copies, which is all that the choice of copies needs to know.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahoy_protocol::media::{COPIES_MAX, ReceiverReport};

use super::queue::Busy;

/// Packets that are remembered: ten seconds of the shortest.
const PACKETS_MAX: usize = 1_024;

/// A shorter time than this, in seconds, holds too few packets to divide by.
const CARRIED_LEAST_S: f64 = 0.06;
/// What the path loses anyway is counted over this before the link became busy…
const BEFORE_BUSY: Duration = Duration::from_secs(10);
/// … and on so many packets at least.
const BEFORE_BUSY_LEAST: usize = 15;

/// Packets this close to the highest may have been overtaken, and do not count as lost yet.
const REORDERED: usize = 2;

/// A run of lost packets longer than this is an outage, which no copies repair: it is left out of what is reckoned with.
const OUTAGE: usize = 8;

/// A jump in sequence numbers farther than this is another sender, or our own after so long that nothing before it counts.
const JUMP: u16 = 4 * PACKETS_MAX as u16;

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    sequence: u16,
    wire_bytes: usize,
    /// Whether a report has told of it. Reports reach back 64 packets; when many of them get lost, some packets are never told of.
    is_told: bool,
    has_arrived: bool,
}

/// How a stretch of packets fared.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct LossStats {
    /// Packets whose fate is known.
    pub(crate) packets: usize,
    /// Share of them that were lost, outages and all.
    pub(crate) lost: f64,
    /// Share of frames that would be lost outside of outages with as many copies as the index: of 0 to 1.
    pub(crate) with_copies: [f64; COPIES_MAX + 1],
    /// Mean length of a run of lost packets.
    pub(crate) burst: f64,
}

impl LossStats {
    /// Share of frames lost with so many copies, outages and all.
    pub(crate) fn unrepaired(&self, copies: usize) -> f64 {
        (self.lost - self.packets_lost() + self.with_copies[copies]).clamp(0.0, 1.0)
    }

    /// Share of packets lost outside of outages.
    pub(crate) fn packets_lost(&self) -> f64 {
        self.with_copies[0]
    }
}

/// What a report meant to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// More packets have arrived, later ones than were known of.
    News,
    /// Nothing later than was known.
    Stale,
    /// It speaks of packets that were never sent.
    Absurd,
}

/// The packets of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    packets: VecDeque<Sent>,
    /// How many of `packets`, from the front, reports have told of.
    told: usize,
}

impl Ledger {
    pub(crate) fn handle_sent(&mut self, at: Instant, sequence: u16, wire_bytes: usize) {
        if let Some(last) = self.packets.back() {
            let ahead = sequence.wrapping_sub(last.sequence);
            if ahead == 0 || ahead > JUMP {
                self.packets.clear();
                self.told = 0;
            }
        }
        if self.packets.len() >= PACKETS_MAX {
            self.packets.pop_front();
            self.told = self.told.saturating_sub(1);
        }
        self.packets.push_back(Sent { at, sequence, wire_bytes, is_told: false, has_arrived: false });
    }

    pub(crate) fn handle_report(&mut self, report: &ReceiverReport) -> Told {
        let Some(highest) = self.position(report.highest) else { return Told::Absurd };
        for packet in self.packets.iter_mut().take(highest + 1).rev() {
            let age = report.highest.wrapping_sub(packet.sequence);
            if u32::from(age) >= u64::BITS {
                break;
            }
            packet.is_told = true;
            packet.has_arrived |= report.received & (1 << age) != 0;
        }
        if highest < self.told {
            return Told::Stale;
        }
        self.told = highest + 1;
        Told::News
    }

    /// Where the packet of this number is, which was sent lately.
    fn position(&self, sequence: u16) -> Option<usize> {
        let last = self.packets.back()?.sequence;
        let back = usize::from(last.wrapping_sub(sequence));
        // Numbers that were not sent make the guess too early, never too late.
        let guess = self.packets.len().saturating_sub(1 + back);
        let found = |index: &usize| self.packets[*index].sequence == sequence;
        (guess..self.packets.len()).take_while(|index| last.wrapping_sub(self.packets[*index].sequence) as usize >= back).find(found)
    }

    /// When the newest packet that is known to have arrived was sent.
    pub(crate) fn told_until(&self) -> Option<Instant> {
        Some(self.packets.get(self.told.checked_sub(1)?)?.at)
    }

    /// When the oldest packet was sent of which nothing is known.
    pub(crate) fn untold_since(&self) -> Option<Instant> {
        Some(self.packets.get(self.told)?.at)
    }

    /// How the packets fared that were sent at `since` and later.
    pub(crate) fn loss(&self, since: Instant) -> LossStats {
        self.loss_in(since, None)
    }

    /// The same for those sent before `until`.
    pub(crate) fn loss_in(&self, since: Instant, until: Option<Instant>) -> LossStats {
        let known = self.told.saturating_sub(REORDERED);
        let known = until.map_or(known, |until| self.packets.partition_point(|packet| packet.at < until).min(known));
        let from = self.packets.partition_point(|packet| packet.at < since).min(known);
        let mut tally = Tally::default();
        let mut previous: Option<u16> = None;
        for packet in self.packets.range(from..known).filter(|packet| packet.is_told) {
            // Numbers that were not sent or not told of break a run: nothing is known of them.
            let follows = previous.is_none_or(|previous| packet.sequence.wrapping_sub(previous) == 1);
            previous = Some(packet.sequence);
            if packet.has_arrived || !follows {
                tally.end_run();
            }
            tally.count(packet.has_arrived);
        }
        tally.end_run();
        tally.stats()
    }

    /// Bits per second that a busy link let through; `None` if it was busy for too short a time to tell.
    pub(crate) fn carried_bps(&self, busy: &Busy) -> Option<f64> {
        let sent = self.packets.iter().filter(|packet| packet.has_arrived && packet.at > busy.from && packet.at <= busy.until);
        let bytes: usize = sent.map(|packet| packet.wire_bytes).sum();
        // What the path loses anyway has passed the bottleneck, as a rule.
        let before = self.loss_in(busy.from.checked_sub(BEFORE_BUSY).unwrap_or(busy.from), Some(busy.from));
        let kept = if before.packets < BEFORE_BUSY_LEAST { 1.0 } else { (1.0 - before.packets_lost()).max(0.2) };
        let seconds = busy.seconds();
        (seconds >= CARRIED_LEAST_S).then(|| bytes as f64 * 8.0 / seconds / kept)
    }

    /// Bits per second that were sent in the time before `now`.
    pub(crate) fn sent_bps(&self, now: Instant, window: Duration) -> f64 {
        let recent = self.packets.iter().rev().take_while(|packet| now.saturating_duration_since(packet.at) < window);
        recent.map(|packet| packet.wire_bytes as f64 * 8.0).sum::<f64>() / window.as_secs_f64()
    }
}

/// Counts runs of lost packets.
#[derive(Debug, Default)]
struct Tally {
    packets: usize,
    lost: usize,
    run: usize,
    runs: usize,
    in_outages: usize,
    with_copies: [usize; COPIES_MAX + 1],
}

impl Tally {
    fn count(&mut self, has_arrived: bool) {
        self.packets += 1;
        self.lost += usize::from(!has_arrived);
        self.run += usize::from(!has_arrived);
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        self.runs += usize::from(run > 0);
        if run > OUTAGE {
            self.in_outages += run;
            return;
        }
        // With so many copies, so many frames of a run are lost: its first ones, whose copies are lost too.
        for (copies, lost) in self.with_copies.iter_mut().enumerate() {
            *lost += run.saturating_sub(copies);
        }
    }

    fn stats(&self) -> LossStats {
        let outside = (self.packets - self.in_outages).max(1) as f64;
        LossStats {
            packets: self.packets - self.in_outages,
            lost: self.lost as f64 / self.packets.max(1) as f64,
            with_copies: self.with_copies.map(|lost| lost as f64 / outside),
            burst: self.lost as f64 / self.runs.max(1) as f64,
        }
    }
}
