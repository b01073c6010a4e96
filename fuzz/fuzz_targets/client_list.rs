//! See `client_list` in `haven-fuzz-targets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| haven_fuzz_targets::run("client_list", input));
