//! Writes the seeds of every target to the corpus, where there are none: `cargo run -p ahoy-fuzz --example seed`.
//!
//! Seeds that were sealed differ each time, so what is there stays.

use ahoy_fuzz::{corpus, targets};

fn main() -> std::io::Result<()> {
    for target in targets() {
        let folder = corpus().join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (index, seed) in (target.seeds)().into_iter().enumerate() {
            let path = folder.join(format!("seed-{index:02}"));
            if !path.exists() {
                std::fs::write(path, seed)?;
            }
        }
    }
    Ok(())
}
