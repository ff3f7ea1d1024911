//! The jitter buffer: what is played when.
//!
//! Packets go in as they come ([`JitterBuffer::insert`]); for each pull the receiver announces itself
//! ([`JitterBuffer::begin_pull`]), asks whether to shorten or lengthen what it has ([`JitterBuffer::correction`]), and
//! takes frames until there is enough sound ([`JitterBuffer::take_next`]).
//!
//! Sound has a place on the sender's timeline, and while speech flows each place is played at the same transit: a frame
//! that is missing when its turn comes, while later ones are there, is lost: it is concealed and its time passes, so that
//! loss does not make the delay grow. A buffer that is empty says nothing yet. What is concealed meanwhile is judged by what
//! comes next: the frame whose turn it was, and the network had held everything up, so nothing of it is given away and the
//! delay, longer by the wait, is shortened soon after; or a later one, and what was concealed was the time of lost frames. A
//! frame that comes in the middle of its turn is then played from there on. As long as more delay is wanted, what is
//! concealed is a wait in any case: copies that begin to be worth waiting for are waited for with the first of them. When
//! nothing has come for [`GIVE_UP_MS`], the buffer waits, and takes up again where the target delay says; a network whose
//! packets all come later than that, it takes for another network, and begins to learn it anew.

use std::collections::BTreeMap;
use std::time::Instant;

use ahoy_protocol::media::{ReceiverReport, TIMESTAMP_UNIT_US, VoicePacket};

use crate::arrivals::{Arrival, Arrivals, PacketLoss};
use crate::correction::{Correction, Corrector};
use crate::delay::{DelayEstimator, DelaySettings};
use crate::pull_clock::PullClock;
use crate::queueing::Queueing;
use crate::timeline::{Place, Placed, Timeline};
use crate::{BLOCK_MS, BLOCK_SAMPLES, SAMPLES_PER_MS};

/// A unit of timestamps, in milliseconds.
const UNIT_MS: f64 = TIMESTAMP_UNIT_US as f64 / 1000.0;

/// A block, in units of timestamps.
const BLOCK_UNITS: i64 = 4;

/// A unit of timestamps, in samples.
const UNIT_SAMPLES: usize = BLOCK_SAMPLES / BLOCK_UNITS as usize;

/// Most frames kept: three seconds of the shortest.
const FRAMES_MAX: usize = 300;

/// Frames further ahead than this are not kept, in units of timestamps: 3 s. What a network held back for longer is not
/// waited for.
const AHEAD_MAX_UNITS: i64 = 1200;

/// After this long without anything to play, the buffer waits for packets. By then concealment has faded out.
const GIVE_UP_MS: f64 = 200.0;

/// When all packets of this long are too late for the target, the network has become a slower one. It is three frames of
/// 20 ms: a burst of held-back packets is over sooner.
const SLOWER_AFTER_MS: f64 = 60.0;

/// Nor does the buffer wait to give up when, while it conceals, all packets of this long are late.
const ALL_LATE_MS: f64 = 100.0;

/// This far above the goal, sound is skipped instead of shortened, which would take longer than 5 s.
const SKIP_MS: f64 = 300.0;

/// What came this long ago or later tells how slow the network is at the moment: five frames of 20 ms.
const HELD_UP_MS: f64 = 100.0;

/// Delay that is wanted but for less than this is not waited for with concealment, which comes in blocks of 10 ms.
const HOLD_MIN_MS: f64 = BLOCK_MS / 2.0;

/// How often the target is sought, in milliseconds: the window it is sought in changes little meanwhile.
const EVALUATE_EVERY_MS: f64 = 100.0;

/// What to play next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: no speech is due.
    Silence,
    /// A frame.
    Frame {
        /// As the codec made it; may be empty, which is a frame that cannot be decoded.
        bytes: Vec<u8>,
        /// How much sound it is meant to hold, in samples.
        samples: usize,
        /// How much of it is past already, in samples.
        skip: usize,
    },
    /// Ten milliseconds of what might have been said.
    Conceal {
        /// How much has been concealed directly before, in milliseconds.
        since_ms: u32,
    },
}

