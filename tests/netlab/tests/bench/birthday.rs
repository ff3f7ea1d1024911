//! A cone that lets in only what was asked for, and random ports on the other side: the attempt with many sockets.

use crate::LONG;
use crate::faults::runs;
use crate::figures::{self, Figures};
use ahoy_lab::{Nat, lab_or_skip};
use ahoy_netlab::{Case, has_path, servers};
use std::time::Duration;

/// How long the attempt may take.
const LIMIT: Duration = Duration::from_secs(45);

#[test]
#[ignore = "measures; run it with `make bench`"]
fn random_ports_are_guessed() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    let (alice, alice_router) = lab.behind_nat("alice", Nat::PortPreserving);
    let (bob, bob_router) = lab.behind_nat("bob", Nat::RandomPorts);
    let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router]);
    case.set("birthday", "on");
    let mut figures = Figures::new();
    for number in 0..runs() {
        let bob = case.bob_online();
        let call = case.call(&[]);
        let connected = call.wait_for("connected", LONG);
        match call.try_event(0, "path", LIMIT, has_path("direct")) {
            Some(direct) => figures.entry("connected to direct path").or_default().push(direct.t_ms() - connected.t_ms()),
            None => println!("call {number} stayed at the relay"),
        }
        let _ = call.stop().succeeded();
        let _ = bob.stop();
    }
    println!("A cone and random ports, {} calls:", runs());
    figures::print_extremes(&["connected to direct path"], &figures, "ms");
}
