//! Calls over an emulated link in virtual time: rate controllers, packets without sound, and a bottleneck with a queue.

use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use ahoy_protocol::media::ReceiverReport;
use ahoy_voice::rate::{RateController, RateSettings, Rung, STOPPED_PROBE_INTERVAL};

/// Of each new measurement of the round trip, so much counts (RFC 9002, section 5.3).
const RTT_GAIN: f64 = 0.125;

/// Once a second, each end sends what keeps the path alive, and answers the other's.
const PATH_PROBE_BLOCKS: u64 = 100;
const PATH_PROBE_BYTES: usize = 143;
/// The controller hears of the path so often.
const LOOKS_AT_PATH_BLOCKS: u64 = 20;
const LOOKS_AT_PATH_S: f64 = LOOKS_AT_PATH_BLOCKS as f64 * 0.01;

/// Random numbers of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One direction of a link.
pub(crate) struct Link<'a> {
    /// Bits per second at a time in seconds.
    pub(crate) rate_bps: Box<dyn Fn(f64) -> f64 + 'a>,
    /// Bytes that may wait.
    pub(crate) queue_bytes: f64,
    /// Milliseconds on top of the queue, at a time in seconds; without overtaking.
    pub(crate) delay_ms: Box<dyn FnMut(f64) -> f64 + 'a>,
    /// Whether the packet of a number, sent at a time, is lost.
    pub(crate) is_lost: Box<dyn FnMut(usize, f64) -> bool + 'a>,
    free_at_s: f64,
    last_arrival_s: f64,
    packets: usize,
    pub(crate) bytes: u64,
}

impl<'a> Link<'a> {
    /// A wide link that takes 25 ms.
    pub(crate) fn wide() -> Self {
        Self {
            rate_bps: Box::new(|_| 10e6),
            queue_bytes: 64_000.0,
            delay_ms: Box::new(|_| 25.0),
            is_lost: Box::new(|_, _| false),
            free_at_s: 0.0,
            last_arrival_s: 0.0,
            packets: 0,
            bytes: 0,
        }
    }

    pub(crate) fn rate(mut self, rate_bps: impl Fn(f64) -> f64 + 'a) -> Self {
        self.rate_bps = Box::new(rate_bps);
        self
    }

    pub(crate) fn queue(mut self, bytes: f64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    pub(crate) fn delay(mut self, delay_ms: impl FnMut(f64) -> f64 + 'a) -> Self {
        self.delay_ms = Box::new(delay_ms);
        self
    }

    pub(crate) fn loss(mut self, is_lost: impl FnMut(usize, f64) -> bool + 'a) -> Self {
        self.is_lost = Box::new(is_lost);
        self
    }

    pub(crate) fn random_loss(self, seed: u64, share: impl Fn(f64) -> f64 + 'a) -> Self {
        let mut random = Random::new(seed);
        self.loss(move |_, at_s| random.unit() < share(at_s))
    }

    pub(crate) fn pattern(self, name: &str, from: usize) -> Self {
        let lost = pattern(name);
        self.loss(move |packet, _| lost[(packet + from) % lost.len()])
    }

    /// What else the call sends takes its place in the queue; nobody waits for it.
    fn carry_besides(&mut self, at_s: f64, bytes: usize) {
        let rate_bps = (self.rate_bps)(at_s.max(self.free_at_s));
        if (self.free_at_s - at_s).max(0.0) * rate_bps / 8.0 <= self.queue_bytes {
            self.free_at_s = at_s.max(self.free_at_s) + bytes as f64 * 8.0 / rate_bps;
        }
    }

    /// When what is sent arrives, and how long it queued.
    fn carry(&mut self, at_s: f64, bytes: usize) -> Option<(f64, f64)> {
        let number = self.packets;
        self.packets += 1;
        self.bytes += bytes as u64;
        let rate_bps = (self.rate_bps)(at_s.max(self.free_at_s));
        let waits_s = (self.free_at_s - at_s).max(0.0);
        if waits_s * rate_bps / 8.0 > self.queue_bytes {
            return None;
        }
        self.free_at_s = at_s.max(self.free_at_s) + bytes as f64 * 8.0 / rate_bps;
        // What is lost on the way has stood in the queue.
        if (self.is_lost)(number, at_s) {
            return None;
        }
        let arrival_s = (self.free_at_s + (self.delay_ms)(at_s) / 1000.0).max(self.last_arrival_s);
        self.last_arrival_s = arrival_s;
        Some((arrival_s, waits_s))
    }
}

/// A recorded loss pattern: true is lost.
pub(crate) fn pattern(name: &str) -> Vec<bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = std::fs::read_to_string(path).expect("the pattern is part of the project");
    text.bytes().filter(|byte| matches!(byte, b'0' | b'1')).map(|byte| byte == b'1').collect()
}

