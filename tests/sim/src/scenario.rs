//! A call that chance made: its networks, its links and what befalls it, all from one seed.

use crate::dice::Dice;
use crate::host::Host;
use crate::link::{Loss, Quality};
use crate::nat::{Filtering, Mapping, Ports};
use crate::oracle::{Verdict, verdict};
use crate::pair::{Access, Links, NatKind, Pair, Side, Together};
use crate::place::RELAYS;
use crate::topology::{CORE, RouterId};
use crate::world::{ANSWER_AT, Fault, World};
use ahoy_path::Route;
use std::fmt::Write;
use std::time::Duration;

/// Faults of one call at most.
const FAULTS_MAX: u64 = 3;
/// How long nothing happens after the last fault.
const CALM: Duration = Duration::from_secs(14);
/// How soon after the last fault both must hear each other again for good.
const HEARD_AGAIN: Duration = Duration::from_secs(6);
/// The longest gap on a call that nothing befalls any more: losses come in bursts, and a queue fills.
const CALM_GAP_MAX: Duration = Duration::from_millis(1500);
/// Packets that may be missing in the calm beside the share that the lines lose: chance has its way with a few hundred.
const MISSING_BY_CHANCE: f64 = 20.0;
/// The same where a router drops a mapping in the middle of the calm: a second's worth.
const MISSING_BY_AGE: f64 = 50.0;
/// Changes of the way that counts in the last seconds of the calm: a few moves are no flapping, and copies that go another way for a moment
/// are none at all.
const CALM_CHANGES_MAX: usize = 4;
/// The seconds that this is about.
const CALM_END: Duration = Duration::from_secs(6);

/// A call that chance made.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What it was made from.
    pub seed: u64,
    /// The two sides.
    pub pair: Pair,
    /// Their links.
    pub links: Links,
    /// What befalls them, in order: when, and what.
    pub mishaps: Vec<(Duration, Mishap)>,
    /// When the last of it is over.
    pub over_at: Duration,
}

/// What befalls a call, before it is known which router or segment that means.
#[derive(Debug, Clone, Copy)]
pub enum Mishap {
    /// A host's cable is out for so long.
    Cable(usize, Duration),
    /// A host's router is off for so long, and has forgotten everything or nothing.
    Router(usize, Duration, bool),
    /// A host's router forgets everything.
    Reboot(usize),
    /// A relay is dead for so long.
    Relay(usize, Duration),
    /// A host sleeps for so long.
    Sleep(usize, Duration),
    /// A host goes to such a network, over such a line.
    Roam(usize, Side, Quality),
    /// Nothing comes through between the homes for so long.
    Cut(Duration),
}

impl Mishap {
    /// How long it lasts.
    fn time(&self) -> Duration {
        match *self {
            Self::Cable(_, time) | Self::Router(_, time, _) | Self::Relay(_, time) | Self::Sleep(_, time) | Self::Cut(time) => time,
            Self::Reboot(_) | Self::Roam(..) => Duration::ZERO,
        }
    }
}

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was wrong; nothing, if all went well.
    pub wrong: Vec<String>,
    /// What must come of the pair that it was in the end.
    pub verdict: Verdict,
    /// Whether the call was direct in the end.
    pub is_direct: bool,
    /// The longest gap of either side after the answer.
    pub longest_gap: Duration,
    /// Changes of the route, of the side that had more.
    pub route_changes: usize,
}

