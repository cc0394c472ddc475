//! The target of a dial.

use proptest::prelude::*;

use super::*;

#[test]
fn a_target_is_an_id_or_a_name_with_the_addresses_of_both_places() {
    let peers = "relays: [/ip4/192.0.2.1/tcp/1/p2p/$A]\npeers: { db: { id: $B, addrs: [/ip4/192.0.2.7/tcp/1] } }";
    let expected = Target {
        peer: B.parse().unwrap(),
        addrs: ["/ip4/192.0.2.8/tcp/2", "/ip4/192.0.2.7/tcp/1"]
            .map(|addr| addr.parse().unwrap())
            .to_vec(),
    };
    for peer in ["db", "$B"] {
        assert_eq!(
            target(peers, peer, &["/ip4/192.0.2.8/tcp/2/p2p/$B"]).unwrap(),
            expected
        );
    }
    assert!(target(peers, "$A", &[]).unwrap().addrs.is_empty());
    for discovery in [
        "discovery: { dns: [a.example:443] }",
        "discovery: { mdns: true }",
    ] {
        assert!(target(discovery, "$A", &[]).unwrap().addrs.is_empty());
    }
    assert_eq!(
        target("", "$A", &["/ip4/192.0.2.8/tcp/2"])
            .unwrap()
            .addrs
            .len(),
        1
    );
}

#[test]
fn each_target_that_cannot_be_dialed_is_reported_with_what_to_give() {
    let peers = "peers: { db: { id: $B } }";
    for (file, peer, addrs, fault) in [
        (
            peers,
            "bd",
            &[][..],
            "PEER: \"bd\" is neither a peer id nor a name under `peers:`; give an id such as 12D3KooW..., as `p2pnode id` prints it on that host, or one of db",
        ),
        (
            peers,
            "db",
            &[],
            "PEER: $B cannot be found: no relay and no address of it is known; give --relay MULTIADDR or --addr MULTIADDR, or set \
             discovery.dns or discovery.mdns",
        ),
        (
            "",
            "$A",
            &["/ip4/192.0.2.8/tcp/2/p2p/$B"],
            "--addr: /ip4/192.0.2.8/tcp/2/p2p/$B names the peer $B, not $A; drop /p2p/$B or give the right address",
        ),
        (
            "",
            "$A",
            &["/ip4/192.0.2.8/tcp/0"],
            "--addr: \"/ip4/192.0.2.8/tcp/0\" has port 0, which cannot be dialed; give the port of the listener",
        ),
        (
            "access: { allow: [$B] }",
            "$A",
            &["/ip4/192.0.2.8/tcp/2"],
            "PEER: $A is not in access.allow, so this node refuses it; add it there",
        ),
    ] {
        let fault = fault.replace("$A", A).replace("$B", B);
        assert_eq!(target(file, peer, addrs).unwrap_err(), fault);
    }
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    assert!(check_not_own(a, b).is_ok());
    assert!(
        check_not_own(a, a)
            .unwrap_err()
            .to_string()
            .contains("own id")
    );
}

proptest! {
    #[test]
    fn no_argument_of_a_dial_panics(peer in "\\PC{0,60}", addr in "\\PC{0,20}|/ip4/1\\.2\\.3\\.4/tcp/[0-9]{1,5}") {
        let _ = target("", &peer, &[&addr]);
    }
}
