//! What anybody on a link may send to port 5353, and to a question that was asked there.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| p2pnode::mdns_datagram(bytes));
