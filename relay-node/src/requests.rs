//! Between libp2p's relay and our [`Gate`]: libp2p asks its rate limiters last about each request, and those here ask the gate.
//!
//! A limiter is told the peer and its address. Which connection asks is told by [`server`](crate::server), which hands libp2p one
//! event of one connection at a time. The refusal that a peer sees is always `RESOURCE_LIMIT_EXCEEDED`: libp2p lets a limiter say
//! no, and not why.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use libp2p::{Multiaddr, PeerId, relay, swarm::ConnectionId};

use crate::{
    admission::{Admission, Refused},
    config::Limits,
    gate::Gate,
    metrics::Reason,
    source::Source,
};

/// A reservation, or a renewal, that we have denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Who asked.
    pub(crate) peer: PeerId,
    /// Why it was denied.
    pub(crate) reason: Reason,
}

/// The gate, and what it is asked at the moment. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    state: Arc<Mutex<State>>,
    admission: Admission,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    connection: Option<ConnectionId>,
    denied: Option<Denial>,
}

impl Requests {
    /// Requests of peers that `admission` admits are granted within `limits`.
    pub(crate) fn new(limits: &Limits, admission: Admission) -> Self {
        let state = State {
            gate: Gate::new(limits),
            connection: None,
            denied: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            admission,
        }
    }

    /// The limiter of circuits.
    pub(crate) fn circuits(&self) -> Box<dyn relay::RateLimiter> {
        let requests = self.clone();
        Box::new(move |peer: PeerId, _: &Multiaddr, _: Instant| {
            let admitted = requests.admission.admitted(&peer, SystemTime::now());
            admitted.is_ok() && requests.state().gate.takes_circuits()
        })
    }

    /// The limiter of reservations.
    pub(crate) fn reservations(&self) -> Box<dyn relay::RateLimiter> {
        let requests = self.clone();
        Box::new(move |peer: PeerId, address: &Multiaddr, _: Instant| {
            let mut state = requests.state();
            // Requests come as events of connections, so it is known.
            let Some(connection) = state.connection else {
                return false;
            };
            let admitted = requests.admission.admitted(&peer, SystemTime::now());
            let judged = admitted
                .map_err(Refused::reason)
                .and_then(|()| state.gate.reserve(connection, peer, Source::of(address)));
            state.denied = judged.err().map(|reason| Denial { peer, reason });
            state.denied.is_none()
        })
    }

    /// What libp2p is told next was said on `connection`.
    pub(crate) fn come_on(&self, connection: ConnectionId) {
        self.state().connection = Some(connection);
    }

    /// The reservation that was denied since the last call, if there was one.
    pub(crate) fn denied(&self) -> Option<Denial> {
        self.state().denied.take()
    }

    /// From now on everything is denied.
    pub(crate) fn close(&self) {
        self.state().gate.close();
    }

    /// The peer was told of its reservation.
    pub(crate) fn told(&self, connection: ConnectionId) {
        self.state().gate.told(connection);
    }

    /// The peer could not be told of its reservation.
    pub(crate) fn untold(&self, connection: ConnectionId) {
        self.state().gate.untold(connection);
    }

    /// A reservation ended, or a connection that may have held one.
    pub(crate) fn released(&self, connection: ConnectionId) {
        self.state().gate.release(connection);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::UNLIMITED;

    #[test]
    fn a_denial_is_told_once_with_its_reason() {
        let limits = Limits {
            reservations: 1,
            ..UNLIMITED
        };
        let requests = Requests::new(&limits, Admission::open());
        let mut limiter = requests.reservations();
        let (peer, address) = (PeerId::random(), Multiaddr::empty());
        let mut ask = |connection| {
            requests.come_on(ConnectionId::new_unchecked(connection));
            limiter.try_next(peer, &address, Instant::now())
        };
        assert!(ask(1));
        assert_eq!(requests.denied(), None);
        assert!(ask(1), "a renewal");
        assert!(!ask(2));
        let denial = Denial {
            peer,
            reason: Reason::ReservationLimit,
        };
        assert_eq!(requests.denied(), Some(denial));
        assert_eq!(requests.denied(), None);
    }

    #[test]
    fn circuits_are_denied_once_the_gate_is_closed() {
        let requests = Requests::new(&UNLIMITED, Admission::open());
        let mut limiter = requests.circuits();
        let (peer, address) = (PeerId::random(), Multiaddr::empty());
        assert!(limiter.try_next(peer, &address, Instant::now()));
        requests.close();
        assert!(!limiter.try_next(peer, &address, Instant::now()));
    }
}
