#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;

const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";

#[test]
fn peer_ids_are_base58_or_a_cid() {
    let peer = peer_id(PEER).unwrap();
    let mut cid = vec![1, 0x72];
    cid.extend(peer.to_bytes());
    let cid = multibase::encode(multibase::Base::Base32Lower, cid);
    assert!(cid.starts_with("bafz"), "{cid}");
    assert_eq!(peer_id(&cid).unwrap(), peer);
    for wrong in [
        "",
        "12D3KooW",
        "QmX",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        "db",
        " ",
        PEER.trim_end_matches('t'),
    ] {
        let error = peer_id(wrong).unwrap_err().to_string();
        assert!(
            error.contains("is not a peer id; give one such as 12D3KooW"),
            "{error}"
        );
    }
}

#[test]
fn quic_and_tcp_over_addresses_and_names_are_endpoints() {
    for (text, transport, port) in [
        ("/ip4/203.0.113.10/udp/443/quic-v1", Transport::Quic, 443),
        ("/ip6/2001:db8::1/tcp/4001", Transport::Tcp, 4001),
        ("/dns/relay.example.net/tcp/1", Transport::Tcp, 1),
        ("/dns4/a.b./udp/1/quic-v1", Transport::Quic, 1),
        ("/dns6/my_host/tcp/65535", Transport::Tcp, 65535),
    ] {
        let parsed = dialable(text).unwrap();
        assert_eq!(
            (parsed.transport, parsed.port, parsed.peer),
            (transport, port, None)
        );
        assert_eq!(parsed.to_string(), text);
        let with_peer = dialable(&format!("{text}/p2p/{PEER}")).unwrap();
        assert_eq!(with_peer.addr, parsed.addr);
        assert_eq!(with_peer.peer.unwrap().to_string(), PEER);
    }
    assert_eq!(listen("/ip4/127.0.0.1/tcp/0").unwrap().port, 0);
}

#[test]
fn each_address_that_cannot_be_used_is_named_with_the_remedy() {
    for line in [
        " => is not a multiaddr | write /ip4/",
        "relay.example.net:443 => is not a multiaddr | write /ip4/",
        "/ip4/1.2.3/tcp/1 => is not a multiaddr | write /ip4/",
        "/ip4/1.2.3.4/tcp/65536 => is not a multiaddr | write /ip4/",
        "/ip4/1.2.3.4/tcp => is not a multiaddr | write /ip4/",
        "/ip4/1.2.3.4 => names neither transport nor port | write /ip4/",
        "/ip4/1.2.3.4/udp/1 => names no transport over UDP | append /quic-v1: /ip4/1.2.3.4/udp/1/quic-v1",
        "/ip4/1.2.3.4/udp/1/quic => is QUIC draft 29 | write /quic-v1",
        "/ip4/1.2.3.4/tcp/1/ws => is not a supported transport | /tcp/PORT",
        "/ip4/1.2.3.4/udp/1/quic-v1/webtransport => is not a supported transport | quic-v1",
        "/ip4/1.2.3.4/tcp/1/p2p-circuit => is a circuit through a relay | without /p2p-circuit",
        "/ip4/1.2.3.4/tcp/0 => has port 0 | give the port",
        "/ip4/0.0.0.0/tcp/1 => has the address 0.0.0.0 | give the address of the host",
        "/ip6/::/tcp/1 => has the address :: | give the address of the host",
        "/ip4/224.0.0.1/tcp/1 => multicast | one host",
        "/dnsaddr/example.net/tcp/1 => needs a TXT lookup | /dns/NAME",
        "/dns/-a/tcp/1 => has no valid host name | relay.example.net",
        "/dns/a..b/tcp/1 => has no valid host name | relay.example.net",
        "/tcp/1/tcp/1 => names no host | begin with /ip4",
        "/unix/x => names neither transport nor port | write /ip4/",
    ] {
        let (text, parts) = line.split_once(" => ").unwrap();
        let (what, remedy) = parts.split_once(" | ").unwrap();
        let error = dialable(text).unwrap_err().to_string();
        assert!(
            error.contains(what) && error.contains(remedy),
            "{text}: {error}"
        );
        assert!(error.starts_with(&quote(text)), "{error}");
    }
    let with_peer = format!("/ip4/0.0.0.0/tcp/1/p2p/{PEER}");
    assert!(
        listen(&with_peer)
            .unwrap_err()
            .to_string()
            .contains("drop /p2p/<id>")
    );
    assert!(
        listen("/dns/a/tcp/1")
            .unwrap_err()
            .to_string()
            .contains("a socket binds to an IP address")
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_errors_are_one_line_that_names_it(
        text in "\\PC{0,40}|(/(ip4|ip6|dns|udp|tcp|quic-v1|p2p|p2p-circuit|1\\.2\\.3\\.4|::1|a|[0-9]{1,6})){0,7}"
    ) {
        for result in [endpoint(&text), listen(&text), dialable(&text)] {
            match result {
                Ok(endpoint) => prop_assert_eq!(self::endpoint(&endpoint.to_string()), Ok(endpoint)),
                Err(error) => {
                    let error = error.to_string();
                    prop_assert!(error.starts_with(&quote(&text)), "{}", error);
                    prop_assert!(!error.contains('\n'), "{}", error);
                }
            }
        }
        let _ = peer_id(&text);
    }

    #[test]
    fn what_is_built_is_parsed(ip in any::<std::net::IpAddr>(), port in any::<u16>(), quic in any::<bool>()) {
        let addr = Multiaddr::from(ip);
        let addr = match quic {
            true => addr.with(Protocol::Udp(port)).with(Protocol::QuicV1),
            false => addr.with(Protocol::Tcp(port)),
        };
        let parsed = listen(&addr.to_string()).unwrap();
        prop_assert_eq!((parsed.addr, parsed.host, parsed.port), (addr, Host::Ip(ip), port));
    }
}
