//! Services of the DNS.

use super::*;

#[test]
fn a_service_is_a_name_and_a_port() {
    for text in [
        "db:1",
        "a-b._tcp.example.net:65535",
        "p2pnode.ns.svc.cluster.local.:443",
    ] {
        assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
    }
    let long = format!("{}:443", "abcdefgh.".repeat(32));
    for (text, what) in [
        ("", "has no port"),
        ("p2pnode.ns.svc", "has no port"),
        ("p2pnode.ns.svc:", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:0", "has port 0, which cannot be dialed"),
        ("p2pnode.ns.svc:+1", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:65536", "has no port from 1 to 65535"),
        ("p2pnode.ns.svc:https", "has no port from 1 to 65535"),
        (":443", "has an invalid DNS name"),
        ("a..b:443", "has an invalid DNS name"),
        ("-a:443", "has an invalid DNS name"),
        ("a b:443", "has an invalid DNS name"),
        ("http://a:443", "has an invalid DNS name"),
        (long.as_str(), "has an invalid DNS name"),
        (
            "10.0.0.1:443",
            "is an address; put it under peers.NAME.addrs",
        ),
        ("10.0.0.1", "is an address; put it under peers.NAME.addrs"),
        (
            "[fd00::1]:443",
            "is an address; put it under peers.NAME.addrs",
        ),
        ("fd00::1", "is an address; put it under peers.NAME.addrs"),
        ("/dns/a/tcp/443", "is a multiaddr"),
    ] {
        let error = text.parse::<Service>().unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
        assert!(
            error.ends_with("as in p2pnode.default.svc.cluster.local:443"),
            "{error}"
        );
    }
}
