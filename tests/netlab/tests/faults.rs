//! What happens to networks in the middle of a call: it goes on, or says why not.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Nat, Process, lab_or_skip};
use ahoy_netlab::{Case, LONG, hear, longest_gap_ms, relay_in_use, servers};
use std::thread::sleep;
use std::time::Duration;

/// Until somebody whose address changed is heard again, on a machine that is busy with other tests. The figures are for `make bench`.
const GAP_MS_MAX: f64 = 5_000.0;

/// A call between alice and bob, each behind a router, that has come to the path `kind`.
struct Running {
    // In this order: processes end before the namespaces that they are in.
    call: Process,
    bob: Process,
    case: Case,
}

impl Running {
    fn start(nat: Nat, relays: usize, args: &[&str], kind: &str) -> Option<Self> {
        let mut lab = lab_or_skip()?;
        let plan = servers(&mut lab, relays);
        let (alice, alice_router) = lab.behind_nat("alice", nat);
        let (bob, bob_router) = lab.behind_nat("bob", nat);
        let office = lab.router("office", nat);
        let case = Case::start(lab, plan, alice, bob, vec![alice_router, bob_router, office]);
        let bob = case.bob_online();
        let call = case.call(args);
        let running = Self { call, bob, case };
        for side in running.sides() {
            hear(side, 0, kind);
        }
        Some(running)
    }

    fn sides(&self) -> [&Process; 2] {
        [&self.call, &self.bob]
    }

    fn marks(&self) -> [usize; 2] {
        self.sides().map(Process::mark)
    }

    /// Both hear each other by the path `kind`, later than `marks`. Returns how long each heard nothing.
    fn hear(&self, marks: [usize; 2], kind: &str) -> [f64; 2] {
        let mut sides = self.sides().into_iter().zip(marks);
        let gaps_ms = [(); 2].map(|()| {
            let (side, mark) = sides.next().unwrap();
            hear(side, mark, kind);
            longest_gap_ms(side, mark)
        });
        println!("nothing was heard for {gaps_ms:?} ms; then by {kind}");
        gaps_ms
    }

    /// Alice has come where UDP is blocked, later than `marks`.
    fn goes_on_by_tcp(&self, marks: [usize; 2]) {
        let _ = hear(&self.call, marks[0], "relay-tcp");
        let _ = hear(&self.bob, marks[1], "relay");
        let gaps_ms = [longest_gap_ms(&self.call, marks[0]), longest_gap_ms(&self.bob, marks[1])];
        println!("nothing was heard for {gaps_ms:?} ms; then by TCP");
        assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    }

    fn hang_up(self) {
        let finished = self.call.stop().succeeded();
        assert_eq!(finished.event("ended").text("reason"), "hung-up");
        assert_eq!(self.bob.wait_for("ended", LONG).text("reason"), "hung-up");
    }
}

