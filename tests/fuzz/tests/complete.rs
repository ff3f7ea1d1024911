//! Nothing that crosses a socket is without a target.

use ahoy_architecture::wire_types;
use ahoy_fuzz::{corpus, targets};
use std::collections::BTreeSet;

#[test]
fn every_message_has_a_target() {
    let names: BTreeSet<&str> = targets().iter().map(|target| target.name).collect();
    for message in wire_types() {
        // Of names that say little by themselves the target's says more.
        let target = match message.as_str() {
            "Request" => "wire_directory_request".to_owned(),
            "Response" => "wire_directory_response".to_owned(),
            _ => format!("wire{}", snake_case(&message)),
        };
        assert!(names.contains(target.as_str()), "{message} has no target {target}");
    }
}

#[test]
fn no_two_targets_share_a_name() {
    let names: BTreeSet<&str> = targets().iter().map(|target| target.name).collect();
    assert_eq!(names.len(), targets().len());
}

#[test]
fn every_target_has_seeds_and_every_folder_of_the_corpus_a_target() {
    for target in targets() {
        assert!(!(target.seeds)().is_empty(), "{} starts from nothing", target.name);
    }
    let names: BTreeSet<&str> = targets().iter().map(|target| target.name).collect();
    for entry in std::fs::read_dir(corpus()).expect("the corpus is there").filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(names.contains(name.as_str()), "the corpus has a folder {name}, which no target reads");
    }
}

fn snake_case(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect()
}
