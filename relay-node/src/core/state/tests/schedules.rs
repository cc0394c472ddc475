//! Random schedules.

use proptest::prelude::*;

use super::*;

/// What happens on a connection, or to a circuit that is being made or open.
#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    Close,
    Reserve,
    Renounce,
    Circuit(usize),
    Ready,
    NotTaken,
    Ended,
    Pass(u64),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Connect),
        2 => Just(Step::Close),
        4 => Just(Step::Reserve),
        1 => Just(Step::Renounce),
        6 => (0..4_usize).prop_map(Step::Circuit),
        4 => Just(Step::Ready),
        1 => Just(Step::NotTaken),
        2 => Just(Step::Ended),
        2 => (0..40_u64).prop_map(Step::Pass),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    /// Whatever comes in whatever order: limits hold, a relay that drains grants nothing and stops once, and when all are gone nothing
    /// is left.
    #[test]
    fn limits_hold_drains_end_and_nothing_is_left_behind(
        steps in proptest::collection::vec((step(), 0..8_usize), 0..150),
    ) {
        let mut relay = Relay::new(Settings {
            limits: Limits {
                reservations: 4,
                reservations_per_peer: 2,
                reservation_duration: Duration::from_secs(60),
                circuits: 5,
                circuits_per_peer: 3,
                ..Limits::UNLIMITED
            },
            drain_timeout: Duration::from_secs(30),
            ..Settings::default()
        });
        let peers: [PeerId; 4] = peers();
        // Connection n is peer n % 4's.
        let owner = |connection: usize| peers[connection % 4];
        let (mut making, mut open, mut stops) = (Vec::new(), Vec::new(), 0);
        for (step, connection) in steps {
            let (peer, drains) = (owner(connection), relay.state.drains());
            match step {
                Step::Connect => relay.connect(connection, peer, 1),
                Step::Close => relay.close(connection, peer),
                Step::Reserve => {
                    let granted = relay.reserve(connection, peer);
                    prop_assert!(!drains || granted.is_err());
                }
                Step::Renounce => relay
                    .state
                    .handle_reservation_undelivered(id(connection), relay.now),
                Step::Circuit(to) => {
                    let route = relay.circuit(connection, peer, peers[to]);
                    prop_assert!(!drains || route.is_err());
                    making.extend(route);
                }
                Step::Ready => {
                    if let Some(route) = making.pop()
                        && relay.state.handle_circuit_ready(route.id, relay.now).is_some()
                    {
                        open.push(route.id);
                    }
                }
                Step::NotTaken => {
                    if let Some(route) = making.pop() {
                        let why = "it is gone".to_owned();
                        relay.state.handle_circuit_not_taken(route.id, why, relay.now);
                    }
                }
                Step::Ended => {
                    if let Some(circuit) = open.pop() {
                        relay.state.handle_circuit_ended(circuit, None, relay.now);
                    }
                }
                Step::Pass(seconds) => relay.pass(Duration::from_secs(seconds)),
                Step::Drain => relay.state.handle_shutdown(relay.now),
            }
            for action in relay.actions() {
                match action {
                    Action::AbortCircuit(circuit) => {
                        open.retain(|open| *open != circuit);
                        relay.state.handle_circuit_ended(circuit, None, relay.now);
                    }
                    Action::Stop => stops += 1,
                    _ => {}
                }
            }
            let totals = relay.state.totals();
            prop_assert!(totals.reservations <= 4 && totals.circuits <= 5);
            prop_assert_eq!(totals.circuits, open.len());
        }
        for connection in 0..8 {
            relay.close(connection, owner(connection));
        }
        for route in making {
            relay.state.handle_circuit_undelivered(route.id, relay.now);
        }
        for circuit in open {
            relay.state.handle_circuit_ended(circuit, None, relay.now);
        }
        let stop = |action: &Action| *action == Action::Stop;
        stops += relay.actions().iter().filter(|action| stop(action)).count();
        prop_assert_eq!(stops, usize::from(relay.state.drains()));
        let totals = relay.state.totals();
        prop_assert_eq!((totals.reservations, totals.circuits), (0, 0));
        prop_assert_eq!(relay.state.connection_legs().count(), 0);
        prop_assert_eq!(relay.state.poll_timeout(), None);
    }
}
