//! The relay's end, once it was asked for: nothing new is taken, and what runs has its time.

use std::time::Instant;

use futures::future::{Either, pending};
use tracing::info;

use super::EventLoop;
use crate::{
    core::drain::{Drain, Step},
    observe::readiness,
};

impl EventLoop {
    /// From now on refuses every request, and says so to probes, peers and metrics.
    pub(super) fn start_drain(&mut self, now: Instant) {
        self.drain = Some(Drain::new(self.drain_timeout, now));
        readiness::draining(&self.readiness);
        self.metrics.draining();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.relay.drain();
        behaviour.draining.announce();
        info!(
            timeout = ?self.drain_timeout,
            circuits = self.judge().circuits(),
            reservations = self.judge().reservations(),
            "draining"
        );
    }

    /// What to wait for besides events; `None` once the relay has drained.
    pub(super) fn wake(&mut self, now: Instant) -> Option<impl Future<Output = ()> + use<>> {
        let remains = self.remains();
        let Some(drain) = &mut self.drain else {
            return Some(Either::Left(pending()));
        };
        loop {
            match drain.step(remains, now) {
                Step::Report(left) => info!(
                    circuits = remains.circuits,
                    reservations = remains.reservations,
                    ?left,
                    "waiting for circuits to end"
                ),
                Step::WaitUntil(then) => {
                    return Some(Either::Right(tokio::time::sleep_until(then.into())));
                }
                Step::End => return None,
            }
        }
    }
}
