//! Dials of addresses of peers.

use p2pnode_protocol::autonat::Request as Dial;

use super::*;

#[test]
fn the_first_address_at_which_the_relay_sees_the_peer_is_dialed_and_no_other() {
    let mut relay = Relay::new(Settings::default());
    let [peer, other] = peers();
    relay.connect(1, peer, 1);
    relay.connect(2, other, 2);
    let addresses = [
        "/ip4/192.168.1.2/udp/40017/quic-v1",
        "/ip4/198.51.100.2/udp/40017/quic-v1",
        "/ip4/198.51.100.1/udp/443/quic-v1",
        "/dns/localhost/tcp/40017",
        "/ip4/198.51.100.1/tcp/40017",
        "/ip4/198.51.100.1/udp/40017/quic-v1",
    ];
    let mut addresses: Vec<Option<libp2p::Multiaddr>> = addresses
        .iter()
        .map(|address| Some(address.parse().unwrap()))
        .collect();
    addresses.insert(0, None);
    let request = Dial {
        addresses,
        nonce: 7,
    };
    let dialed = |peer, connection| relay.state.dial_back(peer, id(connection), &request);
    let tcp = "/ip4/198.51.100.1/tcp/40017".parse().unwrap();
    assert_eq!(dialed(peer, 1), Some((5, tcp)));
    let quic = "/ip4/198.51.100.2/udp/40017/quic-v1".parse().unwrap();
    assert_eq!(dialed(other, 2), Some((2, quic)));
    assert_eq!(dialed(peer, 2), None, "another's connection");
    assert_eq!(dialed(peer, 9), None, "no connection");
}
