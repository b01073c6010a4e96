//! See `store_current` in `haven-fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| haven_fuzz_targets::run("store_current", input));
