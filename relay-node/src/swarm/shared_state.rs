//! One [`RelayState`] for all who ask it: the event loop, behaviours that have to answer at once, handlers of connections.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use libp2p::{PeerId, swarm::ConnectionId};
use p2pnode_protocol::{Source, guarded::Verdict};

use crate::{
    core::{DenialReason, Now, Refused, RelayState, Request},
    observe::metrics::Metrics,
};

/// The state. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct SharedState {
    state: Arc<Mutex<RelayState>>,
    /// Shared, because each protocol of each connection has it.
    metrics: Arc<Metrics>,
}

impl SharedState {
    /// Shares `state`; streams that are refused are counted in `metrics`.
    pub(crate) fn new(state: RelayState, metrics: Metrics) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            metrics: Arc::new(metrics),
        }
    }

    /// The state, for as long as what is returned lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, RelayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream of `peer` is served now. A refusal is counted.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admits(&self, peer: &PeerId) -> Result<(), Refused> {
        let admitted = self.lock().admits(peer, SystemTime::now());
        admitted.inspect_err(|refused| self.metrics.denied(refused.reason()))
    }

    /// Whether a request of `peer`, which is connected from `source`, is served. A refusal is counted.
    pub(crate) fn judge(&self, request: Request, peer: &PeerId, source: Option<Source>) -> Verdict {
        let verdict = self.lock().judge(request, peer, source, Instant::now());
        if let Some(reason) = DenialReason::of(verdict) {
            self.metrics.denied(reason);
        }
        verdict
    }

    /// The same for a request on this connection.
    pub(crate) fn judge_on(
        &self,
        request: Request,
        peer: &PeerId,
        connection: ConnectionId,
    ) -> Verdict {
        let source = self.lock().source_of(connection);
        self.judge(request, peer, source)
    }
}

/// What both clocks show.
pub(crate) fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}
