//! The machine in the swarm: passes swarm events to the machine, and carries out its actions.

mod dials;
pub(super) mod outcome;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    future::Future,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use ipnet::IpNet;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};
use p2pnode_protocol::{Family, addr::is_circuit, dcutr::Addresses, hop::Near};
use p2pnode_transports::Remote;
use tokio::time::{Sleep, sleep_until};

use self::dials::Dials;
use super::{
    address::Candidate,
    candidates::{Observation, Policy},
    handler::{Command, Handler, Report},
    machine::{
        Action, Established, Event, FoundPair, Introduced, IntroductionResponse, Machine, Side,
    },
    record::{CandidateOutcome, Record},
    settings::{Circuits, Ports, Settings},
    vouch::Vouch,
};

/// Hole punching as a [`NetworkBehaviour`].
pub(crate) struct Behaviour {
    enabled: bool,
    prefers: Option<Family>,
    circuits: Circuits,
    /// The bytes that have come over each circuit.
    received: HashMap<ConnectionId, Arc<AtomicU64>>,
    machine: Machine,
    ports: Arc<dyn Ports>,
    dials: Dials,
    /// Dials that the swarm has not been given yet.
    queue: VecDeque<ToSwarm<Event, Command>>,
    /// Announced punches, each held until its attempt is decided.
    expected: HashMap<PeerId, Box<dyn Any + Send>>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// A behaviour without peers and candidates.
    pub(crate) fn new(local_peer_id: PeerId, settings: Settings, ports: impl Ports) -> Self {
        let Settings {
            enabled,
            transports,
            families,
            permit,
            names,
            advertise,
            circuits,
            timing,
        } = settings;
        let seed = RandomState::new().hash_one(local_peer_id);
        let ports: Arc<dyn Ports> = Arc::new(ports);
        let advertise = {
            let ports = Arc::clone(&ports);
            Arc::new(move || advertise(&ports.punch_ports()))
        };
        let policy = Policy {
            transports,
            families,
            permit,
            names,
            advertise,
        };
        Self {
            enabled,
            prefers: families.preferred(),
            circuits,
            received: HashMap::new(),
            machine: Machine::new(local_peer_id, enabled, policy, timing, seed),
            ports,
            dials: Dials::default(),
            queue: VecDeque::new(),
            expected: HashMap::new(),
            timer: None,
            waker: None,
        }
    }

    /// A remote observed this node at an address, on a connection that was dialed from a punch port.
    pub(crate) fn observed(&mut self, observation: Observation) {
        self.machine.handle_observed(&observation, now());
        self.wake();
    }

    /// The connection on which an address was observed is gone, and with it what is known of the mapping.
    pub(crate) fn observation_lost(&mut self, connection: ConnectionId) {
        self.machine.handle_observation_lost(connection, now());
        self.wake();
    }

    /// Sets the sockets of this host at its punch ports, and its networks: global ones are offered to all, private ones where a
    /// relay vouches that the peer shares their network.
    pub(crate) fn set_interfaces(&mut self, addrs: &[Multiaddr], networks: Vec<IpNet>) {
        self.machine.handle_interfaces(addrs, networks, now());
        self.wake();
    }

    /// Sets where this node is reached because a router maps its punch ports: offered to all.
    pub(crate) fn set_mapped(&mut self, addrs: &[Multiaddr]) {
        self.machine.handle_mapped(addrs, now());
        self.wake();
    }

    /// Sets the relays' addresses, with their peer ids: never punched, and connections to them never surplus.
    pub(crate) fn set_relays(&mut self, addrs: &[Multiaddr]) {
        self.machine.handle_relays(addrs);
    }

    /// A relay introduced a peer to this node.
    ///
    /// To be called for configured relays only, and for peers that may connect.
    pub(crate) fn introduced(&mut self, introduced: &Introduced) -> IntroductionResponse {
        let response = self.machine.handle_introduced(introduced, now());
        self.wake();
        response
    }

    /// A search for ports has found a pair of sockets, and the transport has this side's.
    pub(crate) fn found(&mut self, pair: &FoundPair) {
        self.machine.handle_found(pair, now());
        self.wake();
    }

    /// The user wants a peer to be direct now.
    pub(crate) fn wanted(&mut self, peer: PeerId) {
        self.machine.handle_wanted(peer, now());
        self.wake();
    }

    /// Streams that cannot move are on these connections of the peer.
    pub(crate) fn used(&mut self, peer: PeerId, connections: &[ConnectionId]) {
        self.machine.handle_used(peer, connections, now());
        self.wake();
    }

    /// A configured relay reports what the ends of a circuit to a peer share, and where it sees the peer.
    pub(crate) fn vouched(&mut self, relay: PeerId, peer: PeerId, near: Near, seen: &[IpAddr]) {
        let vouch = Vouch::of_circuit(near, seen);
        self.machine.handle_vouched(relay, peer, vouch, now());
        self.wake();
    }

    /// Addresses of this node that a relay does not see on its connections, for the request of an introduction.
    pub(crate) fn unseen(&self) -> Vec<Multiaddr> {
        self.machine.unseen()
    }

    /// The last attempt with a peer.
    pub(crate) fn last_record(&self, peer: &PeerId) -> Option<&Record> {
        self.machine.last_record(peer)
    }

    /// A peer has identified itself: the family that it prefers.
    pub(crate) fn identified(&mut self, peer: PeerId, prefers: Option<Family>) {
        self.machine.handle_preference(peer, prefers, now());
        self.wake();
    }

