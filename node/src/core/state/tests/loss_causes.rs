//! Each cause of the loss of a reservation has a case whose event has it. A cause without a case does not compile.

use super::{addresses::reserved_over, *};
use crate::core::event::LossCause;

/// The causes that are reported in the case of this one.
fn caused(cause: LossCause) -> Vec<LossCause> {
    let (mut node, known, leg, listener) = reserved_over();
    node.events();
    let relay = known.peer;
    let end = match cause {
        LossCause::Silent => {
            for missed in 1..=3 {
                let event = ping::Event {
                    peer: relay,
                    connection: leg,
                    result: Err(ping::Failure::Timeout),
                    missed,
                    asked: false,
                };
                node.state.handle_ping(event, node.now);
                node.pass(Duration::from_secs(3));
            }
            node.closed(leg, relay, Ended::Ours);
            ListenerEnd::Connection
        }
        LossCause::Closed => {
            node.closed(leg, relay, Ended::Theirs);
            ListenerEnd::Connection
        }
        LossCause::Broken => {
            node.closed(leg, relay, Ended::Reset);
            ListenerEnd::Connection
        }
        LossCause::Ended => {
            node.closed(leg, relay, Ended::Ours);
            ListenerEnd::Connection
        }
        LossCause::Refused => ListenerEnd::Failed("the relay is full".to_owned()),
        LossCause::Clock => ListenerEnd::Clock,
    };
    node.state.handle_listener_closed(listener, end, node.now);
    let mut causes = Vec::new();
    for event in node.events() {
        if let Event::Node(event::Event::ReservationLost { cause, .. }) = event {
            causes.push(cause);
        }
    }
    causes
}

#[test]
fn each_cause_of_a_loss_has_a_case_that_is_reported_with_it_once() {
    for cause in LossCause::ALL {
        assert_eq!(caused(cause), [cause]);
    }
}
