//! The body of one DCUtR message.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode::punch::fuzz::message(bytes));
