//! A stranger who floods a client's port: what a call that runs hears of it, and whether calls begin meanwhile.

use crate::LONG;
use crate::figures::Figures;
use ahoy_lab::{Event, Process, SocketKind, Spot, lab_or_skip, program, sockets_of, wav};
use ahoy_netlab::{Case, servers, speech};
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long a call lasts, and the flood with it.
const SECONDS: u32 = 10;
/// Calls for each kind of datagrams.
const CALLS: usize = 3;
/// What is told of each call.
const ROWS: [&str; 6] = [
    "quality at the flooded one, PESQ-WB",
    "quality at the other, PESQ-WB",
    "lost",
    "made up, ms",
    "longest gap, ms",
    "flooded with, packets/s",
];

#[test]
#[ignore = "measures; run it with `make bench`"]
fn a_stranger_floods_a_port() {
    let Some(mut lab) = lab_or_skip() else { return };
    let plan = servers(&mut lab, 1);
    // Nothing stands between the stranger and bob.
    let (alice, bob, stranger) = (lab.host("alice"), lab.host("bob"), lab.host("stranger"));
    let case = Case::start(lab, plan, alice, bob, Vec::new());
    let bob = case.bob_online();
    println!("| the stranger sends | {} |\n|---|{}", ROWS.join(" | "), "---|".repeat(ROWS.len()));
    for kind in [None, Some("random"), Some("quic"), Some("ping"), Some("relay"), Some("mixed")] {
        let mut figures = Figures::new();
        for _ in 0..CALLS {
            call(&case, &bob, kind.map(|kind| (&stranger, kind)), &mut figures);
        }
        let cells = ROWS.map(|row| figures.get(row).map_or(String::new(), |values| median(values, row)));
        println!("| {} | {} |", kind.unwrap_or("nothing"), cells.join(" | "));
    }
}

fn median(values: &[f64], row: &str) -> String {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    if row.contains("PESQ") { format!("{median:.2}") } else { format!("{median:.0}") }
}

/// A call during which a stranger sends what he likes to bob.
fn call(case: &Case, bob: &Process, flood: Option<(&Spot, &str)>, figures: &mut Figures) {
    let mark = bob.mark();
    let flood = flood.map(|(stranger, kind)| {
        // The flood begins a second before the call, and ends a second after it.
        let flood = start_flood(case, bob, stranger, kind);
        sleep(Duration::from_secs(1));
        flood
    });
    let call = case.call(&["--seconds", &SECONDS.to_string()]).finish(LONG).succeeded();
    let ended = bob.wait_event(mark, "ended", LONG, |_| true);
    let mut add = |row: usize, value: f64| figures.entry(ROWS[row]).or_default().push(value);
    add(0, pesq(ended.text("recording").as_ref()));
    add(1, pesq(call.event("ended").text("recording").as_ref()));
    add(2, ended.number("lost"));
    let stats: Vec<Event> = bob.events_since(mark).into_iter().filter(|event| event.is("stats")).collect();
    add(3, stats.last().map_or(0.0, |stats| stats.number("concealed_ms")));
    add(4, stats.iter().map(|stats| stats.number("gap_ms")).fold(0.0, f64::max));
    if let Some(flood) = flood {
        let sent = flood.finish(LONG).succeeded();
        let sent: f64 = sent.stdout.last().and_then(|line| line.strip_prefix("sent ")?.parse().ok()).unwrap();
        add(5, sent / f64::from(SECONDS + 2));
    }
    for recording in [ended.text("recording").to_owned(), call.event("ended").text("recording").to_owned()] {
        let _ = std::fs::remove_file(recording);
    }
}

fn start_flood(case: &Case, bob: &Process, stranger: &Spot, kind: &str) -> Process {
    let udp = sockets_of(bob.pid()).into_iter().find(|socket| socket.kind == SocketKind::Udp).expect("a client has a UDP port");
    let mut command = stranger.command(&program("ahoy-flood"));
    let to = SocketAddr::new(case.bob.spot.ip, udp.address.port());
    command.args(["--to", &to.to_string(), "--kind", kind, "--seconds", &(SECONDS + 2).to_string()]);
    Process::start("flood", command)
}

fn pesq(recording: &Path) -> f64 {
    let sent = wav::read_mono(speech().as_ref());
    let quality = ahoy::quality::compare(&sent, &wav::read_mono(recording));
    quality.unwrap_or_else(|error| panic!("{}: {error}", recording.display())).pesq_wb.into()
}
