//! An estimate of how good a call is, and of what keeps it from being better.
//!
//! The E-model of ITU-T G.107.1 (wideband) adds up what harms a conversation – delay, the codec, lost sound – on the scale R, of 0 to
//! 129, and maps it to a mean opinion score of 1 to 4.5. It is made for planning networks and says more about changes than about one voice.

use std::time::Duration;

use crate::SenderSettings;

/// R of a call that nothing harms (G.107.1, 7.2).
pub const R_MAX: f64 = 129.0;

/// How well concealment copes: at this loss, in percent, half of what the codec left is lost. Deep concealment of Opus by PESQ-WB, a little
/// more lenient, as listeners are.
const LOSS_ROBUSTNESS: f64 = 9.0;

/// What a bitrate harms by itself, on the scale of R: from PESQ-WB of a constant rate, tempered by published listening tests, which put 12 kb/s
/// with the enhancer within 0.05 of the original. In rising order.
const CODEC_IMPAIRMENT: [(f64, f64); 7] =
    [(6_000.0, 38.0), (8_000.0, 27.0), (10_800.0, 18.0), (12_000.0, 14.5), (15_000.0, 10.0), (24_000.0, 6.5), (32_000.0, 5.0)];

/// What a codec at `bitrate` harms by itself.
fn codec_impairment(bitrate: u32) -> f64 {
    let bitrate = f64::from(bitrate);
    let above = CODEC_IMPAIRMENT.partition_point(|(rate, _)| *rate <= bitrate);
    match (above.checked_sub(1).map(|below| CODEC_IMPAIRMENT[below]), CODEC_IMPAIRMENT.get(above)) {
        (Some((rate, harm)), Some((rate_above, harm_above))) => harm + (harm_above - harm) * (bitrate - rate) / (rate_above - rate),
        // Above the table, what is left goes by halves: 48 kb/s harm by 2.5.
        (Some((rate, harm)), None) => harm * (rate / bitrate).powf(1.7),
        (None, _) => CODEC_IMPAIRMENT[0].1,
    }
}

/// What one-way delay harms (G.107, 3.5.3: Idd): nothing up to 100 ms, then more and more.
fn delay_impairment(mouth_to_ear: Duration) -> f64 {
    let ms = mouth_to_ear.as_secs_f64() * 1000.0;
    if ms <= 100.0 {
        return 0.0;
    }
    let x = (ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// What is known of one direction of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hearing {
    /// From the mouth to the ear, all buffers counted.
    pub mouth_to_ear: Duration,
    /// Share of sound that was made up, after copies have repaired what they could: of 0 to 1.
    pub lost: f64,
    /// Mean length of a gap above what it is when loss is random: 1 is random, more is bursty.
    pub burst_ratio: f64,
    /// The codec's bits per second.
    pub bitrate: u32,
}

impl Hearing {
    /// Of a sender's settings, with as much `lost` at random.
    #[must_use]
    pub fn of(settings: SenderSettings, mouth_to_ear: Duration, lost: f64) -> Self {
        Self { mouth_to_ear, lost, burst_ratio: 1.0, bitrate: settings.bitrate }
    }

    /// The transmission rating R, of 0 to [`R_MAX`].
    #[must_use]
    pub fn rating(&self) -> f64 {
        self.raw_rating().clamp(0.0, R_MAX)
    }

    /// The same where R has no floor, so that of two bad calls the better one is seen.
    pub(crate) fn raw_rating(&self) -> f64 {
        let codec = codec_impairment(self.bitrate);
        let lost_percent = finite(self.lost).clamp(0.0, 1.0) * 100.0;
        let burst_ratio = finite(self.burst_ratio).max(1.0);
        let effective = codec + (95.0 - codec) * lost_percent / (lost_percent / burst_ratio + LOSS_ROBUSTNESS);
        R_MAX - delay_impairment(self.mouth_to_ear) - effective
    }

    /// The mean opinion score to expect, of 1 to 4.5 (G.107.1, annex A).
    #[must_use]
    pub fn opinion_score(&self) -> f64 {
        // The narrowband curve, on its own scale of 0 to 100.
        let r = self.rating() / 1.29;
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// The one thing that limits a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// It could not be better.
    Nothing,
    /// Nothing comes from the other side.
    Silence,
    /// Packets get lost.
    Loss,
    /// The network carries little.
    Bandwidth,
    /// Packets come unevenly, and have to be waited for.
    Jitter,
    /// The way is long.
    Delay,
    /// The way leads through a relay, which makes it long.
    RelayDistance,
    /// The user saves data.
    DataSaver,
    /// The microphone or the loudspeaker.
    Device,
}

impl Limit {
    /// One word for logs and scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Silence => "silence",
            Self::Loss => "loss",
            Self::Bandwidth => "bandwidth",
            Self::Jitter => "jitter",
            Self::Delay => "delay",
            Self::RelayDistance => "relay-distance",
            Self::DataSaver => "data-saver",
            Self::Device => "device",
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing limits this call.",
            Self::Silence => "Nothing arrives from the other side at the moment.",
            Self::Loss => "The network loses packets.",
            Self::Bandwidth => "The internet connection is slow or busy.",
            Self::Jitter => "Packets arrive unevenly, which adds delay.",
            Self::Delay => "The other side is far away, which adds delay.",
            Self::RelayDistance => "The call goes through a relay, which adds delay.",
            Self::DataSaver => "Data is being saved.",
            Self::Device => "The microphone or the speaker does not keep up.",
        })
    }
}

