//! Over which leg to a relay a circuit goes.

use libp2p::{
    Multiaddr, PeerId,
    swarm::dial_opts::{DialOpts, PeerCondition},
};
use p2pnode_transports::Family;

use super::{EventLoop, Purpose, circuit_address};
use crate::peers::{How, PathKind, Score};

impl EventLoop {
    /// Dials a peer through a relay, over the best leg to it.
    pub(super) fn dial_circuit(&mut self, peer: PeerId, relay: PeerId, purpose: Purpose) {
        if !self.trusted.contains(&relay) {
            self.dial_known(peer, relay, purpose);
        } else if let Some(address) = self.best_leg(&relay) {
            self.dial_over(peer, relay, address, purpose);
        }
    }

    /// The address of the relay that a circuit is asked at: one that has answered before others, then the configured family,
    /// then the shorter round trip.
    fn best_leg(&self, relay: &PeerId) -> Option<Multiaddr> {
        let legs = self.relays.up(relay);
        let best = legs.min_by_key(|leg| {
            let connection = self.peers.connection(leg.connection);
            let rtt = connection.and_then(|connection| connection.rtt);
            (
                !leg.is_ready,
                self.peers.policy().rank(leg.family),
                Score::rtt_steps(rtt),
            )
        });
        best.map(|leg| leg.addr.clone())
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
        let Some((relay, far)) = self.crossed(&peer) else {
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

    /// The relay and the far family of the peer's best path, if that is a circuit of ours that changes families.
    fn crossed(&self, peer: &PeerId) -> Option<(PeerId, Family)> {
        let path = self.peers.path(self.peers.best(peer)?)?;
        let is_ours = path.kind == PathKind::Relayed && path.how == How::Dialed;
        let far = path.hops.get(1)?.family?;
        (is_ours && path.is_crossed() && self.peers.policy().allows(far))
            .then_some((path.relay?, far))
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
