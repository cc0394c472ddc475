//! What a local client of the SOCKS5 server sends.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode_services::wire::fuzz::socks(bytes));
