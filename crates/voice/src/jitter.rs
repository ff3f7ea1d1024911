//! The jitter buffer: what is played when.
//!
//! Packets go in as they come ([`JitterBuffer::insert`]); for each block the receiver announces itself
//! ([`JitterBuffer::begin_block`]), asks whether to shorten or lengthen what it has ([`JitterBuffer::correction`]), and
//! takes frames until the block is full ([`JitterBuffer::take_next`]).
//!
//! Sound has a place on the sender's timeline, and while speech flows each place is played at the same transit: a frame
//! that is missing when its turn comes is concealed and its time passes, so that no loss, late frame or outage makes the
//! delay grow. A frame that comes in the middle of its turn is played from there on. When nothing has come for
//! [`GIVE_UP_MS`], the buffer waits, and takes up again where the target delay says; a network whose packets all come
//! later than that, it takes for another network, and begins to learn it anew.

use std::collections::BTreeMap;
use std::time::Instant;

use ahoy_protocol::media::{ReceiverReport, TIMESTAMP_UNIT_US, VoicePacket};

use crate::arrivals::{Arrival, Arrivals};
use crate::delay::{DelayEstimator, DelaySettings, Queueing};
use crate::pull_clock::PullClock;
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
const GIVE_UP_MS: f64 = 150.0;

/// When all packets of this long are too late for the target, the network has become a slower one. It is three frames of
/// 20 ms: a burst of held-back packets is over sooner.
const SLOWER_AFTER_MS: f64 = 60.0;

/// How far above the target the delay may be without anything being done: on a steady network nothing is ever stretched,
/// and 200 ppm of drift take more than a minute to come this far.
const DEAD_BAND_MS: f64 = 20.0;

/// How far above the target shortening ends: a block, so that a frame is in time even when the block it is for begins
/// with what is left of the frame before.
const SETTLE_MS: f64 = BLOCK_MS;

/// This far above the target, shortening no longer waits for a pause.
const SHORTEN_HURRY_MS: f64 = 60.0;

/// Nor does it after this long.
const SHORTEN_PATIENCE_MS: f64 = 10_000.0;

/// This far below the target, lengthening no longer waits for a pause: frames are late by up to a block then, and half a
/// frame of 20 ms is lost with each.
const LENGTHEN_HURRY_MS: f64 = BLOCK_MS;

/// Nor does it after this long.
const LENGTHEN_PATIENCE_MS: f64 = 1_000.0;

/// This far above the target, sound is skipped instead of shortened, which at 5 % would take longer than 6 s.
const SKIP_MS: f64 = 300.0;

/// How often the target is sought, in blocks: the window it is sought in changes little in 100 ms.
const EVALUATE_EVERY_BLOCKS: u64 = 10;

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

/// What to do about the delay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Correction {
    /// Nothing.
    None,
    /// Make the sound shorter where it is quiet.
    ShortenPauses {
        /// By how much in all.
        by_ms: f64,
    },
    /// Make the sound shorter wherever it can be done.
    Shorten {
        /// By how much in all.
        by_ms: f64,
    },
    /// Make the sound longer where it is quiet.
    LengthenPauses,
    /// Make the sound longer wherever it can be done.
    Lengthen,
    /// Sound was skipped: what comes does not join on to what was played.
    Skipped {
        /// How much.
        by_ms: f64,
    },
}

/// What happened to packets.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JitterStats {
    /// Packets that came.
    pub packets: u64,
    /// Frames that never came, neither by themselves nor as copies.
    pub lost: u64,
    /// Frames that first came when their turn was over.
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
    /// Sound that waits to be decoded.
    pub buffered_ms: f64,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    /// In units of timestamps.
    duration: i64,
}

