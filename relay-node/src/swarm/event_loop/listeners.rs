//! What the swarm reports about listeners, and the external addresses that follow from it.

use std::io;

use libp2p::{Multiaddr, core::transport::ListenerId};
use tracing::{debug, info, warn};

use super::EventLoop;
use crate::{
    observe::readiness,
    swarm::external::{Change, is_link_local},
};

impl EventLoop {
    pub(super) fn on_listening(&mut self, listener: ListenerId, address: Multiaddr) {
        debug!(%address, "listening");
        // The lines on stdout are to be copied to peers.
        if !is_link_local(&address) {
            self.written(|output| output.listening(&address));
        }
        let changes = self.external.listening(&address);
        self.listeners.up(listener, address);
        self.apply(changes);
    }

    pub(super) fn on_expired(&mut self, listener: ListenerId, address: &Multiaddr) {
        info!(%address, "no longer listening");
        self.listeners.down(listener, address);
        let changes = self.external.expired(address);
        self.apply(changes);
    }

    /// A listener is gone for good. Nothing but a restart brings it back, so this ends the relay.
    pub(super) fn on_listener_closed(
        &mut self,
        listener: ListenerId,
        addresses: &[Multiaddr],
        reason: Result<(), io::Error>,
    ) -> anyhow::Result<()> {
        for address in addresses {
            self.on_expired(listener, address);
        }
        let addresses = addresses
            .iter()
            .map(Multiaddr::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        match reason {
            Ok(()) => anyhow::bail!("the listener on {addresses} closed; start the relay again"),
            Err(error) => {
                anyhow::bail!("the listener on {addresses} failed: {error}; start the relay again")
            }
        }
    }

    /// Tells the swarm which external addresses came and went.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Added(address) => {
                    debug!(%address, "external address");
                    if self.external.configured() {
                        self.written(|output| output.external(&address));
                    }
                    self.swarm.add_external_address(address);
                }
                Change::Removed(address) => {
                    debug!(%address, "no longer an external address");
                    self.swarm.remove_external_address(&address);
                }
            }
        }
        readiness::update(&self.readiness, &self.listeners, &self.external);
    }

    /// A reader of stdout that went away must not take the relay with it.
    fn written(&mut self, write: impl FnOnce(&mut super::Stdout) -> io::Result<()>) {
        if let Err(error) = write(&mut self.output) {
            warn!(%error, "cannot write to stdout");
        }
    }
}
