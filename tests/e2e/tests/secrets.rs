//! What lies on disk: nothing that gives away a password, and nothing that others can read.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_lab::{Network, PASSWORD};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[test]
fn no_file_of_anybody_holds_a_password_in_the_clear() {
    let network = Network::start(1, 1);
    let _alice = network.person("alice");
    let files = files_below(network.folder());
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap_or_default();
        let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!found, "{} holds the password", file.display());
    }
}

#[test]
fn keys_are_not_in_the_login_servers_database() {
    let mut network = Network::start(1, 1);
    let _alice = network.person("alice");
    // Stopped, so that all is in the file.
    network.stop_login();
    let files = files_below(&network.login_data());
    let is_database = |file: &PathBuf| fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3"));
    let databases: Vec<_> = files.iter().filter(|file| is_database(file)).collect();
    assert_eq!(databases.len(), 1, "{files:?}");
    let database = fs::read(databases[0]).unwrap();
    // Keys are files of random bytes; whatever piece of one stood in the database would give a part of it away.
    for file in files.iter().filter(|file| !is_database(file)) {
        let bytes = fs::read(file).unwrap();
        for piece in bytes.chunks_exact(16).filter(|piece| is_random(piece)) {
            assert!(!database.windows(16).any(|window| window == piece), "a piece of {} is in the database", file.display());
        }
    }
}

#[test]
fn others_on_the_machine_can_read_no_secret() {
    let network = Network::start(1, 1);
    let alice = network.person("alice");
    for folder in [network.login_data(), network.node_data("supernode", 0), network.node_data("relay", 0), alice.home] {
        let mode = fs::metadata(&folder).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", folder.display());
    }
}

/// True for bytes among which hardly any repeat: text and numbers do not look so.
fn is_random(piece: &[u8]) -> bool {
    let distinct: std::collections::BTreeSet<_> = piece.iter().collect();
    distinct.len() >= 13 && piece.iter().any(|byte| !byte.is_ascii())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}