/// A packet underway.
#[derive(Debug)]
struct Underway {
    arrival_s: f64,
    order: usize,
    to: usize,
    sequence: u16,
    sent_s: f64,
    waited_s: f64,
    rung: Rung,
    report: Option<ReceiverReport>,
}

impl Ord for Underway {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.arrival_s.total_cmp(&self.arrival_s).then(other.order.cmp(&self.order))
    }
}
impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Underway {}

/// A packet that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) sequence: u16,
    pub(crate) sent_s: f64,
    pub(crate) arrival_s: f64,
    pub(crate) waited_ms: f64,
    pub(crate) rung: Rung,
}

/// One side of a call.
pub(crate) struct End {
    pub(crate) rate: RateController,
    /// Index of the link it sends on.
    pub(crate) link: usize,
    pub(crate) peer: usize,
    pub(crate) begins_s: f64,
    /// What it stood on from when on, probes left out.
    pub(crate) rungs: Vec<(f64, Rung)>,
    /// What it received.
    pub(crate) arrived: Vec<Arrived>,
    /// When it sent what: seconds and bytes on the wire.
    pub(crate) sent: Vec<(f64, usize)>,
    blocks: u32,
    sequence: u16,
    probed_s: f64,
    // As a receiver.
    highest: Option<u16>,
    received: u64,
    least_s: VecDeque<(u64, f64)>,
    delays_s: Option<(f64, f64)>,
    report_due_s: f64,
    pending: Option<ReceiverReport>,
}

impl End {
    pub(crate) fn new(start: Instant, settings: RateSettings, link: usize, peer: usize) -> Self {
        Self {
            rate: RateController::new(start, settings),
            link,
            peer,
            begins_s: 0.0,
            rungs: Vec::new(),
            arrived: Vec::new(),
            sent: Vec::new(),
            blocks: 0,
            sequence: 65_000,
            probed_s: 0.0,
            highest: None,
            received: 0,
            least_s: VecDeque::new(),
            delays_s: None,
            report_due_s: 0.1,
            pending: None,
        }
    }

    fn receive(&mut self, packet: &Underway) {
        let delay_s = packet.arrival_s - packet.sent_s;
        let ahead = self.highest.map_or(1, |highest| packet.sequence.wrapping_sub(highest));
        if ahead < 0x8000 {
            self.received = if ahead < 64 { self.received << ahead | 1 } else { 1 };
            self.highest = Some(packet.sequence);
        } else if ahead.wrapping_neg() < 64 {
            self.received |= 1 << ahead.wrapping_neg();
        }
        let second = packet.arrival_s as u64;
        while self.least_s.front().is_some_and(|(from, _)| from + 30 < second) {
            self.least_s.pop_front();
        }
        match self.least_s.back_mut() {
            Some((last, least_s)) if *last == second => *least_s = least_s.min(delay_s),
            Some(_) | None => self.least_s.push_back((second, delay_s)),
        }
        let (least_s, greatest_s) = self.delays_s.unwrap_or((delay_s, delay_s));
        self.delays_s = Some((least_s.min(delay_s), greatest_s.max(delay_s)));
        self.arrived.push(Arrived {
            sequence: packet.sequence,
            sent_s: packet.sent_s,
            arrival_s: packet.arrival_s,
            waited_ms: packet.waited_s * 1000.0,
            rung: packet.rung,
        });
    }

    fn report(&mut self) -> Option<ReceiverReport> {
        let base_s = self.least_s.iter().map(|(_, least_s)| *least_s).fold(f64::INFINITY, f64::min);
        let above_ms = |delay_s: f64| ((delay_s - base_s) * 1000.0).clamp(0.0, 65_535.0) as u16;
        let (least_s, greatest_s) = self.delays_s.take().unwrap_or((base_s, base_s));
        Some(ReceiverReport {
            highest: self.highest?,
            received: self.received,
            queueing_ms: above_ms(least_s),
            queueing_max_ms: above_ms(greatest_s),
            concealed: 0,
            target_ms: 40,
            echo_timestamp: 0,
            echo_age_ms: 0,
        })
    }

