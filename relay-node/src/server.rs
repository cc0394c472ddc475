//! libp2p's relay server, with every event told by the connection that caused it.
//!
//! [`relay::Event`] names peers only. A peer may hold several connections, and libp2p reports
//! [`relay::Event::ReservationClosed`] for each of them, also for those that never had a reservation; so nobody who
//! sees only peers can count. This wrapper empties the inner queue after each input, so that what comes out belongs to
//! the connection that went in.
//!
//! Nor does libp2p tell over which connection of the destination a circuit runs. It shows in the commands between the two:
//! when the destination's connection has answered, the source's is told to go on, or to refuse. See [`Answers`].
//!
//! It takes any connection of the destination that holds a reservation. This takes one of the IP family of the source, if
//! there is one: a circuit that changes families has the slower of the two on one side at least. See [`Places`].
//!
//! And it asks a destination of as many circuits at once as are wanted, but takes ten answers at most. See [`Asks`].
//!
//! Its limits of reservations are lifted, and [`Requests`] judges in their place.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    relay,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};

use crate::{
    admission::Admission,
    asks::Asks,
    config::Limits,
    limits,
    places::Places,
    requests::{Denial, Requests},
};

/// What the relay server tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something happened that libp2p tells of.
    Relay(Attributed),
    /// We have denied a reservation. Told when that is decided, and so also if the peer does not wait for the answer.
    Denied(Denial),
}

/// A [`relay::Event`] and the connection on which it happened.
#[derive(Debug)]
pub(crate) struct Attributed {
    /// The connection whose input led to the event; `None` where it has nothing to do with one.
    ///
    /// For a circuit that is accepted it is the source's connection; for one that closes it is the source's connection,
    /// or the destination's if that one was lost.
    pub(crate) connection: Option<ConnectionId>,
    /// For a circuit that is accepted, the destination's connection, if it is certain.
    pub(crate) onward: Option<ConnectionId>,
    /// What happened.
    pub(crate) event: relay::Event,
}

/// What is told to the swarm.
type Action = ToSwarm<Event, THandlerInEvent<relay::Behaviour>>;

/// [`relay::Behaviour`] with attributed events.
pub(crate) struct Behaviour {
    inner: relay::Behaviour,
    queue: VecDeque<Action>,
    answers: Answers,
    asks: Asks<Action>,
    places: Places,
    requests: Requests,
}

impl Behaviour {
    /// A relay that answers as `local` whom `admission` admits, within `limits`.
    pub(crate) fn new(local: PeerId, limits: &Limits, admission: Admission) -> Self {
        let requests = Requests::new(limits, admission);
        Self {
            inner: relay::Behaviour::new(local, limits::relay(limits, &requests)),
            requests,
            queue: VecDeque::new(),
            answers: Answers::default(),
            asks: Asks::default(),
            places: Places::default(),
        }
    }

    /// From now on every request is denied; circuits that are open stay.
    pub(crate) fn close(&mut self) {
        self.requests.close();
    }

    /// Moves what the inner behaviour queued because of `input` into our own queue.
    ///
    /// The waker does not matter: the swarm polls a behaviour after each input, and [`Self::poll`] leaves a real waker
    /// with the inner behaviour each time it finds nothing to do.
    fn drain(&mut self, input: Option<(PeerId, ConnectionId)>) {
        let mut context = Context::from_waker(Waker::noop());
        let connection = input.map(|(_, connection)| connection);
        while let Poll::Ready(mut action) = self.inner.poll(&mut context) {
            if let Some(connection) = connection {
                self.follow(connection, &action);
            }
            let onward = input.and_then(|(peer, connection)| {
                let onward = onward(&action, peer, connection)?;
                Some(match onward {
                    Onward::Question { to } => {
                        let to = self.places.best(to, connection);
                        if let ToSwarm::NotifyHandler { handler, .. } = &mut action {
                            *handler = NotifyHandler::One(to);
                        }
                        Onward::Question { to }
                    }
                    Onward::Answer { .. } => onward,
                })
            });
            let answers = &mut self.answers;
            let action = action.map_out(|event| {
                let onward = connection.and_then(|source| answers.take(source, &event));
                Event::Relay(Attributed {
                    connection,
                    onward,
                    event,
                })
            });
            match (onward, input) {
                (Some(Onward::Question { to }), _) => {
                    self.queue.extend(self.asks.ask(to, action));
                }
                (Some(Onward::Answer { to }), Some((peer, connection))) => {
                    self.answers.came(to, peer, connection);
                    self.queue.push_back(action);
                    self.queue.extend(self.asks.answered(connection));
                }
                (Some(Onward::Answer { .. }) | None, _) => self.queue.push_back(action),
            }
        }
    }
}

impl Behaviour {
    /// Learns from what `connection` has led to whether it holds a reservation.
    #[expect(
        deprecated,
        reason = "an event that libp2p is going to drop tells of a reservation that was granted and not delivered"
    )]
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "the other events change no reservation"
    )]
    fn follow(
        &mut self,
        connection: ConnectionId,
        action: &ToSwarm<relay::Event, THandlerInEvent<Self>>,
    ) {
        if let ToSwarm::GenerateEvent(event) = action {
            match event {
                relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                    self.places.reserved(connection, *src_peer_id);
                    self.requests.told(connection);
                }
                relay::Event::ReservationTimedOut { .. }
                | relay::Event::ReservationClosed { .. } => {
                    self.places.ended(connection);
                    self.requests.released(connection);
                }
                relay::Event::ReservationReqAcceptFailed { .. } => {
                    self.requests.untold(connection);
                }
                _ => {}
            }
        }
    }
}

/// A command to another connection than the one that spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Onward {
    /// From the source of a circuit to its destination.
    Question { to: ConnectionId },
    /// From the destination to the source.
    Answer { to: ConnectionId },
}

