//! How good a recording of a call is, against what was sent into it.
//!
//! The recording is aligned with the sent speech by cross-correlation, both are brought to 16 kHz, and PESQ in its wideband form (ITU-T P.862.2)
//! compares what they have in common: 1.0 is useless, about 4.64 is identical. Delay does not count in the score, so it is reported beside it.

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;
use thiserror::Error;

/// Rate of the signals that are compared.
const RATE_HZ: usize = 48_000;
/// From 48 kHz to the 16 kHz that wideband PESQ is defined for.
const DECIMATION: usize = 3;
/// Half the length of the decimation filter, in input samples: long enough to fall by 60 dB between the passband's edge and the first alias.
const FILTER_HALF: usize = 96;
/// Passband edge of the decimation filter as a share of the output's Nyquist frequency: wideband speech ends at 7 kHz.
const PASSBAND: f64 = 0.93;
/// PESQ needs a quarter of a second to work with; half a second holds at least one syllable.
const OVERLAP_MIN: usize = RATE_HZ / 2;
/// Signals whose root mean square is below this are silence: one step of a 16-bit sample.
const SILENCE_RMS: f64 = 1.0 / 32_768.0;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// PESQ wideband, 1.0 to 4.64.
    pub pesq_wb: f32,
    /// Where in the recording the sent signal begins, in samples at 48 kHz; negative if its beginning is missing.
    pub delay_samples: i64,
}

/// Why two signals cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QualityError {
    /// Less than half a second of both.
    #[error("the two recordings have less than half a second in common, too little to compare")]
    TooShort,
    /// The sent signal is silence.
    #[error("the sent recording is silent, so there is nothing to compare")]
    SentSilent,
    /// The received signal is silence.
    #[error("the received recording is silent: no sound arrived")]
    ReceivedSilent,
    /// PESQ finds no speech.
    #[error("no speech was found in the recordings")]
    NoSpeech,
}

/// Compares a recording with what was sent, both at 48 kHz and mono.
///
/// # Errors
/// [`QualityError`] if there is too little to compare, or only silence.
pub fn compare(sent: &[f32], received: &[f32]) -> Result<Quality, QualityError> {
    if sent.len().min(received.len()) < OVERLAP_MIN {
        return Err(QualityError::TooShort);
    }
    if is_silent(sent) {
        return Err(QualityError::SentSilent);
    }
    if is_silent(received) {
        return Err(QualityError::ReceivedSilent);
    }
    let delay_samples = delay(sent, received);
    let (sent, received) = overlap(sent, received, delay_samples);
    if sent.len() < OVERLAP_MIN {
        return Err(QualityError::TooShort);
    }
    let filter = decimation_filter();
    let pesq_wb = pesq::pesq_wb(&decimate(sent, &filter), &decimate(received, &filter)).map_err(|_| QualityError::NoSpeech)?;
    Ok(Quality { pesq_wb, delay_samples })
}

fn is_silent(signal: &[f32]) -> bool {
    let energy: f64 = signal.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    energy <= SILENCE_RMS.powi(2) * signal.len() as f64
}

/// The lag of `received` behind `sent` at which they agree best.
fn delay(sent: &[f32], received: &[f32]) -> i64 {
    // Padded to the sum of both lengths, so that the circular correlation of the transform is the linear one.
    let size = (sent.len() + received.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f32>::new();
    let forward = planner.plan_fft_forward(size);
    let transform = |signal: &[f32]| {
        let mut padded = forward.make_input_vec();
        padded[..signal.len()].copy_from_slice(signal);
        let mut spectrum = forward.make_output_vec();
        forward.process(&mut padded, &mut spectrum).expect("both buffers come from the plan");
        spectrum
    };
    let mut product: Vec<Complex<f32>> = transform(received).iter().zip(transform(sent)).map(|(r, s)| r * s.conj()).collect();
    let backward = planner.plan_fft_inverse(size);
    // The transform of a real signal is real at both ends; rounding in the product may say otherwise, and the plan refuses it.
    product[0].im = 0.0;
    product[size / 2].im = 0.0;
    let mut correlation = backward.make_output_vec();
    backward.process(&mut product, &mut correlation).expect("both ends are real and the buffers have the plan's sizes");
    let best = (0..size).max_by(|a, b| correlation[*a].total_cmp(&correlation[*b])).unwrap_or(0);
    if best < received.len() { best as i64 } else { best as i64 - size as i64 }
}

/// The parts of both that lie on each other once `received` is moved back by `delay`.
fn overlap<'a>(sent: &'a [f32], received: &'a [f32], delay: i64) -> (&'a [f32], &'a [f32]) {
    let skip = delay.unsigned_abs() as usize;
    let (sent, received) =
        if delay >= 0 { (sent, received.get(skip..).unwrap_or_default()) } else { (sent.get(skip..).unwrap_or_default(), received) };
    let length = sent.len().min(received.len());
    (&sent[..length], &received[..length])
}

/// A sinc under a Blackman window, with a gain of one at zero frequency.
fn decimation_filter() -> Vec<f64> {
    let cutoff = PASSBAND / DECIMATION as f64;
    let taps: Vec<f64> = (0..=2 * FILTER_HALF)
        .map(|i| {
            let x = (i as f64 - FILTER_HALF as f64) * cutoff;
            let sinc = if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
            let phase = std::f64::consts::PI * i as f64 / FILTER_HALF as f64;
            sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
        })
        .collect();
    let gain: f64 = taps.iter().sum();
    taps.iter().map(|tap| tap / gain).collect()
}