    /// What it stands on.
    pub(crate) fn rung_at(&self, at_s: f64) -> Rung {
        self.rungs.iter().rev().find(|(from, _)| *from <= at_s).expect("it stands on something from the beginning on").1
    }

    /// Changes of rung from one time to another.
    pub(crate) fn switches(&self, from_s: f64, to_s: f64) -> usize {
        self.rungs.iter().filter(|(at, _)| (from_s..to_s).contains(at)).count()
    }

    /// Kilobits per second on the wire.
    pub(crate) fn wire_kbps(&self, from_s: f64, to_s: f64) -> f64 {
        let bytes: usize = self.sent.iter().filter(|(at, _)| (from_s..to_s).contains(at)).map(|(_, bytes)| bytes).sum();
        bytes as f64 * 8.0 / 1000.0 / (to_s - from_s)
    }
}

/// Links and who calls over them.
pub(crate) struct World<'a> {
    pub(crate) links: Vec<Link<'a>>,
    pub(crate) ends: Vec<End>,
    /// Without queues.
    pub(crate) rtt: Duration,
    /// What waits in queues there and back, smoothed as QUIC does.
    rtt_queue_s: f64,
    /// Until then each packet is sent by two ways, which meet the same bottleneck.
    pub(crate) doubled_until_s: f64,
    /// When the call moves to another path, behind the same line.
    pub(crate) moves_s: Vec<f64>,
    underway: BinaryHeap<Underway>,
    order: usize,
    start: Instant,
    blocks: u64,
}

impl<'a> World<'a> {
    /// A call from one end to the other over two links.
    pub(crate) fn call(there: Link<'a>, back: Link<'a>, settings: RateSettings) -> Self {
        let start = Instant::now();
        let ends = vec![End::new(start, settings, 0, 1), End::new(start, settings, 1, 0)];
        Self {
            links: vec![there, back],
            ends,
            rtt: Duration::from_millis(50),
            rtt_queue_s: 0.0,
            doubled_until_s: 0.0,
            moves_s: Vec::new(),
            underway: BinaryHeap::new(),
            order: 0,
            start,
            blocks: 0,
        }
    }

    /// Another call over the same links, that begins later.
    pub(crate) fn and_another(mut self, begins_s: f64) -> Self {
        let start = self.start + Duration::from_secs_f64(begins_s);
        for (link, peer) in [(0, 3), (1, 2)] {
            let mut end = End::new(start, RateSettings::default(), link, peer);
            end.begins_s = begins_s;
            self.ends.push(end);
        }
        self
    }

    /// The present.
    pub(crate) fn now(&self) -> Instant {
        self.at(self.blocks as f64 * 0.01)
    }

    fn at(&self, at_s: f64) -> Instant {
        self.start + Duration::from_secs_f64(at_s)
    }

    /// Lets time pass until `until_s`.
    pub(crate) fn run(&mut self, until_s: f64) {
        while (self.blocks as f64) * 0.01 < until_s {
            let now_s = self.blocks as f64 * 0.01;
            self.deliver(now_s);
            for index in 0..self.ends.len() {
                if now_s >= self.ends[index].begins_s {
                    self.send(index, now_s);
                }
            }
            self.blocks += 1;
        }
    }

    fn deliver(&mut self, now_s: f64) {
        while self.underway.peek().is_some_and(|packet| packet.arrival_s <= now_s) {
            let packet = self.underway.pop().expect("it was just seen");
            let at = self.at(packet.arrival_s);
            let back_s = self.ends[self.ends[packet.to].peer].arrived.last().map_or(0.0, |last| last.waited_ms / 1000.0);
            self.rtt_queue_s += (packet.waited_s + back_s - self.rtt_queue_s) * RTT_GAIN;
            let end = &mut self.ends[packet.to];
            end.receive(&packet);
            if let Some(report) = &packet.report {
                end.rate.handle_report(at, report);
            }
        }
    }

