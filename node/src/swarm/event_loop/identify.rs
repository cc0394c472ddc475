//! What identify tells: that a relay is ready, and from which address it sees this node.

use std::time::Instant;

use libp2p::identify::Event;

use super::EventLoop;
use crate::{
    core::peers::{How, PathKind},
    punch::Observation,
};

impl EventLoop {
    pub(super) fn on_identify(&mut self, event: Event) {
        match event {
            Event::Received {
                connection_id,
                peer_id,
                info,
            } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, observed = %info.observed_addr, agent = %info.agent_version, "identified");
                self.relays.handle_identified(connection_id, Instant::now());
                let Some(connection) = self.peers.connection(connection_id) else {
                    return;
                };
                // Only a relay is believed, and only about a connection that this node dialed from its punch port: such an
                // address is the mapping of that port.
                if !self.trusted.contains(&peer_id)
                    || connection.path.kind != PathKind::Direct
                    || connection.path.how != How::Dialed
                {
                    return;
                }
                let Some(hop) = connection.path.hops.first() else {
                    return;
                };
                let (Some(transport), Some(family), Some(local)) =
                    (hop.transport, hop.family, hop.local)
                else {
                    return;
                };
                if self.sockets.punch_ports().get(&(transport, family)) == Some(&local.port()) {
                    self.swarm.behaviour_mut().punch.observed(Observation {
                        addr: info.observed_addr,
                        by: peer_id,
                        connection: connection_id,
                        transport,
                        family,
                    });
                }
            }
            Event::Error {
                peer_id,
                connection_id,
                error,
            } => {
                tracing::debug!(peer = %peer_id, connection = %connection_id, %error, "identify failed");
            }
            Event::Sent { .. } | Event::Pushed { .. } => {}
        }
    }
}
