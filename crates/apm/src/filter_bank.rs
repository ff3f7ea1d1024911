//! Splits sound into three bands of 8 kHz at a third of the sample rate each, and puts them together again.
//!
//! A cosine-modulated filter bank (pseudo-QMF): each band's filter is one prototype low-pass, moved to the band's middle by a cosine. What
//! neighbouring bands alias into each other cancels when they are put together, because their cosines are a quarter of a turn apart. The
//! cosine comes back with its sign changed every six samples, so six short filters and a few sums do the work of three long ones.

use crate::BLOCK_SAMPLES;
use std::f64::consts::PI;

/// Bands of 8 kHz.
pub(crate) const BANDS: usize = 3;

/// Samples of a block in one band.
pub(crate) const BAND_SAMPLES: usize = BLOCK_SAMPLES / BANDS;

/// A block in three bands.
pub(crate) type Bands = [[f32; BAND_SAMPLES]; BANDS];

/// Samples after which the cosines come back, with the other sign.
const HALF_TURN: usize = 2 * BANDS;

/// Half turns in the prototype. Six make it 36 samples long, which lets 70 dB less through of what is a band away.
const HALF_TURNS: usize = 6;

const TAPS: usize = HALF_TURN * HALF_TURNS;

/// The shape of the prototype's Kaiser window, for 70 dB.
const KAISER_BETA: f64 = 6.76;

/// Samples by which splitting and merging delay: the length of a filter, less the two samples that a sample of a band is not waited for.
pub(crate) const FILTER_BANK_DELAY: usize = TAPS - 1 - (BANDS - 1);

/// What a filter remembers of its input, in samples of a band.
const MEMORY: usize = TAPS / BANDS - 1;

/// An input at a third of the rate with what came before.
type Row = [f32; MEMORY + BAND_SAMPLES];

/// The prototype's polyphase parts with the signs of the half turns, and the cosines of the bands.
struct Design {
    filters: [[f32; HALF_TURNS]; HALF_TURN],
    cosines: [[f32; BANDS]; HALF_TURN],
}

impl Design {
    /// The filters of one side; `shift` is its eighth of a turn, the other side's has the other sign.
    fn new(scale: f64, shift: f64) -> Self {
        let prototype = prototype();
        let middle = (TAPS - 1) as f64 / 2.0;
        Self {
            filters: std::array::from_fn(|phase| {
                std::array::from_fn(|turn| {
                    let sign = if turn % 2 == 0 { scale } else { -scale };
                    (sign * prototype[phase + HALF_TURN * turn]) as f32
                })
            }),
            cosines: std::array::from_fn(|phase| {
                std::array::from_fn(|band| {
                    let shift = if band % 2 == 0 { shift } else { -shift };
                    let turn = (2 * band + 1) as f64 * PI / HALF_TURN as f64;
                    (2.0 * (turn * (phase as f64 - middle) + shift).cos()) as f32
                })
            }),
        }
    }
}

/// A low-pass filter of gain 1 whose power is down by half at the edge of the lowest band, so that the powers of neighbours add up to 1.
fn prototype() -> [f64; TAPS] {
    let (mut low, mut high) = (0.0, PI);
    for _ in 0..60 {
        let cut_off = 0.5 * (low + high);
        if response(&low_pass(cut_off), PI / HALF_TURN as f64) < 0.5f64.sqrt() {
            low = cut_off;
        } else {
            high = cut_off;
        }
    }
    low_pass(low)
}

fn low_pass(cut_off: f64) -> [f64; TAPS] {
    let middle = (TAPS - 1) as f64 / 2.0;
    let taps: [f64; TAPS] = std::array::from_fn(|i| {
        let x = i as f64 - middle;
        (cut_off * x).sin() / x * bessel(KAISER_BETA * (1.0 - (x / (middle + 0.5)).powi(2)).sqrt())
    });
    let sum: f64 = taps.iter().sum();
    taps.map(|tap| tap / sum)
}

/// The gain of a symmetric filter at a frequency in radians a sample.
fn response(taps: &[f64; TAPS], frequency: f64) -> f64 {
    let middle = (TAPS - 1) as f64 / 2.0;
    taps.iter().enumerate().map(|(i, tap)| tap * (frequency * (i as f64 - middle)).cos()).sum()
}

/// The modified Bessel function of order 0.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > 1e-15 * sum {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

/// Splits blocks.
pub(crate) struct Analysis {
    design: Design,
    /// Every third sample, beginning with the last, the one before, and the first of three.
    rows: [Row; BANDS],
}

impl Analysis {
    pub(crate) fn new() -> Self {
        Self { design: Design::new(1.0, PI / 4.0), rows: [[0.0; MEMORY + BAND_SAMPLES]; BANDS] }
    }