/// What happened to packets.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JitterStats {
    /// Packets that came.
    pub packets: u64,
    /// Packets that were sent between the first and half a second ago, as far as their numbers tell.
    pub packets_expected: u64,
    /// Those of them that did not come themselves, whatever came as copies.
    pub packets_lost: u64,
    /// In how many runs they were lost.
    pub loss_bursts: u64,
    /// Interarrival jitter as RFC 3550 counts it.
    pub jitter_ms: f64,
    /// Frames that never came, neither by themselves nor as copies.
    pub lost: u64,
    /// Frames that first came when their turn had begun, or later.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Frames that came as a copy only, or first.
    pub recovered: u64,
    /// Times the sender's timeline broke off and began elsewhere.
    pub jumps: u64,
    /// The wait that is aimed at, above the fastest packet's transit.
    pub target_ms: f64,
    /// The wait there is.
    pub delay_ms: f64,
    /// The transit at which sound is played: from the sender's timestamp, as it stands in the packets, to the moment it is
    /// played, on a clock that began with the first thing this buffer was told.
    pub transit_ms: f64,
    /// Concealment that took no speech's place, but made time for frames to come.
    pub held_ms: f64,
    /// Sound that waits to be decoded.
    pub buffered_ms: f64,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    /// In units of timestamps.
    duration: i64,
    is_copy: bool,
}

#[derive(Debug, Clone, Copy)]
enum Playout {
    /// Nothing is played.
    Waiting {
        /// When the first packet since came.
        resumed_ms: Option<f64>,
    },
    /// The frame at `cursor` is next.
    Playing {
        cursor: i64,
        /// Since the last frame.
        concealed_ms: f64,
        /// When the first of the packets came that were all too late.
        late_since_ms: Option<f64>,
        /// Whether what was concealed last made time for the frame at `cursor`.
        is_held: bool,
        /// Concealed since the buffer ran empty, in units of timestamps, and not yet known to be the time of lost frames or a
        /// wait for late ones.
        undecided: i64,
    },
}

