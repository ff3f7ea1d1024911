//! Two homes of certain kinds and a call between them: one cell of the matrix.

use crate::dice::Dice;
use crate::link::Quality;
use crate::nat::{Behaviour, Filtering, Mapping, Ports};
use crate::oracle::{Verdict, verdict};
use crate::place::{Addresses, Families, Ground, RELAYS};
use crate::topology::{CORE, PortId, RouterPlan, SegmentId, Topology};
use crate::world::{ANSWER_AT, SidePlan, World};
use ahoy_path::LegId;
use std::fmt;
use std::time::Duration;

/// What a NAT does, as far as the matrix varies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatKind {
    /// Which packets get one mapping.
    pub mapping: Mapping,
    /// From whom packets are let in.
    pub filtering: Filtering,
    /// Which port a mapping gets.
    pub ports: Ports,
    /// Whether a packet from inside to an outside address of one's own comes back in.
    pub hairpin: bool,
    /// How long a mapping lasts after the last packet that went out.
    pub idle_s: u16,
    /// How long it lasts whatever is sent.
    pub lifetime_s: Option<u16>,
}

impl NatKind {
    /// A NAT that does not hairpin, with the ports that are usual for its mapping.
    #[must_use]
    pub fn new(mapping: Mapping, filtering: Filtering) -> Self {
        let ports = if mapping == Mapping::EndpointIndependent { Ports::Preserving } else { Ports::Random };
        Self { mapping, filtering, ports, hairpin: false, idle_s: 120, lifetime_s: None }
    }

    /// All mappings with all filterings.
    pub fn all() -> impl Iterator<Item = Self> {
        let mappings = [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
        let filterings = [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];
        mappings.into_iter().flat_map(move |mapping| filterings.into_iter().map(move |filtering| Self::new(mapping, filtering)))
    }

    fn behaviour(self) -> Behaviour {
        Behaviour {
            mapping: self.mapping,
            filtering: self.filtering,
            ports: self.ports,
            hairpin: self.hairpin,
            idle: Duration::from_secs(self.idle_s.into()),
            lifetime: self.lifetime_s.map(|lifetime_s| Duration::from_secs(lifetime_s.into())),
        }
    }
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapping = match self.mapping {
            Mapping::EndpointIndependent => "EIM",
            Mapping::AddressDependent => "ADM",
            Mapping::AddressAndPortDependent => "APDM",
        };
        let filtering = match self.filtering {
            Filtering::EndpointIndependent => "EIF",
            Filtering::AddressDependent => "ADF",
            Filtering::AddressAndPortDependent => "APDF",
        };
        write!(f, "{mapping}/{filtering}")
    }
}

/// What stands between a host and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    Open,
    /// A NAT.
    Nat(NatKind),
    /// A NAT of one's own behind another, such as a carrier's.
    Double {
        /// The one further out.
        outer: NatKind,
        /// One's own.
        inner: NatKind,
    },
    /// IPv6 alone, behind a firewall that lets answers in.
    V6(Filtering),
    /// A NAT, and IPv6 behind a firewall that lets answers in.
    Dual(NatKind, Filtering),
    /// No UDP.
    Blocked,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "open"),
            Self::Nat(nat) => write!(f, "{nat}"),
            Self::Double { outer, inner } => write!(f, "{inner} behind {outer}"),
            Self::V6(_) => write!(f, "IPv6 firewall"),
            Self::Dual(nat, _) => write!(f, "{nat} + IPv6"),
            Self::Blocked => write!(f, "UDP blocked"),
        }
    }
}

/// One side of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side {
    /// What stands between it and the internet.
    pub access: Access,
    /// Whether its own router gives ports to those who ask.
    pub maps_ports: bool,
}

impl Side {
    /// A side whose router gives no ports.
    #[must_use]
    pub fn of(access: Access) -> Self {
        Self { access, maps_ports: false }
    }

