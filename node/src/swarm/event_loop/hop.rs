//! What relays tell of the other legs of circuits.

use std::{io, time::Instant};

use futures::TryFutureExt as _;
use libp2p::swarm::ConnectionId;

use super::EventLoop;
use crate::{
    core::peers::{How, PathKind},
    observe::metrics::Cause,
    swarm::hop::{self, Circuit, HopReply},
};

impl EventLoop {
    /// From now on asks about the other leg of a connection, if it is a circuit whose relay is known.
    pub(super) fn inquire(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.peers.connection(id) else {
            return;
        };
        let (PathKind::Relayed, Some(relay), Some(via)) =
            (connection.path.kind, connection.path.relay, connection.via)
        else {
            return;
        };
        let circuit = Circuit {
            connection: id,
            peer: connection.peer,
            dialed: connection.path.how == How::Dialed,
            relay,
            via,
        };
        self.inquiries.handle_opened(circuit, now);
        for dialer in self.dials_of(circuit.peer) {
            dialer.await_far_hop(now);
        }
    }

    /// Asks what is to be asked.
    pub(super) fn ask_relays(&mut self, now: Instant) {
        while let Some(circuit) = self.inquiries.poll(now) {
            let streams = &mut self.swarm.behaviour_mut().streams;
            let stream = streams.open(circuit.relay, circuit.via, hop::PROTOCOL);
            let stream = stream.map_err(io::Error::from);
            self.exchanges
                .ask(circuit.connection, stream, circuit.request());
        }
    }

    pub(super) fn on_hop_reply(&mut self, connection: ConnectionId, reply: &HopReply) {
        let Some(circuit) = self
            .inquiries
            .handle_told(connection, reply, Instant::now())
        else {
            return;
        };
        tracing::debug!(peer = %circuit.peer, relay = %circuit.relay, %connection, ?reply, "asked for the other leg of a circuit");
        if let HopReply::Leg(leg) = reply {
            self.peers.far_hop(connection, hop::hop(*leg));
            self.observe_path(circuit.peer, Cause::Ranked, Instant::now());
        }
        // Where there is a punch, a circuit is made anew after it.
        if !self.punches && self.match_families(circuit.peer) {
            return;
        }
        let best = self.best_path(&circuit.peer);
        for dialer in self.dials_of(circuit.peer) {
            dialer.handle_far_hop(best.clone());
        }
    }
}
