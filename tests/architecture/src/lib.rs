//! What the architecture tests look at: the workspace's packages, its source files, and the tables in its documents.
//!
//! The tables that people read are the ones that the tests read: a fenced block of `ARCHITECTURE.md`, one `left -> right right …` a line.
//! Nothing here judges; the tests do.

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The top folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is where it was compiled")
}

/// A file of the workspace as text.
#[must_use]
pub fn read(relative: &str) -> String {
    std::fs::read_to_string(root().join(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// All packages of the workspace, with their dependencies as declared, not resolved.
#[must_use]
pub fn packages() -> Vec<Package> {
    let manifest = root().join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().other_options(["--offline".to_owned()]).exec();
    metadata.expect("cargo can read the workspace").packages
}

/// Names of what `package` depends on, by kind.
#[must_use]
pub fn dependencies(package: &Package, kinds: &[DependencyKind]) -> BTreeSet<String> {
    package.dependencies.iter().filter(|dependency| kinds.contains(&dependency.kind)).map(|dependency| dependency.name.clone()).collect()
}

/// True for a package in `tests/`: what proves the parts, and is no part.
#[must_use]
pub fn is_test_package(package: &Package) -> bool {
    package.manifest_path.as_std_path().starts_with(root().join("tests"))
}

/// The fenced block of `ARCHITECTURE.md` with this word after its fence, line by line: what stands left of `->`, and the words right of it.
#[must_use]
pub fn table(word: &str) -> BTreeMap<String, BTreeSet<String>> {
    let document = read("ARCHITECTURE.md");
    let fence = format!("```{word}");
    let block = document.lines().skip_while(|line| line.trim() != fence).skip(1).take_while(|line| line.trim() != "```");
    let mut rows = BTreeMap::new();
    for line in block.filter(|line| !line.trim().is_empty()) {
        let (left, right) = line.split_once("->").unwrap_or_else(|| panic!("no arrow in {line:?}"));
        let right = right.split_whitespace().map(str::to_owned).collect();
        assert!(rows.insert(left.trim().to_owned(), right).is_none(), "{left} stands twice in the table {word}");
    }
    assert!(!rows.is_empty(), "ARCHITECTURE.md has no block that begins with {fence}");
    rows
}

/// A source file of ours.
#[derive(Debug)]
pub struct Source {
    /// Its path below the top folder, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Our files below `folder` whose names end with one of `endings`, sorted. What Cargo built and what git ignores is not ours.
#[must_use]
pub fn sources(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !is_not_ours(&name) {
                folders.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(&root).expect("below the top folder").to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn is_not_ours(folder: &str) -> bool {
    folder.starts_with("target") || (folder.starts_with('.') && folder != ".ci")
}

/// The lines of Rust that end up in the program, with their numbers: no comments, no `#[cfg(test)]` modules, which stand last in a file.
pub fn program_lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let is_program = |line: &&str| !line.trim_start().starts_with("#[cfg(test)]");
    let numbered = source.text.lines().take_while(is_program).enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Names of the types that implement `Wire`, from the text of the protocol crate.
#[must_use]
pub fn wire_types() -> BTreeSet<String> {
    let mut types = BTreeSet::new();
    for source in sources("crates/protocol/src", &[".rs"]) {
        let mut in_macro_call = false;
        for (_, line) in program_lines(&source) {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("impl Wire for ") {
                types.extend(rest.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned));
            }
            if in_macro_call && let Some((name, _)) = line.split_once(',') {
                types.insert(name.to_owned());
            }
            in_macro_call = (in_macro_call && line != "}") || line == "wire! {";
        }
    }
    types.retain(|name| name.starts_with(char::is_uppercase));
    types
}
