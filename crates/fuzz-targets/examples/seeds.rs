//! Writes the seeds of all targets to `fuzz/corpus`.

use haven_fuzz_targets::TARGETS;
use std::path::PathBuf;
use std::{fs, io};

fn main() -> io::Result<()> {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let dir = corpus.join(target.name);
        fs::create_dir_all(&dir)?;
        let seeds = (target.seeds)();
        for seed in &seeds {
            fs::write(dir.join(&seed.name), &seed.bytes)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