    /// Builds its routers behind a segment, the outermost over this line; gives back where its host belongs. `number` is in its inside
    /// addresses.
    pub fn build(
        &self,
        topology: &mut Topology,
        addresses: &mut Addresses,
        before: SegmentId,
        line: Quality,
        number: u8,
        isolates: bool,
    ) -> SegmentId {
        let any = NatKind::new(Mapping::EndpointIndependent, Filtering::AddressDependent);
        let own = RouterPlan { maps_ports: self.maps_ports, isolates, ..RouterPlan::nat(any.behaviour()) };
        let range = [192, 168, number];
        let plan = match self.access {
            Access::Open => return before,
            Access::Nat(nat) => RouterPlan { nat: Some(nat.behaviour()), ..own },
            Access::Double { outer, inner } => {
                let carrier = RouterPlan::nat(outer.behaviour());
                let (_, middle) = addresses.router(topology, before, carrier, line, [100, 64, number]);
                let plan = RouterPlan { nat: Some(inner.behaviour()), ..own };
                return addresses.router(topology, middle, plan, Quality::of_ms(1), range).1;
            }
            Access::V6(filtering) => RouterPlan { nat: None, firewall: Some(filtering), ..own },
            Access::Dual(nat, filtering) => RouterPlan { nat: Some(nat.behaviour()), firewall: Some(filtering), ..own },
            Access::Blocked => RouterPlan { blocks_udp: true, ..own },
        };
        addresses.router(topology, before, plan, line, range).1
    }

    /// Whether one of its NATs drops mappings at some age, however busy they are.
    #[must_use]
    pub fn drops_by_age(&self) -> bool {
        match self.access {
            Access::Nat(nat) | Access::Dual(nat, _) => nat.lifetime_s.is_some(),
            Access::Double { outer, inner } => outer.lifetime_s.or(inner.lifetime_s).is_some(),
            Access::Open | Access::V6(_) | Access::Blocked => false,
        }
    }

    /// Which addresses its host gets.
    #[must_use]
    pub fn families(&self) -> Families {
        match self.access {
            Access::V6(_) => Families::V6,
            Access::Dual(..) => Families::Both,
            Access::Open | Access::Nat(_) | Access::Double { .. } | Access::Blocked => Families::V4,
        }
    }

    /// A side behind such a NAT.
    #[must_use]
    pub fn nat(nat: NatKind) -> Self {
        Self::of(Access::Nat(nat))
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access, if self.maps_ports { " + port mapping" } else { "" })
    }
}

/// What two sides have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Together {
    /// The internet.
    Core,
    /// One home, behind the first side's router.
    Home {
        /// Whether the home keeps its devices apart, as some wireless networks do.
        isolates: bool,
    },
    /// Homes of their own behind one carrier's NAT.
    Carrier(NatKind),
    /// A virtual private network, beside their homes.
    Vpn,
}

/// Two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Caller and callee.
    pub sides: [Side; 2],
    /// What they have in common.
    pub together: Together,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.sides[0], self.sides[1])?;
        match self.together {
            Together::Core => Ok(()),
            Together::Home { isolates: false } => write!(f, ", in one home"),
            Together::Home { isolates: true } => write!(f, ", in one home that keeps them apart"),
            Together::Carrier(nat) => write!(f, ", behind one carrier's {nat}{}", if nat.hairpin { " with hairpin" } else { "" }),
            Together::Vpn => write!(f, ", in one VPN"),
        }
    }
}

/// The links of a pair's world.
#[derive(Debug, Clone, Copy)]
pub struct Links {
    /// Between each side's home and the internet.
    pub access: [Quality; 2],
    /// Between each host and its home.
    pub home: [Quality; 2],
    /// Between observers and the core.
    pub observers: Quality,
    /// Between relays and the core.
    pub relays: [Quality; RELAYS],
}

impl Links {
    /// Two homes with a good line at 20 ms each, and relays at 5 ms and more.
    #[must_use]
    pub fn good() -> Self {
        Self {
            access: [Quality::of_ms(20); 2],
            home: [Quality::of_ms(0); 2],
            observers: Quality::of_ms(5),
            relays: [5, 10, 15].map(Quality::of_ms),
        }
    }
}

impl Pair {
    /// Two sides in different places.
    #[must_use]
    pub fn apart(sides: [Side; 2]) -> Self {
        Self { sides, together: Together::Core }
    }

    /// A world with these two in it, ready for the answer.
    #[must_use]
    pub fn world(&self, seed: u64, links: &Links) -> World {
        let mut dice = Dice::new(seed);
        let mut ground = Ground::new(&mut dice, links.observers, links.relays);
        let shared = self.share(&mut ground, links);
        let first = self.move_in(0, shared, &mut ground, links, &mut dice);
        let second = match self.together {
            Together::Home { .. } => first,
            Together::Core | Together::Carrier(_) | Together::Vpn => self.move_in(1, shared, &mut ground, links, &mut dice),
        };
        let sides = self.settle([first, second], &mut ground, links);
        World::new(ground, sides, &mut dice)
    }

