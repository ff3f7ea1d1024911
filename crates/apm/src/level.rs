//! Levels in decibels of full scale: a full-scale square wave is 0 dBFS, a full-scale sine -3.

/// The level that silence is given.
pub(crate) const SILENCE_DBFS: f32 = -96.0;

/// The mean square of samples.
pub(crate) fn power(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len().max(1) as f32
}

/// The level of samples.
pub(crate) fn dbfs(samples: &[f32]) -> f32 {
    power_to_dbfs(power(samples))
}

/// The level of a mean square.
pub(crate) fn power_to_dbfs(power: f32) -> f32 {
    (10.0 * power.max(1e-12).log10()).max(SILENCE_DBFS)
}

/// A meter that follows a rise at once and falls by 20 dB a second, as a person can read it.
pub(crate) struct Meter {
    level_dbfs: f32,
}

impl Meter {
    /// Decibels by which the meter falls in a block.
    const FALL_DB: f32 = 0.2;

    pub(crate) fn new() -> Self {
        Self { level_dbfs: SILENCE_DBFS }
    }

    pub(crate) fn update(&mut self, samples: &[f32]) {
        self.level_dbfs = dbfs(samples).max(self.level_dbfs - Self::FALL_DB).max(SILENCE_DBFS);
    }

    pub(crate) fn level_dbfs(&self) -> f32 {
        self.level_dbfs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_the_mean_square() {
        assert_eq!(dbfs(&[0.0; 480]), SILENCE_DBFS);
        assert!((dbfs(&[0.1; 480]) + 20.0).abs() < 0.01);
    }

    #[test]
    fn the_meter_rises_at_once_and_falls_slowly() {
        let mut meter = Meter::new();
        meter.update(&[0.1; 480]);
        assert!((meter.level_dbfs() + 20.0).abs() < 0.01);
        for _ in 0..100 {
            meter.update(&[0.0; 480]);
        }
        assert!((meter.level_dbfs() + 40.0).abs() < 0.1);
    }
}
