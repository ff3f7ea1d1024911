//! Sound as the bench needs it: files, alignment, and 16 kHz, at which speech is judged.

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use std::f64::consts::PI;
use std::path::Path;

/// Samples a second of what calls carry.
pub(crate) const RATE_HZ: usize = 48_000;
/// Samples a second of what is judged.
pub(crate) const JUDGED_HZ: usize = 16_000;
const DECIMATION: usize = RATE_HZ / JUDGED_HZ;
/// Taps on either side of the filter before decimation; its transition band lies between 7.2 and 8 kHz.
const FILTER_HALF: usize = 120;
/// Where the filter begins to fall, as a share of the new Nyquist frequency.
const PASSBAND: f64 = 0.95;
/// What keeps the weighting of the correlation finite where there is no sound, as a share of the mean.
const WHITENING_FLOOR: f32 = 0.01;

/// A WAV file as floats, the first of its channels or the one asked for.
pub(crate) fn read_channel(path: &Path, channel: usize) -> Result<Vec<f32>, String> {
    let wrong = |error: hound::Error| format!("{}: {error}", path.display());
    let mut reader = WavReader::open(path).map_err(wrong)?;
    let spec = reader.spec();
    let samples: Vec<f32> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect::<Result<_, _>>().map_err(wrong)?,
        SampleFormat::Int => {
            let full = (1u64 << (spec.bits_per_sample - 1)) as f32;
            reader.samples::<i32>().map(|sample| sample.map(|sample| sample as f32 / full)).collect::<Result<_, _>>().map_err(wrong)?
        }
    };
    Ok(samples.into_iter().skip(channel).step_by(usize::from(spec.channels)).collect())
}

/// The first channel.
pub(crate) fn read(path: &Path) -> Result<Vec<f32>, String> {
    read_channel(path, 0)
}

/// Writes 16 bits, mono.
pub(crate) fn write(path: &Path, samples: &[f32], rate_hz: usize) -> Result<(), String> {
    let wrong = |error: hound::Error| format!("{}: {error}", path.display());
    let spec = WavSpec { channels: 1, sample_rate: rate_hz as u32, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut writer = WavWriter::create(path, spec).map_err(wrong)?;
    for sample in as_i16(samples) {
        writer.write_sample(sample).map_err(wrong)?;
    }
    writer.finalize().map_err(wrong)
}

/// Floats as 16-bit numbers.
pub(crate) fn as_i16(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|sample| (sample.clamp(-1.0, 1.0) * 32_767.0).round() as i16).collect()
}

/// Every third sample of what is left below 8 kHz. The filter's own delay is taken out.
pub(crate) fn decimate(signal: &[f32]) -> Vec<f32> {
    let filter = decimation_filter();
    (0..signal.len() / DECIMATION)
        .map(|output| {
            let centre = output * DECIMATION;
            let first = centre.saturating_sub(FILTER_HALF);
            let last = (centre + FILTER_HALF + 1).min(signal.len());
            let taps = &filter[first + FILTER_HALF - centre..];
            signal[first..last].iter().zip(taps).map(|(sample, tap)| sample * tap).sum()
        })
        .collect()
}

/// A sinc under a Blackman window, with a gain of one at zero frequency.
fn decimation_filter() -> Vec<f32> {
    let cutoff = PASSBAND / DECIMATION as f64;
    let taps: Vec<f64> = (0..=2 * FILTER_HALF)
        .map(|i| {
            let x = (i as f64 - FILTER_HALF as f64) * cutoff;
            let sinc = if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
            let phase = PI * i as f64 / FILTER_HALF as f64;
            sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
        })
        .collect();
    let gain: f64 = taps.iter().sum();
    taps.into_iter().map(|tap| (tap / gain) as f32).collect()
}