#[derive(Debug, Clone, Copy)]
enum Playout {
    /// Nothing is played.
    Waiting {
        /// When the first packet since came.
        resumed_ms: Option<f64>,
    },
    /// The frame at `cursor` is next.
    Playing { cursor: i64, concealed_ms: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Correcting {
    No,
    Shortening { since_ms: f64 },
    Lengthening { since_ms: f64 },
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
    blocks: u64,
    frames: BTreeMap<i64, Frame>,
    playout: Playout,
    correcting: Correcting,
    /// Of the last pull.
    delay_ms: f64,
    /// Lost on timelines that are over.
    lost_before: u64,
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
            blocks: 0,
            frames: BTreeMap::new(),
            playout: Playout::Waiting { resumed_ms: None },
            correcting: Correcting::No,
            delay_ms: 0.0,
            lost_before: 0,
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
        let duration = i64::from(packet.duration.as_timestamp());
        for (back, bytes) in (0_i64..).zip(&packet.frames) {
            let place = Place { sequence: place.sequence - back, timestamp: place.timestamp - back * duration };
            self.insert_frame(now_ms, place, Frame { bytes: bytes.to_vec(), duration }, back > 0);
        }
    }

    fn begin_anew(&mut self, place: Place) {
        if let Some(over) = self.arrivals.replace(Arrivals::beginning(place.sequence)) {
            self.lost_before += over.missing();
            self.stats.jumps += 1;
        }
        self.newest = None;
        self.frames.clear();
        self.delay.clear();
        self.queueing = Queueing::default();
        self.playout = Playout::Waiting { resumed_ms: None };
        self.correcting = Correcting::No;
    }

    fn insert_frame(&mut self, now_ms: f64, place: Place, frame: Frame, is_copy: bool) {
        let arrivals = self.arrivals.as_mut().expect("the first packet begins a timeline");
        match if is_copy { arrivals.mark_copy(place.sequence) } else { arrivals.mark_own(place.sequence) } {
            Arrival::First => {}
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
        self.delay.observe(now_ms, now_ms - place.timestamp as f64 * UNIT_MS);
        match &mut self.playout {
            Playout::Playing { cursor, .. } if place.timestamp + frame.duration <= *cursor => {
                self.stats.late += 1;
                return;
            }
            Playout::Playing { cursor, .. } if place.timestamp > *cursor + AHEAD_MAX_UNITS => return,
            Playout::Playing { .. } => {}
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

    /// Announces that a block is asked for at `now`, with `unplayed` samples decoded already.
    pub fn begin_block(&mut self, now: Instant, unplayed: usize) {
        let now_ms = self.ms(now);
        self.clock.tick(now_ms);
        if self.blocks.is_multiple_of(EVALUATE_EVERY_BLOCKS) {
            self.delay.evaluate(now_ms);
        }
        self.blocks += 1;
        if let Playout::Playing { cursor, .. } = self.playout {
            self.delay_ms = self.playout_transit_ms(cursor, unplayed) - self.delay.fastest_ms();
        }
    }

    /// The transit at which sound is played.
    fn playout_transit_ms(&self, cursor: i64, unplayed: usize) -> f64 {
        self.clock.now_ms() + samples_to_ms(unplayed) - cursor as f64 * UNIT_MS
    }

    /// The transit at which the frame at `cursor` is going to be taken, which is what a packet's own transit must not
    /// exceed: after the whole blocks that are decoded already.
    fn taking_transit_ms(&self, cursor: i64, unplayed: usize) -> f64 {
        self.playout_transit_ms(cursor, unplayed / BLOCK_SAMPLES * BLOCK_SAMPLES)
    }

    /// What to do about the delay, before frames are taken for the block.
    pub fn correction(&mut self, unplayed: usize) -> Correction {
        let Playout::Playing { cursor, concealed_ms } = self.playout else {
            self.correcting = Correcting::No;
            return Correction::None;
        };
        let target_ms = self.delay.transit_ms();
        let excess_ms = self.playout_transit_ms(cursor, unplayed) - target_ms;
        let reserve_ms = self.taking_transit_ms(cursor, unplayed) - target_ms;
        if reserve_ms > SKIP_MS && concealed_ms == 0.0 {
            return self.skip(cursor, excess_ms - SETTLE_MS);
        }
        let now_ms = self.clock.now_ms();
        self.correcting = match self.correcting {
            Correcting::No if reserve_ms > DEAD_BAND_MS => Correcting::Shortening { since_ms: now_ms },
            Correcting::No if reserve_ms < 0.0 => Correcting::Lengthening { since_ms: now_ms },
            Correcting::Shortening { .. } if excess_ms <= SETTLE_MS => Correcting::No,
            Correcting::Lengthening { .. } if reserve_ms >= 0.0 => Correcting::No,
            unchanged => unchanged,
        };
        match self.correcting {
            Correcting::No => Correction::None,
            Correcting::Lengthening { since_ms } if -reserve_ms > LENGTHEN_HURRY_MS || now_ms - since_ms > LENGTHEN_PATIENCE_MS => {
                Correction::Lengthen
            }
            Correcting::Lengthening { .. } => Correction::LengthenPauses,
            Correcting::Shortening { since_ms } if reserve_ms > SHORTEN_HURRY_MS || now_ms - since_ms > SHORTEN_PATIENCE_MS => {
                Correction::Shorten { by_ms: excess_ms - SETTLE_MS }
            }
            Correcting::Shortening { .. } => Correction::ShortenPauses { by_ms: excess_ms - SETTLE_MS },
        }
    }

    fn skip(&mut self, cursor: i64, by_ms: f64) -> Correction {
        let units = (by_ms / BLOCK_MS).floor() as i64 * BLOCK_UNITS;
        self.playout = Playout::Playing { cursor: cursor + units, concealed_ms: 0.0 };
        self.correcting = Correcting::No;
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

    /// What comes next. Each call moves on by what it gives.
    pub fn take_next(&mut self) -> Next {
        if let Playout::Waiting { resumed_ms } = self.playout {
            match self.resume(resumed_ms) {
                Some(cursor) => self.playout = Playout::Playing { cursor, concealed_ms: 0.0 },
                None => return Next::Silence,
            }
        }
        let Playout::Playing { cursor, concealed_ms } = self.playout else { return Next::Silence };
        match self.at(cursor) {
            Some(timestamp) => self.take(cursor, timestamp),
            None if concealed_ms >= GIVE_UP_MS && self.frames.range(cursor..).next().is_none() => {
                self.frames.clear();
                self.playout = Playout::Waiting { resumed_ms: None };
                Next::Silence
            }
            None => {
                self.playout = Playout::Playing { cursor: cursor + BLOCK_UNITS, concealed_ms: concealed_ms + BLOCK_MS };
                Next::Conceal { since_ms: concealed_ms as u32 }
            }
        }
    }

    fn take(&mut self, cursor: i64, timestamp: i64) -> Next {
        // What is older has had its turn.
        self.frames = self.frames.split_off(&timestamp);
        let frame = self.frames.remove(&timestamp).expect("the frame was just found");
        self.playout = Playout::Playing { cursor: timestamp + frame.duration, concealed_ms: 0.0 };
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
        (timestamp <= due).then_some(timestamp + (due - timestamp) / BLOCK_UNITS * BLOCK_UNITS)
    }

    /// The place on the timeline that the target lets play at this block.
    fn due(&self) -> i64 {
        ((self.clock.now_ms() - self.delay.transit_ms()) / UNIT_MS).floor() as i64
    }

    /// What to tell the sender at `now`; nothing before the first packet.
    pub fn report(&mut self, now: Instant) -> Option<ReceiverReport> {
        let now_ms = self.ms(now);
        let (arrivals, newest) = (self.arrivals.as_ref()?, self.newest?);
        Some(ReceiverReport {
            highest: arrivals.highest() as u16,
            received: arrivals.last_64(),
            queueing_ms: self.queueing.take_ms() as u16,
            target_ms: self.delay.target_ms() as u16,
            echo_timestamp: newest.timestamp,
            echo_age_ms: (now_ms - newest.arrival_ms) as u16,
        })
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        let units: i64 = self.frames.values().map(|frame| frame.duration).sum();
        JitterStats {
            lost: self.lost_before + self.arrivals.as_ref().map_or(0, Arrivals::missing),
            target_ms: self.delay.target_ms(),
            delay_ms: self.delay_ms,
            buffered_ms: units as f64 * UNIT_MS,
            ..self.stats
        }
    }
}

/// A duration in samples, in milliseconds.
pub(crate) fn samples_to_ms(samples: usize) -> f64 {
    samples as f64 / SAMPLES_PER_MS as f64
}
