//! What configured relays report about themselves and about this node, and the reservations on them.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::ConnectionId};
use p2pnode_transports::{Family, Transport, to_socket_addr};

use super::{Action, ListenerEnd, NodeState, Purpose};
use crate::{
    config::RelayAddr,
    core::{
        endings::Ending,
        event::{self, LossCause},
        peers::{How, PathKind},
        relays::{self, Drain, Reserved},
    },
    punch::Observation,
};

/// libp2p's client compares the end of a reservation with this host's clock.
const WRONG_CLOCK: &str = "clock: by this host's clock the reservation is over when it is granted; set the clocks of this host and of the relay right";

impl NodeState {
    /// Dials relays and asks for reservations where that is due.
    pub(super) fn keep_relays(&mut self, now: Instant) {
        self.relays.handle_timeout(now);
        while let Some(action) = self.relays.poll_action() {
            match action {
                relays::Action::Dial { leg, relay } => {
                    self.dial(relay.peer, vec![relay.addr], Purpose::Leg(leg));
                }
                relays::Action::Reserve { relay } => {
                    self.actions.push_back(Action::Reserve(relay));
                }
            }
        }
    }

    /// The request of [`Action::Reserve`] is under way as this listener.
    pub(crate) fn handle_reserving(&mut self, relay: &RelayAddr, listener: ListenerId) {
        self.relays.handle_reserving(relay, listener);
    }

    /// A relay has accepted a reservation in this family, or renewed it.
    pub(crate) fn handle_reserved(&mut self, relay: PeerId, family: Family, now: Instant) {
        self.addresses.changed();
        for lost in self.endings.handle_reserved(&relay) {
            self.on_unreserved(lost, Ending::unknown(), now);
        }
        let reserved = self.relays.handle_reserved(&relay, family);
        if reserved == Reserved::First {
            if self.relays.held() == 1 {
                // The network is there: others may answer too.
                self.relays.handle_hint(now);
            }
            tracing::info!(%relay, %family, "holding a reservation");
            self.report(event::Event::Reserved {
                t: self.t(now),
                relay,
            });
        } else {
            tracing::debug!(%relay, %family, ?reserved, "reservation");
        }
        self.advance(now);
    }

    /// A listener has ended, which may have been that of a reservation.
    pub(super) fn on_reservation_closed(&mut self, id: ListenerId, end: ListenerEnd, now: Instant) {
        let jitter = self.rng.f64();
        let Some(lost) = self.relays.handle_listener_closed(id, now, jitter) else {
            return;
        };
        let ending = match end {
            ListenerEnd::Connection => self.endings.handle_reservation(lost),
            ListenerEnd::Clock => Some(Ending {
                cause: LossCause::Clock,
                reason: WRONG_CLOCK.to_owned(),
            }),
            ListenerEnd::Failed(reason) => Some(Ending {
                cause: LossCause::Refused,
                reason,
            }),
        };
        if let Some(ending) = ending {
            self.on_unreserved(lost, ending, now);
        }
    }

    /// A leg has ended, or is about to, and with it the reservations that it carried.
    pub(super) fn on_leg_ended(
        &mut self,
        connection: ConnectionId,
        relay: PeerId,
        cause: LossCause,
        reason: &str,
        now: Instant,
    ) {
        let reason = if cause == LossCause::Closed && self.relays.is_draining(&relay) {
            "the relay is shutting down".to_owned()
        } else {
            format!("the connection to the relay ended: {reason}")
        };
        let ending = Ending { cause, reason };
        for lost in self.endings.handle_leg(connection, ending.clone()) {
            self.on_unreserved(lost, ending.clone(), now);
        }
    }

    fn on_unreserved(&mut self, lost: relays::Lost, ending: Ending, now: Instant) {
        let (relay, Ending { cause, reason }) = (lost.relay, ending);
        self.relays.handle_unreserved(relay, &reason);
        if lost.is_held {
            tracing::info!(%relay, %reason, "lost the reservation in one family; asking for it again");
        } else if lost.was_held {
            tracing::warn!(target: event::LOGGED, %relay, %reason, "lost the reservation; asking for it again");
            self.report(event::Event::ReservationLost {
                t: self.t(now),
                relay,
                cause,
                reason,
            });
        } else if lost.failures.is_power_of_two() {
            tracing::warn!(%relay, %reason, failures = lost.failures, "the relay gave no reservation; asking again ever less often");
        } else {
            tracing::debug!(%relay, %reason, failures = lost.failures, "the relay gave no reservation");
        }
    }

    /// Why something with a relay has ended. The relay may have announced its end, and then that is the reason.
    pub(super) fn in_words(&self, relay: &PeerId, reason: &str) -> String {
        match self.relays.is_draining(relay) {
            true => format!("the relay is shutting down, as it has announced ({reason})"),
            false => reason.to_owned(),
        }
    }

