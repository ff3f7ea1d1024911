//! Entry for a coverage-guided engine: `AHOY_FUZZ_TARGET=NAME cargo bolero test -p ahoy-fuzz guided`. Plain `cargo test` skips it.

use ahoy_fuzz::targets;

#[test]
fn guided() {
    let Ok(name) = std::env::var("AHOY_FUZZ_TARGET") else { return };
    let target = targets().into_iter().find(|target| target.name == name).expect("AHOY_FUZZ_TARGET names a target");
    bolero::check!().for_each(|input: &[u8]| (target.run)(input));
}
