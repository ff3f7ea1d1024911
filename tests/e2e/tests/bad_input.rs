//! What bad input gets: one clear sentence that says what to do, exit status 1, and nothing lost. Wrong usage gets status 2.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::LONG;
use ahoy_lab::{Finished, Network, Person, Process, Spot, program};
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

fn run(name: &str, args: &[&str]) -> Finished {
    let mut command = Command::new(program(name));
    command.args(args).env("AHOY_PASSWORD", ahoy_lab::PASSWORD);
    Process::start(name, command).finish(LONG)
}

fn run_with_password(person: &Person, password: &str, args: &[&str]) -> Finished {
    let mut command = person.command(args);
    command.env("AHOY_PASSWORD", password);
    Process::start(&person.name, command).finish(LONG)
}

fn sentence(finished: &Finished) -> String {
    finished.stderr.last().cloned().unwrap_or_default()
}

#[test]
fn a_name_that_is_taken_stays_its_owners() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let other = network.stranger("alice", "impostor", Spot::loopback());
    run_with_password(&other, "another-password-63-trombone", &["register", "alice", "--network", &network.link])
        .failed_with(&["alice", "taken"]);
    // Nothing is lost: neither the account, nor the impostor's home for another name.
    let _alice = alice.online(&[]);
    let _ = other.run(&["register", "alicia", "--network", &network.link]).succeeded();
}

#[test]
fn a_malformed_name_is_refused_with_the_rule() {
    let network = Network::start(1, 1);
    let somebody = network.stranger("somebody", "first", Spot::loopback());
    for name in ["a", "two words", "..", "ends-", "ali/ce", "аlice", &"x".repeat(100), ""] {
        let finished = somebody.run(&["register", name, "--network", &network.link]);
        println!("{name:?}: {}", sentence(&finished));
        finished.failed_with(&["name"]);
    }
    let _ = somebody.run(&["register", "somebody", "--network", &network.link]).succeeded();
    somebody.run(&["call", "two words"]).failed_with(&["name"]);
}

#[test]
fn a_weak_password_is_refused_with_the_reason() {
    let network = Network::start(1, 1);
    let somebody = network.stranger("somebody", "first", Spot::loopback());
    for password in ["", "12345678", "password1", "somebody1"] {
        let finished = run_with_password(&somebody, password, &["register", "somebody", "--network", &network.link]);
        println!("{password:?}: {}", sentence(&finished));
        finished.failed_with(&["password"]);
    }
}

#[test]
fn a_wrong_password_and_an_unknown_name_look_alike_and_are_slowed_down() {
    let network = Network::start(1, 1);
    let _alice = network.person("alice");
    let guesser = network.stranger("guesser", "first", Spot::loopback());
    let guess = |name: &str| run_with_password(&guesser, "guess-51-marmalade-kite", &["sign-in", name, "--network", &network.link]);
    let (wrong, unknown) = (guess("alice"), guess("nobody"));
    wrong.failed_with(&["wrong name or password"]);
    assert_eq!(wrong.stderr, unknown.stderr);
    let mut tries = 2;
    loop {
        let finished = guess("alice");
        if sentence(&finished).contains("too many tries") {
            finished.failed_with(&["wait", "seconds"]);
            break;
        }
        tries += 1;
        assert!(tries < 40, "guessing is never slowed down");
    }
}

#[test]
fn a_wrong_network_link_says_what_is_wrong_with_it() {
    let network = Network::start(1, 1);
    let somebody = network.stranger("somebody", "first", Spot::loopback());
    let (address, _) = network.link.split_once('#').unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let key = "a".repeat(32);
    let links = [
        ("http://login.example".to_owned(), "ahoy://"),
        (address.to_owned(), "#"),
        (format!("{address}#short"), "#"),
        (format!("ahoy://#{key}"), "host"),
        (format!("ahoy://{closed}#{key}"), "cannot reach"),
        (format!("{address}#{key}"), "link"),
    ];
    for (link, word) in links {
        for command in ["register", "sign-in"] {
            let finished = somebody.run(&[command, "somebody", "--network", &link]);
            println!("{link}: {}", sentence(&finished));
            finished.failed_with(&[word]);
        }
    }
}

#[test]
fn a_login_server_that_is_down_is_named_and_the_account_stays() {
    let mut network = Network::start(1, 1);
    let alice = network.person("alice");
    network.stop_login();
    let somebody = network.stranger("somebody", "first", Spot::loopback());
    somebody.run(&["register", "somebody", "--network", &network.link]).failed_with(&["cannot reach the login server"]);
    network.start_login();
    let _ = somebody.run(&["register", "somebody", "--network", &network.link]).succeeded();
    let _alice = alice.online(&[]);
}

