//! The directory: this node's own record, and the records of peers that are dialed.

use std::{
    collections::BTreeSet,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use libp2p::{Multiaddr, PeerId};
use p2pnode_protocol::{
    Reach, Scope,
    directory::{Registration, publishable},
};
use p2pnode_transports::to_socket_addr;

use super::{Action, NodeState, QueryId, interface::Lookup};
use crate::core::registrar;

impl NodeState {
    /// An answer to a question of [`Action::LookUp`].
    pub(crate) fn handle_record(
        &mut self,
        query: QueryId,
        registration: &Registration,
        now: Instant,
    ) {
        let seq = registration.seq;
        match self.lookups.get(&query).copied() {
            Some(Lookup::OwnRecord { .. }) => {
                tracing::debug!(seq, "found this node's own record of an earlier run");
                self.registrar.handle_own_record(seq, now);
            }
            Some(Lookup::Peer(peer)) => {
                let mut found = registration.found();
                let reach = self.reach_of_records();
                // Where a name leads is known when it is dialed.
                let may_lead = |addr: &Multiaddr| {
                    to_socket_addr(addr).is_none_or(|socket| reach.admits(socket.ip()))
                };
                found.relays.retain_mut(|via| {
                    via.addrs.retain(may_lead);
                    !via.addrs.is_empty()
                        && via.relay != self.local
                        && !self.relays.is_configured(&via.relay)
                });
                tracing::debug!(%peer, seq, ?found, "found the record of a peer");
                for dialer in self.dials_of(peer) {
                    dialer.handle_found(&found, now);
                }
            }
            None => {}
        }
        self.advance(now);
    }

    /// Where a relay that a record names may be dialed: at global addresses, and at private ones or on this host if this node is
    /// connected to a relay of its own there.
    pub(super) fn reach_of_records(&self) -> Reach {
        let legs = self.relays.relays().flat_map(|relay| {
            let legs = self.peers.connections_of(&relay).iter();
            legs.filter_map(|leg| self.peers.path(*leg)?.hops.first()?.remote)
        });
        let scopes: Vec<Scope> = legs.map(|remote| Scope::of(remote.ip())).collect();
        Reach {
            private: scopes.contains(&Scope::Private),
            host: scopes.contains(&Scope::Host),
        }
    }

    /// The answers to a question of [`Action::LookUp`] have ended.
    pub(crate) fn handle_lookup_ended(&mut self, query: QueryId, now: Instant) {
        match self.lookups.remove(&query) {
            Some(Lookup::OwnRecord { relay }) => self.registrar.handle_looked_up(&relay, now),
            Some(Lookup::Peer(peer)) => {
                for dialer in self.dials_of(peer) {
                    dialer.handle_looked_up(now);
                }
            }
            None => {}
        }
        self.advance(now);
    }

    /// A registration of [`Action::Register`] has ended.
    pub(crate) fn handle_registered(&mut self, query: QueryId, arrived: bool, now: Instant) {
        if let Some(relay) = self.registrations.remove(&query) {
            tracing::debug!(%relay, arrived, "the registration of this node's record at a relay has ended");
            self.registrar.handle_registered(&relay, arrived, now);
        }
        self.advance(now);
    }

    /// The number of the next record: one that no earlier record has, as far as is known, and by the clock if that allows it.
    pub(crate) fn next_seq(&mut self, wall: SystemTime) -> u64 {
        let since_1970 = wall.duration_since(UNIX_EPOCH);
        let millis = since_1970.map_or(0, |since| since.as_millis());
        self.registrar
            .next_seq(u64::try_from(millis).unwrap_or(u64::MAX - 1))
    }

    /// Whether no registration is under way: after [`NodeState::handle_shutdown`], whether the relays know that the node leaves.
    pub(crate) fn has_withdrawn(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Asks the relays for the record of a peer.
    pub(super) fn look_up(&mut self, peer: PeerId, lookup: Lookup) {
        let query = QueryId(self.next_number());
        self.lookups.insert(query, lookup);
        self.actions.push_back(Action::LookUp { query, peer });
    }

    /// Registers this node's record at the relays whose turn it is.
    pub(super) fn register(&mut self, now: Instant) {
        if self.addresses.are_unregistered() {
            let addrs = self.addresses.all().filter(|addr| publishable(addr));
            let addrs = addrs.cloned().chain(self.addresses.mapped());
            let addrs: BTreeSet<Multiaddr> = addrs.collect();
            self.registrar.set_addrs(addrs, now);
            let held = self.relays.relays();
            let held: BTreeSet<PeerId> = held.filter(|relay| self.relays.holds(relay)).collect();
            self.registrar.set_relays(&held);
        }
        self.registrar.handle_timeout(now);
        while let Some(action) = self.registrar.poll_action() {
            match action {
                registrar::Action::LookUp(relay) => {
                    self.look_up(self.local, Lookup::OwnRecord { relay });
                }
                registrar::Action::Register(relay) => {
                    self.register_at(relay, self.registrar.addrs());
                }
            }
        }
    }

    fn register_at(&mut self, relay: PeerId, addrs: Vec<Multiaddr>) {
        let query = QueryId(self.next_number());
        self.registrations.insert(query, relay);
        self.actions.push_back(Action::Register {
            query,
            relay,
            addrs,
        });
    }

    /// Registers an empty record, the sign that this node leaves, where it has registered a record.
    pub(super) fn withdraw(&mut self) {
        self.registrations.clear();
        if self.registrar.addrs().is_empty() {
            return;
        }
        let relays: Vec<PeerId> = self.registrar.relays().collect();
        for relay in relays {
            self.register_at(relay, Vec::new());
        }
    }
}