#[test]
fn an_address_that_changes_is_followed() {
    let Some(mut running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &mut running.case;
    lab.renew_lease(&mut alice.spot, &mut routers[0]);
    let gaps_ms = running.hear(marks, "direct");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    running.hang_up();
}

#[test]
fn who_goes_elsewhere_takes_the_call_along() {
    let Some(mut running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &mut running.case;
    lab.roam(&mut alice.spot, &mut routers[2]);
    let gaps_ms = running.hear(marks, "direct");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    running.hang_up();
}

#[test]
fn who_goes_elsewhere_during_a_relayed_call_keeps_the_relay() {
    let Some(mut running) = Running::start(Nat::RandomPorts, 1, &["--relay-only"], "relay") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &mut running.case;
    lab.roam(&mut alice.spot, &mut routers[2]);
    let gaps_ms = running.hear(marks, "relay");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    running.hang_up();
}

#[test]
fn a_router_that_restarts_with_other_ports_ends_no_call() {
    let Some(mut running) = Running::start(Nat::OwnPorts, 1, &[], "direct") else { return };
    let marks = running.marks();
    running.case.routers[1].reboot();
    let gaps_ms = running.hear(marks, "direct");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    running.hang_up();
}

#[test]
fn a_router_that_is_off_for_four_seconds_and_restarts_with_other_ports_ends_no_call() {
    let Some(mut running) = Running::start(Nat::OwnPorts, 1, &[], "direct") else { return };
    running.case.routers[1].block_everything();
    for (side, mark) in running.sides().into_iter().zip(running.marks()) {
        let _ = side.wait_event(mark, "reconnecting", LONG, |_| true);
    }
    sleep(Duration::from_secs(2));
    running.case.routers[1].reboot();
    running.hear(running.marks(), "direct");
    running.hang_up();
}

#[test]
fn who_goes_where_udp_is_blocked_goes_on_by_tcp() {
    let Some(mut running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &mut running.case;
    routers[2].block_udp();
    lab.roam(&mut alice.spot, &mut routers[2]);
    running.goes_on_by_tcp(marks);
    running.hang_up();
}

#[test]
fn a_router_that_begins_to_block_udp_turns_the_call_to_tcp() {
    let Some(running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    running.case.routers[0].block_udp();
    running.goes_on_by_tcp(marks);
    running.hang_up();
}

#[test]
fn a_relayed_call_turns_to_tcp_where_udp_is_blocked_on_the_way() {
    let Some(mut running) = Running::start(Nat::PortPreserving, 2, &["--relay-only"], "relay") else { return };
    let _ = relay_in_use(&running.case, running.sides());
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &mut running.case;
    routers[2].block_udp();
    lab.roam(&mut alice.spot, &mut routers[2]);
    running.goes_on_by_tcp(marks);
    running.hang_up();
}

#[test]
fn a_way_that_is_cut_in_one_direction_silences_nobody() {
    let Some(running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, routers, .. } = &running.case;
    lab.block_one_way(&routers[0], &routers[1]);
    for (side, mark) in running.sides().into_iter().zip(marks) {
        let heard = side.events().into_iter().rfind(|event| event.is("stats")).unwrap().number("received");
        // Whichever way it comes.
        let _ = side.wait_event(mark, "stats", LONG, |stats| stats.number("received") > heard + 200.0);
        let gap_ms = longest_gap_ms(side, mark);
        println!("nothing was heard for {gap_ms} ms");
        assert!(gap_ms < GAP_MS_MAX, "{gap_ms}");
    }
    running.hang_up();
}

#[test]
fn a_cable_that_is_pulled_for_five_seconds_ends_no_call() {
    let Some(running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &running.case;
    lab.unplug(&alice.spot, &routers[0]);
    for (side, mark) in running.sides().into_iter().zip(marks) {
        let _ = side.wait_event(mark, "reconnecting", LONG, |_| true);
    }
    sleep(Duration::from_secs(3));
    lab.plug(&alice.spot, &routers[0]);
    // What was said before tells of the old path.
    let gaps_ms = running.hear(running.marks(), "direct");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < 2.0 * GAP_MS_MAX), "{gaps_ms:?}");
    for (side, mark) in running.sides().into_iter().zip(marks) {
        let _ = side.wait_event(mark, "path", LONG, |_| true);
    }
    running.hang_up();
}

#[test]
fn a_cable_that_stays_pulled_ends_the_call_as_lost() {
    let Some(running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    let Case { lab, alice, routers, .. } = &running.case;
    lab.unplug(&alice.spot, &routers[0]);
    for (side, mark) in running.sides().into_iter().zip(marks) {
        let silent = side.wait_event(mark, "reconnecting", LONG, |_| true);
        let ended = side.wait_event(mark, "ended", LONG, |_| true);
        assert_eq!(ended.text("reason"), "lost");
        let after_ms = ended.t_ms() - silent.t_ms();
        println!("ended {after_ms} ms after it was noticed");
        assert!((20_000.0..40_000.0).contains(&after_ms), "{after_ms}");
    }
    let finished = running.call.finish(LONG);
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
}

#[test]
fn a_computer_that_sleeps_for_ten_seconds_finds_its_call_again() {
    let Some(running) = Running::start(Nat::PortPreserving, 1, &[], "direct") else { return };
    let marks = running.marks();
    running.bob.freeze();
    let _ = running.call.wait_event(marks[0], "reconnecting", LONG, |_| true);
    sleep(Duration::from_secs(8));
    running.bob.thaw();
    running.hear(running.marks(), "direct");
    running.hang_up();
}

#[test]
fn a_relay_that_dies_during_a_relayed_call_is_replaced_by_the_other() {
    let Some(mut running) = Running::start(Nat::PortPreserving, 2, &["--relay-only"], "relay") else { return };
    let in_use = relay_in_use(&running.case, running.sides());
    let marks = running.marks();
    running.case.network.relays[in_use].process.kill();
    let gaps_ms = running.hear(marks, "relay");
    assert!(gaps_ms.iter().all(|gap_ms| *gap_ms < GAP_MS_MAX), "{gaps_ms:?}");
    running.hang_up();
}