#[test]
fn a_home_without_an_account_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    for command in [&["online"][..], &["call", "bob"]] {
        run("ahoy", &[&["--home", home.to_str().unwrap()], command].concat()).failed_with(&["sign"]);
    }
}

#[test]
fn a_port_in_use_is_named() {
    let network = Network::start(1, 1);
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let holder = TcpListener::bind(&tcp).unwrap();
    let data = folder.path().join("login").to_str().unwrap().to_owned();
    run("ahoy-login", &["serve", "--data", &data, "--listen", &tcp]).failed_with(&[&tcp, "in use"]);
    drop(holder);
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = holder.local_addr().unwrap().to_string();
    let port = holder.local_addr().unwrap().port().to_string();
    for program in ["ahoy-supernode", "ahoy-relay"] {
        let data = folder.path().join(program).to_str().unwrap().to_owned();
        let token = network.node_token();
        let args = ["serve", "--network", &network.link, "--token", &token, "--data", &data, "--listen", &udp];
        run(program, &args).failed_with(&[&port, "in use"]);
    }
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let network = Network::start(1, 1);
    let folder = tempfile::tempdir().unwrap();
    // Even root cannot make a folder inside a file.
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for inside in [file.clone(), file.join("data")] {
        for (program, args) in commands(&network, &inside) {
            let finished = run(program, &args.iter().map(String::as_str).collect::<Vec<_>>());
            println!("{program}: {}", sentence(&finished));
            finished.failed_with(&[file.to_str().unwrap()]);
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a folder");
}

#[test]
fn a_data_folder_of_a_newer_version_is_left_alone() {
    let mut network = Network::start(1, 1);
    let alice = network.person("alice");
    network.stop_login();
    let relay = network.relays.pop().unwrap();
    let supernode = network.supernodes.pop().unwrap();
    let _ = (relay.process.stop(), supernode.process.stop());
    let folders = [
        ("ahoy-login", network.login_data()),
        ("ahoy-supernode", network.node_data("supernode", 0)),
        ("ahoy-relay", network.node_data("relay", 0)),
        ("ahoy", alice.home.clone()),
    ];
    for (program, folder) in folders {
        let file = folder.join("format.json");
        let mut format: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        format["version"] = 9_999.into();
        let newer = serde_json::to_vec(&format).unwrap();
        fs::write(&file, &newer).unwrap();
        let args = serve_args(program, &network.link, "token", &folder);
        run(program, &args.iter().map(String::as_str).collect::<Vec<_>>()).failed_with(&[folder.to_str().unwrap(), "newer"]);
        assert_eq!(fs::read(&file).unwrap(), newer, "nothing is written");
    }
}

#[test]
fn a_data_folder_in_use_is_not_used_twice() {
    let network = Network::start(1, 1);
    let data = network.login_data().to_str().unwrap().to_owned();
    run("ahoy-login", &["serve", "--data", &data, "--listen", "127.0.0.1:0"]).failed_with(&[&data, "use"]);
    let data = network.node_data("relay", 0);
    let args = serve_args("ahoy-relay", &network.link, &network.node_token(), &data);
    run("ahoy-relay", &args.iter().map(String::as_str).collect::<Vec<_>>()).failed_with(&[data.to_str().unwrap(), "use"]);
    let alice = network.person("alice");
    let _online = alice.online(&[]);
    alice.run(&["online"]).failed_with(&[alice.home.to_str().unwrap(), "running"]);
}

#[test]
fn a_token_is_good_for_one_node() {
    let network = Network::start(1, 1);
    let folder = tempfile::tempdir().unwrap();
    for (role, token) in [("ahoy-relay", "no-token-at-all"), ("ahoy-supernode", "")] {
        let args = serve_args(role, &network.link, token, &folder.path().join(role));
        run(role, &args.iter().map(String::as_str).collect::<Vec<_>>()).failed_with(&["token"]);
    }
    let token = network.node_token();
    let args = serve_args("ahoy-relay", &network.link, &token, &folder.path().join("first"));
    let mut command = Command::new(program("ahoy-relay"));
    command.args(&args);
    let first = Process::start("relay", command);
    first.wait_line(LONG, "`serving`", |line| line.starts_with("serving ").then_some(()));
    let args = serve_args("ahoy-relay", &network.link, &token, &folder.path().join("second"));
    run("ahoy-relay", &args.iter().map(String::as_str).collect::<Vec<_>>()).failed_with(&["token", "another node"]);
}

#[test]
fn a_setting_that_is_none_is_refused_with_what_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let settings = |args: &[&str]| run("ahoy", &[&["--home", home, "settings"], args].concat());
    let _ = settings(&["set", "udp", "never"]).succeeded();
    for (key, value, word) in [
        ("udp", "sometimes", "auto or never"),
        ("udp", "", "auto or never"),
        ("relay", "ALWAYS", "strangers"),
        ("port-mapping", "yes", "on or off"),
        ("birthday", "\u{1f382}", "auto, on or off"),
        ("proxy", "gopher://127.0.0.1:70", "socks5"),
        ("proxy", "http://127.0.0.1:99999", "proxy"),
        ("proxy", "http://127.0.0.1:3128/path", "proxy"),
        ("proxy", &"x".repeat(5000), "long"),
    ] {
        let finished = settings(&["set", key, value]);
        println!("{key} {value:.40}: {}", sentence(&finished));
        finished.failed_with(&[word]);
    }
    let kept = settings(&["--json"]).succeeded().event("settings");
    assert_eq!((kept.text("udp"), kept.text("relay")), ("never", "auto"), "nothing else is kept");
}

#[test]
fn damaged_settings_are_named_and_can_be_mended() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    let file = alice.home.join("settings.json");
    fs::write(&file, r#"{"udp":"loud","ring-tone":"marimba"}"#).unwrap();
    alice.run(&["online"]).failed_with(&["settings.json", "udp", "unset"]);
    let report = alice.run(&["doctor", "--json"]).succeeded().event("doctor");
    assert!(report.0["findings"].to_string().contains("settings.json"), "{}", report.0);
    let _ = alice.run(&["settings", "unset", "udp"]).succeeded();
    assert!(fs::read_to_string(&file).unwrap().contains("marimba"), "what another version put there stays");
    let _ = alice.online(&[]).stop();
    for rubbish in ["", "null", "[1,2]", "{\"udp\":3}", "\u{0}\u{ffff}"] {
        fs::write(&file, rubbish).unwrap();
        let finished = alice.run(&["settings"]);
        println!("{rubbish:?}: {}", sentence(&finished));
        finished.failed_with(&["settings.json"]);
    }
}

#[test]
fn the_doctor_of_nobody_says_how_to_become_somebody() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let finished = run("ahoy", &["--home", home, "doctor"]);
    assert!(finished.stdout.iter().any(|line| line.contains("ahoy register NAME")), "{finished:#?}");
    finished.failed_with(&["signed in"]);
    for link in ["", "http://127.0.0.1:1", "ahoy://127.0.0.1:1"] {
        run("ahoy", &["--home", home, "doctor", "--network", link]).failed_with(&["link"]);
    }
    let nowhere = format!("ahoy://127.0.0.1:1#{}", "a".repeat(32));
    run("ahoy", &["--home", home, "doctor", "--network", &nowhere]).failed_with(&["login server"]);
}

