//! The reservations of a node: asked for, renewed, lost.

use std::time::{Duration, SystemTime};

use libp2p::{
    Multiaddr, PeerId, core::transport::ListenerId, multiaddr::Protocol, swarm::ConnectionId,
};
use p2pnode_transports::Family;

use super::{World, connection::Route, exchange::Answer};
use crate::{config::RelayAddr, core::state::ListenerEnd};

/// How long a relay may take to grant one.
const PATIENCE: Duration = Duration::from_secs(10);

/// One that is asked for or granted.
pub(super) struct Reservation {
    listener: ListenerId,
    leg: ConnectionId,
    is_granted: bool,
}

impl World {
    /// The reservations on a leg that is gone end.
    pub(super) fn end_reservations(&mut self, host: usize, leg: ConnectionId) {
        let now = self.network.now;
        if let Some(node) = self.hosts[host].node() {
            let gone = node
                .reservations
                .extract_if(.., |reservation| reservation.leg == leg);
            for Reservation { listener, .. } in gone {
                let end = ListenerEnd::Connection;
                node.state.handle_listener_closed(listener, end, now);
            }
        }
    }

    /// Whether a node holds a reservation on this leg.
    pub(super) fn takes_circuits(&mut self, leg: ConnectionId) -> bool {
        let host = self.ends[&leg].host;
        let node = self.hosts[host].node();
        node.is_some_and(|node| {
            node.reservations
                .iter()
                .any(|reservation| reservation.leg == leg)
        })
    }

    pub(super) fn reserve(&mut self, host: usize, relay: &RelayAddr) {
        let listener = ListenerId::next();
        let family = Family::of(&relay.addr).unwrap();
        let ends = self.ends_of(host, Some(relay.peer));
        let over = ends.into_iter().find(|id| match &self.ends[id].route {
            Route::Direct { remote, .. } => remote.family() == family,
            Route::Circuit { .. } => false,
        });
        let node = self.hosts[host].node().unwrap();
        node.state.handle_reserving(relay, listener);
        let relay = relay.peer;
        match over {
            Some(over) => {
                node.reservations.push(Reservation {
                    listener,
                    leg: over,
                    is_granted: false,
                });
                self.renew(host, relay, family, listener, over);
            }
            None => self.after(Duration::ZERO, move |world| {
                let now = world.network.now;
                if let Some(node) = world.hosts[host].node() {
                    let end = ListenerEnd::Failed("not connected".to_owned());
                    node.state.handle_listener_closed(listener, end, now);
                }
            }),
        }
    }

    /// Asks for a reservation or renews it, and renews it again before it ends.
    fn renew(
        &mut self,
        host: usize,
        relay: PeerId,
        family: Family,
        listener: ListenerId,
        over: ConnectionId,
    ) {
        self.ask(
            over,
            PATIENCE,
            Self::serve_reservation,
            move |world, answer| {
                let (now, wall) = (world.network.now, world.network.wall());
                let address_first = world.network.rng.bool();
                let Some(node) = world.hosts[host].node() else {
                    return;
                };
                let mut known = node.reservations.iter_mut();
                let Some(reservation) = known.find(|known| known.listener == listener) else {
                    return;
                };
                let Some(Answer::Reservation(Some(granted))) = answer else {
                    node.reservations.retain(|known| known.listener != listener);
                    let end = ListenerEnd::Failed("refused".to_owned());
                    node.state.handle_listener_closed(listener, end, now);
                    return;
                };
                let is_new = !std::mem::replace(&mut reservation.is_granted, true);
                let local = Protocol::P2p(node.state.local());
                let addrs: Vec<Multiaddr> = granted
                    .addrs
                    .into_iter()
                    .filter(|addr| Family::of(addr) == Some(family))
                    .map(|addr| addr.with(Protocol::P2pCircuit).with(local.clone()))
                    .collect();
                // The transport and the behaviour report by different ways.
                if !address_first {
                    node.state.handle_reserved(relay, family, now);
                }
                for addr in addrs.into_iter().filter(|_| is_new) {
                    node.state.handle_listening(listener, addr, now);
                }
                if address_first {
                    node.state.handle_reserved(relay, family, now);
                }
                let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(granted.expires);
                let lasts = ends.duration_since(wall).unwrap_or_default();
                world.after(lasts * 3 / 4, move |world| {
                    let node = world.hosts[host].node();
                    if node.is_some_and(|node| {
                        node.reservations
                            .iter()
                            .any(|known| known.listener == listener)
                    }) {
                        world.renew(host, relay, family, listener, over);
                    }
                });
            },
        );
    }
}
