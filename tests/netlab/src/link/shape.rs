//! One direction of a link: a bottleneck with a queue, losses, and a delay that may vary.
//!
//! In this order, as on the way through a network: the bottleneck sends one packet after the other at its rate, and refuses those that would wait for
//! too long; then a packet may be lost; what is left takes its time. Packets do not overtake one another.

use serde::Deserialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How a direction of a link behaves. Everything left out is perfect.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapeSettings {
    /// What every packet takes, in milliseconds.
    pub delay_ms: f64,
    /// A file with what packets take beyond that: a number of milliseconds a line, each for [`jitter_step_ms`](Self::jitter_step_ms); it repeats.
    pub jitter: Option<PathBuf>,
    /// How long a number of the jitter holds.
    pub jitter_step_ms: f64,
    /// Which packets are lost: a character for each, `1` is lost, any other is not; it repeats.
    pub loss: String,
    /// Packets shorter than this, IP headers counted, take no character of their own: they share the fate of the packet before. What acknowledges or
    /// reports comes between packets of voice and meets the same channel, but shall not make bursts shorter than the pattern says.
    pub loss_bytes_min: usize,
    /// The bottleneck; nothing: there is none.
    pub rate_kbps: Option<f64>,
    /// Longest wait before the bottleneck; what would have to wait longer is dropped.
    pub queue_ms_max: f64,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It comes out.
    Passes {
        /// How long it waited for the bottleneck, its own sending not counted.
        queued: Duration,
        /// When it comes out.
        due: Instant,
    },
    /// It is lost on the way.
    Lost,
    /// The queue was full.
    Dropped,
}

/// A direction of a link.
#[derive(Debug)]
pub struct Shape {
    settings: ShapeSettings,
    jitter_ms: Vec<f64>,
    pattern: Vec<bool>,
    /// Characters of the pattern that were used.
    used: usize,
    /// When the bottleneck has sent all that it has.
    free_at: Instant,
    began: Instant,
    last_due: Instant,
}

impl Shape {
    /// A direction that behaves so from `now` on.
    ///
    /// # Errors
    /// A sentence, if the file with the jitter is none.
    pub fn new(now: Instant, settings: ShapeSettings) -> Result<Self, String> {
        let jitter_ms = match &settings.jitter {
            None => Vec::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
                text.split_whitespace().map(|word| word.parse().map_err(|_| format!("{word} is no number"))).collect::<Result<_, _>>()?
            }
        };
        let pattern = settings.loss.bytes().map(|character| character == b'1').collect();
        Ok(Self { settings, jitter_ms, pattern, used: 0, free_at: now, began: now, last_due: now })
    }

    /// Another behaviour from `now` on; what waits goes on waiting.
    ///
    /// # Errors
    /// As for [`Shape::new`].
    pub fn change(&mut self, now: Instant, settings: ShapeSettings) -> Result<(), String> {
        *self = Self { free_at: self.free_at, last_due: self.last_due, ..Self::new(now, settings)? };
        Ok(())
    }

    /// Decides about a packet of so many bytes, IP headers counted.
    pub fn handle_packet(&mut self, now: Instant, ip_bytes: usize) -> Fate {
        let queued = self.free_at.saturating_duration_since(now);
        let mut sent = now;
        if let Some(kbps) = self.settings.rate_kbps {
            if queued > millis(self.settings.queue_ms_max) {
                return Fate::Dropped;
            }
            sent = now + queued + millis(ip_bytes as f64 * 8.0 / kbps.max(f64::MIN_POSITIVE));
            self.free_at = sent;
        }
        if self.is_next_lost(ip_bytes) {
            return Fate::Lost;
        }
        let due = (sent + millis(self.settings.delay_ms + self.jitter_at(now))).max(self.last_due);
        self.last_due = due;
        Fate::Passes { queued, due }
    }

    fn is_next_lost(&mut self, ip_bytes: usize) -> bool {
        if self.pattern.is_empty() {
            return false;
        }
        if ip_bytes >= self.settings.loss_bytes_min || self.used == 0 {
            self.used += 1;
        }
        self.pattern[(self.used - 1) % self.pattern.len()]
    }

    fn jitter_at(&self, now: Instant) -> f64 {
        if self.jitter_ms.is_empty() {
            return 0.0;
        }
        let step_ms = self.settings.jitter_step_ms.max(1.0);
        let step = (now.saturating_duration_since(self.began).as_secs_f64() * 1_000.0 / step_ms) as usize;
        self.jitter_ms[step % self.jitter_ms.len()]
    }
}

fn millis(number: f64) -> Duration {
    /// Longer than any link, so that no nonsense overflows.
    const MILLIS_MAX: f64 = 60_000.0;
    Duration::from_secs_f64(number.clamp(0.0, MILLIS_MAX) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(settings: ShapeSettings) -> (Instant, Shape) {
        let now = Instant::now();
        (now, Shape::new(now, settings).unwrap())
    }

    #[test]
    fn a_pattern_loses_what_it_says_and_short_packets_share_the_fate_of_the_one_before() {
        let (now, mut shape) = shape(ShapeSettings { loss: "0110".to_owned(), loss_bytes_min: 100, ..ShapeSettings::default() });
        let fates: Vec<bool> =
            [150, 60, 150, 60, 60, 150, 150, 60, 150].into_iter().map(|bytes| shape.handle_packet(now, bytes) == Fate::Lost).collect();
        assert_eq!(fates, [false, false, true, true, true, true, false, false, false]);
    }

    #[test]
    fn a_bottleneck_sends_one_packet_after_the_other_and_drops_what_would_wait_too_long() {
        let (now, mut shape) = shape(ShapeSettings { rate_kbps: Some(8.0), queue_ms_max: 150.0, ..ShapeSettings::default() });
        let due = |ms| now + Duration::from_millis(ms);
        let passes = |queued, ms| Fate::Passes { queued: Duration::from_millis(queued), due: due(ms) };
        assert_eq!(shape.handle_packet(now, 100), passes(0, 100));
        assert_eq!(shape.handle_packet(now, 100), passes(100, 200));
        assert_eq!(shape.handle_packet(now, 100), Fate::Dropped);
        assert_eq!(shape.handle_packet(due(60), 100), passes(140, 300));
    }

    #[test]
    fn packets_do_not_overtake_one_another_where_the_delay_falls() {
        let folder = std::env::temp_dir().join(format!("ahoy-link-{}.txt", std::process::id()));
        std::fs::write(&folder, "50\n0\n").unwrap();
        let settings = ShapeSettings { delay_ms: 5.0, jitter: Some(folder.clone()), jitter_step_ms: 20.0, ..ShapeSettings::default() };
        let (now, mut shape) = shape(settings);
        std::fs::remove_file(folder).unwrap();
        let due = |ms| Fate::Passes { queued: Duration::ZERO, due: now + Duration::from_millis(ms) };
        assert_eq!(shape.handle_packet(now, 100), due(55));
        assert_eq!(shape.handle_packet(now + Duration::from_millis(20), 100), due(55));
        // After its last number the jitter begins again.
        assert_eq!(shape.handle_packet(now + Duration::from_millis(41), 100), due(96));
    }
}
