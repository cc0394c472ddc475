//! What is offered, brought here and under way, for those who ask.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use libp2p::PeerId;

use super::{
    Hub,
    hub::State,
    lines::role,
    running::{Running, lock},
};
use crate::observe::status::{AddressStatus, ForwardStatus, ServiceStatus, SessionStatus};

impl Hub {
    /// The addresses that stand for peers.
    pub(crate) fn peer_addresses(&self) -> Vec<AddressStatus> {
        let addresses = lock(self.addresses());
        let all = addresses.table().iter();
        all.map(|(address, peer)| AddressStatus {
            peer,
            address: address.into(),
        })
        .collect()
    }

    /// The services of this node.
    pub(crate) fn services(&self) -> Vec<ServiceStatus> {
        let state = self.state();
        let offered = state.offers.all().map(|offered| {
            let service = &offered.service;
            let (mut bytes_in, mut bytes_out) = offered.bytes();
            let of_service = state.running.values().filter(|running| {
                running.key.role == p2pnode_services::core::sessions::Role::Service
                    && running.service == service.name
            });
            let mut sessions = 0;
            for running in of_service {
                let (more_in, more_out) = running.bytes();
                (bytes_in, bytes_out) = (bytes_in + more_in, bytes_out + more_out);
                sessions += usize::from(running.is_open());
            }
            ServiceStatus {
                name: service.name.to_string(),
                target: service.target.to_string(),
                sessions,
                bytes_in,
                bytes_out,
            }
        });
        offered.collect()
    }

    /// The forwards of this node.
    pub(crate) fn forwards(&self) -> Vec<ForwardStatus> {
        let state = self.state();
        let forwards = state.forwards.all().map(|entry| {
            let shared = &entry.shared;
            let reachable = |peer: &PeerId| state.paths.chosen(peer).is_some();
            let route = shared.route();
            let mut peers = route.iter().map(|(_, peer)| *peer);
            // The one that the next client gets.
            let peer = peers.clone().find(reachable).or_else(|| peers.next());
            ForwardStatus {
                listen: shared.listen.to_string(),
                to: shared.to(),
                peer,
                sessions: match shared.listen.is_udp() {
                    true => flows(&state, shared.number),
                    false => shared.sessions.load(Relaxed),
                },
            }
        });
        forwards.collect()
    }

    /// The sessions of this node, or those with one peer.
    pub(crate) fn open_sessions(&self, peer: Option<&PeerId>) -> Vec<SessionStatus> {
        let state = self.state();
        let running = state.running.values().filter(|running| running.is_open());
        let of_peer = running.filter(|running| peer.is_none_or(|peer| running.key.peer == *peer));
        of_peer
            .map(|running| {
                let on = running.is_on();
                SessionStatus {
                    session: running.key.session.to_string(),
                    role: role(running.key.role).to_owned(),
                    service: running.what(),
                    peer: running.key.peer,
                    client: running.client,
                    kind: on.map(|on| on.kind),
                    transport: on.and_then(|on| on.transport),
                    bytes_in: running.bytes().0,
                    bytes_out: running.bytes().1,
                }
            })
            .collect()
    }
}

/// The flows of a forward.
fn flows(state: &State, forward: u64) -> usize {
    let running = state.running.values();
    let of_forward = |running: &&Arc<Running>| running.forward == Some(forward);
    running.filter(of_forward).count()
}