    fn send(&mut self, index: usize, now_s: f64) {
        let (now, rtt) = (self.at(now_s), self.rtt + Duration::from_secs_f64(self.rtt_queue_s));
        if self.blocks.is_multiple_of(PATH_PROBE_BLOCKS) {
            self.links[self.ends[index].link].carry_besides(now_s, PATH_PROBE_BYTES);
        }
        let end = &mut self.ends[index];
        if self.blocks.is_multiple_of(LOOKS_AT_PATH_BLOCKS) || end.rungs.is_empty() {
            let has_moved = self.moves_s.iter().any(|at| (now_s - LOOKS_AT_PATH_S..now_s).contains(at));
            end.rate.handle_path(now, rtt, false, has_moved);
        }
        let _ = end.rate.tick(now);
        let (rung, is_probing) = (end.rate.rung(), end.rate.facts(now).is_probing);
        let is_other = end.rungs.last().is_none_or(|(_, last)| *last != rung);
        if is_other && (!is_probing || end.rungs.is_empty()) {
            end.rungs.push((now_s, rung));
        }
        if now_s >= end.report_due_s
            && let Some(report) = end.report()
        {
            end.rate.handle_own_report(&report);
            end.pending = Some(report);
            end.report_due_s = now_s + end.rate.report_interval(now).as_secs_f64();
        }
        end.blocks += 1;
        if end.blocks * 10 < rung.settings.duration.as_millis() {
            return;
        }
        end.blocks = 0;
        let sequence = end.sequence;
        end.sequence = end.sequence.wrapping_add(1);
        if end.rate.is_stopped(now) {
            if now_s < end.probed_s + STOPPED_PROBE_INTERVAL.as_secs_f64() {
                return;
            }
            end.probed_s = now_s;
        }
        let report = end.pending.take();
        let bytes = rung.wire_bytes() + report.map_or(0, |_| ReceiverReport::BYTES);
        end.rate.handle_sent(now, sequence, bytes);
        end.sent.push((now_s, bytes));
        let to = end.peer;
        if now_s < self.doubled_until_s {
            self.links[end.link].carry_besides(now_s, bytes);
        }
        if let Some((arrival_s, waited_s)) = self.links[end.link].carry(now_s, bytes) {
            self.order += 1;
            self.underway.push(Underway { arrival_s, order: self.order, to, sequence, sent_s: now_s, waited_s, rung, report });
        }
    }

    /// What waited in the queue of packets to `end`, at a share of them, in milliseconds.
    pub(crate) fn queue_ms(&self, end: usize, share: f64, from_s: f64, to_s: f64) -> f64 {
        let arrived = self.ends[end].arrived.iter().filter(|packet| (from_s..to_s).contains(&packet.sent_s));
        let mut waits: Vec<f64> = arrived.map(|packet| packet.waited_ms).collect();
        waits.sort_by(f64::total_cmp);
        waits.get(((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    /// The longest time between two packets to `end`.
    pub(crate) fn longest_gap_ms(&self, end: usize, from_s: f64, to_s: f64) -> f64 {
        let times: Vec<f64> =
            self.ends[end].arrived.iter().map(|packet| packet.arrival_s).filter(|at| (from_s..to_s).contains(at)).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]) * 1000.0).fold(0.0, f64::max)
    }

    /// Share of packets to `end` that came neither themselves nor as copies.
    pub(crate) fn unrepaired(&self, end: usize, from_s: f64, to_s: f64) -> f64 {
        let mut seen: Vec<(u16, f64)> = Vec::new();
        for packet in self.ends[end].arrived.iter().filter(|packet| (from_s..to_s).contains(&packet.sent_s)) {
            for back in 0..=packet.rung.settings.copies as u16 {
                seen.push((packet.sequence.wrapping_sub(back), packet.sent_s));
            }
        }
        let Some(first) = seen.first().map(|(sequence, _)| *sequence) else { return 1.0 };
        let last = seen.iter().map(|(sequence, _)| sequence.wrapping_sub(first)).filter(|ahead| *ahead < 0x8000).max().unwrap_or(0);
        let mut came = vec![false; usize::from(last) + 1];
        for (sequence, _) in seen {
            if let Some(came) = came.get_mut(usize::from(sequence.wrapping_sub(first))) {
                *came = true;
            }
        }
        came.iter().filter(|came| !**came).count() as f64 / came.len() as f64
    }
}
