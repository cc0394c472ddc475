//! One [`Machine`] for all who ask it: behaviours, handlers of connections, the event loop.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use libp2p::PeerId;

use crate::core::admission::{Machine, Refused, Rules};
use crate::observe::metrics::Metrics;

/// Who is admitted. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    machine: Arc<Mutex<Machine>>,
    metrics: Metrics,
}

impl Admission {
    /// Nobody is connected yet to the relay `local`; what handlers refuse is counted in `metrics`.
    pub(crate) fn new(local: PeerId, rules: Rules, metrics: Metrics) -> Self {
        Self {
            machine: Arc::new(Mutex::new(Machine::new(local, rules))),
            metrics,
        }
    }

    /// Whether `peer` may reserve, call, ask and tell at `now`.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admitted(&self, peer: &PeerId, now: SystemTime) -> Result<(), Refused> {
        self.machine().admitted(peer, now)
    }

    /// The same now; a refusal is counted.
    pub(crate) fn check(&self, peer: &PeerId) -> Result<(), Refused> {
        let admitted = self.admitted(peer, SystemTime::now());
        admitted.inspect_err(|refused| self.metrics.denied(refused.reason()))
    }

    /// The machine, for as long as what is returned lives.
    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
