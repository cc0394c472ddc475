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

/// The state. Clones are one, and small, because each protocol of each connection has one.
#[derive(Debug, Clone)]
pub(crate) struct SharedState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<RelayState>,
    metrics: Metrics,
    /// Of the newest connection, whose protocols begin one after the other.
    asker: Mutex<Option<Arc<Asker>>>,
}

/// Who asks on a connection: its peer, and from where that is connected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) peer: PeerId,
    pub(crate) source: Option<Source>,
}

impl SharedState {
    /// Shares `state`; streams that are refused are counted in `metrics`.
    pub(crate) fn new(state: RelayState, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            metrics,
            asker: Mutex::new(None),
        }))
    }

    /// What all protocols of a connection have together.
    pub(crate) fn asker(&self, peer: PeerId, source: Option<Source>) -> Arc<Asker> {
        let asker = Asker { peer, source };
        let last = &mut *lock(&self.0.asker);
        if last.as_deref() != Some(&asker) {
            *last = None;
        }
        Arc::clone(last.get_or_insert_with(|| Arc::new(asker)))
    }

    /// The state, for as long as what is returned lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, RelayState> {
        lock(&self.0.state)
    }

    /// Whether a stream of `peer` is served now. A refusal is counted.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admits(&self, peer: &PeerId) -> Result<(), Refused> {
        let admitted = self.lock().admits(peer, SystemTime::now());
        admitted.inspect_err(|refused| self.0.metrics.denied(refused.reason()))
    }

    /// Whether a request of `peer`, which is connected from `source`, is served. A refusal is counted.
    pub(crate) fn judge(&self, request: Request, peer: &PeerId, source: Option<Source>) -> Verdict {
        let verdict = self.lock().judge(request, peer, source, Instant::now());
        if let Some(reason) = DenialReason::of(verdict) {
            self.0.metrics.denied(reason);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What both clocks show.
pub(crate) fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}
