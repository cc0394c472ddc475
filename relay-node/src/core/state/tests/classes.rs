//! What each peer may make the relay hold.

use p2pnode_transports::Class;

use super::*;

fn classes(relay: &mut Relay) -> Vec<(PeerId, Class)> {
    let actions = std::iter::from_fn(|| relay.state.poll_action());
    let classes = actions.filter_map(|action| match action {
        Action::Classify { peer, class } => Some((peer, class)),
        _ => None,
    });
    classes.collect()
}

#[test]
fn a_reservation_makes_a_peer_known_and_a_circuit_makes_both_its_ends_carry_until_it_ends() {
    let mut relay = Relay::limited(Limits::UNLIMITED);
    let [source, member] = peers();
    relay.connect(1, member, 1);
    relay.connect(2, source, 2);
    assert_eq!(classes(&mut relay), []);
    relay.reserve(1, member).unwrap();
    assert_eq!(classes(&mut relay), [(member, Class::Known)]);
    relay.reserve(1, member).unwrap();
    let now = relay.now;
    let route = relay
        .state
        .handle_circuit_request(source, id(2), member, now)
        .unwrap();
    assert_eq!(
        classes(&mut relay),
        [(source, Class::Known)],
        "a circuit that is asked for carries nothing, and others may be asked for with it"
    );
    relay.state.handle_circuit_ready(route.id, now).unwrap();
    let both = [(source, Class::Carrying), (member, Class::Carrying)];
    assert_eq!(classes(&mut relay), both);
    relay.state.handle_circuit_ended(route.id, None, now);
    let after = [(source, Class::Stranger), (member, Class::Known)];
    assert_eq!(classes(&mut relay), after);
    relay.close(1, member);
    assert_eq!(classes(&mut relay), [(member, Class::Stranger)]);
    assert!(relay.state.classes.is_empty());
}
