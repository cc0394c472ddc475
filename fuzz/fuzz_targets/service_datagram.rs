//! A QUIC datagram of a flow, as a peer sends it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode_services::wire::fuzz::datagram(bytes));
