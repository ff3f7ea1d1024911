//! How loud sound is, in decibels below full scale.

use std::fmt;

/// What silence is shown as, and anything quieter: 16 bits end at -96 dBFS.
pub const SILENCE_DBFS: f32 = -100.0;

/// How loud a stretch of sound is. Full scale is a sample of 1: a sine of full scale has a peak of 0 dBFS and a root mean
/// square of -3 dBFS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The loudest sample.
    pub peak_dbfs: f32,
    /// The root of the mean square of all samples.
    pub rms_dbfs: f32,
}

impl Level {
    /// Of nothing.
    pub const SILENCE: Self = Self { peak_dbfs: SILENCE_DBFS, rms_dbfs: SILENCE_DBFS };

    /// How loud this sound is.
    #[must_use]
    pub fn of(sound: &[f32]) -> Self {
        let mut meter = LevelMeter::default();
        meter.push(sound);
        meter.take()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:.0} dBFS (peak {:.0})", self.rms_dbfs, self.peak_dbfs)
    }
}

/// Adds sound up to a [`Level`].
#[derive(Debug, Clone, Default)]
pub struct LevelMeter {
    peak: f32,
    squares: f64,
    samples: u64,
}

impl LevelMeter {
    /// Takes more sound.
    pub fn push(&mut self, sound: &[f32]) {
        self.peak = sound.iter().fold(self.peak, |peak, sample| peak.max(sample.abs()));
        self.squares += sound.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
        self.samples += sound.len() as u64;
    }

    /// How loud everything since the last call was.
    pub fn take(&mut self) -> Level {
        let Self { peak, squares, samples } = std::mem::take(self);
        if samples == 0 {
            return Level::SILENCE;
        }
        let rms = (squares / samples as f64).sqrt() as f32;
        Level { peak_dbfs: dbfs(peak), rms_dbfs: dbfs(rms) }
    }
}

fn dbfs(amplitude: f32) -> f32 {
    // A float that is no number comes out as silence.
    (20.0 * amplitude.log10()).max(SILENCE_DBFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sine_of_full_scale_is_0_dbfs_at_its_peak_and_3_below_on_average() {
        let sine: Vec<f32> = (0..480).map(|index| (index as f32 / 48.0 * std::f32::consts::TAU).sin()).collect();
        let level = Level::of(&sine);
        assert!(level.peak_dbfs.abs() < 0.01 && (level.rms_dbfs + 3.01).abs() < 0.01, "{level:?}");
        let half: Vec<f32> = sine.iter().map(|sample| sample * 0.5).collect();
        assert!((Level::of(&half).rms_dbfs - level.rms_dbfs + 6.02).abs() < 0.01);
    }

    #[test]
    fn silence_and_nothing_and_nonsense_have_a_level() {
        assert_eq!(Level::of(&[]), Level::SILENCE);
        assert_eq!(Level::of(&[0.0; 480]), Level::SILENCE);
        assert_eq!(Level::of(&[f32::NAN]), Level::SILENCE);
    }

    #[test]
    fn a_meter_begins_anew_each_time_it_is_read() {
        let mut meter = LevelMeter::default();
        meter.push(&[1.0]);
        meter.push(&[0.0]);
        assert!((meter.take().rms_dbfs + 3.01).abs() < 0.01);
        assert_eq!(meter.take(), Level::SILENCE);
    }
}