impl Scenario {
    /// The scenario of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x00a5_1e55_c0de);
        let mut sides = [side(&mut dice), side(&mut dice)];
        let together = together(&mut dice);
        if matches!(together, Together::Home { .. }) {
            sides[1] = sides[0];
        }
        let pair = Pair { sides, together };
        let links = links(&mut dice);
        let mut at = ANSWER_AT + dice.ms(500, 5_000);
        let mut over_at = at;
        let mut mishaps = Vec::new();
        for _ in 0..dice.below(FAULTS_MAX + 1) {
            let mishap = mishap(&mut dice);
            mishaps.push((at, mishap));
            over_at = over_at.max(at + mishap.time());
            // Relays come back one after the other, and two of three are always there; other faults may overlap.
            let pause = if matches!(mishap, Mishap::Relay(..)) { mishap.time() } else { Duration::ZERO };
            at += pause + dice.ms(300, 8_000);
        }
        Self { seed, pair, links, mishaps, over_at }
    }

    /// The world in which it plays, ready for the answer.
    #[must_use]
    pub fn world(&self) -> World {
        let mut world = self.pair.world(self.seed, &self.links);
        for (at, mishap) in &self.mishaps {
            schedule(&mut world, *at, *mishap);
        }
        world
    }

    /// Lets it happen.
    #[must_use]
    pub fn play(&self) -> Report {
        let mut world = self.world();
        world.answer();
        world.run_until(self.ends_at());
        self.judge(&world)
    }

    /// When it ends.
    #[must_use]
    pub fn ends_at(&self) -> Duration {
        self.over_at + CALM
    }

    /// What is wrong with a world in which it happened.
    #[must_use]
    pub fn judge(&self, world: &World) -> Report {
        let [one, other] = &world.hosts;
        let end = world.now();
        let verdict = verdict(&world.network.topology, one.interfaces(), other.interfaces());
        let mut wrong = world.violations();
        for (name, host, peer) in [("caller", one, other), ("callee", other, one)] {
            let gap = host.ear.longest_gap(self.over_at + HEARD_AGAIN, end);
            if gap > CALM_GAP_MAX {
                wrong.push(format!("the {name} heard nothing for {gap:?} in the calm after the last fault"));
            }
            let (missing, sent) = host.ear.missing(&peer.voice, self.over_at + HEARD_AGAIN, end - Duration::from_secs(1));
            if missing as f64 > sent as f64 * self.lost_at_most() + self.missing_at_most() {
                wrong.push(format!("the {name} missed {missing} of {sent} packets in the calm after the last fault"));
            }
            if host.silences.last().is_some_and(|(_, is_silent)| *is_silent) {
                wrong.push(format!("the {name} still says that it is reconnecting"));
            }
            let changes = changes_since(host, end - CALM_END);
            if changes > CALM_CHANGES_MAX {
                wrong.push(format!("the {name} changed its way {changes} times in the last {CALM_END:?}"));
            }
        }
        if verdict == Verdict::Direct && !world.is_direct() && self.is_calm_line() {
            wrong.push(format!("no direct path, though there is one: {:?} and {:?}", one.agent().route(), other.agent().route()));
        }
        let since_answer = |host: &Host| host.ear.longest_gap(ANSWER_AT + Duration::from_secs(1), end);
        Report {
            wrong,
            verdict,
            is_direct: world.is_direct(),
            longest_gap: since_answer(one).max(since_answer(other)),
            route_changes: one.routes.len().max(other.routes.len()),
        }
    }

    /// The share of packets that may be missing on these lines.
    fn lost_at_most(&self) -> f64 {
        let qualities = self.links.access.iter().chain(&self.links.home).chain(self.roamed());
        0.02 + 3.0 * qualities.map(|quality| quality.loss.mean()).sum::<f64>()
    }

    /// How many may be missing beside that.
    fn missing_at_most(&self) -> f64 {
        let roamed = self.mishaps.iter().filter_map(|(_, mishap)| match mishap {
            Mishap::Roam(_, side, _) => Some(side),
            _ => None,
        });
        let carrier = matches!(self.pair.together, Together::Carrier(NatKind { lifetime_s: Some(_), .. }));
        let drops = carrier || self.pair.sides.iter().chain(roamed).any(Side::drops_by_age);
        MISSING_BY_CHANCE + if drops { MISSING_BY_AGE } else { 0.0 }
    }

    fn roamed(&self) -> impl Iterator<Item = &Quality> {
        self.mishaps.iter().filter_map(|(_, mishap)| match mishap {
            Mishap::Roam(_, _, quality) => Some(quality),
            _ => None,
        })
    }

    /// Whether no line loses so much in bursts that an agent may well think better of a path for a while.
    fn is_calm_line(&self) -> bool {
        let qualities = self.links.access.iter().chain(&self.links.home).chain(self.roamed());
        qualities.map(|quality| quality.loss.mean()).sum::<f64>() < 0.02
    }

    /// What it is about, in a few lines.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{}\n", self.pair);
        for (at, mishap) in &self.mishaps {
            let _ = writeln!(text, "  at {at:.2?}: {mishap:.2?}");
        }
        let _ = write!(text, "  {:.2?}", self.links);
        text
    }
}

fn changes_since(host: &Host, from: Duration) -> usize {
    let first = |route: &Route| route.ways().next();
    host.routes.windows(2).filter(|pair| pair[1].0 >= from && first(&pair[0].1) != first(&pair[1].1)).count()
}

fn schedule(world: &mut World, at: Duration, mishap: Mishap) {
    let router_of = |world: &World, host: usize| -> Option<RouterId> {
        let port = world.hosts[host].interfaces()[0];
        world.network.topology.gateway(world.network.topology.port(port).segment)
    };
    match mishap {
        Mishap::Cable(host, time) => {
            world.schedule(at, Fault::Link { host, is_up: false });
            world.schedule(at + time, Fault::Link { host, is_up: true });
        }
        Mishap::Router(host, time, forgets) => {
            let Some(router) = router_of(world, host) else { return };
            world.schedule(at, Fault::Router { router, is_up: false });
            world.schedule(at + time, Fault::Router { router, is_up: true });
            if forgets {
                world.schedule(at + time, Fault::Reboot(router));
            }
        }
        Mishap::Reboot(host) => {
            let Some(router) = router_of(world, host) else { return };
            world.schedule(at, Fault::Reboot(router));
        }
        Mishap::Relay(relay, time) => {
            world.schedule(at, Fault::Relay { relay, is_up: false });
            world.schedule(at + time, Fault::Relay { relay, is_up: true });
        }
        Mishap::Sleep(host, time) => world.schedule(at, Fault::Sleep { host, time }),
        Mishap::Roam(host, side, quality) => {
            let number = 20 + host as u8;
            let segment = side.build(&mut world.network.topology, &mut world.addresses, CORE, quality, number, false);
            let quality = if segment == CORE { quality } else { Quality::of_ms(1) };
            world.schedule(at, Fault::Roam { host, segment, families: side.families(), quality });
        }
        Mishap::Cut(time) => {
            world.schedule(at, Fault::Cut(true));
            world.schedule(at + time, Fault::Cut(false));
        }
    }
}

