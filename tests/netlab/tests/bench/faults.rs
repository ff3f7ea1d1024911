//! How long nothing is heard when a way dies, an address changes or a relay is killed, and what a change of the way loses.

use crate::LONG;
use crate::figures::{self, Figures};
use ahoy_lab::{Event, Lab, Nat, Process, lab_or_skip};
use ahoy_netlab::{Case, has_path, hear, longest_gap_ms, relay_in_use, servers};

/// Calls or changes a row; `AHOY_BENCH_RUNS` gives another number.
const RUNS: usize = 20;
/// One way to a relay or from it: a round trip to it takes 60 ms, and so does the way from one client to the other through it.
const RELAY_MS: f64 = 30.0;
/// Relays that are killed one after the other, so many in each call: two have to remain.
const KILLED_A_CALL: usize = 4;
/// Changes of an address in each call: a way that dies all the time is trusted less and less. An even number, so that a call ends where it began.
const CHANGES_A_CALL: usize = 4;
/// Packets of a run in which the way changes twice.
const PACKETS: f64 = 350.0;

/// A call between alice and bob that goes on while things happen to it.
struct Running {
    // In this order: processes end before the namespaces that they are in.
    call: Process,
    bob: Process,
    case: Case,
}

/// Alice, bob and a third router, all beside the other servers; relays at a distance.
fn case(nat: Nat, relays: usize) -> Option<Case> {
    let _ = lab_or_skip()?;
    let mut lab = Lab::with_delays().unwrap();
    let mut plan = servers(&mut lab, 0);
    lab.set_link_delay(RELAY_MS);
    plan.relays = (1..=relays).map(|i| lab.host(&format!("relay-{i}"))).collect();
    lab.set_link_delay(0.0);
    let (alice, alice_router) = lab.behind_nat("alice", nat);
    let (bob, bob_router) = lab.behind_nat("bob", nat);
    let office = lab.router("office", nat);
    lab.switch_on();
    Some(Case::start(lab, plan, alice, bob, vec![alice_router, bob_router, office]))
}

impl Running {
    fn start(case: Case, args: &[&str], kind: &str) -> Self {
        let bob = case.bob_online();
        let call = case.call(args);
        let running = Self { call, bob, case };
        running.hear([0, 0], kind);
        running
    }

    fn sides(&self) -> [&Process; 2] {
        [&self.call, &self.bob]
    }

    fn marks(&self) -> [usize; 2] {
        self.sides().map(Process::mark)
    }

    /// Both hear each other by the path `kind`, later than `marks`. Returns how long each heard nothing.
    fn hear(&self, marks: [usize; 2], kind: &str) -> Vec<f64> {
        self.sides()
            .into_iter()
            .zip(marks)
            .map(|(side, mark)| {
                hear(side, mark, kind);
                longest_gap_ms(side, mark)
            })
            .collect()
    }

    fn block(&self) {
        self.case.lab.block_direct(&self.case.routers[0], &self.case.routers[1]);
    }

    fn unblock(&self) {
        self.case.lab.unblock_direct(&self.case.routers[0], &self.case.routers[1]);
    }

    fn hang_up(self) -> Case {
        let _ = self.call.stop().succeeded();
        let _ = self.bob.stop();
        self.case
    }
}

#[test]
#[ignore = "measures; run it with `make bench`"]
fn the_direct_path_dies() {
    let Some(mut case) = case(Nat::PortPreserving, 1) else { return };
    let mut figures = Figures::new();
    for _ in 0..runs() {
        let running = Running::start(case, &[], "direct");
        let marks = running.marks();
        running.block();
        figures.entry("longest gap").or_default().extend(running.hear(marks, "relay"));
        running.unblock();
        case = running.hang_up();
    }
    println!("A direct path that dies, with a relay {} ms away:", 2.0 * RELAY_MS);
    figures::print_extremes(&["longest gap"], &figures, "ms");
}