    /// The segment that both sides' homes are in.
    fn share(&self, ground: &mut Ground, links: &Links) -> SegmentId {
        match self.together {
            Together::Core | Together::Home { .. } | Together::Vpn => CORE,
            Together::Carrier(outer) => {
                let plan = RouterPlan { firewall: Some(Filtering::EndpointIndependent), ..RouterPlan::nat(outer.behaviour()) };
                ground.addresses.router(&mut ground.topology, CORE, plan, links.access[0], [100, 64, 0]).1
            }
        }
    }

    /// Builds one side's routers; gives back where its host belongs.
    fn move_in(&self, host: usize, before: SegmentId, ground: &mut Ground, links: &Links, dice: &mut Dice) -> SegmentId {
        let Ground { topology, addresses, .. } = ground;
        // Homes like to have the same addresses inside, which makes a peer's address mean a neighbour.
        let number = if dice.is_hit(0.5) { 1 } else { 2 + host as u8 };
        let isolates = self.together == Together::Home { isolates: true };
        let line = if before == CORE { links.access[host] } else { Quality::of_ms(1) };
        self.sides[host].build(topology, addresses, before, line, number, isolates)
    }

    /// Puts both hosts in their places.
    fn settle(&self, segments: [SegmentId; 2], ground: &mut Ground, links: &Links) -> [SidePlan; 2] {
        let Ground { topology, addresses, .. } = ground;
        let vpn = (self.together == Together::Vpn).then(|| addresses.vpn(topology));
        [0, 1].map(|host| {
            let families = self.sides[host].families();
            let is_open = segments[host] == CORE;
            let line = if is_open { links.access[host] } else { links.home[host] };
            let mut interfaces: Vec<PortId> = vec![addresses.interface(topology, host, segments[host], families, line)];
            // A private network takes a detour.
            interfaces.extend(vpn.map(|vpn| addresses.interface(topology, host, vpn, Families::V4, Quality::of_ms(45))));
            SidePlan { interfaces, port: 5000, birthday: true }
        })
    }

    /// Makes the call, for so long after the answer, or a second longer than it took to find a direct path.
    #[must_use]
    pub fn call(&self, seed: u64, links: &Links, time: Duration) -> Outcome {
        let mut world = self.world(seed, links);
        world.answer();
        let until = ANSWER_AT + time;
        while world.now() < until
            && !(world.direct_since().is_some_and(|at| world.now() >= at + Duration::from_secs(1)) && world.is_direct())
        {
            world.run(Duration::from_millis(250));
        }
        Outcome::of(&world)
    }
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What must come of it.
    pub verdict: Verdict,
    /// After the answer, when each side first heard the other.
    pub heard_after: [Option<Duration>; 2],
    /// After the answer, when both sides' packets first went a direct way.
    pub direct_after: Option<Duration>,
    /// Whether they go a direct way alone in the end.
    pub is_direct: bool,
    /// Round trip between the two through the first relay.
    pub relay_rtt: Option<Duration>,
    /// Round trip by the way that counts as the path in the end.
    pub rtt: Option<Duration>,
    /// Probes to guessed ports, of both sides.
    pub guesses: u32,
    /// The most probes of any second, of either side.
    pub probes_per_second: usize,
    /// What the agents must never do, and did.
    pub violations: Vec<String>,
}

impl Outcome {
    fn of(world: &World) -> Self {
        let since_answer = |at: Duration| at.saturating_sub(ANSWER_AT);
        let [one, other] = &world.hosts;
        let selected = one.agent().selected();
        Self {
            verdict: verdict(&world.network.topology, one.interfaces(), other.interfaces()),
            heard_after: [one, other].map(|host| host.ear.first().map(since_answer)),
            direct_after: world.direct_since().map(since_answer),
            is_direct: world.is_direct(),
            relay_rtt: one.agent().leg_rtt(LegId(0)),
            rtt: selected.and_then(|selected| selected.rtt),
            guesses: one.agent().stats().guesses + other.agent().stats().guesses,
            probes_per_second: one.guard.most_per_second().max(other.guard.most_per_second()),
            violations: world.violations(),
        }
    }

    /// Whether both heard each other.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.heard_after.iter().all(Option::is_some)
    }
}
