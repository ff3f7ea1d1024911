//! What `ahoy doctor` says of networks of known health, and that settings are followed: by a process that begins, and by one that runs.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{LONG, wait_for_voice};
use ahoy_lab::{Event, Finished, Network, Person};
use std::time::{Duration, Instant};

/// It promises ten seconds; a busy machine gets some more.
const DOCTOR_TIME: Duration = Duration::from_secs(20);

#[test]
fn a_network_that_is_well_is_called_so() {
    let network = Network::start(2, 1);
    let alice = network.person("alice");
    let report = examine(&alice, &[]).succeeded().event("doctor");
    assert_eq!(report.0["can_call"], true);
    assert_eq!(report.text("calls"), "direct", "{}", report.0);
    assert_eq!(report.0["nodes"].as_array().unwrap().len(), 3);
    for node in report.0["nodes"].as_array().unwrap() {
        assert!(node["udp_ms"].is_number() && node["tcp_ms"].is_number() && node["load_percent"].is_number(), "{node}");
    }
    assert_eq!(report.0["login"]["clock_ahead_s"], 0);
    assert!(problems(&report).iter().all(|subject| subject == "sound"), "{}", report.0);
}

#[test]
fn it_works_beside_a_running_ahoy_and_for_somebody_without_an_account() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let online = alice.online(&[]);
    let report = examine(&alice, &[]).succeeded().event("doctor");
    let account = findings(&report).find(|finding| finding["subject"] == "account").unwrap();
    assert!(account["text"].as_str().unwrap().contains("another ahoy is running"), "{account}");
    let bob = network.stranger("bob", "first", ahoy_lab::Spot::loopback());
    let report = examine(&bob, &["--network", &network.link]).succeeded().event("doctor");
    assert_eq!(report.text("calls"), "direct", "{}", report.0);
    let _ = online.stop();
}

#[test]
fn what_is_gone_is_named_and_calls_that_cannot_be_made_are_a_failure() {
    let mut network = Network::start(1, 1);
    let alice = network.person("alice");
    network.stop_login();
    let report = examine(&alice, &[]).succeeded().event("doctor");
    assert!(!problems(&report).contains(&"login".to_owned()), "calls work without the login server: {}", report.0);
    network.relays[0].process.kill();
    let finished = examine(&alice, &[]);
    assert_eq!(problems(&finished.event("doctor")).iter().filter(|subject| *subject != "sound").collect::<Vec<_>>(), ["relays"]);
    finished.failed_with(&["relay"]);
    network.supernodes[0].process.kill();
    let finished = examine(&alice, &[]);
    assert!(problems(&finished.event("doctor")).contains(&"supernodes".to_owned()));
    finished.failed_with(&["calls cannot be made"]);
}

#[test]
fn a_proxy_where_nothing_answers_is_named() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let _ = alice.run(&["settings", "set", "udp", "never"]).succeeded();
    let _ = alice.run(&["settings", "set", "proxy", "socks5://bob:gravel-17@127.0.0.1:9"]).succeeded();
    let finished = examine(&alice, &[]);
    assert!(problems(&finished.event("doctor")).contains(&"proxy".to_owned()));
    let shown = format!("{finished:?}");
    assert!(shown.contains("127.0.0.1:9") && !shown.contains("gravel-17"), "a password is shown: {shown}");
}

#[test]
fn without_udp_by_the_settings_a_call_goes_through_a_relay_over_tcp() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let settings = alice.run(&["settings", "set", "udp", "never", "--json"]).succeeded().event("settings");
    assert_eq!((settings.text("udp"), settings.text("relay")), ("never", "auto"));
    let report = examine(&alice, &[]).succeeded().event("doctor");
    assert_eq!(report.text("calls"), "relayed-by-tcp");
    let bob = bob.online(&["--auto-answer"]);
    let call = alice.call("bob", &[]);
    wait_for_voice(&call, 0);
    assert_eq!(call.wait_for("connected", LONG).text("path"), "relay-tcp");
    let _ = call.stop().succeeded();
    let _ = bob.stop();
}

#[test]
fn an_ahoy_that_runs_follows_settings_at_its_next_call() {
    let network = Network::start(1, 1);
    let (alice, bob) = (network.person("alice"), network.person("bob"));
    let (mut online, bob) = (alice.online(&[]), bob.online(&["--auto-answer"]));
    let _ = alice.run(&["settings", "set", "relay", "always"]).succeeded();
    let mark = online.mark();
    online.send(r#"{"command":"call","name":"bob"}"#);
    wait_for_voice(&online, mark);
    // A direct path on loopback takes a fraction of a second.
    let before = online.mark();
    for _ in 0..3 {
        let _ = online.wait_event(online.mark(), "stats", LONG, |_| true);
    }
    assert!(online.events_since(before).iter().filter(|event| event.is("stats")).all(|stats| stats.text("path") == "relay"));
    online.send(r#"{"command":"hang-up"}"#);
    let _ = online.wait_event(mark, "ended", LONG, |_| true);
    let _ = alice.run(&["settings", "unset", "relay"]).succeeded();
    let mark = online.mark();
    online.send(r#"{"command":"call","name":"bob"}"#);
    let _ = online.wait_event(mark, "path", LONG, |path| path.text("kind") == "lan");
    let _ = online.stop();
    let _ = bob.stop();
}

fn examine(person: &Person, args: &[&str]) -> Finished {
    let begun = Instant::now();
    let finished = person.start(&[&["doctor", "--json"], args].concat()).finish(LONG);
    assert!(begun.elapsed() < DOCTOR_TIME, "it took {:?}", begun.elapsed());
    finished
}

fn findings(report: &Event) -> impl Iterator<Item = &serde_json::Value> {
    report.0["findings"].as_array().expect("findings").iter()
}

fn problems(report: &Event) -> Vec<String> {
    let bad = findings(report).filter(|finding| finding["level"] == "problem");
    bad.map(|finding| finding["subject"].as_str().unwrap_or_default().to_owned()).collect()
}
