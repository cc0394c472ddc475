//! The frames of a session, as a peer sends them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode_services::wire::fuzz::frames(bytes));
