//! Rules that the sources keep: what decides does no I/O, files say what they are, and nothing names somebody's machine.

use ahoy_architecture::{program_lines, read, root, sources, table};
use std::collections::BTreeSet;
use std::process::Command;

/// Folders with Rust that ships.
const SHIPPED: [&str; 5] = ["client", "login-server", "supernode", "relay", "crates"];

/// What crates without I/O may not say, and what to do instead.
const NOT_WITHOUT_IO: [(&str, &str); 12] = [
    ("Instant::now", "`now` is an argument"),
    ("SystemTime::now", "`now` is an argument"),
    (".elapsed()", "`now` is an argument"),
    ("UdpSocket", "packets are arguments and results"),
    ("TcpStream", "bytes are arguments and results"),
    ("TcpListener", "bytes are arguments and results"),
    ("tokio::", "there is nothing to wait for here"),
    ("std::fs", "files are for the caller"),
    ("std::env", "settings are arguments"),
    ("std::thread", "deciding code has no threads"),
    ("SystemRandom", "the seed is in the constructor"),
    ("thread_rng", "the seed is in the constructor"),
];

#[test]
fn crates_that_decide_read_no_clock_no_chance_no_socket_and_no_file() {
    let decide = table("without-io").remove("without-io").expect("ARCHITECTURE.md lists the crates without I/O");
    for name in decide {
        let folder = format!("crates/{}/src", name.strip_prefix("ahoy-").expect("crates are called ahoy-…"));
        let sources = sources(&folder, &[".rs"]);
        assert!(!sources.is_empty(), "{folder} is empty");
        for source in sources.iter().filter(|source| !source.path.ends_with("tests.rs")) {
            for (number, line) in program_lines(source) {
                for (word, instead) in NOT_WITHOUT_IO {
                    assert!(!line.contains(word), "{}:{number} says {word}: {instead}", source.path);
                }
            }
        }
    }
}

#[test]
fn every_rust_file_opens_with_what_it_is() {
    for folder in SHIPPED.iter().chain(&["tests"]) {
        for source in sources(folder, &[".rs"]) {
            let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!")).unwrap_or_default();
            assert!(first.starts_with("//!"), "{} opens with {first:?}, not with a //! paragraph", source.path);
        }
    }
}

#[test]
fn no_queue_is_unbounded() {
    for folder in SHIPPED {
        for source in sources(folder, &[".rs"]) {
            for (number, line) in program_lines(&source) {
                assert!(!line.contains("unbounded"), "{}:{number}: every queue has a bound", source.path);
            }
        }
    }
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    // In two pieces each, so that this file does not name them.
    let folders = [("/ho", "me/"), ("/Us", "ers/"), ("/ro", "ot/"), ("/wo", "rk/"), ("C:\\Us", "ers")].map(|(a, b)| format!("{a}{b}"));
    for source in sources("", &[".rs", ".md", ".toml", ".json", ".service", "Makefile", "LICENSE"]) {
        for (index, line) in source.text.lines().enumerate() {
            for folder in &folders {
                assert!(!names_folder(line, folder), "{}:{} names {folder}", source.path, index + 1);
            }
        }
    }
}

#[test]
fn the_top_folder_holds_what_architecture_md_lists() {
    let layout = read("ARCHITECTURE.md");
    let layout: BTreeSet<&str> = layout
        .lines()
        .skip_while(|line| *line != "```layout")
        .skip(1)
        .take_while(|line| *line != "```")
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(!layout.is_empty(), "ARCHITECTURE.md has no block that begins with ```layout");
    for entry in &layout {
        assert!(root().join(entry).exists(), "ARCHITECTURE.md lists {entry}, which does not exist");
    }
    // Without git there is no telling what is ours and what somebody left lying there.
    let Ok(listed) = Command::new("git").args(["ls-files"]).current_dir(root()).output() else { return };
    for path in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some((folder, _)) = path.split_once('/') else { continue };
        let folder = format!("{folder}/");
        assert!(layout.contains(folder.as_str()), "{path} is in a top-level folder that ARCHITECTURE.md does not list");
    }
}

/// True if a path that begins with `folder` stands in `line`; `ahoy/home/1` is none.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '_'))
}
