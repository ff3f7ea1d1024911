//! `ahoy demo` as a user sees it.

#![allow(clippy::unwrap_used, reason = "tests")]

use ahoy_e2e::{GOOD_PESQ, LONG};
use ahoy_lab::{Event, Process, alone, best_of_tries, program};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A call of eight seconds, and a network's start before it.
const DEMO_LIMIT: Duration = Duration::from_secs(180);

fn demo(args: &[&str], temporary: &Path) -> Process {
    let mut command = Command::new(program("ahoy"));
    command.arg("demo").args(args).env("TMPDIR", temporary);
    Process::start("demo", command)
}

#[test]
fn a_demo_ends_by_itself_with_a_good_call_and_leaves_the_recording_alone() {
    let _alone = alone();
    let mut last = None;
    let pesq = best_of_tries(GOOD_PESQ, || {
        let folder = tempfile::tempdir().unwrap();
        let finished = demo(&["--seconds", "8", "--json"], folder.path()).finish(DEMO_LIMIT).succeeded();
        assert_eq!(left_in(folder.path(), ".wav"), 1, "the recording stays");
        assert_eq!(left_in(folder.path(), ""), 1, "and nothing else");
        let summary: Event = finished.events().pop().expect("events");
        let pesq = summary.number("pesq_wb") as f32;
        last = Some(summary);
        pesq
    });
    let summary = last.unwrap();
    assert_eq!(summary.name(), "summary");
    assert!(pesq >= GOOD_PESQ, "{summary:?}");
    assert!(summary.number("mouth_to_ear_ms") > 0.0 && summary.number("setup_ms") > 0.0, "{summary:?}");
    assert!(!summary.text("first_path").is_empty() && !summary.text("last_path").is_empty(), "{summary:?}");
    assert!(summary.number("lost") >= 0.0, "{summary:?}");
}

#[test]
fn a_demo_for_people_shows_a_table() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let finished = demo(&["--seconds", "3"], folder.path()).finish(DEMO_LIMIT).succeeded();
    let text = finished.stdout.join("\n");
    for part in ["supernode 3", "relay", "bob was found", "path", "set-up", "mouth to ear", "packets lost", "speech quality", ".wav"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_missing_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ahoy", "ahoy-login", "ahoy-relay"] {
        std::fs::hard_link(program(name), folder.path().join(name))
            .or_else(|_| std::fs::copy(program(name), folder.path().join(name)).map(|_| ()))
            .unwrap();
    }
    let mut command = Command::new(folder.path().join("ahoy"));
    command.arg("demo");
    Process::start("demo", command).finish(LONG).failed_with(&["ahoy-supernode"]);
}

#[test]
fn a_demo_that_is_interrupted_takes_everything_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo(&["--seconds", "60"], folder.path());
    demo.wait_line(LONG, "the relay", |line| line.trim_start().starts_with("relay").then_some(()));
    let children = children_of(demo.pid());
    assert!(children.len() >= 5, "{children:?}");
    let finished = demo.stop();
    assert_eq!(finished.status.code(), Some(1), "{finished:#?}");
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "process {child} is left");
    }
    assert_eq!(left_in(folder.path(), ""), 0, "the temporary folder is gone");
}

/// How many entries of a folder end with `suffix`.
fn left_in(folder: &Path, suffix: &str) -> usize {
    std::fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(suffix)).count()
}

/// Processes whose parent is `pid`.
fn children_of(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parent = |child: u32| {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
    };
    processes.filter(|child| parent(*child) == Some(pid)).collect()
}