/// What [`Limit::of`] weighs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Circumstances {
    /// How one direction is heard.
    pub hearing: Hearing,
    /// The network's part of the delay, one way.
    pub network: Duration,
    /// The wait for uneven packets.
    pub jitter: Duration,
    /// Whether the way leads through a relay.
    pub is_relayed: bool,
    /// Whether the rate is held down by what the network carries.
    pub is_narrow: bool,
    /// Whether the rate is held down by the user's wish.
    pub is_saving: bool,
    /// Whether a sound device is missing or stumbles.
    pub has_device_trouble: bool,
    /// Whether anything came lately.
    pub is_heard: bool,
}

impl Limit {
    /// Harm below this is not worth a word: a tenth of a point of opinion.
    const HARM_LEAST: f64 = 3.0;

    /// What harms most.
    #[must_use]
    pub fn of(circumstances: &Circumstances) -> Self {
        if circumstances.has_device_trouble {
            return Self::Device;
        }
        if !circumstances.is_heard {
            return Self::Silence;
        }
        let hearing = circumstances.hearing;
        let rating = hearing.rating();
        let without = |part: Duration| Hearing { mouth_to_ear: hearing.mouth_to_ear.saturating_sub(part), ..hearing }.rating() - rating;
        let lossless = Hearing { lost: 0.0, ..hearing }.rating() - rating;
        let wide = Hearing { bitrate: hearing.bitrate.max(32_000), ..hearing }.rating() - rating;
        let far = if circumstances.is_relayed { Self::RelayDistance } else { Self::Delay };
        let mut harms = vec![(Self::Loss, lossless), (far, without(circumstances.network)), (Self::Jitter, without(circumstances.jitter))];
        if circumstances.is_narrow {
            harms.push((Self::Bandwidth, wide));
        } else if circumstances.is_saving {
            harms.push((Self::DataSaver, wide));
        } else {
            // A low bitrate without need is the price of copies.
            harms[0].1 += wide;
        }
        let worst = harms.into_iter().max_by(|one, other| one.1.total_cmp(&other.1));
        worst.filter(|(_, harm)| *harm >= Self::HARM_LEAST).map_or(Self::Nothing, |(limit, _)| limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hearing(ms: u64, lost: f64, bitrate: u32) -> Hearing {
        Hearing { mouth_to_ear: Duration::from_millis(ms), lost, burst_ratio: 1.0, bitrate }
    }

    #[test]
    fn a_short_clean_call_is_nearly_perfect_and_every_harm_makes_it_worse() {
        let clean = hearing(60, 0.0, 32_000);
        assert!(clean.opinion_score() > 4.3, "{}", clean.opinion_score());
        for worse in [hearing(300, 0.0, 32_000), hearing(60, 0.02, 32_000), hearing(60, 0.0, 8_000)] {
            assert!(worse.rating() < clean.rating() - 5.0, "{worse:?} {}", worse.rating());
            assert!(worse.opinion_score() < clean.opinion_score());
        }
    }

    #[test]
    fn half_of_all_sound_lost_is_useless_and_stays_on_the_scale() {
        assert!(hearing(60, 0.5, 12_000).opinion_score() < 2.2);
        for lost in [f64::NAN, -1.0, 7.0] {
            let score = Hearing { burst_ratio: f64::INFINITY, ..hearing(u64::MAX / 2, lost, 0) }.opinion_score();
            assert!((1.0..=4.5).contains(&score), "{score}");
        }
    }

    #[test]
    fn delay_follows_the_standards_curve() {
        // G.107's Idd at 200, 300 and 400 ms.
        for (ms, harm) in [(100, 0.0), (200, 3.1), (300, 14.7), (400, 24.1)] {
            let got = delay_impairment(Duration::from_millis(ms));
            assert!((got - harm).abs() < 1.0, "{ms} ms: {got}");
        }
    }

    #[test]
    fn what_harms_most_is_named() {
        let fine = Circumstances {
            hearing: hearing(80, 0.0, 32_000),
            network: Duration::from_millis(20),
            jitter: Duration::from_millis(10),
            is_relayed: false,
            is_narrow: false,
            is_saving: false,
            has_device_trouble: false,
            is_heard: true,
        };
        assert_eq!(Limit::of(&fine), Limit::Nothing);
        assert_eq!(Limit::of(&Circumstances { hearing: hearing(80, 0.03, 32_000), ..fine }), Limit::Loss);
        assert_eq!(Limit::of(&Circumstances { hearing: hearing(80, 0.0, 11_200), ..fine }), Limit::Loss);
        assert_eq!(Limit::of(&Circumstances { hearing: hearing(80, 0.0, 8_000), is_narrow: true, ..fine }), Limit::Bandwidth);
        assert_eq!(Limit::of(&Circumstances { hearing: hearing(80, 0.0, 8_000), is_saving: true, ..fine }), Limit::DataSaver);
        let far = Circumstances { hearing: hearing(350, 0.0, 32_000), network: Duration::from_millis(290), ..fine };
        assert_eq!(Limit::of(&far), Limit::Delay);
        assert_eq!(Limit::of(&Circumstances { is_relayed: true, ..far }), Limit::RelayDistance);
        let uneven = Circumstances { hearing: hearing(350, 0.0, 32_000), jitter: Duration::from_millis(250), ..fine };
        assert_eq!(Limit::of(&uneven), Limit::Jitter);
        assert_eq!(Limit::of(&Circumstances { has_device_trouble: true, ..far }), Limit::Device);
        assert_eq!(Limit::of(&Circumstances { is_heard: false, ..far }), Limit::Silence);
    }
}
