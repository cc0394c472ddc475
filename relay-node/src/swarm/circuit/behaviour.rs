//! The relay in the swarm: takes requests to the [`Judge`], circuits to tasks of their own, and tells what has come of them.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt as _, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, ExternalAddresses, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::circuit::{self, Fault, Limit};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Sleep, sleep_until},
};

use super::{
    copy::{self, Carried, Cut, Terms, Traffic},
    exchange::{Ask, NotTaken, Onward},
    handler::{Command, Handler, Said, Verdict},
    pace::Paces,
};
use crate::core::{
    circuits::CircuitId,
    policy::{Judge, Refusal, Route, Volume},
};
use crate::{
    config::Limits,
    core::{admission::Admission, limits},
    observe::metrics::Reason,
};

/// What the relay tells.
#[derive(Debug)]
pub(crate) enum Event {
    /// A reservation was granted, or renewed.
    Reserved {
        peer: PeerId,
        connection: ConnectionId,
        renewed: bool,
    },
    /// A reservation has ended.
    Released {
        peer: PeerId,
        connection: ConnectionId,
        how: &'static str,
    },
    /// A reservation was denied, or a renewal.
    ReservationDenied { peer: PeerId, reason: Reason },
    /// A circuit was denied.
    CircuitDenied {
        source: PeerId,
        destination: PeerId,
        reason: Reason,
        /// What the destination has to do with it.
        why: Option<NotTaken>,
    },
    /// A peer has not asked as it should.
    Malformed { peer: PeerId, fault: Fault },
    /// A peer asks too much at once.
    TooMany { peer: PeerId },
    /// A circuit is open.
    Opened { source: PeerId, destination: PeerId },
    /// A circuit was open and is not.
    Closed(Closed),
    /// Whether peers are served: the relay has an external address.
    Serves(bool),
}

/// A circuit that was open.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The peer that dialed it.
    pub(crate) source: PeerId,
    /// The peer that was dialed.
    pub(crate) destination: PeerId,
    /// For how long.
    pub(crate) open: Duration,
    /// What it has carried.
    pub(crate) traffic: Arc<Traffic>,
    /// Why it ended; `None` if both sides have ended it.
    pub(crate) cut: Option<Cut>,
}

/// The server of circuit relay v2.
pub(crate) struct Behaviour {
    local: PeerId,
    admission: Admission,
    judge: Judge,
    addresses: ExternalAddresses,
    serves: bool,
    /// What each circuit may carry, and what peers are told of it.
    limit: Limit,
    paces: Paces,
    carried: Carried,
    running: JoinSet<Result<(), Cut>>,
    circuits: HashMap<tokio::task::Id, CircuitId>,
    aborts: HashMap<CircuitId, AbortHandle>,
    /// When the next reservation ends.
    end: Option<(Instant, Pin<Box<Sleep>>)>,
    queue: VecDeque<ToSwarm<Event, Command>>,
}

impl Behaviour {
    /// A relay that answers as `local` within `limits`, whom `admission` admits, and counts bytes in `carried`.
    pub(crate) fn new(
        local: PeerId,
        limits: &Limits,
        admission: Admission,
        carried: Carried,
    ) -> Self {
        Self {
            local,
            admission,
            judge: Judge::new(limits),
            addresses: ExternalAddresses::default(),
            serves: false,
            limit: limits::circuit(limits),
            paces: Paces::new(limits.bytes_per_second_per_peer),
            carried,
            running: JoinSet::new(),
            circuits: HashMap::new(),
            aborts: HashMap::new(),
            end: None,
            queue: VecDeque::new(),
        }
    }

    /// What is granted.
    pub(crate) fn judge(&self) -> &Judge {
        &self.judge
    }

    /// From now on every request is denied; circuits that are open stay.
    pub(crate) fn drain(&mut self) {
        self.judge.drain();
    }

