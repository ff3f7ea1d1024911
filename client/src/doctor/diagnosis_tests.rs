//! Fact sets as they are met, and what the doctor is to make of them.

use super::*;
use crate::doctor::facts::{Facts, Login, Nat, Node, OwnAddress, Sound, SoundDevice};
use ahoy_portmap::Protocol;
use std::net::SocketAddr;

#[test]
fn at_an_ordinary_home_all_is_well() {
    let diagnosis = diagnose(&home());
    assert_eq!(diagnosis.calls, Calls::MostlyDirect);
    assert_eq!(problems(&diagnosis), []);
    assert!(diagnosis.findings.iter().all(|finding| finding.level == Level::Ok || finding.subject == Subject::PortMapping));
}

#[test]
fn a_computer_with_an_address_of_its_own_goes_straight() {
    let mut facts = home();
    facts.nat.mapping = Mapping::Open;
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::Direct);
    assert!(found(&diagnosis, Subject::PortMapping).is_none(), "a router that is not there need not be asked");
}

#[test]
fn a_difficult_router_alone_makes_relayed_calls_and_the_advice_is_to_let_it_map_ports() {
    let mut facts = home();
    facts.nat.mapping = Mapping::EndpointDependent;
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::OftenRelayed);
    let router = found(&diagnosis, Subject::Router).expect("told");
    assert_eq!(router.level, Level::Note);
    assert!(router.advice.as_ref().is_some_and(|advice| advice.contains("UPnP")), "{router:?}");
}

#[test]
fn a_difficult_router_that_maps_the_port_is_none() {
    let mut facts = home();
    facts.nat.mapping = Mapping::EndpointDependent;
    facts.port_mapping = mapped(false);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::Direct);
    assert!(found(&diagnosis, Subject::Router).is_some_and(|router| router.advice.is_none()));
}

#[test]
fn a_mapping_at_a_router_behind_another_opens_no_way() {
    let mut facts = home();
    facts.nat.mapping = Mapping::EndpointDependent;
    facts.port_mapping = mapped(true);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::OftenRelayed);
    assert!(found(&diagnosis, Subject::PortMapping).is_some_and(|finding| finding.text.contains("behind another")));
}

#[test]
fn ipv6_helps_behind_a_difficult_router() {
    let mut facts = home();
    facts.nat.mapping = Mapping::EndpointDependent;
    facts.nat.has_ipv6 = true;
    assert_eq!(diagnose(&facts).calls, Calls::MostlyDirect);
}

#[test]
fn where_udp_is_blocked_calls_go_over_tcp_and_it_is_said() {
    let mut facts = home();
    without_udp(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::RelayedByTcp);
    assert_eq!(problems(&diagnosis), [Subject::Udp]);
    assert!(found(&diagnosis, Subject::Router).is_none(), "nothing is known of the router");
}

#[test]
fn udp_that_the_user_switched_off_is_no_problem() {
    let mut facts = home();
    without_udp(&mut facts);
    facts.is_udp_off = true;
    let diagnosis = diagnose(&facts);
    assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::RelayedByTcp, vec![]));
    assert!(found(&diagnosis, Subject::Udp).is_some_and(|finding| finding.text.contains("settings")));
}

#[test]
fn a_clock_that_is_hours_off_stops_calls_whichever_way() {
    for ahead_s in [3 * 3600, -3 * 3600, 60, -60] {
        let mut facts = home();
        facts.login = login(LoginAnswer::Fine { took: Duration::from_millis(40), clock_ahead_s: Some(ahead_s) });
        let diagnosis = diagnose(&facts);
        assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::None, vec![Subject::Clock]), "{ahead_s}");
    }
}

#[test]
fn a_clock_that_is_a_little_off_is_noted() {
    let mut facts = home();
    facts.login = login(LoginAnswer::Fine { took: Duration::from_millis(40), clock_ahead_s: Some(-30) });
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::MostlyDirect);
    assert!(found(&diagnosis, Subject::Clock).is_some_and(|clock| clock.level == Level::Note && clock.text.contains("30 seconds behind")));
}

#[test]
fn lengths_of_time_are_told_in_words_that_fit() {
    let told = [45, 300, 3 * 3600, 4 * 86_400].map(length);
    assert_eq!(told, ["45 seconds", "5 minutes", "3 hours", "4 days"]);
}

