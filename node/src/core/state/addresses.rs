//! What happens to the addresses of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use libp2p::{Multiaddr, core::transport::ListenerId};
use p2pnode_protocol::addr::is_circuit;
use p2pnode_transports::{Family, HostAddress, Transport};

use super::{Action, ListenerEnd, NodeState};
use crate::core::event;

impl NodeState {
    /// A listener has this address from now on: a public one, or the circuit address of a reservation.
    pub(crate) fn handle_listening(&mut self, id: ListenerId, address: Multiaddr, now: Instant) {
        self.addresses.changed();
        self.addresses.listeners.push((id, address.clone()));
        if !is_circuit(&address) {
            tracing::info!(own = tracing::field::Empty, %address, "listening");
            self.report(event::Event::Listening { address });
        }
        self.advance(now);
    }

    /// A listener no longer has this address.
    pub(crate) fn handle_listen_expired(
        &mut self,
        id: ListenerId,
        address: &Multiaddr,
        now: Instant,
    ) {
        self.addresses.changed();
        let listeners = &mut self.addresses.listeners;
        listeners.retain(|(of, known)| (*of, known) != (id, address));
        self.advance(now);
    }

    /// A listener has ended, and with it the reservation, if it was for one.
    pub(crate) fn handle_listener_closed(
        &mut self,
        id: ListenerId,
        end: ListenerEnd,
        now: Instant,
    ) {
        self.addresses.changed();
        self.addresses.listeners.retain(|(of, _)| *of != id);
        self.on_reservation_closed(id, end, now);
        self.advance(now);
    }

    /// The punch ports are these.
    pub(crate) fn handle_punch_ports(
        &mut self,
        ports: BTreeMap<(Transport, Family), u16>,
        now: Instant,
    ) {
        if self.addresses.punch_ports != ports {
            self.addresses.punch_ports = ports;
            self.on_interfaces();
            self.advance(now);
        }
    }

    /// This host has these addresses.
    pub(crate) fn handle_interfaces(&mut self, addresses: BTreeSet<HostAddress>, now: Instant) {
        let networks = |of: &BTreeSet<HostAddress>| -> BTreeSet<_> {
            let network =
                |address: &HostAddress| (address.ip, address.prefix_len, address.has_default_route);
            of.iter().map(network).collect()
        };
        let known = std::mem::replace(&mut self.addresses.interfaces, addresses);
        if !known.is_empty() && networks(&known) != networks(&self.addresses.interfaces) {
            self.relays.handle_network_changed(now);
            self.searches.handle_network_changed();
            self.aging.handle_network_changed();
        }
        self.on_interfaces();
        self.advance(now);
    }

    /// A leg to a relay is open, or open no longer: perhaps packets leave from another address now.
    pub(super) fn on_legs(&mut self) {
        let legs = self.relays.connections();
        let hops = legs.filter_map(|id| self.peers.connection(id)?.path.hops.first());
        let sources = hops.filter_map(|hop| Some(hop.local?.ip())).collect();
        if self.addresses.to_relays != sources {
            self.addresses.to_relays = sources;
            self.on_interfaces();
        }
    }

    fn on_interfaces(&mut self) {
        self.addresses.changed();
        let addresses = self.addresses.at_punch_ports();
        let networks = self.addresses.networks().collect();
        self.actions.push_back(Action::SetInterfaces {
            addresses,
            networks,
        });
    }

    /// Has neighbours who ask answered where this node is: at its listeners and its punch ports, which accept.
    pub(super) fn announce(&mut self) {
        if self.addresses.are_unannounced() {
            let mut addrs: Vec<Multiaddr> = self.addresses.public().cloned().collect();
            addrs.extend(self.addresses.at_punch_ports());
            self.actions.push_back(Action::Announce(addrs));
        }
    }
}
