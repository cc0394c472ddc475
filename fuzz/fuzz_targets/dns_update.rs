//! What anybody may send in answer to a DNS UPDATE.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    p2pnode_protocol::dns_update::read_anything(bytes);
});
