//! What becomes of the addresses of a message: which are dialed.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode::punch::fuzz::candidates(bytes));