    fn tell(&mut self, event: Event) {
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn command(&mut self, peer_id: PeerId, connection: ConnectionId, event: Command) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        });
    }

    fn reserve(&mut self, peer: PeerId, connection: ConnectionId) -> Verdict {
        let admitted = self.admission.admitted(&peer, SystemTime::now());
        let granted = match self
            .judge
            .reserve(admitted, connection, peer, Instant::now())
        {
            Ok(granted) => granted,
            Err(refusal) => {
                let reason = refusal.reason;
                self.tell(Event::ReservationDenied { peer, reason });
                return refuse(refusal);
            }
        };
        self.tell(Event::Reserved {
            peer,
            connection,
            renewed: granted.renewed,
        });
        let local = self.local;
        let addresses = self.addresses.iter().cloned();
        let addresses: Vec<_> = addresses
            .filter_map(|address| address.with_p2p(local).ok())
            .collect();
        let expires = (SystemTime::now() + granted.lasts)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Verdict::Answer {
            message: circuit::reserved(expires.as_secs(), &addresses, self.limit),
            grants: !granted.renewed,
        }
    }

    fn connect(
        &mut self,
        source: PeerId,
        connection: ConnectionId,
        destination: PeerId,
    ) -> Verdict {
        let admitted = self.admission.admitted(&source, SystemTime::now());
        let route = self
            .judge
            .connect(admitted, connection, source, destination);
        let Route { id, to } = match route {
            Ok(route) => route,
            Err(refusal) => {
                self.denied(source, destination, refusal.reason, None);
                return refuse(refusal);
            }
        };
        let (reply, taken) = oneshot::channel();
        let limit = self.limit;
        let ask = Ask {
            source,
            limit,
            reply,
        };
        self.command(destination, to, Command::Ask(ask));
        Verdict::Wait(Onward {
            id,
            taken,
            granted: circuit::connected(limit),
        })
    }

    fn denied(
        &mut self,
        source: PeerId,
        destination: PeerId,
        reason: Reason,
        why: Option<NotTaken>,
    ) {
        self.tell(Event::CircuitDenied {
            source,
            destination,
            reason,
            why,
        });
    }

    /// Both sides are there. If one of their connections is gone meanwhile, so is the circuit.
    fn joined(&mut self, id: CircuitId, source: Stream, destination: Stream) {
        let now = Instant::now();
        let Some((from, to, traffic)) = self.judge.opened(id, now) else {
            return;
        };
        let terms = Terms {
            bytes: self.limit.bytes,
            duration: self.limit.duration,
            pace: self.paces.between(from.peer, to.peer, now),
            traffic,
            carried: self.carried.clone(),
        };
        let task = self.running.spawn(copy::copy(source, destination, terms));
        self.circuits.insert(task.id(), id);
        self.aborts.insert(id, task);
        self.tell(Event::Opened {
            source: from.peer,
            destination: to.peer,
        });
    }

    /// A circuit runs no more.
    fn ran(&mut self, task: tokio::task::Id, cut: Option<Cut>) {
        let Some(id) = self.circuits.remove(&task) else {
            return;
        };
        self.aborts.remove(&id);
        if let Some(ended) = self.judge.closed(id, Instant::now())
            && let Some(open) = ended.open
        {
            self.tell(Event::Closed(Closed {
                source: ended.source.peer,
                destination: ended.destination.peer,
                open,
                traffic: ended.traffic,
                cut,
            }));
        }
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(gone) = self.judge.disconnected(connection, Instant::now()) else {
            return;
        };
        if let Some(Volume { sent, received }) = gone.carried
            && sent + received > 0
        {
            tracing::debug!(%peer, sent, received, "a peer is gone over whose circuits bytes went");
        }
        for id in gone.circuits {
            // Its streams end with the connection; this does not wait for them to notice.
            if let Some(task) = self.aborts.get(&id) {
                task.abort();
            }
        }
        if gone.held {
            self.released(peer, connection, "closed");
        }
    }

    fn released(&mut self, peer: PeerId, connection: ConnectionId, how: &'static str) {
        self.tell(Event::Released {
            peer,
            connection,
            how,
        });
    }

    /// Offers HOP once there is an address to be told of, and takes it back with the last.
    fn serve(&mut self) {
        let serves = self.addresses.iter().next().is_some();
        if serves != self.serves {
            self.serves = serves;
            for (peer, connection) in self.judge.connections().collect::<Vec<_>>() {
                self.command(peer, connection, Command::Serve(serves));
            }
            self.tell(Event::Serves(serves));
        }
    }

    /// Ends the reservations whose time is up, and waits for the next.
    fn poll_ends(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            while let Some(connection) = self.judge.ended(now) {
                if let Some(peer) = self.judge.release(connection) {
                    self.released(peer, connection, "expired");
                }
            }
            let Some(next) = self.judge.next_end() else {
                self.end = None;
                return;
            };
            if self.end.as_ref().is_none_or(|(end, _)| *end != next) {
                self.end = Some((next, Box::pin(sleep_until(next.into()))));
            }
            if let Some((_, sleep)) = &mut self.end
                && sleep.poll_unpin(cx).is_pending()
            {
                return;
            }
            self.end = None;
        }
    }
}

fn refuse(refusal: Refusal) -> Verdict {
    Verdict::Answer {
        message: circuit::refused(refusal.status),
        grants: false,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.serves))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.serves))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if self.addresses.on_swarm_event(&event) {
            self.serve();
        }
        if let FromSwarm::ConnectionEstablished(established) = event {
            let (local, remote) = match established.endpoint {
                ConnectedPoint::Listener {
                    local_addr,
                    send_back_addr,
                } => (local_addr, send_back_addr),
                ConnectedPoint::Dialer { address, .. } => (address, address),
            };
            let (peer, connection) = (established.peer_id, established.connection_id);
            self.judge.connected(connection, peer, local, remote);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.disconnected(closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        said: THandlerOutEvent<Self>,
    ) {
        match said {
            // An error in sending a verdict means that the connection is gone, which is told next.
            Said::Reserve(reply) => {
                let _ = reply.send(self.reserve(peer, connection));
            }
            Said::Connect { destination, reply } => {
                let _ = reply.send(self.connect(peer, connection, destination));
            }
            Said::Untold(error) => {
                tracing::debug!(%peer, %connection, %error, "a reservation could not be told");
                if self.judge.release(connection).is_some() {
                    self.released(peer, connection, "not told");
                }
            }
            Said::Joined {
                id,
                source,
                destination,
            } => self.joined(id, source, destination),
            Said::NotTaken { id, why } => {
                if let Some(ended) = self.judge.closed(id, Instant::now()) {
                    let destination = ended.destination.peer;
                    self.denied(peer, destination, Reason::DestinationFailed, Some(why));
                }
            }
            Said::NotTold { id, why } => {
                if let Some(ended) = self.judge.closed(id, Instant::now()) {
                    let destination = ended.destination.peer;
                    tracing::debug!(source = %peer, %destination, error = %why, "a circuit could not be told");
                }
            }
            Said::Fault(fault) => self.tell(Event::Malformed { peer, fault }),
            Said::TooMany => self.tell(Event::TooMany { peer }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.poll_ends(cx);
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
