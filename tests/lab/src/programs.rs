//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The executable `name`: in `AHOY_BIN_DIR` if it is there, else in the folder that Cargo builds into, found from the running test.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("AHOY_BIN_DIR").map(|folder| PathBuf::from(folder).join(name)).filter(|path| path.is_file());
    let path = named.unwrap_or_else(|| beside_the_test().join(name));
    assert!(path.is_file(), "{} is not there; build the programs first: cargo build --workspace", path.display());
    path
}

/// Tests run from `target/PROFILE/deps`, other programs from `target/PROFILE`.
fn beside_the_test() -> PathBuf {
    let test = std::env::current_exe().expect("the system knows the running program");
    let folder = test.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") { folder.parent().map_or_else(|| folder.to_owned(), Path::to_owned) } else { folder.to_owned() }
}