#[test]
#[ignore = "measures; run it with `make bench`"]
fn from_the_relay_to_the_direct_path_and_back() {
    let Some(mut case) = case(Nat::PortPreserving, 1) else { return };
    let rows = ["voice packets lost", "came too late", "made up, ms", "longest gap, ms"];
    let mut figures = Figures::new();
    for _ in 0..runs() {
        case.lab.block_direct(&case.routers[0], &case.routers[1]);
        let running = Running::start(case, &[], "relay");
        let [alice, bob] = running.sides().map(|side| last(side, "stats"));
        let marks = running.marks();
        running.unblock();
        running.hear(marks, "direct");
        let direct = running.marks();
        running.block();
        running.hear(direct, "relay");
        for ((side, mark), before) in running.sides().into_iter().zip(marks).zip([alice, bob]) {
            let heard = before.number("received") + PACKETS;
            let after = side.wait_event(mark, "stats", LONG, |stats| has_path("relay")(stats) && stats.number("received") >= heard);
            for (row, field) in rows.into_iter().zip(["lost", "late", "concealed_ms"]) {
                figures.entry(row).or_default().push(after.number(field) - before.number(field));
            }
            figures.entry(rows[3]).or_default().push(longest_gap_ms(side, mark));
        }
        case = running.hang_up();
    }
    println!("From a relay {} ms away to the direct path and back, {PACKETS} packets in all:", 2.0 * RELAY_MS);
    figures::print_extremes(&rows, &figures, "");
}

#[test]
#[ignore = "measures; run it with `make bench`"]
fn an_address_changes() {
    let mut figures = Figures::new();
    let rows = [
        "another lease, at the one who moved",
        "another lease, at the other",
        "another network, at the one who moved",
        "another network, at the other",
        "router restarted, at the one behind it",
        "router restarted, at the other",
    ];
    for (kind, rows) in rows.chunks_exact(2).enumerate() {
        let Some(mut case) = case(Nat::OwnPorts, 1) else { return };
        for _ in 0..runs().div_ceil(CHANGES_A_CALL) {
            let mut running = Running::start(case, &[], "direct");
            for number in 0..CHANGES_A_CALL {
                let marks = running.marks();
                let Case { lab, alice, routers, .. } = &mut running.case;
                match kind {
                    0 => lab.renew_lease(&mut alice.spot, &mut routers[0]),
                    1 => lab.roam(&mut alice.spot, &mut routers[if number % 2 == 0 { 2 } else { 0 }]),
                    _ => routers[0].reboot(),
                }
                let gaps_ms = running.hear(marks, "direct");
                for (row, gap_ms) in rows.iter().zip(gaps_ms) {
                    figures.entry(row).or_default().push(gap_ms);
                }
            }
            case = running.hang_up();
        }
    }
    println!("Until somebody whose address changes during a direct call is heard again (longest gap):");
    figures::print_extremes(&rows, &figures, "ms");
}

#[test]
#[ignore = "measures; run it with `make bench`"]
fn a_relay_dies() {
    let mut figures = Figures::new();
    let mut killed = 0;
    while killed < runs() {
        let Some(case) = case(Nat::PortPreserving, KILLED_A_CALL + 2) else { return };
        let mut running = Running::start(case, &["--relay-only"], "relay");
        for _ in 0..KILLED_A_CALL {
            let in_use = relay_in_use(&running.case, running.sides());
            let marks = running.marks();
            running.case.network.relays[in_use].process.kill();
            figures.entry("longest gap").or_default().extend(running.hear(marks, "relay"));
            killed += 1;
        }
        let _ = running.hang_up();
    }
    println!("A relay that is killed during a relayed call, all relays {} ms away:", 2.0 * RELAY_MS);
    figures::print_extremes(&["longest gap"], &figures, "ms");
}

fn last(side: &Process, name: &str) -> Event {
    side.events().into_iter().rfind(|event| event.is(name)).unwrap()
}

pub(crate) fn runs() -> usize {
    std::env::var("AHOY_BENCH_RUNS").ok().and_then(|number| number.parse().ok()).unwrap_or(RUNS)
}
