//! Peers that ask for a nonce, to learn whether a port of theirs is open to everybody.

use std::net::SocketAddr;

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::probe::{Answer, LOWEST_PORT, Refusal, Request};

use super::{Action, RelayState};

impl RelayState {
    /// A peer asks on this connection for a nonce. It goes to the address that the connection comes from, or nowhere.
    pub fn handle_probe_request(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        request: &Request,
    ) -> Answer {
        if request.port.get() < LOWEST_PORT {
            return Answer::Refused(Refusal::Port);
        }
        let seen = &self.introductions.seen;
        let to = seen
            .source(&peer, connection)
            .filter(|ip| !seen.front.is_own(*ip) && !seen.front.hides(*ip));
        let Some(to) = to else {
            return Answer::Refused(Refusal::Hidden);
        };
        self.actions.push_back(Action::Probe {
            to: SocketAddr::new(to, request.port.get()),
            protocol: request.protocol,
            nonce: request.nonce,
        });
        Answer::Sent { to }
    }
}
