//! Each cause of a change of the best path has a case whose last change has it. A cause without a case does not compile.

use super::*;
use crate::{
    core::peers::{How, PathKind},
    punch,
};

const CAUSES: [PathCause; 8] = [
    PathCause::Made(How::Dialed),
    PathCause::Made(How::Accepted),
    PathCause::Made(How::Punched),
    PathCause::Lost,
    PathCause::Closed,
    PathCause::ClosedByPeer,
    PathCause::Missed,
    PathCause::Ranked,
];

/// A node with a circuit to a peer.
struct Case {
    node: Node,
    peer: PeerId,
    circuit: ConnectionId,
    best: Option<(ConnectionId, PathKind)>,
}

impl Case {
    fn new() -> Self {
        let (mut node, _) = Node::with_relays(settings(&[relay(1)]));
        let peer = PeerId::random();
        let circuit = node.dial_relayed(peer);
        Self {
            node,
            peer,
            circuit,
            best: None,
        }
    }

    /// The causes of the changes since the last call.
    fn changes(&mut self) -> Vec<PathCause> {
        let mut causes = Vec::new();
        for event in self.node.events() {
            if let Event::BestPath { best, cause, .. } = event
                && std::mem::replace(&mut self.best, best) != best
            {
                causes.push(cause);
            }
        }
        causes
    }

    /// The peer makes a direct connection.
    fn accepted(&mut self) -> ConnectionId {
        let connection = self.node.accepted(self.peer, "/ip4/192.0.2.7/tcp/40000");
        self.is_direct(connection, 0);
        connection
    }

    /// The punch machine reports the peer direct after so many attempts.
    fn is_direct(&mut self, connection_id: ConnectionId, attempts: u32) {
        let direct = punch::Event::Direct {
            peer: self.peer,
            connection_id,
            attempts,
        };
        self.node.state.handle_punch(direct, self.node.now);
    }

    fn punched(&mut self) {
        let connection_id = self.node.next_id();
        let address = "/ip4/192.0.2.7/udp/40000/quic-v1".parse().unwrap();
        self.node.dialed(connection_id, self.peer, &address);
        self.is_direct(connection_id, 1);
    }

    /// The direct connection answers no ping, beside a circuit.
    fn missed(&mut self) -> ConnectionId {
        let direct = self.accepted();
        let event = ping::Event {
            peer: self.peer,
            connection: direct,
            result: Err(ping::Failure::Timeout),
            missed: 1,
            asked: false,
        };
        self.node.state.handle_ping(event, self.node.now);
        direct
    }

    /// A direct connection, on which the peer has answered a moment ago.
    fn direct(&mut self) -> ConnectionId {
        let direct = self.accepted();
        self.node.closed(self.circuit, self.peer, Ended::Ours);
        self.node.ping(self.peer, direct, false);
        direct
    }
}

fn last_change(cause: PathCause) -> Option<PathCause> {
    let mut case = Case::new();
    let (peer, circuit) = (case.peer, case.circuit);
    match cause {
        PathCause::Made(How::Dialed) => {}
        PathCause::Made(How::Accepted) => drop(case.accepted()),
        PathCause::Made(How::Punched) => case.punched(),
        PathCause::Lost => case.node.closed(circuit, peer, Ended::Broken),
        PathCause::Closed => case.node.closed(circuit, peer, Ended::Ours),
        PathCause::ClosedByPeer => {
            let direct = case.direct();
            case.node.closed(direct, peer, Ended::Theirs);
        }
        PathCause::Missed => drop(case.missed()),
        PathCause::Ranked => {
            let direct = case.missed();
            case.node.ping(peer, direct, false);
        }
    }
    case.changes().last().copied()
}

#[test]
fn each_cause_of_a_change_has_a_case_that_ends_with_it() {
    for cause in CAUSES {
        assert_eq!(last_change(cause), Some(cause));
    }
}

#[test]
fn what_moves_no_path_is_no_change() {
    let mut case = Case::new();
    let direct = case.direct();
    case.changes();
    case.node.ping(case.peer, direct, false);
    let second = case.accepted();
    case.node.closed(second, case.peer, Ended::Broken);
    assert_eq!(case.changes(), []);
}
