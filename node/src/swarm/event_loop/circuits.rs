//! Over which leg to a relay a circuit goes.

use libp2p::{
    Multiaddr, PeerId,
    swarm::dial_opts::{DialOpts, PeerCondition},
};

use super::{EventLoop, Purpose, circuit_address};

impl EventLoop {
    /// Dials a peer through a relay, over the best leg to it.
    pub(super) fn dial_circuit(&mut self, peer: PeerId, relay: PeerId, purpose: Purpose) {
        if !self.trusted.contains(&relay) {
            self.dial_known(peer, relay, purpose);
        } else if let Some(leg) = self.peers.best_leg(self.relays.up(&relay)) {
            let address = leg.addr.clone();
            self.dial_over(peer, relay, address, purpose);
        }
    }

    pub(super) fn dial_over(
        &mut self,
        peer: PeerId,
        relay: PeerId,
        address: Multiaddr,
        purpose: Purpose,
    ) {
        let circuit = circuit_address(address, relay, peer);
        let opts = DialOpts::peer_id(peer)
            .addresses(vec![circuit])
            .condition(PeerCondition::Always)
            .build();
        self.dial(opts, purpose);
    }

    /// A peer stays relayed for now. If this node dialed it over a leg of one family and the relay reaches it over the other,
    /// the circuit is made anew over a leg of that other family, if there is one. Whether it is.
    pub(super) fn match_families(&mut self, peer: PeerId) -> bool {
        let Some((relay, far)) = self.peers.crossed(&peer) else {
            return false;
        };
        let leg = self.relays.up(&relay).find(|leg| leg.family == far);
        let Some(address) = leg.map(|leg| leg.addr.clone()) else {
            return false;
        };
        tracing::info!(%peer, %relay, family = %far, "making the circuit anew in the family of its far hop");
        self.dial_over(peer, relay, address, Purpose::Matched(peer));
        true
    }

    /// A circuit of [`EventLoop::match_families`] is there: the ones that change families are closed.
    pub(super) fn on_matched(&mut self, peer: PeerId) {
        let crossed: Vec<_> = self
            .peers
            .connections_of(&peer)
            .iter()
            .copied()
            .filter(|id| self.peers.path(*id).is_some_and(|path| path.is_crossed()))
            .collect();
        for id in crossed {
            self.swarm.close_connection(id);
        }
    }
}