#[test]
fn wrong_usage_has_status_two() {
    let usages: [(&str, &[&str]); 13] = [
        ("ahoy", &["call"]),
        ("ahoy", &["--no-such-option"]),
        ("ahoy", &["no-such-command"]),
        ("ahoy", &["demo", "--seconds", "many"]),
        ("ahoy", &["settings", "set", "colour", "loud"]),
        ("ahoy", &["settings", "set", "udp"]),
        ("ahoy", &["settings", "forget", "udp"]),
        ("ahoy", &["doctor", "bob"]),
        ("ahoy-login", &["serve"]),
        ("ahoy-login", &["serve", "--data", "x", "--listen", "nowhere"]),
        ("ahoy-login", &["no-such-command"]),
        ("ahoy-supernode", &["serve"]),
        ("ahoy-relay", &["serve", "--listen", "nowhere"]),
    ];
    for (program, args) in usages {
        let finished = run(program, args);
        assert_eq!(finished.status.code(), Some(2), "{program} {args:?}: {finished:#?}");
        assert!(!finished.stderr.is_empty(), "{program} {args:?} says why");
    }
}

/// One command of each program that needs its data folder at `data`.
fn commands(network: &Network, data: &Path) -> Vec<(&'static str, Vec<String>)> {
    ["ahoy-login", "ahoy-supernode", "ahoy-relay", "ahoy"]
        .map(|program| (program, serve_args(program, &network.link, "token", data)))
        .into()
}

fn serve_args(program: &str, link: &str, token: &str, data: &Path) -> Vec<String> {
    let data = data.to_str().unwrap();
    let args: &[&str] = match program {
        "ahoy" => &["--home", data, "sign-in", "alice", "--network", link],
        "ahoy-login" => &["serve", "--data", data, "--listen", "127.0.0.1:0"],
        _ => &["serve", "--network", link, "--token", token, "--data", data, "--listen", "127.0.0.1:0"],
    };
    args.iter().map(|arg| (*arg).to_owned()).collect()
}