/// What `action` passes on of what `peer` has said on `connection`.
///
/// libp2p asks the destination in a command that still names the source's peer, and passes the answer on in one that names
/// the source's peer, too: so a command to another connection is an answer if the peer that it names is not the one that
/// spoke.
fn onward<E, C>(action: &ToSwarm<E, C>, peer: PeerId, connection: ConnectionId) -> Option<Onward> {
    let ToSwarm::NotifyHandler {
        peer_id,
        handler: NotifyHandler::One(to),
        ..
    } = action
    else {
        return None;
    };
    (*to != connection).then_some(if *peer_id == peer {
        Onward::Question { to: *to }
    } else {
        Onward::Answer { to: *to }
    })
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.places.opened(connection, local);
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let closed = if let FromSwarm::ConnectionClosed(closed) = &event {
            Some((closed.peer_id, closed.connection_id))
        } else {
            None
        };
        let refused = if let FromSwarm::ListenFailure(failure) = &event {
            Some(failure.connection_id)
        } else {
            None
        };
        self.inner.on_swarm_event(event);
        self.drain(closed);
        if let Some((_, connection)) = closed {
            self.answers.forget(connection);
            self.asks.forget(connection);
            self.places.closed(connection);
        } else if let Some(connection) = refused {
            self.places.closed(connection);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.requests.come_on(connection);
        self.inner
            .on_connection_handler_event(peer, connection, event);
        let denied = self.requests.denied().map(Event::Denied);
        self.queue.extend(denied.map(ToSwarm::GenerateEvent));
        self.drain(Some((peer, connection)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.inner.poll(context).map(|action| {
            action.map_out(|event| {
                Event::Relay(Attributed {
                    connection: None,
                    onward: None,
                    event,
                })
            })
        })
    }
}

/// Answers of destinations to circuits that are not decided yet.
///
/// What follows from an answer is an event on the source's connection that names the destination.
#[derive(Debug, Default)]
struct Answers(HashMap<(ConnectionId, PeerId), Waiting>);

/// Circuits of one connection to one peer.
#[derive(Debug)]
struct Waiting {
    /// How many are answered and not decided.
    circuits: usize,
    /// The connection that answered; `None` if there were several, as answers may be decided in any order.
    by: Option<ConnectionId>,
}

impl Answers {
    /// The destination `peer` has answered on `connection` to a circuit over the source's connection `source`.
    fn came(&mut self, source: ConnectionId, peer: PeerId, connection: ConnectionId) {
        let waiting = self.0.entry((source, peer)).or_insert(Waiting {
            circuits: 0,
            by: Some(connection),
        });
        waiting.circuits += 1;
        waiting.by = waiting.by.filter(|by| *by == connection);
    }

    /// The connection over which the circuit runs that `event`, an event of the source's connection `source`, tells of.
    fn take(&mut self, source: ConnectionId, event: &relay::Event) -> Option<ConnectionId> {
        let key = (source, decided(event)?);
        let waiting = self.0.get_mut(&key)?;
        waiting.circuits -= 1;
        let by = waiting.by;
        if waiting.circuits == 0 {
            self.0.remove(&key);
        }
        by
    }

    /// The connection is gone, and with it what it has asked and answered.
    fn forget(&mut self, connection: ConnectionId) {
        self.0
            .retain(|(source, _), waiting| *source != connection && waiting.by != Some(connection));
    }
}

/// The destination of the circuit that `event` decides.
#[expect(
    deprecated,
    reason = "events that libp2p is going to drop tell of circuits, too"
)]
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the other events are not about circuits that wait"
)]
fn decided(event: &relay::Event) -> Option<PeerId> {
    match event {
        relay::Event::CircuitReqAccepted { dst_peer_id, .. }
        | relay::Event::CircuitReqAcceptFailed { dst_peer_id, .. }
        | relay::Event::CircuitReqDenied { dst_peer_id, .. }
        | relay::Event::CircuitReqDenyFailed { dst_peer_id, .. } => Some(*dst_peer_id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    fn accepted(dst_peer_id: PeerId) -> relay::Event {
        relay::Event::CircuitReqAccepted {
            src_peer_id: PeerId::random(),
            dst_peer_id,
        }
    }

    #[test]
    fn a_circuit_runs_over_the_connection_that_answered() {
        let (mut answers, peer) = (Answers::default(), PeerId::random());
        answers.came(id(1), peer, id(2));
        assert_eq!(answers.take(id(1), &accepted(PeerId::random())), None);
        assert_eq!(answers.take(id(3), &accepted(peer)), None);
        assert_eq!(answers.take(id(1), &accepted(peer)), Some(id(2)));
        assert_eq!(answers.take(id(1), &accepted(peer)), None);
        assert!(answers.0.is_empty());
    }

    #[test]
    fn answers_of_two_connections_at_once_make_neither_certain() {
        let (mut answers, peer) = (Answers::default(), PeerId::random());
        answers.came(id(1), peer, id(2));
        answers.came(id(1), peer, id(3));
        assert_eq!(answers.take(id(1), &accepted(peer)), None);
        assert_eq!(answers.take(id(1), &accepted(peer)), None);
        assert!(answers.0.is_empty());
        answers.came(id(1), peer, id(2));
        answers.came(id(1), peer, id(2));
        assert_eq!(answers.take(id(1), &accepted(peer)), Some(id(2)));
        assert_eq!(answers.take(id(1), &accepted(peer)), Some(id(2)));
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let (mut answers, peer) = (Answers::default(), PeerId::random());
        answers.came(id(1), peer, id(2));
        answers.came(id(3), peer, id(2));
        answers.forget(id(2));
        assert!(answers.0.is_empty());
    }
}
