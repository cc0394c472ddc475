//! What is advertised, and what may be punched.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use p2pnode_transports::{Family, Transport};
use proptest::prelude::*;

use super::*;

#[test]
fn a_template_takes_the_punch_port_where_it_says_so() {
    for (text, at_40017, transport, family) in [
        (
            "/ip4/198.51.100.7/udp/{port}/quic-v1",
            "/ip4/198.51.100.7/udp/40017/quic-v1",
            Transport::Quic,
            Family::Ip4,
        ),
        (
            "/ip6/2001:db8::7/tcp/{port}",
            "/ip6/2001:db8::7/tcp/40017",
            Transport::Tcp,
            Family::Ip6,
        ),
        (
            "/ip4/198.51.100.7/tcp/51234",
            "/ip4/198.51.100.7/tcp/51234",
            Transport::Tcp,
            Family::Ip4,
        ),
    ] {
        let template: AdvertiseTemplate = text.parse().unwrap();
        assert_eq!(template.to_string(), text);
        assert_eq!(template.with_port(40017).to_string(), at_40017);
        assert_eq!(
            (template.transport(), template.family()),
            (transport, family)
        );
    }
    for (text, what) in [
        ("/ip4/198.51.100.{port}/tcp/1", "where no port belongs"),
        ("/ip4/198.51.100.7/tcp/{port}{port}", "more than once"),
        (
            "/ip4/198.51.100.7/tcp/{prot}",
            "is not an address to advertise",
        ),
        ("/ip4/198.51.100.7/tcp/1{port}", "where no port belongs"),
        ("/ip4/198.51.100.7/tcp/{port}1", "where no port belongs"),
        ("/dns/example.net/tcp/{port}", "names a host"),
        ("/ip4/0.0.0.0/tcp/{port}", "is not an address to advertise"),
        ("/ip4/198.51.100.7/tcp/0", "port 0"),
        (
            "/ip4/198.51.100.7/udp/{port}",
            "is not an address to advertise",
        ),
        ("{port}", "is not an address to advertise"),
        ("", "is not a multiaddr"),
    ] {
        let error = text.parse::<AdvertiseTemplate>().unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
    }
    let with_peer = format!("/ip4/198.51.100.7/tcp/{{port}}/p2p/{A}");
    assert!(
        with_peer
            .parse::<AdvertiseTemplate>()
            .unwrap_err()
            .contains("drop /p2p/<id>")
    );
}

