//! Delay traces: how long each packet of a call is under way.
//!
//! They are made up, in the likeness of what is measured: a wired network whose packets tremble by a millisecond or two, a
//! Wi-Fi on which something else (a scan, a neighbour's download) holds everything up every few seconds, and a mobile
//! network with grants, retransmissions, a queue that fills and empties, gaps in the scheduling and handovers.

use super::Random;

/// A kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weather {
    /// 1 ms, and a gamma distribution of shape 2 and mean 0.8 ms above it.
    Lan,
    /// 15 ms, a gamma distribution of mean 2 ms, and every 3 s on average a hold of 30 to 150 ms, behind which packets wait
    /// and come all at once.
    WifiSpikes,
    /// 25 ms, a wait for a grant (0 to 8 ms), retransmissions of 8 ms (one in ten, again and again), a queue of 8 ms on
    /// average that wanders within seconds, a gap of 30 to 140 ms every 2.5 s and a handover of 80 to 350 ms every 20 s; all
    /// in order.
    LteLike,
}

impl Weather {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Lan, Self::WifiSpikes, Self::LteLike];

    /// What tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lan => "LAN",
            Self::WifiSpikes => "Wi-Fi with spikes",
            Self::LteLike => "LTE-like",
        }
    }
}

/// The delay of each packet of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Milliseconds between two packets, which is the duration of their frames too: 10, 20, 40 or 60.
    pub interval_ms: u32,
    /// From its sending to its arrival, in milliseconds, of each packet.
    pub delays_ms: Vec<f64>,
}

impl Trace {
    /// As many seconds of a network, from a seed.
    #[must_use]
    pub fn new(weather: Weather, seed: u64, seconds: u32, interval_ms: u32) -> Self {
        let mut random = Random::new(seed ^ (weather as u64) << 32);
        let packets = (seconds * 1000 / interval_ms) as usize;
        let delays_ms = match weather {
            Weather::Lan => (0..packets).map(|_| 1.0 + gamma_2(&mut random, 0.8)).collect(),
            Weather::WifiSpikes => wifi(&mut random, packets, f64::from(interval_ms)),
            Weather::LteLike => lte(&mut random, packets, f64::from(interval_ms)),
        };
        Self { interval_ms, delays_ms }
    }

    /// When each packet is sent and when it arrives, in milliseconds.
    pub fn times_ms(&self) -> impl Iterator<Item = (f64, f64)> {
        let interval_ms = f64::from(self.interval_ms);
        self.delays_ms.iter().enumerate().map(move |(index, delay)| (index as f64 * interval_ms, index as f64 * interval_ms + delay))
    }

    /// The least delay.
    #[must_use]
    pub fn least_ms(&self) -> f64 {
        self.delays_ms.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// A gamma distribution of shape 2: two exponential waits.
fn gamma_2(random: &mut Random, mean: f64) -> f64 {
    random.exponential(mean / 2.0) + random.exponential(mean / 2.0)
}

/// Something that holds up all packets now and then.
struct Holds {
    every_ms: f64,
    from_ms: f64,
    to_ms: f64,
    next_ms: f64,
    until_ms: f64,
}

impl Holds {
    fn new(random: &mut Random, every_ms: f64, from_ms: f64, to_ms: f64) -> Self {
        let next_ms = random.exponential(every_ms);
        Self { every_ms, from_ms, to_ms, next_ms, until_ms: 0.0 }
    }

    /// Until when a packet sent at `sent_ms` is held.
    fn until_ms(&mut self, random: &mut Random, sent_ms: f64) -> f64 {
        while sent_ms >= self.next_ms {
            self.until_ms = self.next_ms + random.between(self.from_ms, self.to_ms);
            self.next_ms = self.until_ms + random.exponential(self.every_ms);
        }
        self.until_ms
    }
}

fn wifi(random: &mut Random, packets: usize, interval_ms: f64) -> Vec<f64> {
    let mut spikes = Holds::new(random, 3_000.0, 30.0, 150.0);
    let delay = |index: usize| {
        let sent_ms = index as f64 * interval_ms;
        let sent_on_ms = spikes.until_ms(random, sent_ms).max(sent_ms);
        sent_on_ms - sent_ms + 15.0 + gamma_2(random, 2.0)
    };
    (0..packets).map(delay).collect()
}

fn lte(random: &mut Random, packets: usize, interval_ms: f64) -> Vec<f64> {
    const QUEUE_MEAN_MS: f64 = 8.0;
    const QUEUE_DEVIATION_MS: f64 = 8.0;
    const QUEUE_MEMORY_MS: f64 = 2_000.0;
    let mut gaps = Holds::new(random, 2_500.0, 30.0, 140.0);
    let mut handovers = Holds::new(random, 20_000.0, 80.0, 350.0);
    let memory = (-interval_ms / QUEUE_MEMORY_MS).exp();
    let (mut queue_ms, mut last_ms) = (QUEUE_MEAN_MS, 0.0_f64);
    let delay = |index: usize| {
        let sent_ms = index as f64 * interval_ms;
        let held_ms = gaps.until_ms(random, sent_ms).max(handovers.until_ms(random, sent_ms)).max(sent_ms);
        let wander = random.normal() * QUEUE_DEVIATION_MS * (1.0 - memory * memory).sqrt();
        queue_ms = QUEUE_MEAN_MS + (queue_ms - QUEUE_MEAN_MS) * memory + wander;
        let mut radio_ms = random.between(0.0, 8.0);
        while random.unit() < 0.1 {
            radio_ms += 8.0;
        }
        last_ms = last_ms.max(held_ms + 25.0 + queue_ms.max(0.0) + radio_ms);
        last_ms - sent_ms
    };
    (0..packets).map(delay).collect()
}