/// Every third sample of the filtered signal, as 16-bit numbers. The filter's own delay is taken out.
fn decimate(signal: &[f32], filter: &[f64]) -> Vec<i16> {
    (0..signal.len() / DECIMATION)
        .map(|output| {
            let centre = output * DECIMATION;
            let first = centre.saturating_sub(FILTER_HALF);
            let last = (centre + FILTER_HALF + 1).min(signal.len());
            let taps = &filter[first + FILTER_HALF - centre..];
            let sum: f64 = signal[first..last].iter().zip(taps).map(|(sample, tap)| f64::from(*sample) * tap).sum();
            (sum * 32_767.0).round().clamp(-32_768.0, 32_767.0) as i16
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_good_as_can_be() {
        let sent = speech_like(4);
        let quality = compare(&sent, &sent).unwrap();
        assert_eq!(quality.delay_samples, 0);
        assert!(quality.pesq_wb > 4.5, "{quality:?}");
    }

    #[test]
    fn a_late_copy_is_as_good_and_its_delay_is_exact() {
        let sent = speech_like(4);
        let received = [vec![0.0; 9_876], sent.iter().map(|sample| sample * 0.8).collect()].concat();
        let quality = compare(&sent, &received).unwrap();
        assert_eq!(quality.delay_samples, 9_876);
        assert!(quality.pesq_wb > 4.4, "{quality:?}");
    }

    #[test]
    fn a_copy_without_its_beginning_is_compared_by_the_rest() {
        let sent = speech_like(4);
        let quality = compare(&sent, &sent[12_000..]).unwrap();
        assert_eq!(quality.delay_samples, -12_000);
        assert!(quality.pesq_wb > 4.4, "{quality:?}");
    }

    #[test]
    fn noise_lowers_the_score_and_not_the_delay() {
        let sent = speech_like(4);
        let mut random = Random(7);
        let noisy = |level: f32, random: &mut Random| -> Vec<f32> {
            [vec![0.0; 480], sent.iter().map(|sample| sample + level * random.next()).collect()].concat()
        };
        let little = compare(&sent, &noisy(0.002, &mut random)).unwrap();
        let much = compare(&sent, &noisy(0.1, &mut random)).unwrap();
        assert_eq!((little.delay_samples, much.delay_samples), (480, 480));
        assert!(little.pesq_wb > much.pesq_wb + 0.5, "{little:?} {much:?}");
        assert!(much.pesq_wb < 2.5, "{much:?}");
    }

    #[test]
    fn silence_and_snippets_are_refused_each_with_its_reason() {
        let sent = speech_like(2);
        assert_eq!(compare(&sent, &vec![0.0; sent.len()]), Err(QualityError::ReceivedSilent));
        assert_eq!(compare(&vec![0.0; sent.len()], &sent), Err(QualityError::SentSilent));
        assert_eq!(compare(&sent, &sent[..1_000]), Err(QualityError::TooShort));
        assert_eq!(compare(&[], &[]), Err(QualityError::TooShort));
    }

    #[test]
    fn decimation_keeps_speech_and_removes_what_would_fold_onto_it() {
        let filter = decimation_filter();
        let level = |hertz: f32| {
            let tone: Vec<f32> = (0..RATE_HZ).map(|i| 0.5 * (std::f32::consts::TAU * hertz * i as f32 / RATE_HZ as f32).sin()).collect();
            let low = decimate(&tone, &filter);
            let middle = &low[1_000..low.len() - 1_000];
            (middle.iter().map(|sample| (f64::from(*sample) / 32_767.0).powi(2)).sum::<f64>() / middle.len() as f64).sqrt()
        };
        let whole = 0.5 / 2f64.sqrt();
        assert!((level(1_000.0) / whole - 1.0).abs() < 0.01);
        assert!((level(6_500.0) / whole - 1.0).abs() < 0.05);
        assert!(level(9_000.0) < whole / 300.0);
    }

    /// Bursts of a buzzing, gliding tone with pauses: enough like speech for PESQ to find utterances in it.
    fn speech_like(seconds: usize) -> Vec<f32> {
        let mut random = Random(1);
        let mut phase = 0.0f32;
        (0..seconds * RATE_HZ)
            .map(|i| {
                let t = i as f32 / RATE_HZ as f32;
                let syllable = (std::f32::consts::TAU * 3.0 * t).sin().max(0.0) * if t % 2.0 < 1.6 { 1.0 } else { 0.0 };
                phase = (phase + (120.0 + 40.0 * (t * 5.0).sin()) / RATE_HZ as f32).fract();
                let buzz: f32 = (1..=30).map(|h| (std::f32::consts::TAU * h as f32 * phase).sin() / h as f32).sum();
                0.2 * syllable * buzz + 0.01 * syllable * random.next()
            })
            .collect()
    }

    /// A small linear generator: the tests need noise that is the same each time, and no more.
    struct Random(u32);

    impl Random {
        fn next(&mut self) -> f32 {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
        }
    }
}
