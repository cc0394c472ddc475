//! Peers that ask for a dial, to learn whether an address of theirs is reached from outside.

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use p2pnode_protocol::{addr, autonat::Request, probe::LOWEST_PORT};

use super::RelayState;

impl RelayState {
    /// A peer asks on this connection to be dialed. Returns which of its addresses is dialed, and its place: the first one with the IP
    /// that the connection comes from. So nobody else can be made to receive anything.
    pub fn dial_back(
        &self,
        peer: PeerId,
        connection: ConnectionId,
        request: &Request,
    ) -> Option<(usize, Multiaddr)> {
        let seen = &self.introductions.seen;
        let source = seen
            .source(&peer, connection)
            .filter(|ip| !seen.front.is_own(*ip) && !seen.front.hides(*ip))?;
        let mut addresses = request.addresses.iter().enumerate();
        addresses.find_map(|(at, address)| {
            let address = address.as_ref()?;
            let endpoint = addr::dialable(&address.to_string()).ok()?;
            let addr::Host::Ip(ip) = endpoint.host else {
                return None;
            };
            let is_own = ip == source && endpoint.port >= LOWEST_PORT;
            is_own.then(|| (at, address.clone()))
        })
    }
}