    pub(crate) fn split(&mut self, block: &[f32; BLOCK_SAMPLES], bands: &mut Bands) {
        for (back, row) in self.rows.iter_mut().enumerate() {
            row.copy_within(BAND_SAMPLES.., 0);
            for (sample, three) in row[MEMORY..].iter_mut().zip(block.as_chunks::<BANDS>().0) {
                *sample = three[BANDS - 1 - back];
            }
        }
        *bands = [[0.0; BAND_SAMPLES]; BANDS];
        for (phase, (filter, cosines)) in self.design.filters.iter().zip(&self.design.cosines).enumerate() {
            let mut filtered = [0.0; BAND_SAMPLES];
            for (turn, tap) in filter.iter().enumerate() {
                let delay = (phase + HALF_TURN * turn) / BANDS;
                add_scaled(&mut filtered, &self.rows[phase % BANDS][MEMORY - delay..], *tap);
            }
            for (band, cosine) in bands.iter_mut().zip(cosines) {
                add_scaled(band, &filtered, *cosine);
            }
        }
    }
}

/// Merges bands.
pub(crate) struct Synthesis {
    design: Design,
    /// The bands' sum under each cosine of a half turn.
    rows: [Row; HALF_TURN],
}

impl Synthesis {
    pub(crate) fn new() -> Self {
        Self { design: Design::new(BANDS as f64, -PI / 4.0), rows: [[0.0; MEMORY + BAND_SAMPLES]; HALF_TURN] }
    }

    pub(crate) fn merge(&mut self, bands: &Bands, block: &mut [f32; BLOCK_SAMPLES]) {
        for (row, cosines) in self.rows.iter_mut().zip(&self.design.cosines) {
            row.copy_within(BAND_SAMPLES.., 0);
            row[MEMORY..].fill(0.0);
            for (band, cosine) in bands.iter().zip(cosines) {
                add_scaled(&mut row[MEMORY..], band, *cosine);
            }
        }
        for at in 0..BANDS {
            let mut filtered = [0.0; BAND_SAMPLES];
            for phase in [at, at + BANDS] {
                for (turn, tap) in self.design.filters[phase].iter().enumerate() {
                    let delay = (phase + HALF_TURN * turn) / BANDS;
                    add_scaled(&mut filtered, &self.rows[phase][MEMORY - delay..], *tap);
                }
            }
            for (three, sample) in block.as_chunks_mut::<BANDS>().0.iter_mut().zip(&filtered) {
                three[at] = *sample;
            }
        }
    }
}

fn add_scaled(to: &mut [f32], from: &[f32], scale: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_the_bank(signal: &[f32], mut change: impl FnMut(&mut Bands)) -> Vec<f32> {
        let (mut analysis, mut synthesis) = (Analysis::new(), Synthesis::new());
        let mut bands = [[0.0; BAND_SAMPLES]; BANDS];
        let mut out = Vec::new();
        for block in signal.as_chunks::<BLOCK_SAMPLES>().0 {
            let mut merged = [0.0; BLOCK_SAMPLES];
            analysis.split(block, &mut bands);
            change(&mut bands);
            synthesis.merge(&bands, &mut merged);
            out.extend_from_slice(&merged);
        }
        out
    }

    fn tone(hertz: f32) -> Vec<f32> {
        (0..10 * BLOCK_SAMPLES).map(|i| (std::f32::consts::TAU * hertz * i as f32 / crate::SAMPLE_RATE as f32).sin()).collect()
    }

    #[test]
    fn what_is_split_and_merged_is_the_same_but_later() {
        for hertz in [50.0, 1_000.0, 3_999.0, 7_900.0, 8_000.0, 8_300.0, 12_000.0, 16_100.0, 20_000.0] {
            let signal = tone(hertz);
            let out = through_the_bank(&signal, |_| {});
            let worst = signal[BLOCK_SAMPLES..].iter().zip(&out[BLOCK_SAMPLES + FILTER_BANK_DELAY..]);
            let worst = worst.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 0.01, "{worst} at {hertz} Hz");
        }
    }

    #[test]
    fn a_tone_is_in_its_band_only() {
        for (hertz, its_band) in [(2_000.0, 0), (4_500.0, 0), (12_000.0, 1), (22_000.0, 2)] {
            let mut power = [0.0; BANDS];
            through_the_bank(&tone(hertz), |bands| power = std::array::from_fn(|band| crate::level::power(&bands[band])));
            assert!((power[its_band] - 0.5).abs() < 0.02, "{power:?} at {hertz} Hz");
            let others: f32 = power.iter().enumerate().filter(|(band, _)| *band != its_band).map(|(_, power)| power).sum();
            assert!(others < 1e-5, "{power:?} at {hertz} Hz");
        }
    }
}
