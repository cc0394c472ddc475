//! Nonces to ports of peers.

use std::num::NonZeroU16;

use p2pnode_protocol::{
    mapping::Protocol,
    probe::{Answer, Nonce, Refusal, Request as Probe},
};
use p2pnode_transports::HostAddress;

use super::*;

fn ask(relay: &mut Relay, peer: PeerId, connection: usize, port: u16) -> Answer {
    let request = Probe {
        protocol: Protocol::Tcp,
        port: NonZeroU16::new(port).unwrap(),
        nonce: Nonce([7; 12]),
    };
    relay
        .state
        .handle_probe_request(peer, id(connection), &request)
}

#[test]
fn a_nonce_goes_to_the_address_at_which_the_relay_sees_the_peer_and_to_no_other() {
    let mut relay = Relay::new(Settings::default());
    let [peer, other] = peers();
    relay.connect(1, peer, 1);
    relay.connect(2, other, 2);
    relay.actions();
    let to = "198.51.100.1".parse().unwrap();
    assert_eq!(ask(&mut relay, peer, 1, 40017), Answer::Sent { to });
    let probe = Action::Probe {
        to: "198.51.100.1:40017".parse().unwrap(),
        protocol: Protocol::Tcp,
        nonce: Nonce([7; 12]),
    };
    assert_eq!(relay.actions(), [probe]);
    let hidden = Answer::Refused(Refusal::Hidden);
    assert_eq!(
        ask(&mut relay, peer, 2, 40017),
        hidden,
        "another's connection"
    );
    assert_eq!(ask(&mut relay, peer, 9, 40017), hidden, "no connection");
    let port = Answer::Refused(Refusal::Port);
    assert_eq!(ask(&mut relay, peer, 1, 1023), port);
    assert_eq!(relay.actions(), []);
}

#[test]
fn a_relay_sends_no_nonce_to_its_own_host_nor_to_a_translator_in_front_of_it() {
    let mut relay = Relay::new(Settings::default());
    let own = HostAddress::plain("10.0.0.5".parse().unwrap(), 24);
    let router = "10.0.0.1".parse().unwrap();
    relay.state.handle_host([own].into(), &[router].into());
    let [peer] = peers();
    let from = [
        "/ip4/10.0.0.5/tcp/9",
        "/ip4/10.0.0.1/tcp/9",
        "/ip4/127.0.0.1/tcp/9",
    ];
    for (connection, from) in from.into_iter().enumerate() {
        relay.established(connection, peer, &incoming(&addr(from)));
        relay.actions();
        let hidden = Answer::Refused(Refusal::Hidden);
        assert_eq!(ask(&mut relay, peer, connection, 40017), hidden, "{from}");
        assert_eq!(relay.actions(), []);
    }
}