/// By how many samples `later` lags behind `earlier`, sought between two lags: the peak of the cross-correlation whose spectrum is partly whitened, which
/// stands out in speech where the plain one is broad. Also how far it stands out, in root mean squares of the whole.
pub(crate) fn lag(earlier: &[f32], later: &[f32], least: i64, most: i64) -> Option<(i64, f32)> {
    if earlier.is_empty() || later.is_empty() || least > most {
        return None;
    }
    let size = (earlier.len() + later.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f32>::new();
    let forward = planner.plan_fft_forward(size);
    let transform = |signal: &[f32]| {
        let mut padded = forward.make_input_vec();
        padded[..signal.len()].copy_from_slice(signal);
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut padded, &mut spectrum).ok().map(|()| spectrum)
    };
    let (later, earlier) = (transform(later)?, transform(earlier)?);
    let mut product: Vec<Complex<f32>> = later.iter().zip(&earlier).map(|(later, earlier)| later * earlier.conj()).collect();
    let mean = product.iter().map(|bin| bin.norm()).sum::<f32>() / product.len() as f32;
    for bin in &mut product {
        *bin /= (bin.norm() + WHITENING_FLOOR * mean).sqrt().max(f32::MIN_POSITIVE);
    }
    product[0].im = 0.0;
    product[size / 2].im = 0.0;
    let mut correlation = planner.plan_fft_inverse(size).make_output_vec();
    planner.plan_fft_inverse(size).process(&mut product, &mut correlation).ok()?;
    let at = |lag: i64| correlation[lag.rem_euclid(size as i64) as usize];
    let half = size as i64 / 2;
    let best = (least.max(-half)..=most.min(half - 1)).max_by(|a, b| at(*a).total_cmp(&at(*b)))?;
    let rms = (correlation.iter().map(|value| value * value).sum::<f32>() / size as f32).sqrt();
    Some((best, at(best) / rms.max(f32::MIN_POSITIVE)))
}

/// How late a place of what was spoken is heard, in milliseconds: so many samples from `from` on, of which the first would lie `sent_at` samples later in
/// what was heard if it took no time. `None` where nobody speaks, or nothing like it is heard.
pub(crate) fn delay_ms(spoken: &[f32], from: usize, samples: usize, heard: &[f32], sent_at: i64, seconds_max: f64) -> Option<f64> {
    /// Softer than this is silence.
    const SPOKEN: f32 = 0.01;
    /// A peak that stands out so far is no chance.
    const PEAK_MIN: f32 = 8.0;
    let place = spoken.get(from..from + samples).filter(|place| place.iter().any(|sample| sample.abs() > SPOKEN))?;
    let most = (seconds_max * RATE_HZ as f64) as usize;
    let (lag, peak) = lag(place, &window(heard, from as i64 + sent_at, samples + most), 0, most as i64)?;
    (peak >= PEAK_MIN).then_some(lag as f64 * 1_000.0 / RATE_HZ as f64)
}

/// So many samples from a place on, which may lie before the beginning or go beyond the end: there is silence.
pub(crate) fn window(signal: &[f32], start: i64, length: usize) -> Vec<f32> {
    (start..start + length as i64).map(|at| usize::try_from(at).ok().and_then(|at| signal.get(at)).copied().unwrap_or(0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(samples: usize) -> Vec<f32> {
        let mut state = 1u32;
        (0..samples)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn a_lag_is_found_to_the_sample_within_its_bounds() {
        let earlier = noise(20_000);
        let later = [vec![0.0; 777], earlier.clone()].concat();
        assert_eq!(lag(&earlier, &later, -2_000, 2_000).unwrap().0, 777);
        assert_eq!(lag(&later, &earlier, -2_000, 2_000).unwrap().0, -777);
        assert!(lag(&earlier, &later, -2_000, 2_000).unwrap().1 > 20.0);
        assert_ne!(lag(&earlier, &later, -2_000, 500).unwrap().0, 777);
    }

    #[test]
    fn decimation_keeps_speech_and_removes_what_would_fold_onto_it() {
        let level = |hertz: f32| {
            let tone: Vec<f32> = (0..RATE_HZ).map(|i| (std::f32::consts::TAU * hertz * i as f32 / RATE_HZ as f32).sin()).collect();
            let middle = &decimate(&tone)[1_000..15_000];
            (middle.iter().map(|sample| sample * sample).sum::<f32>() / middle.len() as f32).sqrt() * 2f32.sqrt()
        };
        assert!((level(1_000.0) - 1.0).abs() < 0.01);
        assert!((level(6_500.0) - 1.0).abs() < 0.05);
        assert!(level(9_000.0) < 1.0 / 300.0);
    }

    #[test]
    fn a_window_beyond_the_ends_is_silent_there() {
        assert_eq!(window(&[1.0, 2.0], -1, 4), [0.0, 1.0, 2.0, 0.0]);
    }
}
