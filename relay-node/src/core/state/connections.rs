//! Connections: which may be made, and what comes and goes with them.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, StreamProtocol, core::ConnectedPoint, swarm::ConnectionId};
use p2pnode_protocol::{Source, shared_key::Notice};

use super::{Action, Event, RelayState, ReservationEnd};
use crate::core::{
    clock::Now, connections::Remaining, denied::Denied, peer_relays::Side, twins::Seen,
};

/// A connection that misses this many pings in a row is dead.
const MISSED_PINGS: u32 = 2;

impl RelayState {
    /// Somebody at `remote` begins a handshake: whether the relay goes on with it. `measure` returns the resident memory of the
    /// process in bytes, where the system counts it. It is called only if there is a limit and the last measurement is old.
    /// Returns the handshake that has to end for it, if any.
    ///
    /// # Errors
    /// Why it is refused. If it is not, [`Self::handle_established`] or [`Self::handle_incoming_failed`] follows.
    pub fn handle_incoming(
        &mut self,
        connection: ConnectionId,
        remote: &Multiaddr,
        measure: impl FnOnce() -> Option<u64>,
        now: Now,
    ) -> Result<Option<ConnectionId>, Denied> {
        let room = self.memory.check(now.instant, measure)?;
        self.handshakes.set_room(room);
        if let Some(source) = Source::of(remote)
            && self.rates.shuts_out(source, now.instant)
        {
            return Err(Denied::Flood(source));
        }
        // Spares the handshake where its end is known.
        self.connections.check_source(remote)?;
        self.handshakes.begin(connection, remote, now)
    }

    /// An incoming connection did not come about.
    pub fn handle_incoming_failed(&mut self, connection: ConnectionId) {
        self.handshakes.end(connection);
    }

    /// The handshake of a connection with `peer` is over: whether the connection may be used. It is an
    /// `incoming` one from that address, or one that the relay has dialed. One that nobody uses may be closed for it.
    ///
    /// # Errors
    /// Why it is refused, after which [`Self::handle_incoming_failed`] or [`Self::handle_dial_failed`] follows.
    pub fn handle_authenticated(
        &mut self,
        peer: &PeerId,
        incoming: Option<&Multiaddr>,
        now: Now,
    ) -> Result<(), Denied> {
        self.admission
            .may_connect(peer)
            .map_err(Denied::NotAdmitted)?;
        let (policy, relays) = (&self.policy, &self.peer_relays);
        let may = |peer, connection| !relays.contains(&peer) && !policy.uses(&peer, connection);
        let admitted = self.connections.admit(peer, incoming, now.instant, may)?;
        if let Some(displaced) = admitted {
            self.events.push_back(Event::Displaced(displaced));
            self.actions.push_back(Action::Close(displaced));
        }
        Ok(())
    }

    /// A connection with `peer` is open.
    pub fn handle_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        now: Now,
    ) {
        self.handshakes.end(connection);
        let instant = now.instant;
        self.connections
            .established(connection, peer, endpoint, instant);
        self.admission.opened(peer, connection, now.instant);
        self.rates.connected(peer);
        let (local, remote) = match endpoint {
            ConnectedPoint::Listener {
                local_addr,
                send_back_addr,
            } => (local_addr, send_back_addr),
            ConnectedPoint::Dialer { address, .. } => (address, address),
        };
        self.policy.connected(connection, peer, local, remote);
        let side = if endpoint.is_dialer() {
            Side::Dialed
        } else {
            // What the relay dials are other relays, at addresses of theirs that say nothing about a NAT.
            self.introductions.seen.connected(peer, connection, remote);
            self.look_in_front();
            Side::Accepted
        };
        self.peer_relays
            .handle_established(peer, connection, side, now.instant);
        self.settle_peer_relays(now);
    }

    /// A peer speaks these protocols on a connection.
    pub fn handle_identified(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        protocols: &[StreamProtocol],
    ) {
        self.introductions
            .seen
            .identified(peer, connection, protocols);
    }

    /// A peer names the process at the far end of a connection.
    pub fn handle_instance(&mut self, connection: ConnectionId, instance: u64) {
        if self.policy.ends_of(connection).is_some() {
            self.twins.named(connection, instance);
        }
    }

    /// Ping measured a round trip.
    pub fn handle_round_trip(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        rtt: Duration,
        now: Now,
    ) {
        self.connections.measured(connection, rtt);
        let places = self.policy.places(peer);
        match self.twins.answered(connection, places, now.instant) {
            Some(Seen::Two(shared, is_news)) => {
                let [_, at] = shared.at;
                self.actions.push_back(Action::ReportSharedKey {
                    peer: *peer,
                    connection,
                    notice: Notice { at },
                });
                self.events
                    .extend(is_news.then_some(Event::SharedKey(shared)));
            }
            Some(Seen::One) => self.events.push_back(Event::KeyAlone(*peer)),
            None => {}
        }
    }

    /// A connection has not answered so many pings in a row. One that is dead is closed, so that its reservation does not wait for
    /// circuits that cannot arrive.
    pub fn handle_missed_pings(&mut self, peer: PeerId, connection: ConnectionId, missed: u32) {
        if missed >= MISSED_PINGS {
            self.events
                .push_back(Event::Unresponsive { peer, connection });
            self.actions.push_back(Action::Close(connection));
        }
    }

    /// A connection with `peer` was closed. `jitter` is between 0 and 1 and spreads the dials of other relays.
    pub fn handle_closed(&mut self, peer: PeerId, connection: ConnectionId, now: Now, jitter: f64) {
        self.admission.closed(&peer, connection);
        self.introductions.seen.closed(&peer, connection);
        if self.connections.closed(connection) == Some(Remaining::None) {
            self.rates.forget(&peer);
            self.hop_requests.forget(&peer);
            self.introductions.forget(&peer);
            self.records_awaiting_reservation.remove(&peer);
        }
        self.peer_relays
            .handle_closed(peer, connection, now.instant, jitter);
        if let Some(gone) = self.policy.disconnected(connection, now.instant) {
            if let Some(carried) = gone.carried
                && carried.sent + carried.received > 0
            {
                self.events.push_back(Event::PeerGone { peer, carried });
            }
            // Their streams end with the connection; this does not wait for them to notice.
            let aborts = gone.circuits.into_iter().map(Action::AbortCircuit);
            self.actions.extend(aborts);
            if gone.held {
                self.end_reservation(peer, connection, ReservationEnd::Closed, now);
            }
        }
        self.twins.closed(connection);
        self.classify(peer);
        self.settle_peer_relays(now);
        self.settle_drain(now);
    }
}