fn mishap(dice: &mut Dice) -> Mishap {
    let host = dice.pick(&[0, 1]);
    match dice.below(7) {
        0 => Mishap::Cable(host, dice.ms(100, 6_000)),
        1 => Mishap::Router(host, dice.ms(100, 6_000), dice.is_hit(0.5)),
        2 => Mishap::Reboot(host),
        3 => Mishap::Relay(dice.pick(&[0, 1, 2]), dice.ms(1_000, 12_000)),
        4 => Mishap::Sleep(host, dice.ms(200, 15_000)),
        5 => Mishap::Roam(host, side(dice), line(dice)),
        _ => Mishap::Cut(dice.ms(300, 8_000)),
    }
}

fn side(dice: &mut Dice) -> Side {
    let filtering = dice.pick(&[Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent]);
    let access = match dice.below(20) {
        0..=9 => Access::Nat(nat(dice)),
        10 | 11 => Access::Double { outer: nat(dice), inner: nat(dice) },
        12 | 13 => Access::Open,
        14 => Access::V6(filtering),
        15..=17 => Access::Dual(nat(dice), filtering),
        _ => Access::Blocked,
    };
    Side { access, maps_ports: dice.is_hit(0.25) }
}

fn nat(dice: &mut Dice) -> NatKind {
    let mapping = match dice.below(10) {
        0..=6 => Mapping::EndpointIndependent,
        7 => Mapping::AddressDependent,
        _ => Mapping::AddressAndPortDependent,
    };
    let filtering = match dice.below(10) {
        0 | 1 => Filtering::EndpointIndependent,
        2 | 3 => Filtering::AddressDependent,
        _ => Filtering::AddressAndPortDependent,
    };
    NatKind {
        ports: dice.pick(&[Ports::Preserving, Ports::Sequential, Ports::Random]),
        hairpin: dice.is_hit(0.5),
        idle_s: dice.pick(&[20, 30, 60, 120, 300]),
        lifetime_s: if dice.is_hit(0.08) { Some(dice.pick(&[20, 45])) } else { None },
        ..NatKind::new(mapping, filtering)
    }
}

fn together(dice: &mut Dice) -> Together {
    match dice.below(20) {
        0 => Together::Home { isolates: false },
        1 => Together::Home { isolates: true },
        2 | 3 => Together::Carrier(nat(dice)),
        4 => Together::Vpn,
        _ => Together::Core,
    }
}

fn links(dice: &mut Dice) -> Links {
    Links {
        access: [line(dice), line(dice)],
        home: [radio(dice), radio(dice)],
        observers: Quality::of_ms(5),
        relays: [(); RELAYS].map(|()| Quality { delay: dice.ms(1, 60), ..Quality::of_ms(1) }),
    }
}

/// A line to the internet.
fn line(dice: &mut Dice) -> Quality {
    let quality = Quality { delay: dice.ms(2, 80), ..Quality::of_ms(1) };
    let quality = if dice.is_hit(0.5) { Quality { jitter: dice.ms(0, 25), ..quality } } else { quality };
    let rate = dice.is_hit(0.3).then(|| (40_000 + u32::try_from(dice.below(200_000)).unwrap_or(0), Duration::from_millis(200)));
    Quality { loss: loss(dice), rate, ..mixed_up(dice, quality) }
}

/// A link between a host and its router.
fn radio(dice: &mut Dice) -> Quality {
    if dice.is_hit(0.5) {
        return Quality::of_ms(0);
    }
    let quality = Quality { jitter: dice.ms(0, 15), ..Quality::of_ms(1) };
    Quality { loss: loss(dice), ..quality }
}

fn mixed_up(dice: &mut Dice, quality: Quality) -> Quality {
    if dice.is_hit(0.8) {
        return quality;
    }
    Quality { overtaken: 0.01 * dice.share(), doubled: 0.01 * dice.share(), ..quality }
}

fn loss(dice: &mut Dice) -> Loss {
    match dice.below(10) {
        0 => Loss::Random(0.03 * dice.share()),
        1 => Loss::Bursts { begin: 0.002, end: 0.2, lost: 0.5 + 0.5 * dice.share() },
        _ => Loss::Never,
    }
}
