//! The relay in the swarm: takes requests from the handlers of connections and returns the answers, and runs the tasks of circuits.

use std::{
    collections::{HashMap, VecDeque},
    io,
    task::{Context, Poll},
    time::Instant,
};

use futures::channel::oneshot;
use libp2p::{
    PeerId, Stream,
    swarm::{
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::circuit::{self, Fault, Limit, Status};
use tokio::task::{AbortHandle, JoinSet};

use super::{
    copy::{self, Terms},
    exchange::{Ask, NotTaken, Onward},
    handler::{Command, Handler, Report, Response},
    pace::Paces,
};
use crate::{
    config::Limits,
    core::{CircuitId, Cut, Hop, LONGEST, Opened, Refusal, Reservation, Route},
    observe::metrics::Carried,
};

/// What the event loop learns.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer asks for a reservation; to be answered with [`Behaviour::answer_reservation`].
    ReservationRequested {
        peer: PeerId,
        connection: ConnectionId,
        reply: Reply,
    },
    /// A peer could not be sent the reservation that it got.
    ReservationUndelivered {
        peer: PeerId,
        connection: ConnectionId,
        error: io::Error,
    },
    /// A peer asks for a circuit; to be answered with [`Behaviour::answer_circuit`].
    CircuitRequested {
        source: PeerId,
        connection: ConnectionId,
        destination: PeerId,
        reply: Reply,
    },
    /// A circuit was not made: the destination did not take it.
    CircuitNotTaken { id: CircuitId, why: NotTaken },
    /// A circuit was not made: the answer could not be delivered to the source.
    CircuitUndelivered {
        id: CircuitId,
        source: PeerId,
        error: io::Error,
    },
    /// Both sides of a circuit are there, and know it; to be carried with [`Behaviour::carry`].
    CircuitReady {
        id: CircuitId,
        source: Stream,
        destination: Stream,
    },
    /// Nothing more is carried over a circuit.
    CircuitEnded { id: CircuitId, cut: Option<Cut> },
    /// A peer has not asked as it should.
    Malformed {
        peer: PeerId,
        connection: ConnectionId,
        fault: Fault,
    },
    /// A peer asks too much at once.
    TooMany {
        peer: PeerId,
        connection: ConnectionId,
    },
}

/// Where an answer goes. If it is dropped, the stream closes without one.
type Reply = oneshot::Sender<Response>;

/// The server of circuit relay v2.
pub(crate) struct Behaviour {
    connections: HashMap<ConnectionId, PeerId>,
    hop: Hop,
    /// What each circuit may carry, and what peers are sent of it.
    limit: Limit,
    paces: Paces,
    carried: Carried,
    running: JoinSet<Result<(), Cut>>,
    circuits: HashMap<tokio::task::Id, CircuitId>,
    aborts: HashMap<CircuitId, AbortHandle>,
    queue: VecDeque<ToSwarm<Event, Command>>,
}

impl Behaviour {
    /// A relay whose circuits carry what `limits` say and count it in `carried`.
    pub(crate) fn new(limits: &Limits, carried: Carried) -> Self {
        Self {
            connections: HashMap::new(),
            hop: Hop::Withheld,
            limit: limit(limits),
            paces: Paces::new(limits.bytes_per_second_per_peer),
            carried,
            running: JoinSet::new(),
            circuits: HashMap::new(),
            aborts: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// Offers HOP on all connections, those that are open and those that come, or no longer.
    pub(crate) fn offer(&mut self, hop: Hop) {
        self.hop = hop;
        let connections = self.connections.iter();
        let commands = connections.map(|(connection, peer)| {
            let serves = Command::Serve(hop == Hop::Offered);
            command(*peer, *connection, serves)
        });
        self.queue.extend(commands);
    }

    /// Answers a request for a reservation.
    pub(crate) fn answer_reservation(
        &self,
        reply: Reply,
        reservation: Result<Reservation, Refusal>,
    ) {
        let response = match reservation {
            Ok(Reservation {
                renewed,
                expires,
                addrs,
            }) => Response::Answer {
                message: circuit::reserved(expires, &addrs, self.limit),
                grants: !renewed,
            },
            // The specification knows no other word for a reservation for which there is no place.
            Err(refusal) => refuse(refusal, Status::ReservationRefused),
        };
        // An error means that the connection is gone.
        let _ = reply.send(response);
    }

    /// Answers a request for a circuit: asks the destination, if there is a route to it.
    pub(crate) fn answer_circuit(
        &mut self,
        reply: Reply,
        [source, destination]: [PeerId; 2],
        route: Result<Route, Refusal>,
    ) {
        let response = match route {
            Ok(Route { id, to }) => {
                let limit = self.limit;
                let (reply, taken) = oneshot::channel();
                let ask = Ask {
                    source,
                    limit,
                    reply,
                };
                self.queue
                    .push_back(command(destination, to, Command::Ask(ask)));
                Response::Wait(Onward {
                    id,
                    taken,
                    granted: circuit::connected(limit),
                })
            }
            Err(refusal) => refuse(refusal, Status::ResourceLimitExceeded),
        };
        // An error means that the connection is gone.
        let _ = reply.send(response);
    }

    /// Carries bytes between the two sides of a circuit until [`Event::CircuitEnded`].
    pub(crate) fn carry(
        &mut self,
        id: CircuitId,
        opened: Opened,
        [source, destination]: [Stream; 2],
        now: Instant,
    ) {
        let (from, to) = (opened.source.peer, opened.destination.peer);
        let terms = Terms {
            bytes: self.limit.bytes,
            duration: self.limit.duration,
            pace: self.paces.between(from, to, now),
            traffic: opened.traffic,
            carried: self.carried.clone(),
        };
        let task = self.running.spawn(copy::copy(source, destination, terms));
        self.circuits.insert(task.id(), id);
        self.aborts.insert(id, task);
    }

    /// Ends a circuit, without waiting for its streams to end.
    pub(crate) fn abort(&self, id: CircuitId) {
        if let Some(task) = self.aborts.get(&id) {
            task.abort();
        }
    }

    fn emit(&mut self, event: Event) {
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    /// The task of a circuit has ended.
    fn ran(&mut self, task: tokio::task::Id, cut: Option<Cut>) {
        if let Some(id) = self.circuits.remove(&task) {
            self.aborts.remove(&id);
            self.emit(Event::CircuitEnded { id, cut });
        }
    }
}

/// What a circuit may carry.
fn limit(limits: &Limits) -> Limit {
    let duration = limits.circuit_duration.min(LONGEST);
    Limit {
        duration: (!duration.is_zero()).then_some(duration),
        bytes: (limits.circuit_bytes != 0).then_some(limits.circuit_bytes),
    }
}

fn command(peer_id: PeerId, connection: ConnectionId, event: Command) -> ToSwarm<Event, Command> {
    ToSwarm::NotifyHandler {
        peer_id,
        handler: NotifyHandler::One(connection),
        event,
    }
}

/// How a refusal is answered, and how for want of room.
fn refuse(refusal: Refusal, no_room: Status) -> Response {
    let status = match refusal {
        Refusal::NotAdmitted(_) => Status::PermissionDenied,
        Refusal::NoReservation => Status::NoReservation,
        Refusal::TooOften | Refusal::Flood => Status::ResourceLimitExceeded,
        Refusal::Draining
        | Refusal::Reservations
        | Refusal::SourceReservations
        | Refusal::Circuits
        | Refusal::Gone => no_room,
    };
    Response::Answer {
        message: circuit::refused(status),
        grants: false,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    p2pnode_protocol::handlers!(self => Handler::new(self.hop == Hop::Offered));

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(established) = event {
            self.connections
                .insert(established.connection_id, established.peer_id);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections.remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        let event = match report {
            Report::Reserve(reply) => Event::ReservationRequested {
                peer,
                connection,
                reply,
            },
            Report::Connect { destination, reply } => Event::CircuitRequested {
                source: peer,
                connection,
                destination,
                reply,
            },
            Report::Undelivered(error) => Event::ReservationUndelivered {
                peer,
                connection,
                error,
            },
            Report::Joined {
                id,
                source,
                destination,
            } => Event::CircuitReady {
                id,
                source,
                destination,
            },
            Report::NotTaken { id, why } => Event::CircuitNotTaken { id, why },
            Report::CircuitUndelivered { id, why } => Event::CircuitUndelivered {
                id,
                source: peer,
                error: why,
            },
            Report::Fault(fault) => Event::Malformed {
                peer,
                connection,
                fault,
            },
            Report::TooMany => Event::TooMany { peer, connection },
        };
        self.emit(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some(ran)) = self.running.poll_join_next_with_id(cx) {
            match ran {
                Ok((task, result)) => self.ran(task, result.err()),
                Err(error) => {
                    let why = if error.is_cancelled() {
                        io::Error::new(io::ErrorKind::ConnectionReset, "a connection is gone")
                    } else {
                        io::Error::other(error.to_string())
                    };
                    self.ran(error.id(), Some(Cut::Stream(why)));
                }
            }
        }
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_circuit_may_carry_is_unlimited_at_zero_and_cut_to_what_the_protocol_carries() {
        let unlimited = Limit {
            duration: None,
            bytes: None,
        };
        assert_eq!(limit(&Limits::UNLIMITED), unlimited);
        let limits = Limits {
            circuit_duration: std::time::Duration::MAX,
            circuit_bytes: 7,
            ..Limits::UNLIMITED
        };
        let longest = Limit {
            duration: Some(LONGEST),
            bytes: Some(7),
        };
        assert_eq!(limit(&limits), longest);
    }
}
