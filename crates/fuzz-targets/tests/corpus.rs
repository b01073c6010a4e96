//! The committed seeds in `fuzz/corpus`: they are what the encoders write today, and they and everything
//! else in there run through their targets.

use haven_fuzz_targets::TARGETS;
use std::fs;
use std::path::PathBuf;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target)
}

#[test]
fn every_input_of_the_corpus_holds() {
    for target in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus(target.name)).unwrap() {
            (target.run)(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} has a corpus", target.name);
    }
}

#[test]
fn the_corpus_has_what_encoders_write() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            let path = corpus(target.name).join(&seed.name);
            let written = fs::read(&path).unwrap_or_default();
            let hint = "run `cargo run -p haven-fuzz-targets --example seeds`";
            assert!(
                written == seed.bytes,
                "{} is not up to date: {hint}",
                path.display()
            );
        }
    }
}

/// Every target has its file for cargo-fuzz, and nothing else has one.
#[test]
fn cargo_fuzz_knows_every_target() {
    let fuzz = corpus("../fuzz_targets");
    let mut files: Vec<String> = fs::read_dir(fuzz)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let mut names: Vec<String> = TARGETS.iter().map(|t| format!("{}.rs", t.name)).collect();
    names.sort();
    assert_eq!(files, names);
}
