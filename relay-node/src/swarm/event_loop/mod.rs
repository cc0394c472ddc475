//! The only owner of the swarm: merges events and dispatches them, one file per source.

mod access;
mod connections;
mod directory;
mod draining;
mod hop;
mod identify;
mod listeners;
mod meet;
mod ping;
mod relay;
mod status;

use std::{
    collections::HashMap,
    future::Future,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use libp2p::{PeerId, Swarm, swarm::SwarmEvent};
use p2pnode_daemon::admin::Readiness;
use p2pnode_protocol::{
    directory::{Offer, QueryId},
    draining::Draining,
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::{
    config::{Limits, reload::Reloads},
    core::{
        admission::Admission, connections::Legs, drain::Drain, peer_relays::Partners,
        replication::Copies,
    },
    observe::{control::Question, metrics::Metrics, output::Output},
    swarm::{
        behaviour::{Behaviour, BehaviourEvent},
        boxed_handler::Boxed,
        external::ExternalAddresses,
        listen::Listeners,
    },
};

/// How long the closing of connections may take: it is local work and one packet to each peer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

type Stdout = Output<io::Stdout>;

/// The relay while it runs.
pub(crate) struct EventLoop {
    pub(crate) swarm: Swarm<Boxed<Behaviour>>,
    pub(crate) listeners: Listeners,
    pub(crate) external: ExternalAddresses,
    pub(crate) legs: Legs,
    /// The other relays.
    pub(crate) partners: Partners,
    /// The records that they do not have yet.
    pub(crate) copies: Copies<QueryId>,
    /// Records of peers whose reservation is not known here yet: the two may come over different connections.
    pub(crate) early: HashMap<PeerId, Offer>,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) output: Stdout,
    pub(crate) drain_timeout: Duration,
    /// Once the relay was asked to end.
    pub(crate) drain: Option<Drain>,
    pub(crate) admission: Admission,
    pub(crate) reloads: Reloads,
    /// Who wants to know the relay's state.
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Those in force, for them.
    pub(crate) limits: Limits,
    pub(crate) started: Instant,
}

impl EventLoop {
    /// Serves until `shutdown` is ready, drains, then closes all connections.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut shutdown = pin!(shutdown);
        let mut enforce = tokio::time::interval(access::ENFORCE);
        let mut sweep = tokio::time::interval(directory::SWEEP);
        loop {
            self.act();
            let partner = self.partners.deadline();
            let Some(drained) = self.wake(Instant::now()) else {
                break;
            };
            tokio::select! {
                () = &mut shutdown, if self.drain.is_none() => self.start_drain(Instant::now()),
                event = self.swarm.select_next_some() => self.on_swarm(event)?,
                () = drained => {}
                _ = enforce.tick() => self.enforce(),
                Some(reload) = self.reloads.next() => self.on_reload(reload),
                _ = sweep.tick() => self.sweep(),
                () = at(partner) => {}
                // Whoever asked may be gone: then nobody misses the answer.
                Some(question) = self.questions.recv() => drop(question.send(self.status())),
            }
        }
        self.close().await;
        Ok(())
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) -> anyhow::Result<()> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => self.on_relay(event),
            SwarmEvent::Behaviour(BehaviourEvent::Admission(joined)) => self.on_joined(joined),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::Behaviour(BehaviourEvent::Hop(question)) => self.on_hop(question),
            SwarmEvent::Behaviour(BehaviourEvent::Meet(event)) => self.on_meet(event),
            SwarmEvent::Behaviour(BehaviourEvent::Draining(Draining { peer, .. })) => {
                debug!(%peer, "a peer says that it drains");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Directory(event)) => self.on_directory(event),
            SwarmEvent::Behaviour(
                BehaviourEvent::Memory(never)
                | BehaviourEvent::Connections(never)
                | BehaviourEvent::Handshakes(never)
                | BehaviourEvent::Sources(never)
                | BehaviourEvent::KeepAlive(never),
            ) => match never {},
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => self.on_listening(listener_id, address),
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => self.on_expired(listener_id, &address),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                return self.on_listener_closed(listener_id, &addresses, reason);
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "listener"),
            SwarmEvent::IncomingConnectionError {
                send_back_addr,
                error,
                ..
            } => {
                self.on_incoming_error(&send_back_addr, error);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.legs.established(connection_id, &endpoint);
                debug!(peer = %peer_id, connection = %connection_id, remote = %endpoint.get_remote_address(), "connected");
                self.on_partner_established(peer_id, connection_id);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                num_established,
                ..
            } => {
                self.legs.closed(connection_id);
                self.on_partner_closed(peer_id, connection_id);
                if num_established == 0 {
                    self.early.remove(&peer_id);
                }
                let cause = cause.map(|cause| cause.to_string());
                debug!(peer = %peer_id, connection = %connection_id, cause, "disconnected");
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => self.on_dial_failed(connection_id, &error),
            // The relay takes no peer's word for its own address.
            SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. }
            | _ => {}
        }
        Ok(())
    }

    /// Closes every connection, so that peers learn at once and not by a timeout that the relay is gone.
    async fn close(&mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        info!(
            peers = peers.len(),
            circuits = self.judge().circuits(),
            "closing"
        );
        for peer in peers {
            // An error means that the peer has gone in the meantime.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                if let SwarmEvent::ConnectionEstablished { peer_id, .. } =
                    self.swarm.select_next_some().await
                {
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                }
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!(
                peers = self.swarm.network_info().num_peers(),
                "some connections did not close in time"
            );
        }
    }
}

/// Ready then, or never.
async fn at(when: Option<Instant>) {
    match when {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