#[test]
fn filters_match_by_network_and_transport() {
    let matches = |filter: &str, addr: &str| {
        filter
            .parse::<PunchFilter>()
            .unwrap()
            .matches(&addr.parse().unwrap())
    };
    assert!(matches("10.0.0.0/8", "/ip4/10.1.2.3/tcp/1"));
    assert!(matches("10.0.0.0/8", "/ip4/10.1.2.3/udp/1/quic-v1"));
    assert!(!matches("10.0.0.0/8", "/ip4/11.1.2.3/tcp/1"));
    assert!(matches("10.0.0.0/8 tcp", "/ip4/10.1.2.3/tcp/1"));
    assert!(!matches("10.0.0.0/8 tcp", "/ip4/10.1.2.3/udp/1/quic-v1"));
    assert!(matches("fd00::/8  quic", "/ip6/fd00::1/udp/1/quic-v1"));
    assert!(matches("0.0.0.0/0", "/ip4/1.2.3.4/tcp/1"));
    assert!(!matches("0.0.0.0/0", "/ip6/fd00::1/tcp/1"));
    assert!(matches("192.0.2.1", "/ip4/192.0.2.1/tcp/1"));
    assert!(!matches("192.0.2.1", "/ip4/192.0.2.2/tcp/1"));
    assert!(matches("10.0.0.0/8", "/ip6/::ffff:10.0.0.1/tcp/1"));
    assert!(!matches("0.0.0.0/0", "/dns/example.net/tcp/1"));
    for (text, remedy) in [
        ("", "write 10.0.0.0/8"),
        ("10.0.0.0/33", "write 10.0.0.0/8"),
        ("10.0.0.1/8", "write 10.0.0.0/8 or 10.0.0.1"),
        ("10.0.0.0/8 udp", "neither quic nor tcp"),
        ("10.0.0.0/8 tcp quic", "write 10.0.0.0/8"),
        ("example.net", "write 10.0.0.0/8"),
    ] {
        let error = text.parse::<PunchFilter>().unwrap_err();
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn deny_beats_allow_and_no_allow_permits_all() {
    let permits = |allow: &[&str], deny: &[&str], addr: &str| {
        let filters = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let punch = Punch {
            enabled: true,
            advertise: Vec::new(),
            allow: filters(allow),
            deny: filters(deny),
            search: true,
            rotate: Rotate::Auto,
        };
        punch.permits(&addr.parse().unwrap())
    };
    assert!(permits(&[], &[], "/ip4/10.0.0.1/tcp/1"));
    assert!(!permits(&["192.0.2.0/24"], &[], "/ip4/10.0.0.1/tcp/1"));
    assert!(permits(
        &["192.0.2.0/24", "10.0.0.0/8"],
        &[],
        "/ip4/10.0.0.1/tcp/1"
    ));
    assert!(!permits(
        &["10.0.0.0/8"],
        &["10.0.0.1"],
        "/ip4/10.0.0.1/tcp/1"
    ));
    assert!(permits(&[], &["10.0.0.0/8 quic"], "/ip4/10.0.0.1/tcp/1"));
}

proptest! {
    #[test]
    fn templates_and_filters_print_as_they_parse_and_never_panic(
        text in "\\PC{0,30}|[a-z.-]{0,9}:[0-9]{0,6}|/(ip4/1\\.2\\.3\\.4|ip6/::2)/(tcp|udp)/(\\{port\\}|[0-9]{1,6})(/quic-v1)?|[0-9a-f.:]{0,20}(/[0-9]{1,3})?( quic| tcp)?"
    ) {
        if let Ok(template) = text.parse::<AdvertiseTemplate>() {
            prop_assert_eq!(template.to_string().parse(), Ok(template));
        }
        if let Ok(service) = text.parse::<Service>() {
            prop_assert_eq!(service.to_string().parse(), Ok(service));
        }
        if let Ok(filter) = text.parse::<PunchFilter>() {
            prop_assert_eq!(filter.to_string().parse(), Ok(filter));
        }
    }

    #[test]
    fn a_network_matches_what_is_in_it(ip in any::<IpAddr>(), other in any::<IpAddr>(), bits in 0..=32u8, port in 1..u16::MAX) {
        // IPv4 within IPv6 is IPv4 by the filter's rule.
        let (ip, other) = (ip.to_canonical(), other.to_canonical());
        let net = ipnet::IpNet::new(ip, bits).unwrap().trunc();
        let filter: PunchFilter = net.to_string().parse().unwrap();
        let addr = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Tcp(port));
        prop_assert!(filter.matches(&addr(ip)));
        prop_assert_eq!(filter.matches(&addr(other)), net.contains(&other));
    }
}

#[test]
fn settings_that_exclude_each_other_are_named_with_the_remedy() {
    for (file, fault) in [
        (
            "dial: { transports: [tcp] }\nlisten: [/ip4/0.0.0.0/tcp/443, /ip4/0.0.0.0/udp/443/quic-v1]",
            "listen: /ip4/0.0.0.0/udp/443/quic-v1 cannot be listened on: dial.transports has no quic; add it, or remove the address",
        ),
        (
            "dial: { transports: [quic] }\nlisten: [/ip6/::/tcp/443]",
            "listen: /ip6/::/tcp/443 cannot be listened on: dial.transports has no tcp; add it, or remove the address",
        ),
        (
            "punch: { allow: [10.1.0.0/16], deny: [10.0.0.0/8] }",
            "punch.allow: 10.1.0.0/16 has no effect, because 10.0.0.0/8 of punch.deny covers it",
        ),
        (
            "punch: { advertise: ['/ip4/198.51.100.7/tcp/{port}'], deny: [198.51.100.0/24 tcp] }",
            "punch.advertise: /ip4/198.51.100.7/tcp/{port} is never sent, because punch.allow or punch.deny forbids it",
        ),
        (
            "dial: { transports: [quic] }\npunch: { allow: [10.0.0.0/8 tcp] }",
            "punch.allow: 10.0.0.0/8 tcp has no effect, because dial.transports has no tcp",
        ),
    ] {
        let faults = read(file, Purpose::Run).unwrap_err();
        assert!(faults.contains(fault), "{file}: {faults}");
    }
    let partly = "punch: { allow: [10.0.0.0/8, 10.1.0.0/16 tcp], deny: [10.1.0.0/16 quic] }";
    read(partly, Purpose::Run).unwrap();
}