    fn handler(&self, addr: &Multiaddr) -> Handler {
        match self.enabled && is_circuit(addr) {
            true => Handler::active(self.prefers),
            false => Handler::inert(self.prefers),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// `None` if the action is done with that.
    fn carry_out(&mut self, action: Action) -> Option<ToSwarm<Event, Command>> {
        let notify = |peer_id, circuit, event| ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(circuit),
            event,
        };
        let message = |addrs: Vec<Multiaddr>, rtt| Addresses {
            rtt,
            ..addrs.into()
        };
        Some(match action {
            Action::Connect {
                peer,
                circuit,
                addrs,
                rtt,
            } => notify(peer, circuit, Command::Connect(message(addrs, rtt))),
            Action::Reply {
                peer,
                circuit,
                addrs,
                rtt,
            } => notify(peer, circuit, Command::Reply(message(addrs, rtt))),
            Action::Drop {
                peer,
                circuit,
                role,
            } => notify(peer, circuit, Command::Drop(role)),
            Action::KeepAlive {
                peer,
                circuit,
                keep,
            } => notify(peer, circuit, Command::KeepAlive(keep)),
            Action::Dial {
                peer,
                dial,
                addrs,
                role,
            } => {
                tracing::debug!(%peer, %role, ?addrs, "punching");
                let dials = self.dials.begin(peer, dial, addrs, role);
                self.queue
                    .extend(dials.into_iter().map(|opts| ToSwarm::Dial { opts }));
                return None;
            }
            Action::Close { peer, connection } => ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            },
            Action::Expect {
                peer,
                addrs,
                unvouched,
                remote,
            } => {
                let guards = (
                    self.ports.expect_punch(&addrs, remote),
                    self.ports.expect_punch(&unvouched, Remote::Unvouched),
                );
                self.expected.insert(peer, Box::new(guards));
                return None;
            }
            Action::Forget { peer } => {
                self.expected.remove(&peer);
                return None;
            }
        })
    }

    /// Fills in the local sockets, which only the transports know.
    fn with_locals(&self, event: Event) -> Event {
        match event {
            Event::Attempt(mut record) => {
                record.locals = record
                    .received
                    .iter()
                    .filter(|c| {
                        !matches!(
                            c.outcome,
                            CandidateOutcome::NotDialed
                                | CandidateOutcome::OverBudget
                                | CandidateOutcome::Filtered
                        )
                    })
                    .filter_map(|c| self.ports.local_socket(&c.addr))
                    .collect();
                record.locals.sort();
                record.locals.dedup();
                Event::Attempt(record)
            }
            other @ (Event::Direct { .. }
            | Event::GaveUp { .. }
            | Event::Unvouched { .. }
            | Event::Listed { .. }) => other,
        }
    }

    fn on_established(&mut self, established: ConnectionEstablished<'_>) {
        let ConnectionEstablished {
            peer_id,
            connection_id,
            endpoint,
            ..
        } = established;
        let (side, remote) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (Side::Dialer, address),
            ConnectedPoint::Listener { send_back_addr, .. } => (Side::Listener, send_back_addr),
        };
        if endpoint.is_relayed() {
            let facts = (self.circuits)(&peer_id);
            let rtt = facts.as_ref().map(|facts| facts.rtt);
            if let Some(facts) = facts {
                self.received.insert(connection_id, facts.received);
            }
            self.machine
                .handle_relayed(peer_id, connection_id, side, rtt, now());
            return;
        }
        self.dials.handle_connected(connection_id);
        let established = Established {
            connection: connection_id,
            dialed: side == Side::Dialer,
            remote: Candidate::parse(remote),
        };
        self.machine.handle_direct(peer_id, established, now());
    }

    fn on_dial_failure(&mut self, failure: DialFailure<'_>) {
        if let Some(failed) = self.dials.handle_failed(failure) {
            self.machine
                .handle_dial_failed(failed.peer, failed.dial, &failed.outcomes, now());
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local_addr: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(local_addr))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(addr))
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        circuit: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        if let Some(received) = self.received.get(&circuit) {
            let bytes = received.load(Ordering::Relaxed);
            self.machine.handle_received(peer, circuit, bytes, now());
        }
        match report {
            Report::Connect(addrs) => self.machine.handle_connect(peer, circuit, addrs, now()),
            Report::Sync => self.machine.handle_sync(peer, circuit, now()),
            Report::Answer { addrs, rtt, synced } => {
                self.machine
                    .handle_answer(peer, circuit, addrs, rtt, synced, now());
            }
            Report::Failed(role, error) => {
                self.machine
                    .handle_handshake_failed(peer, circuit, role, error, now())
            }
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "listeners and external addresses are not how candidates are found here"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => self.on_established(established),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.received.remove(&connection_id);
                self.machine.handle_closed(peer_id, connection_id, now());
            }
            FromSwarm::DialFailure(failure) => self.on_dial_failure(failure),
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(dial) = self.queue.pop_front() {
                return Poll::Ready(dial);
            }
            if let Some(action) = self.machine.poll_action() {
                match self.carry_out(action) {
                    Some(command) => return Poll::Ready(command),
                    None => continue,
                }
            }
            if let Some(event) = self.machine.poll_event() {
                return Poll::Ready(ToSwarm::GenerateEvent(self.with_locals(event)));
            }
            let Some(due) = self.machine.poll_timeout() else {
                break;
            };
            let (at, sleep) = match &mut self.timer {
                Some(timer) => timer,
                None => self.timer.insert((due, Box::pin(sleep_until(due.into())))),
            };
            if *at != due {
                *at = due;
                sleep.as_mut().reset(due.into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
            self.timer = None;
            // The timer may be a little early or the clock coarse; the deadline is what has passed.
            self.machine.handle_timeout(now().max(due));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The time of the runtime, so that a test may stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