#[test]
fn without_a_relay_no_call_begins() {
    let mut facts = home();
    facts.nodes.retain(|node| node.role != NodeRole::Relay);
    assert_eq!((diagnose(&facts).calls, problems(&diagnose(&facts))), (Calls::None, vec![Subject::Relays]));
    let mut facts = home();
    silence(&mut facts, Some(NodeRole::Relay));
    assert_eq!((diagnose(&facts).calls, problems(&diagnose(&facts))), (Calls::None, vec![Subject::Relays]));
}

#[test]
fn a_far_relay_and_full_relays_are_noted() {
    let mut facts = home();
    for node in &mut facts.nodes {
        node.udp = Some(Duration::from_millis(280));
        node.load_percent = Some(97);
    }
    let diagnosis = diagnose(&facts);
    let told: Vec<&str> = diagnosis.findings.iter().filter(|one| one.subject == Subject::Relays).map(|one| one.text.as_str()).collect();
    assert!(told.len() == 2 && told[0].contains("280 ms") && told[1].contains("full"), "{told:?}");
    assert_eq!(problems(&diagnosis), []);
}

#[test]
fn without_any_network_that_is_the_one_thing_said_of_it() {
    let mut facts = home();
    facts.addresses.clear();
    silence(&mut facts, None);
    facts.login = login(LoginAnswer::Silent("network is unreachable".into()));
    let diagnosis = diagnose(&facts);
    assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::None, vec![Subject::Network]));
}

#[test]
fn a_login_page_of_a_wi_fi_is_suspected_where_somebody_else_answers_and_nothing_else_does() {
    let mut facts = home();
    silence(&mut facts, None);
    facts.login = login(LoginAnswer::Stranger);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.calls, Calls::None);
    assert!(found(&diagnosis, Subject::Login).and_then(|login| login.advice.as_ref()).is_some_and(|advice| advice.contains("browser")));
}

#[test]
fn an_absent_login_server_is_no_problem_for_those_who_are_signed_in() {
    let mut facts = home();
    facts.login = login(LoginAnswer::Silent("connection refused".into()));
    let diagnosis = diagnose(&facts);
    assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::MostlyDirect, vec![]));
}

#[test]
fn nobody_signed_in_is_told_how_to() {
    let mut facts = home();
    facts.membership = Membership::Nobody;
    facts.login = None;
    facts.nodes.clear();
    let diagnosis = diagnose(&facts);
    assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::None, vec![Subject::Account]));
}

#[test]
fn a_guest_is_told_how_calls_would_go() {
    let mut facts = home();
    facts.membership = Membership::Guest;
    assert_eq!(diagnose(&facts).calls, Calls::MostlyDirect);
}

#[test]
fn a_proxy_through_which_nothing_comes_is_the_problem() {
    let mut facts = home();
    facts.proxy = Some("http://192.0.2.9:3128".into());
    silence(&mut facts, None);
    assert!(problems(&diagnose(&facts)).contains(&Subject::Proxy));
    let mut facts = home();
    without_udp(&mut facts);
    facts.proxy = Some("http://192.0.2.9:3128".into());
    assert!(found(&diagnose(&facts), Subject::Proxy).is_some_and(|proxy| proxy.level == Level::Ok));
}

#[test]
fn calls_that_the_user_keeps_on_relays_are_relayed() {
    let mut facts = home();
    facts.relay = RelayPolicy::Always;
    facts.port_mapping = mapped(false);
    assert_eq!(diagnose(&facts).calls, Calls::Relayed);
}

#[test]
fn missing_sound_devices_are_problems_that_stop_no_call() {
    let (works, broken) = (SoundDevice::Works("headset".into()), SoundDevice::Broken("no such file".into()));
    for (input, output, bad) in [(&SoundDevice::Missing, &works, 1), (&works, &broken, 1), (&broken, &SoundDevice::Missing, 2)] {
        let mut facts = home();
        facts.sound = Sound { input: input.clone(), output: output.clone() };
        let diagnosis = diagnose(&facts);
        assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::MostlyDirect, vec![Subject::Sound; bad]));
    }
}

#[test]
fn the_demo_on_one_machine_is_a_network_too() {
    let mut facts = home();
    facts.addresses.clear();
    facts.nat.mapping = Mapping::Open;
    facts.port_mapping = PortMapping::NotAsked;
    let diagnosis = diagnose(&facts);
    assert_eq!((diagnosis.calls, problems(&diagnosis)), (Calls::Direct, vec![]));
}

