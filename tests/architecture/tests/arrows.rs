//! The arrows between the crates, and who may name a heavy dependency, are what `ARCHITECTURE.md` says.

use ahoy_architecture::{dependencies, is_test_package, packages, table};
use cargo_metadata::DependencyKind::{Build, Normal};
use std::collections::BTreeSet;

/// The four programs, which meet on the wire and in tests, never by importing one another.
const PROGRAMS: [&str; 4] = ["ahoy", "ahoy-login", "ahoy-supernode", "ahoy-relay"];

#[test]
fn the_arrows_between_our_crates_are_those_of_the_table() {
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let mut table = table("arrows");
    for package in packages.iter().filter(|package| !is_test_package(package)) {
        let written = table.remove(package.name.as_str());
        let written = written.unwrap_or_else(|| panic!("{} has no line in the arrows of ARCHITECTURE.md", package.name));
        let real: BTreeSet<String> = dependencies(package, &[Normal, Build]).intersection(&ours).cloned().collect();
        assert_eq!(real, written, "left: what {} depends on; right: what ARCHITECTURE.md says", package.name);
    }
    assert!(table.is_empty(), "ARCHITECTURE.md draws arrows from crates that do not exist: {:?}", table.keys());
}

#[test]
fn the_programs_never_import_one_another() {
    for package in packages().iter().filter(|package| PROGRAMS.contains(&package.name.as_str())) {
        for other in dependencies(package, &[Normal, Build]) {
            assert!(!PROGRAMS.contains(&other.as_str()), "{} imports {other}", package.name);
        }
    }
}

#[test]
fn nothing_that_ships_depends_on_a_test_package() {
    let packages = packages();
    let tests: BTreeSet<String> =
        packages.iter().filter(|package| is_test_package(package)).map(|package| package.name.to_string()).collect();
    for package in packages.iter().filter(|package| !is_test_package(package)) {
        let wrong: Vec<String> = dependencies(package, &[Normal, Build]).intersection(&tests).cloned().collect();
        assert!(wrong.is_empty(), "{} depends on {wrong:?}", package.name);
    }
}

#[test]
fn each_heavy_dependency_is_named_by_one_crate() {
    let packages = packages();
    for (dependency, owners) in table("owners") {
        let named_by: BTreeSet<String> = packages
            .iter()
            .filter(|package| !is_test_package(package))
            .filter(|package| dependencies(package, &[Normal, Build]).contains(&dependency))
            .map(|package| package.name.to_string())
            .collect();
        assert_eq!(named_by, owners, "left: who names {dependency}; right: who may by ARCHITECTURE.md");
    }
}
