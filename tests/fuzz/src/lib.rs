//! A fuzz target for everything that parses what a stranger sends.
//!
//! A target is a plain function over bytes that panics on a finding, so it runs on stable Rust, under any engine. Beside it stand
//! seeds: valid inputs from which mutations start. [`targets`] lists them all; a test holds that every message has one.
//!
//! `tests/mutations.rs` replays the corpus and then runs each target on seeded mutations for a bounded time; `tests/guided.rs` is
//! the entry for a coverage-guided engine. `examples/seed.rs` writes the seeds to the corpus.

mod directory;
mod identity;
mod mail;
pub mod mutate;
mod path;
mod relay;
pub mod samples;
mod sound;
mod text;
mod tunnel;
mod wav;
mod wire;

/// A decoder, or what stands behind one, as a function over bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also of its folder in the corpus.
    pub name: &'static str,
    /// Panics if the bytes show a defect.
    pub run: fn(&[u8]),
    /// Valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets, in the order of the protocol pages.
#[must_use]
pub fn targets() -> Vec<Target> {
    [
        wire::targets(),
        text::targets(),
        identity::targets(),
        directory::targets(),
        mail::targets(),
        relay::targets(),
        path::targets(),
        tunnel::targets(),
        sound::targets(),
        wav::targets(),
    ]
    .concat()
}

/// The folder of the corpus.
#[must_use]
pub fn corpus() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}
