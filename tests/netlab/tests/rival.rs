//! The rival's row of `docs/benchmarks.md`: how long iroh takes to open a connection to a peer that it knows, over the same emulated links as
//! our calls. `make bench-rival` builds it (from `tests/rivals/iroh`, which the workspace leaves out) and runs this.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Lab, Nat, Process, lab_or_skip};
use std::path::PathBuf;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
/// Connections of each kind.
const CONNECTIONS: usize = 50;
/// What each client's own link adds, one way.
const ACCESS_LINK_MS: f64 = 25.0;

#[test]
#[ignore = "measures another program; run it with `make bench-rival`"]
fn a_connection_to_a_known_peer() {
    if lab_or_skip().is_none() {
        return;
    }
    let program = PathBuf::from(std::env::var_os("AHOY_RIVAL").expect("AHOY_RIVAL names the rival's program"));
    let mut lab = Lab::with_delays().unwrap();
    let relay_spot = lab.host("relay");
    lab.set_link_delay(ACCESS_LINK_MS);
    let (alice, _alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, _bob_router) = lab.behind_nat("bob", Nat::PortPreserving);
    lab.switch_on();

    let mut command = relay_spot.command(&program);
    command.args(["relay", &relay_spot.ip.to_string()]);
    let relay = Process::start("the rival's relay", command);
    let url = relay.wait_line(LONG, "`relay URL`", |line| Some(line.strip_prefix("relay ")?.trim().to_owned()));
    let mut command = bob.command(&program);
    command.args(["listen", &url]);
    let listener = Process::start("the rival's listener", command);
    let id = listener.wait_line(LONG, "`peer ID`", |line| Some(line.strip_prefix("peer ")?.trim().to_owned()));
    let mut command = alice.command(&program);
    command.args(["connect", &url, &id, &CONNECTIONS.to_string()]);
    let finished = Process::start("the rival's caller", command).finish(LONG * 5).succeeded();

    println!("| rival | median | p95 |\n|---|---|---|");
    for kind in ["cold", "warm"] {
        let mut times: Vec<f64> = finished.stdout.iter().filter_map(|line| line.strip_prefix(kind)?.trim().parse().ok()).collect();
        assert_eq!(times.len(), CONNECTIONS, "{:?}", finished.stdout);
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        println!("| iroh 1.4.1, {kind} endpoint | {:.0} ms | {:.0} ms |", at(0.5), at(0.95));
    }
}
