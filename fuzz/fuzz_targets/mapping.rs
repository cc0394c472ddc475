//! What a router on the link may send: answers of PCP, NAT-PMP, SSDP and UPnP.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let router = std::net::Ipv4Addr::new(192, 168, 1, 1).into();
    p2pnode_protocol::mapping::fuzz::read_anything(bytes, router);
});