impl Playout {
    fn playing(cursor: i64) -> Self {
        Self::Playing { cursor, concealed_ms: 0.0, late_since_ms: None, is_held: false, undecided: 0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: i64,
    timestamp: u16,
    arrival_ms: f64,
}

/// Decides what is played when. See the module's description.
#[derive(Debug)]
pub struct JitterBuffer {
    epoch: Option<Instant>,
    timeline: Timeline,
    arrivals: Option<Arrivals>,
    newest: Option<Newest>,
    delay: DelayEstimator,
    queueing: Queueing,
    clock: PullClock,
    /// Length of a pull, in units of timestamps.
    pull_units: i64,
    evaluate_due_ms: f64,
    frames: BTreeMap<i64, Frame>,
    playout: Playout,
    corrector: Corrector,
    /// Lost on timelines that are over: frames, and packets.
    lost_before: (u64, PacketLoss),
    stats: JitterStats,
}

impl JitterBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(settings: DelaySettings) -> Self {
        Self {
            epoch: None,
            timeline: Timeline::default(),
            arrivals: None,
            newest: None,
            delay: DelayEstimator::new(settings),
            queueing: Queueing::default(),
            clock: PullClock::default(),
            pull_units: BLOCK_UNITS,
            evaluate_due_ms: 0.0,
            frames: BTreeMap::new(),
            playout: Playout::Waiting { resumed_ms: None },
            corrector: Corrector::new(),
            lost_before: (0, PacketLoss::default()),
            stats: JitterStats::default(),
        }
    }

    fn ms(&mut self, now: Instant) -> f64 {
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_secs_f64() * 1000.0
    }

    /// Takes a packet that came at `now`.
    pub fn insert(&mut self, now: Instant, packet: &VoicePacket<'_>) {
        let now_ms = self.ms(now);
        self.stats.packets += 1;
        let place = match self.timeline.place(now_ms, packet) {
            Placed::Here(place) => place,
            Placed::Anew(place) => {
                self.begin_anew(place);
                place
            }
            Placed::Doubtful => return,
        };
        self.queueing.observe(now_ms, now_ms - place.timestamp as f64 * UNIT_MS);
        if self.newest.is_none_or(|newest| place.sequence >= newest.sequence) {
            self.newest = Some(Newest { sequence: place.sequence, timestamp: packet.timestamp, arrival_ms: now_ms });
        }
        // What is handed over after a pull was not there for it, whenever it came.
        let available_ms = self.clock.last_ms().map_or(now_ms, |last| last.max(now_ms));
        let duration = i64::from(packet.duration.as_timestamp());
        for (back, bytes) in (0_i64..).zip(&packet.frames) {
            let place = Place { sequence: place.sequence - back, timestamp: place.timestamp - back * duration };
            self.insert_frame(available_ms, place, Frame { bytes: bytes.to_vec(), duration, is_copy: back > 0 });
        }
        let frame_ms = f64::from(packet.duration.as_millis());
        self.delay.observe_copies(frame_ms, packet.frames.len().saturating_sub(1));
        if matches!(self.playout, Playout::Waiting { .. }) {
            self.delay.expect(available_ms, frame_ms);
        }
    }

    fn begin_anew(&mut self, place: Place) {
        if let Some(over) = self.arrivals.replace(Arrivals::beginning(place.sequence)) {
            self.lost_before = (self.lost_before.0 + over.missing(), self.lost_before.1 + over.loss());
            self.stats.jumps += 1;
        }
        self.newest = None;
        self.frames.clear();
        self.delay.clear();
        self.queueing = Queueing::default();
        self.playout = Playout::Waiting { resumed_ms: None };
        self.corrector.stop();
    }

    fn insert_frame(&mut self, now_ms: f64, place: Place, frame: Frame) {
        let is_copy = frame.is_copy;
        let arrivals = self.arrivals.as_mut().expect("the first packet begins a timeline");
        match if is_copy { arrivals.mark_copy(place.sequence) } else { arrivals.mark_own(place.sequence) } {
            Arrival::First => {}
            Arrival::Repaired => return,
            Arrival::Again => {
                self.stats.duplicates += u64::from(!is_copy);
                return;
            }
            Arrival::Unknown => {
                self.stats.late += u64::from(!is_copy);
                return;
            }
        }
        self.stats.recovered += u64::from(is_copy);
        self.delay.observe(now_ms, now_ms - place.timestamp as f64 * UNIT_MS, is_copy);
        match &mut self.playout {
            Playout::Playing { cursor, late_since_ms, is_held, undecided, .. } => {
                let is_awaited = *is_held || *undecided > 0;
                let has_begun = place.timestamp < *cursor || (is_awaited && place.timestamp == *cursor);
                self.stats.late += u64::from(has_begun);
                if place.timestamp + frame.duration <= *cursor {
                    late_since_ms.get_or_insert(now_ms);
                    return;
                }
                *late_since_ms = None;
                if place.timestamp > *cursor + AHEAD_MAX_UNITS {
                    return;
                }
            }
            Playout::Waiting { resumed_ms } => {
                resumed_ms.get_or_insert(now_ms);
            }
        }
        self.frames.insert(place.timestamp, frame);
        self.discard_beyond_bounds();
    }

    fn discard_beyond_bounds(&mut self) {
        while let (Some((&first, _)), Some((&last, _))) = (self.frames.first_key_value(), self.frames.last_key_value()) {
            if self.frames.len() <= FRAMES_MAX && last - first <= AHEAD_MAX_UNITS {
                break;
            }
            self.frames.pop_first();
        }
    }

    /// Announces that as many `samples` are asked for at `now`, a whole number of 2.5 ms, with `unplayed` samples decoded
    /// already.
    pub fn begin_pull(&mut self, now: Instant, samples: usize, unplayed: usize) {
        let now_ms = self.ms(now);
        self.clock.tick(now_ms, samples_to_ms(samples));
        self.pull_units = ((samples / UNIT_SAMPLES) as i64).max(1);
        if now_ms >= self.evaluate_due_ms {
            self.evaluate_due_ms = now_ms + EVALUATE_EVERY_MS;
            self.delay.evaluate(now_ms);
        }
        if let Playout::Playing { cursor, .. } = self.playout {
            self.stats.transit_ms = self.playing_transit_ms(cursor, unplayed);
            self.stats.delay_ms = self.stats.transit_ms - self.delay.fastest_ms();
        }
    }

    fn pull_ms(&self) -> f64 {
        self.pull_units as f64 * UNIT_MS
    }

    /// The transit at which sound is played.
    fn playing_transit_ms(&self, cursor: i64, unplayed: usize) -> f64 {
        self.clock.now_ms() + samples_to_ms(unplayed) - cursor as f64 * UNIT_MS
    }

    /// The transit at which the frame at `cursor` is going to be taken, which is what a packet's own transit must not
    /// exceed: after the whole pulls that are decoded already.
    fn taking_transit_ms(&self, cursor: i64, unplayed: usize) -> f64 {
        let pull = self.pull_units as usize * UNIT_SAMPLES;
        self.playing_transit_ms(cursor, unplayed / pull * pull)
    }

    /// What to do about the delay, before frames are taken for the pull.
    pub fn correction(&mut self, unplayed: usize) -> Correction {
        let Playout::Playing { cursor, concealed_ms, .. } = self.playout else {
            self.corrector.stop();
            return Correction::None;
        };
        let (goal_ms, gain_ms) = self.delay.goal_ms(self.taking_transit_ms(cursor, unplayed), self.pull_ms());
        // What has just come late shows that a shorter wait cannot be had yet.
        let slowest_ms = self.delay.slowest_since_ms(self.clock.now_ms() - HELD_UP_MS);
        let playing_ms = self.playing_transit_ms(cursor, unplayed);
        let excess_ms = if playing_ms > goal_ms { (playing_ms - goal_ms.max(slowest_ms)).max(0.0) } else { playing_ms - goal_ms };
        if excess_ms > SKIP_MS && concealed_ms == 0.0 {
            return self.skip(cursor, excess_ms);
        }
        self.corrector.correct(self.clock.now_ms(), excess_ms, gain_ms)
    }

    fn skip(&mut self, cursor: i64, by_ms: f64) -> Correction {
        let units = (by_ms / self.pull_ms()).floor() as i64 * self.pull_units;
        self.playout = Playout::playing(cursor + units);
        self.corrector.stop();
        Correction::Skipped { by_ms: units as f64 * UNIT_MS }
    }

    /// Whether a frame can be taken without anything having to be concealed.
    #[must_use]
    pub fn has_next(&self) -> bool {
        match self.playout {
            Playout::Waiting { .. } => false,
            Playout::Playing { cursor, .. } => self.at(cursor).is_some(),
        }
    }

    /// The timestamp of the frame that holds the sound at `cursor`.
    fn at(&self, cursor: i64) -> Option<i64> {
        let (&timestamp, frame) = self.frames.range(..=cursor).next_back()?;
        (timestamp + frame.duration > cursor).then_some(timestamp)
    }

    /// What comes next, with `unplayed` samples before it. Each call moves on by what it gives.
    pub fn take_next(&mut self, unplayed: usize) -> Next {
        if let Playout::Waiting { resumed_ms } = self.playout {
            match self.resume(resumed_ms) {
                Some(cursor) => self.playout = Playout::playing(cursor),
                None => return Next::Silence,
            }
        }
        self.decide();
        let Playout::Playing { cursor, concealed_ms, late_since_ms, undecided, .. } = self.playout else { return Next::Silence };
        if let Some(timestamp) = self.at(cursor) {
            return self.take(cursor, timestamp);
        }
        let has_later = self.frames.range(cursor..).next().is_some();
        let are_all_late = late_since_ms.is_some_and(|since| self.clock.now_ms() - since > ALL_LATE_MS);
        if !has_later && (concealed_ms >= GIVE_UP_MS || are_all_late) {
            self.frames.clear();
            self.playout = Playout::Waiting { resumed_ms: late_since_ms.filter(|_| are_all_late) };
            return Next::Silence;
        }
        let is_held = self.is_wait_wanted(cursor, unplayed);
        let (passed, in_doubt) = match (is_held, has_later) {
            (true, _) => (0, 0),
            (false, true) => (BLOCK_UNITS, 0),
            (false, false) => (0, BLOCK_UNITS),
        };
        self.stats.held_ms += if is_held { BLOCK_MS } else { 0.0 };
        self.playout = Playout::Playing {
            cursor: cursor + passed,
            concealed_ms: concealed_ms + BLOCK_MS,
            late_since_ms,
            is_held,
            undecided: undecided + in_doubt,
        };
        Next::Conceal { since_ms: concealed_ms as u32 }
    }

    /// What was concealed while the buffer was empty, was it the time of lost frames, or a wait for frames that the network
    /// held up? The frame whose turn it was tells, when it comes, or a later one that came without it.
    fn decide(&mut self) {
        let Playout::Playing { cursor, concealed_ms, late_since_ms, is_held, undecided } = self.playout else { return };
        if undecided == 0 || self.frames.range(cursor..).next().is_none() {
            return;
        }
        let is_wait = self.frames.get(&cursor).is_some_and(|frame| !frame.is_copy);
        let passed = if is_wait { 0 } else { undecided };
        self.stats.held_ms += (undecided - passed) as f64 * UNIT_MS;
        self.playout = Playout::Playing { cursor: cursor + passed, concealed_ms, late_since_ms, is_held, undecided: 0 };
    }

    /// Whether the frame at `cursor`, which is missing, is to be played later rather than not at all.
    fn is_wait_wanted(&self, cursor: i64, unplayed: usize) -> bool {
        let taking_ms = self.taking_transit_ms(cursor, unplayed);
        self.delay.goal_ms(taking_ms, self.pull_ms()).0 - taking_ms > HOLD_MIN_MS
    }

    fn take(&mut self, cursor: i64, timestamp: i64) -> Next {
        // What is older has had its turn.
        self.frames = self.frames.split_off(&timestamp);
        let frame = self.frames.remove(&timestamp).expect("the frame was just found");
        self.playout = Playout::playing(timestamp + frame.duration);
        Next::Frame {
            bytes: frame.bytes,
            samples: frame.duration as usize * UNIT_SAMPLES,
            skip: (cursor - timestamp) as usize * UNIT_SAMPLES,
        }
    }

    /// Where to take up again, if it is time.
    fn resume(&mut self, resumed_ms: Option<f64>) -> Option<i64> {
        let resumed_ms = resumed_ms?;
        let (&last, newest) = self.frames.last_key_value()?;
        let end = last + newest.duration;
        let mut due = self.due();
        if due >= end {
            if self.clock.now_ms() - resumed_ms < SLOWER_AFTER_MS {
                return None;
            }
            self.delay.restart(resumed_ms);
            due = self.due();
        }
        let due = due.min(end - 1);
        // The first frame that is not over; whole if it has just begun, so that the beginning of speech is not cut.
        let (&timestamp, _) = self.frames.iter().find(|(timestamp, frame)| *timestamp + frame.duration > due)?;
        (timestamp <= due).then_some(timestamp + (due - timestamp) / self.pull_units * self.pull_units)
    }

    /// The place on the timeline that the target lets play at this pull.
    fn due(&self) -> i64 {
        ((self.clock.now_ms() - self.delay.transit_ms()) / UNIT_MS).floor() as i64
    }

    /// What to tell the sender at `now`, when as much of the sound was made up (255: all); nothing before the first packet.
    pub fn report(&mut self, now: Instant, concealed: u8) -> Option<ReceiverReport> {
        let now_ms = self.ms(now);
        let (arrivals, newest) = (self.arrivals.as_ref()?, self.newest?);
        let (queueing_ms, queueing_max_ms) = self.queueing.take_ms();
        Some(ReceiverReport {
            highest: arrivals.highest() as u16,
            received: arrivals.last_64(),
            queueing_ms: queueing_ms as u16,
            queueing_max_ms: queueing_max_ms as u16,
            concealed,
            target_ms: self.delay.target_ms() as u16,
            echo_timestamp: newest.timestamp,
            echo_age_ms: (now_ms - newest.arrival_ms) as u16,
        })
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        let units: i64 = self.frames.values().map(|frame| frame.duration).sum();
        let (frames_lost, packets) = self.lost_before;
        let packets = packets + self.arrivals.as_ref().map(Arrivals::loss).unwrap_or_default();
        JitterStats {
            packets_expected: packets.expected,
            packets_lost: packets.lost,
            loss_bursts: packets.bursts,
            jitter_ms: self.queueing.jitter_ms(),
            lost: frames_lost + self.arrivals.as_ref().map_or(0, Arrivals::missing),
            target_ms: self.delay.target_ms(),
            buffered_ms: units as f64 * UNIT_MS,
            ..self.stats
        }
    }
}

/// Samples in milliseconds.
pub(crate) fn samples_to_ms(samples: usize) -> f64 {
    samples as f64 / SAMPLES_PER_MS as f64
}
