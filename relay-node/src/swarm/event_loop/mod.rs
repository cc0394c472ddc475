//! The only owner of the swarm. It reports to [`RelayState`](crate::core::RelayState) what happens, and carries out what that decides.
//!
//! - `events`: from the swarm to the state.
//! - `actions`: from the state to the swarm.

mod actions;
mod events;

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use libp2p::{PeerId, Swarm, swarm::SwarmEvent};
use p2pnode_daemon::{
    in_a_row::InARow,
    lossy::Stdout,
    memory,
    service_manager::{self, Watchdog},
};
use p2pnode_protocol::directory::QueryId;
use p2pnode_transports::{Budgets, Interfaces};
use tokio::sync::mpsc;

use crate::{
    config::{Limits, reload::Reloads},
    observe::{
        control::Question,
        observer::Observer,
        status::{Host, Status},
    },
    swarm::{
        autonat::DialBacks,
        behaviour::Behaviour,
        boxed_handler::BoxedHandlers,
        listen::Listeners,
        probe::Prober,
        shared_state::{SharedState, now},
    },
};

/// How long the closing of connections may take: it is local work and one packet to each peer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The relay while it runs.
pub(crate) struct EventLoop {
    pub(crate) swarm: Swarm<BoxedHandlers<Behaviour>>,
    pub(crate) state: SharedState,
    pub(crate) budgets: Budgets,
    pub(crate) observer: Observer<Stdout>,
    pub(crate) listeners: Listeners,
    /// `None` where the host does not let its addresses be watched.
    pub(crate) interfaces: Option<Interfaces>,
    /// Copies of records that are under way: to which relay, and whose record.
    pub(crate) copies: HashMap<QueryId, (PeerId, PeerId)>,
    pub(crate) prober: Prober,
    pub(crate) dial_backs: DialBacks,
    pub(crate) reloads: Reloads,
    /// Who wants to know the relay's state.
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Those in force, for them.
    pub(crate) limits: Limits,
    pub(crate) started: Instant,
}

/// Whether the relay goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Serve,
    Stop,
}

impl EventLoop {
    /// Serves until `shutdown` is ready, drains, then closes all connections.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut shutdown = pin!(shutdown);
        let mut watchdog = Watchdog::of_process();
        let mut in_a_row = InARow::default();
        service_manager::ready();
        while self.settle() == Next::Serve {
            let (timeout, drains) = {
                let state = self.state.lock();
                (state.poll_timeout(), state.drains())
            };
            tokio::select! {
                () = &mut shutdown, if !drains => {
                    service_manager::stopping();
                    self.state.lock().handle_shutdown(now());
                }
                event = self.swarm.select_next_some() => {
                    self.on_swarm(event)?;
                    in_a_row.handled().await;
                }
                () = changed(&mut self.interfaces) => self.on_interfaces(),
                () = at(timeout) => self.state.lock().handle_timeout(now()),
                Some(reload) = self.reloads.next() => self.on_reload(reload),
                () = watchdog.due() => service_manager::alive(),
                // Whoever asked may be gone: then nobody misses the answer.
                Some(question) = self.questions.recv() => drop(question.send(self.status())),
            }
        }
        self.close().await;
        Ok(())
    }

    fn on_interfaces(&mut self) {
        if let Some(interfaces) = &self.interfaces {
            let (addresses, gateways) = (interfaces.addresses().clone(), interfaces.gateways());
            self.state.lock().handle_host(addresses, gateways);
        }
    }

    fn status(&self) -> Status {
        let (network, now) = (self.swarm.network_info(), now());
        let host = Host {
            peer: *self.swarm.local_peer_id(),
            uptime: now.instant.saturating_duration_since(self.started),
            listen: self.swarm.listeners().collect(),
            external: self.swarm.external_addresses().collect(),
            connections: network.connection_counters().num_established(),
            peers: network.num_peers(),
            resident: memory::resident(),
        };
        let (state, metrics) = (self.state.lock(), self.observer.metrics());
        Status::new(host, &state, metrics, &self.limits, now)
    }

    /// Closes every connection, so that peers learn at once and not by a timeout that the relay is gone.
    async fn close(&mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        self.observer
            .closing(peers.len(), self.state.lock().totals());
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
            tracing::warn!(
                peers = self.swarm.network_info().num_peers(),
                "some connections did not close in time"
            );
        }
    }
}

/// Ready when the addresses of this host have changed.
async fn changed(interfaces: &mut Option<Interfaces>) {
    match interfaces {
        Some(interfaces) => poll_fn(|cx| interfaces.poll_changed(cx)).await,
        None => std::future::pending().await,
    }
}

/// Ready then, or never.
async fn at(when: Option<Instant>) {
    match when {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
