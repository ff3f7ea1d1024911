//! Which rung would have sounded best on the packets of the last seconds.
//!
//! The ledger knows what would have been lost with each number of copies, so no model of the network's loss is needed: the E-model weighs what
//! would be left against what the copies' price in bitrate and delay harms.

use std::time::Duration;

use ahoy_protocol::media::FrameDuration;

use super::RateSettings;
use super::ladder::{LADDER, Rung, RungName};
use super::ledger::LossStats;
use crate::quality::Hearing;

/// Losses of fewer packets than this are reckoned as of so many: one lost packet is not a lossy network.
const PACKETS_LEAST: usize = 250;
/// Recent loss counts from so many packets on.
const RECENT_LEAST: usize = 20;
/// Delay that every rung has: devices, codec, the jitter buffer on a fair day.
const DELAY_OF_ALL: Duration = Duration::from_millis(50);
/// Above this loss, the receiver waits for copies.
const WAITS_FOR_COPIES: f64 = 0.004;
/// What frames of 40, 60 and 120 ms harm besides their delay, as it is reckoned with here: people who talk at once notice what the E-model does not.
const LONG_FRAMES: [f64; 3] = [1.6, 4.0, 10.0];
/// Three copies of this many bits per second fit where two of L3's do.
const NARROW_L4: u32 = 10_200;
/// What a kilobit per second on the wire is worth, in R: among equals the cheaper one.
const PER_KBPS: f64 = 0.02;

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) settings: RateSettings,
    pub(crate) rtt: Duration,
    pub(crate) is_lan: bool,
    /// Whether the path is so long that copies in long frames would make it too long.
    pub(crate) is_far: bool,
    /// Whether so much is lost that three copies are worth their place.
    pub(crate) is_very_lossy: bool,
    /// Of 0 to 1 with each number of copies: what is to be reckoned with.
    pub(crate) lost: [f64; 4],
}

/// What loss to reckon with: the greater of the last second's and the last ten's.
pub(crate) fn expected_loss(recent: &LossStats, lately: &LossStats) -> [f64; 4] {
    let few = lately.packets as f64 / lately.packets.max(PACKETS_LEAST) as f64;
    // One lost packet may be chance; ten are no chance.
    let certain = |count: f64| if recent.packets < RECENT_LEAST || count < 1.5 { 0.0 } else { 1.0 - 1.0 / count };
    let counted = recent.with_copies.map(|share| share * certain(share * recent.packets as f64));
    // Losses come in bursts, if anything: by chance alone, so many in a row are lost at least, however few were seen to be.
    let by_chance = |copies: usize| counted[0].powi(copies as i32 + 1);
    std::array::from_fn(|copies| (lately.with_copies[copies] * few).max(counted[copies]).max(by_chance(copies)))
}

impl Situation {
    /// How `rung` would rate.
    pub(crate) fn rating(&self, rung: Rung) -> f64 {
        let settings = rung.settings;
        let frame = Duration::from_millis(settings.duration.as_millis().into());
        let waits = if self.lost[0] > WAITS_FOR_COPIES { frame * settings.copies as u32 } else { Duration::ZERO };
        let delay = self.rtt / 2 + DELAY_OF_ALL + frame + waits;
        let rating = Hearing::of(settings, delay, self.lost[settings.copies]).raw_rating();
        let long = match settings.duration {
            FrameDuration::Ms10 | FrameDuration::Ms20 => 0.0,
            FrameDuration::Ms40 => LONG_FRAMES[0],
            FrameDuration::Ms60 => LONG_FRAMES[1],
            FrameDuration::Ms120 => LONG_FRAMES[2],
        };
        rating - long - PER_KBPS * f64::from(rung.wire_bps()) / 1000.0
    }

    fn admits(&self, rung: Rung, budget_bps: f64) -> bool {
        let bps = rung.wire_bps();
        let is_short = rung.settings.duration <= FrameDuration::Ms20;
        let is_fit = match rung.name {
            RungName::L0 => self.is_lan,
            RungName::L3 => self.is_far == is_short,
            // Where there is room for no more, three copies in long frames are the best there is however far it is.
            RungName::L4 => self.is_very_lossy && (self.is_far == is_short || (!is_short && rung.settings.bitrate <= NARROW_L4)),
            RungName::L1 | RungName::L2 | RungName::N1 | RungName::N2 => true,
        };
        is_fit && bps <= self.settings.wire_bps_max() && f64::from(bps) <= budget_bps
    }

    /// Whether `rung` may still be sent.
    pub(crate) fn may_keep(&self, rung: Rung, budget_bps: f64) -> bool {
        self.admits(rung, budget_bps)
    }

    /// The narrowest rung wider than `budget_bps`, up to `most_bps`, that is better than `base` by more than `gain`.
    pub(crate) fn next(&self, base: Rung, budget_bps: f64, most_bps: f64, gain: f64) -> Option<Rung> {
        let least = self.rating(base) + gain;
        let wider = LADDER.into_iter().filter(|rung| f64::from(rung.wire_bps()) > budget_bps && self.admits(*rung, most_bps));
        wider.filter(|rung| self.rating(*rung) > least).min_by_key(|rung| rung.wire_bps())
    }

    /// The best rung within `budget_bps`; the floor if none is.
    pub(crate) fn best(&self, budget_bps: f64) -> Rung {
        let admitted = LADDER.into_iter().filter(|rung| self.admits(*rung, budget_bps));
        admitted.max_by(|one, other| self.rating(*one).total_cmp(&self.rating(*other))).unwrap_or(super::ladder::FLOOR)
    }
}
