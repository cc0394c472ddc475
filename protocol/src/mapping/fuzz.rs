//! What the fuzz target of mappings calls.

use std::net::IpAddr;

use super::{http, nat_pmp, pcp, ssdp, upnp};

/// Whatever a router sends: every reader takes it.
///
/// # Panics
///
/// If a place at another host than the router is returned.
pub fn read_anything(bytes: &[u8], router: IpAddr) {
    let _ = pcp::Answer::read(bytes);
    let _ = nat_pmp::Answer::read(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Some(found) = ssdp::location(&text, router) {
        assert_eq!(found.host, router);
    }
    for service in upnp::services(&text, &http::Http::new(router, 80, "/d.xml")) {
        assert_eq!(service.control.host, router);
    }
    let _ = upnp::fault(&text);
    let _ = upnp::value(&text, "NewExternalIPAddress");
    let _ = http::Response::read(bytes);
}
