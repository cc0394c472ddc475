//! What identify reports: for the log, and who takes introductions.

use libp2p::identify;
use tracing::debug;

use super::EventLoop;

impl EventLoop {
    pub(super) fn on_identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received {
                peer_id,
                connection_id,
                info,
            } => {
                debug!(peer = %peer_id, connection = %connection_id, agent = info.agent_version, "identified");
                let meet = &mut self.swarm.behaviour_mut().meet;
                meet.identified(&peer_id, connection_id, &info.protocols);
            }
            identify::Event::Error {
                peer_id,
                connection_id,
                error,
            } => {
                debug!(peer = %peer_id, connection = %connection_id, %error, "not identified");
            }
            identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
        }
    }
}