/// Everything that can be the case, one with the other: whatever it is, each problem comes with advice, and calls are impossible only with a problem.
#[test]
fn every_problem_has_advice_and_no_call_fails_without_one() {
    let answers = [
        LoginAnswer::Fine { took: Duration::from_millis(3), clock_ahead_s: None },
        LoginAnswer::Fine { took: Duration::from_millis(3), clock_ahead_s: Some(90_000) },
        LoginAnswer::Silent("no answer".into()),
        LoginAnswer::Stranger,
        LoginAnswer::Strange("status 502".into()),
    ];
    let mappings = [Mapping::Unknown, Mapping::Open, Mapping::EndpointIndependent, Mapping::EndpointDependent];
    let port_mappings = [PortMapping::Off, PortMapping::NotAsked, mapped(true), mapped(false), PortMapping::None("it does not".into())];
    for answer in &answers {
        for mapping in mappings {
            for port_mapping in &port_mappings {
                for (silenced, has_udp, has_addresses) in
                    [(None, true, true), (None, false, true), (Some(()), true, true), (Some(()), true, false)]
                {
                    let mut facts = home();
                    facts.login = login(answer.clone());
                    facts.nat.mapping = mapping;
                    facts.port_mapping = port_mapping.clone();
                    if silenced.is_some() {
                        silence(&mut facts, None);
                    }
                    if !has_udp {
                        without_udp(&mut facts);
                    }
                    if !has_addresses {
                        facts.addresses.clear();
                    }
                    let diagnosis = diagnose(&facts);
                    let bad = |finding: &&Finding| finding.level == Level::Problem;
                    assert!(diagnosis.findings.iter().filter(bad).all(|finding| finding.advice.is_some()), "{diagnosis:?}");
                    assert!(diagnosis.calls != Calls::None || diagnosis.findings.iter().any(|finding| bad(&finding)), "{facts:?}");
                }
            }
        }
    }
}

/// A home with a router of the kind that most have, which cannot be asked for ports.
fn home() -> Facts {
    let node = |role, last: u8| Node {
        role,
        address: SocketAddr::from(([198, 51, 100, last], 443)),
        udp: Some(Duration::from_millis(20 + u64::from(last))),
        tcp: Some(Duration::from_millis(60)),
        offers_tcp: true,
        load_percent: Some(5),
    };
    Facts {
        membership: Membership::SignedIn { name: "bob".into() },
        is_running: false,
        addresses: vec![OwnAddress { address: "192.168.1.7:5000".parse().expect("an address"), is_vpn: false }],
        login: login(LoginAnswer::Fine { took: Duration::from_millis(40), clock_ahead_s: Some(0) }),
        nodes: vec![node(NodeRole::Supernode, 1), node(NodeRole::Supernode, 2), node(NodeRole::Relay, 3)],
        nat: Nat { mapping: Mapping::EndpointIndependent, preserves_port: true, outside: Vec::new(), has_ipv6: false },
        port_mapping: PortMapping::None("the router offers no port mapping".into()),
        proxy: None,
        proxy_problem: None,
        settings_problem: None,
        is_udp_off: false,
        relay: RelayPolicy::Auto,
        sound: Sound { input: SoundDevice::Works("microphone".into()), output: SoundDevice::Works("loudspeaker".into()) },
    }
}

fn login(answer: LoginAnswer) -> Option<Login> {
    Some(Login { address: "login.example:443".into(), answer })
}

fn mapped(is_double_nat: bool) -> PortMapping {
    PortMapping::Mapped { protocol: Protocol::Pcp, addresses: vec!["203.0.113.5:5000".parse().expect("an address")], is_double_nat }
}

fn without_udp(facts: &mut Facts) {
    for node in &mut facts.nodes {
        node.udp = None;
        node.load_percent = None;
    }
    facts.nat.mapping = Mapping::Unknown;
}

fn silence(facts: &mut Facts, role: Option<NodeRole>) {
    for node in facts.nodes.iter_mut().filter(|node| role.is_none_or(|role| node.role == role)) {
        (node.udp, node.tcp, node.load_percent) = (None, None, None);
    }
}

fn problems(diagnosis: &Diagnosis) -> Vec<Subject> {
    diagnosis.findings.iter().filter(|finding| finding.level == Level::Problem).map(|finding| finding.subject).collect()
}

fn found(diagnosis: &Diagnosis, subject: Subject) -> Option<&Finding> {
    diagnosis.findings.iter().find(|finding| finding.subject == subject)
}
