//! One [`RelayState`] for all who ask it: the event loop, behaviours that have to answer at once, handlers of connections.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use libp2p::PeerId;

use crate::{
    core::{Now, Refused, RelayState},
    observe::metrics::Metrics,
};

/// The state. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct SharedState {
    state: Arc<Mutex<RelayState>>,
    metrics: Metrics,
}

impl SharedState {
    /// Shares `state`; streams that are refused are counted in `metrics`.
    pub(crate) fn new(state: RelayState, metrics: Metrics) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            metrics,
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
}

/// What both clocks show.
pub(crate) fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}
