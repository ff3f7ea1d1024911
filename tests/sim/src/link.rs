//! One direction of a link: how long a packet takes, and whether it arrives at all.
//!
//! A link has a delay with jitter, loses packets at random or in bursts (Gilbert and Elliott's two states), lets some overtake others,
//! doubles some, and carries only so many bytes a second, with a queue before it that drops what does not fit.

use crate::dice::Dice;
use std::time::Duration;

/// How much later a packet comes that others overtake.
const OVERTAKEN_MS: (u64, u64) = (5, 40);
/// How much later the copy of a doubled packet comes.
const COPY_MS: (u64, u64) = (0, 20);
/// What a lost segment costs a TCP connection beside a round trip: the least retransmission timer in common use.
const TCP_RETRANSMISSION: Duration = Duration::from_millis(200);

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// None.
    Never,
    /// Each with this probability.
    Random(f64),
    /// In bursts: a link is in a good or a bad state, and in the bad one it loses much.
    Bursts {
        /// Probability of a packet to turn a good link bad.
        begin: f64,
        /// Probability of a packet to turn a bad link good.
        end: f64,
        /// Share lost in the bad state.
        lost: f64,
    },
}

impl Loss {
    /// The share that is lost in the long run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Never => 0.0,
            Self::Random(share) => share,
            Self::Bursts { begin, end, lost } => lost * begin / (begin + end),
        }
    }
}

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// How long each packet takes.
    pub delay: Duration,
    /// What is added to it at most.
    pub jitter: Duration,
    /// Which packets are lost.
    pub loss: Loss,
    /// Share of packets that others overtake. Jitter alone keeps the order.
    pub overtaken: f64,
    /// Share of packets that come twice.
    pub doubled: f64,
    /// Bytes a second, and for how long a packet waits at most until it is its turn; `None`: any number at once.
    pub rate: Option<(u32, Duration)>,
}

impl Quality {
    /// A link that only takes its time.
    #[must_use]
    pub fn of_ms(delay_ms: u64) -> Self {
        let delay = Duration::from_millis(delay_ms);
        Self { delay, jitter: Duration::ZERO, loss: Loss::Never, overtaken: 0.0, doubled: 0.0, rate: None }
    }
}

/// What a packet is carried by; it decides what becomes of one that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Lost is lost.
    Udp,
    /// Lost is late, and everything behind it too.
    Tcp,
}

/// One direction of a link.
#[derive(Debug, Clone)]
pub struct Link {
    quality: Quality,
    is_up: bool,
    is_bad: bool,
    /// When the last packet has left the queue.
    free_at: Duration,
    /// When the last packet that none overtook arrives.
    last_at: Duration,
    /// When the last TCP segment arrives.
    last_tcp_at: Duration,
}

impl Link {
    /// A link that is up.
    #[must_use]
    pub fn new(quality: Quality) -> Self {
        Self { quality, is_up: true, is_bad: false, free_at: Duration::ZERO, last_at: Duration::ZERO, last_tcp_at: Duration::ZERO }
    }

    /// What it is like.
    #[must_use]
    pub fn quality(&self) -> &Quality {
        &self.quality
    }

