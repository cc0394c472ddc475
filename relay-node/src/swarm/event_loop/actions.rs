//! From the state to the swarm.

use libp2p::{
    Multiaddr, PeerId, TransportError,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use p2pnode_protocol::{escape, from_remote};
use p2pnode_transports::innermost;
use tracing::warn;

use super::{EventLoop, Next};
use crate::{
    core::{Action, Event, Keep, Stored},
    swarm::shared_state::now,
};

impl EventLoop {
    /// Carries out what the state decides, and shows what has happened.
    pub(super) fn settle(&mut self) -> Next {
        let mut next = Next::Serve;
        while let Some(action) = self.next_action() {
            if self.carry_out(action) == Next::Stop {
                next = Next::Stop;
            }
        }
        self.show();
        next
    }

    /// Shows what has happened.
    pub(super) fn show(&mut self) {
        let (events, totals) = {
            let mut state = self.state.lock();
            let events: Vec<Event> = std::iter::from_fn(|| state.poll_event()).collect();
            (events, state.totals())
        };
        for event in events {
            self.observer.event(event, totals);
        }
        self.observer.totals(totals);
    }

    fn next_action(&self) -> Option<Action> {
        self.state.lock().poll_action()
    }

    fn carry_out(&mut self, action: Action) -> Next {
        let behaviour = self.swarm.behaviour_mut();
        match action {
            Action::Dial { relay, addrs } => self.dial(relay, addrs),
            // Either fails if what is to be closed is gone in the meantime.
            Action::Close(connection) => _ = self.swarm.close_connection(connection),
            Action::Disconnect(peer) => _ = self.swarm.disconnect_peer_id(peer),
            Action::Classify { peer, class } => self.budgets.set_class(peer, class),
            Action::KeepAlive { peer, keep } => match keep {
                Keep::Always => behaviour.keep_alive.hold(peer),
                Keep::WhileUsed => behaviour.keep_alive.release(peer),
            },
            Action::OfferHop(hop) => behaviour.relay.offer(hop),
            Action::AddExternalAddress(address) => self.swarm.add_external_address(address),
            Action::RemoveExternalAddress(address) => self.swarm.remove_external_address(&address),
            Action::AbortCircuit(id) => behaviour.relay.abort(id),
            Action::Introduce {
                peer,
                connection,
                notice,
            } => behaviour.introduction.ask(peer, connection, notice),
            Action::ReportSharedKey {
                peer,
                connection,
                notice,
            } => behaviour.shared_key.ask(peer, connection, notice),
            Action::Probe {
                to,
                protocol,
                nonce,
            } => self.prober.send(to, protocol, nonce),
            Action::StoreRecord(Stored {
                peer,
                value,
                expires,
            }) => {
                if let Err(error) = behaviour.directory.store(&peer, value, expires) {
                    warn!(%peer, %error, "a record is not stored");
                }
            }
            Action::RemoveRecord(peer) => behaviour.directory.remove(&peer),
            Action::CopyRecord { relay, record } => {
                let Stored {
                    peer,
                    value,
                    expires,
                } = record;
                let copy = behaviour.directory.copy(relay, &peer, value, expires);
                self.copies.insert(copy, (relay, peer));
            }
            Action::AnnounceDrain { over } => behaviour.draining.announce(over),
            Action::Stop => return Next::Stop,
        }
        Next::Serve
    }

    fn dial(&mut self, relay: PeerId, addrs: Vec<Multiaddr>) {
        let opts = DialOpts::peer_id(relay)
            .addresses(addrs)
            .condition(PeerCondition::Always)
            .build();
        if let Err(error) = self.swarm.dial(opts) {
            self.on_dial_failed(relay, &error);
        }
    }

    pub(super) fn on_dial_failed(&mut self, relay: PeerId, error: &DialError) {
        let (error, jitter) = (describe(error), fastrand::f64());
        self.state
            .lock()
            .handle_dial_failed(relay, error, now(), jitter);
    }
}

/// Why a dial failed, in one line: each address, and the innermost cause.
fn describe(error: &DialError) -> String {
    let DialError::Transport(errors) = error else {
        return from_remote(error);
    };
    let each = errors.iter().map(|(address, error)| match error {
        TransportError::Other(error) => format!("{}: {}", escape(address), innermost(error)),
        TransportError::MultiaddrNotSupported(_) => {
            format!("{}: no transport dials such an address", escape(address))
        }
    });
    each.collect::<Vec<_>>().join("; ")
}
