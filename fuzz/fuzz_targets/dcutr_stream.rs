//! What a remote writes on a DCUtR stream: lengths and bodies.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode::punch::fuzz::stream(bytes));