    /// A peer announces that it is a relay and shuts down, and perhaps how long this node is to stay away then. Only the relays of
    /// this node matter.
    pub(crate) fn handle_draining(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        retry_after: Option<Duration>,
        now: Instant,
    ) {
        match self.relays.handle_draining(connection, retry_after) {
            Drain::Begun => {
                tracing::info!(relay = %peer, "the relay is ending; the next one is asked for a reservation");
            }
            Drain::Known | Drain::NotOurs => {
                tracing::debug!(%peer, %connection, "a peer says that it drains");
            }
        }
        self.advance(now);
    }

    /// A peer has identified itself on a connection, and lists the protocol of hole punching or does not.
    pub(crate) fn handle_protocols(&mut self, connection: ConnectionId, lists_punching: bool) {
        self.peers.handle_identified(connection, lists_punching);
        let Some(peer) = self.peers.connection(connection).map(|known| known.peer) else {
            return;
        };
        if let Some(reason) = self.peers.silence_means(&peer) {
            for dialer in self.dials_of(peer) {
                dialer.handle_silence_means(reason);
            }
        }
    }

    /// A peer has identified itself on a connection, and reports the address at which it sees this node.
    pub(crate) fn handle_identified(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        observed: Multiaddr,
        now: Instant,
    ) {
        self.relays.handle_identified(connection, now);
        self.note_sight(connection, peer, &observed);
        if let Some(observation) = self.believed(connection, peer, observed) {
            if observation.transport == Transport::Quic
                && let Some(at) = to_socket_addr(&observation.addr)
            {
                self.searches.handle_seen(peer, at);
            }
            self.actions.push_back(Action::Observe(observation));
        }
        self.advance(now);
    }

    /// At which address a relay sees this node.
    fn note_sight(&mut self, connection: ConnectionId, relay: PeerId, observed: &Multiaddr) {
        let hop = self.peers.connection(connection);
        let hop = hop.and_then(|known| known.path.hops.first());
        let remote = hop.and_then(|hop| hop.remote);
        let seen = to_socket_addr(observed).map(|at| at.ip());
        let (Some(remote), Some(seen), true) = (remote, seen, self.relays.is_configured(&relay))
        else {
            return;
        };
        self.sights
            .handle_seen(connection, relay, remote.ip(), seen);
    }

    /// The address that a relay sees in place of this node's, because a NAT on the way hides that.
    pub(crate) fn hidden_at(&self, relay: &PeerId) -> Option<IpAddr> {
        self.sights.hidden_at(relay, |ip| self.addresses.has(ip))
    }

    /// The observation of a mapping, if this node believes it. The observer has to be a relay, on a connection that this node
    /// dialed from its punch port. Only then is the address the mapping of that port.
    fn believed(
        &self,
        connection: ConnectionId,
        by: PeerId,
        addr: Multiaddr,
    ) -> Option<Observation> {
        let path = &self.peers.connection(connection)?.path;
        if !self.relays.is_configured(&by)
            || path.kind != PathKind::Direct
            || path.how != How::Dialed
        {
            return None;
        }
        let hop = path.hops.first()?;
        let (transport, family) = (hop.transport?, hop.family?);
        self.leaves_from_punch_port(connection)
            .then_some(Observation {
                addr,
                by,
                connection,
                transport,
                family,
            })
    }

    /// Whether a leg is of no use, because it is a second one for the sake of the punch port, and has another port.
    pub(super) fn is_needless_second(&mut self, connection: ConnectionId, now: Instant) -> bool {
        let hop = self.peers.connection(connection);
        let hop = hop.and_then(|connection| connection.path.hops.first());
        let of = hop.and_then(|hop| Some((hop.transport?, hop.family?)));
        // QUIC has no other port, and without a punch socket there is nothing to see.
        let may_differ = of.is_some_and(|of| {
            of.0 == Transport::Tcp && self.addresses.punch_ports().contains_key(&of)
        });
        let is_punch = !may_differ || self.leaves_from_punch_port(connection);
        self.relays.handle_port(connection, is_punch, now)
    }

    /// The relays that are connected, and where.
    pub(crate) fn connected_relays(&self) -> Vec<(PeerId, IpAddr)> {
        let of = |relay: PeerId| {
            let remotes = self.relays.up(&relay).filter_map(|leg| {
                let connection = self.peers.connection(leg.connection)?;
                Some((relay, connection.path.hops.first()?.remote?.ip()))
            });
            remotes.collect::<Vec<_>>()
        };
        self.relays.relays().flat_map(of).collect()
    }

    /// Whether a connection has the punch port of its transport and family. TCP takes another port where the kernel or a NAT keeps an
    /// earlier connection of that one.
    pub(super) fn leaves_from_punch_port(&self, connection: ConnectionId) -> bool {
        let connection = self.peers.connection(connection);
        let hop = connection.and_then(|connection| connection.path.hops.first());
        let socket = hop.and_then(|hop| Some(((hop.transport?, hop.family?), hop.local?)));
        socket
            .is_some_and(|(of, local)| self.addresses.punch_ports().get(&of) == Some(&local.port()))
    }
}