    /// Whether it carries anything.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Pulls the cable, or puts it back.
    pub fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
    }

    /// Other packets are lost from here on.
    pub fn set_loss(&mut self, loss: Loss) {
        self.quality.loss = loss;
        self.is_bad = false;
    }

    /// When a packet that is sent at `now` arrives, and when its copy does; `None`: not.
    pub fn carry(&mut self, now: Duration, bytes: u32, carrier: Carrier, dice: &mut Dice) -> [Option<Duration>; 2] {
        if !self.is_up {
            return [None; 2];
        }
        let Some(sent) = self.queue(now, bytes) else { return [None; 2] };
        match (self.loses(dice), carrier) {
            (is_lost, Carrier::Tcp) => [Some(self.deliver_segment(sent, is_lost, dice)), None],
            (true, Carrier::Udp) => [None; 2],
            (false, Carrier::Udp) => self.deliver(sent, dice),
        }
    }

    /// When a packet has left the queue; `None`: the queue is full.
    fn queue(&mut self, now: Duration, bytes: u32) -> Option<Duration> {
        let Some((bytes_per_s, wait_max)) = self.quality.rate else { return Some(now) };
        let begins = self.free_at.max(now);
        if begins - now > wait_max {
            return None;
        }
        self.free_at = begins + Duration::from_secs(1) * bytes / bytes_per_s;
        Some(self.free_at)
    }

    fn loses(&mut self, dice: &mut Dice) -> bool {
        match self.quality.loss {
            Loss::Never => false,
            Loss::Random(share) => dice.is_hit(share),
            Loss::Bursts { begin, end, lost } => {
                let turns = dice.is_hit(if self.is_bad { end } else { begin });
                self.is_bad ^= turns;
                self.is_bad && dice.is_hit(lost)
            }
        }
    }

    fn deliver(&mut self, sent: Duration, dice: &mut Dice) -> [Option<Duration>; 2] {
        let Quality { delay, jitter, overtaken, doubled, .. } = self.quality;
        let jitter = if jitter.is_zero() { jitter } else { jitter.mul_f64(dice.share()) };
        let at = if dice.is_hit(overtaken) {
            sent + delay + jitter + dice.ms(OVERTAKEN_MS.0, OVERTAKEN_MS.1)
        } else {
            self.last_at = self.last_at.max(sent + delay + jitter);
            self.last_at
        };
        let copy = dice.is_hit(doubled).then(|| at + dice.ms(COPY_MS.0, COPY_MS.1));
        [Some(at), copy]
    }

    fn deliver_segment(&mut self, sent: Duration, is_lost: bool, dice: &mut Dice) -> Duration {
        let Quality { delay, jitter, .. } = self.quality;
        let again = if is_lost { delay * 2 + TCP_RETRANSMISSION } else { Duration::ZERO };
        self.last_tcp_at = self.last_tcp_at.max(sent + delay + jitter.mul_f64(dice.share()) + again);
        self.last_tcp_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: u64 = 50_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When each of many packets arrives, sent at a steady pace.
    fn arrivals(quality: Quality, pause: Duration) -> Vec<[Option<Duration>; 2]> {
        let (mut link, mut dice) = (Link::new(quality), Dice::new(3));
        (0..PACKETS).map(|nth| link.carry(pause * nth as u32, 100, Carrier::Udp, &mut dice)).collect()
    }

    fn lost_share(arrivals: &[[Option<Duration>; 2]]) -> f64 {
        arrivals.iter().filter(|packet| packet[0].is_none()).count() as f64 / arrivals.len() as f64
    }

    #[test]
    fn a_plain_link_takes_its_delay_and_loses_nothing() {
        for (nth, packet) in arrivals(Quality::of_ms(30), ms(20)).iter().enumerate() {
            assert_eq!(*packet, [Some(ms(20) * nth as u32 + ms(30)), None]);
        }
    }

    #[test]
    fn jitter_keeps_the_order_and_overtaking_does_not() {
        let in_order = |arrivals: &[[Option<Duration>; 2]]| arrivals.windows(2).all(|pair| pair[0][0] <= pair[1][0]);
        let jitter = Quality { jitter: ms(60), ..Quality::of_ms(10) };
        assert!(in_order(&arrivals(jitter, ms(20))));
        assert!(!in_order(&arrivals(Quality { overtaken: 0.01, ..jitter }, ms(20))));
    }

    #[test]
    fn random_loss_and_bursts_lose_the_share_they_say() {
        for loss in [Loss::Random(0.05), Loss::Bursts { begin: 0.01, end: 0.2, lost: 0.8 }] {
            let lost = lost_share(&arrivals(Quality { loss, ..Quality::of_ms(10) }, ms(20)));
            assert!((lost - loss.mean()).abs() < 0.01, "{loss:?} lost {lost}, not {}", loss.mean());
        }
    }

    #[test]
    fn bursts_are_longer_than_chance_makes_them() {
        let longest = |loss| {
            let packets = arrivals(Quality { loss, ..Quality::of_ms(10) }, ms(20));
            packets.split(|packet| packet[0].is_some()).map(<[_]>::len).max().unwrap_or(0)
        };
        let bursts = Loss::Bursts { begin: 0.005, end: 0.1, lost: 1.0 };
        assert!(longest(bursts) > 3 * longest(Loss::Random(bursts.mean())));
    }

    #[test]
    fn doubled_packets_come_twice() {
        let copies = arrivals(Quality { doubled: 0.1, ..Quality::of_ms(10) }, ms(20)).iter().filter(|packet| packet[1].is_some()).count();
        assert!((4_500..5_500).contains(&copies), "{copies}");
    }

    #[test]
    fn what_a_link_cannot_carry_waits_and_then_is_dropped() {
        let slow = Quality { rate: Some((10_000, ms(50))), ..Quality::of_ms(10) };
        // 100 bytes every 20 ms are half of what it carries, every 5 ms twice that.
        assert_eq!(lost_share(&arrivals(slow, ms(20))), 0.0);
        let crowded = arrivals(slow, ms(5));
        assert!((lost_share(&crowded) - 0.5).abs() < 0.01);
        let longest = crowded.iter().enumerate().filter_map(|(nth, packet)| Some(packet[0]? - ms(5) * nth as u32)).max();
        assert!(longest <= Some(ms(10 + 50 + 10)), "{longest:?}");
    }

    #[test]
    fn tcp_loses_nothing_and_is_late_instead() {
        let (mut link, mut dice) = (Link::new(Quality { loss: Loss::Random(0.1), ..Quality::of_ms(10) }), Dice::new(3));
        let at: Vec<Duration> = (0..1000u32).filter_map(|nth| link.carry(ms(20) * nth, 100, Carrier::Tcp, &mut dice)[0]).collect();
        assert_eq!(at.len(), 1000);
        assert!(at.is_sorted());
        assert!(at.iter().zip(0..).any(|(at, nth)| *at > ms(20) * nth + ms(200)));
    }

    #[test]
    fn nothing_comes_through_a_link_that_is_down() {
        let (mut link, mut dice) = (Link::new(Quality::of_ms(1)), Dice::new(1));
        link.set_up(false);
        assert_eq!(link.carry(ms(0), 100, Carrier::Tcp, &mut dice), [None; 2]);
        link.set_up(true);
        assert!(link.carry(ms(0), 100, Carrier::Udp, &mut dice)[0].is_some());
    }
}
