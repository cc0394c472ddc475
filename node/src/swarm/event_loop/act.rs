//! What the state asks for, as calls of the swarm, and what it reports, as calls of observers.

use std::{
    io,
    time::{Instant, SystemTime},
};

use futures::TryFutureExt as _;
use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::dial_opts::{DialOpts, PeerCondition},
};
use p2pnode_protocol::{Reach, directory::Registration};
use p2pnode_transports::Transport;
use tokio::sync::mpsc;

use super::EventLoop;
use crate::{
    config::RelayAddr,
    core::{
        admission::Refused,
        event,
        state::{Action, DialId, Event, Purpose, QueryId},
    },
    discovery::Presence,
    punch::IntroductionResponse,
    services::Chosen,
    swarm::{behaviour::access, hop, join},
};

impl EventLoop {
    /// Does what the state asks for, until it asks for nothing.
    pub(super) fn act(&mut self) {
        let now = Instant::now();
        self.state
            .handle_punch_ports(self.sockets.punch_ports(), now);
        let is_gone = |(_, reports): &mut (DialId, mpsc::Sender<_>)| reports.is_closed();
        let gone: Vec<_> = self.reports.extract_if(.., is_gone).collect();
        for (dial, _) in gone {
            self.state.handle_dial_abandoned(dial, now);
        }
        loop {
            while let Some(event) = self.state.poll_event() {
                self.report(event, now);
            }
            match self.state.poll_action() {
                Some(action) => self.carry_out(action, now),
                None => break,
            }
        }
        let state = &self.state;
        let metrics = self.observers.metrics();
        metrics.set_key_shared(state.key_elsewhere().is_some());
        self.observers.gauges(
            state.peers(),
            state.relays(),
            state.claims(),
            &self.sockets,
            state.listeners().next().is_some(),
            |peer| state.is_relay(peer),
        );
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        let behaviour = self.swarm.behaviour_mut();
        match action {
            Action::Dial {
                peer,
                addresses,
                purpose,
                reach,
            } => {
                let opts = DialOpts::peer_id(peer)
                    .addresses(addresses)
                    .condition(PeerCondition::Always)
                    .build();
                self.dial(peer, opts, purpose, reach, now);
            }
            Action::Close(connection) => {
                self.swarm.close_connection(connection);
            }
            Action::Reserve(relay) => self.reserve(&relay),
            Action::AskHop(circuit, request) => {
                let streams = &mut behaviour.streams;
                let stream = streams.open(circuit.relay, circuit.via, hop::PROTOCOL);
                let stream = stream.map_err(io::Error::from);
                self.hops.ask(circuit.connection, stream, request);
            }
            Action::Join(request) => {
                let streams = &mut behaviour.streams;
                let (relay, connection) = (request.relay, request.connection);
                let stream = streams.open_lazily(relay, connection, join::PROTOCOL);
                self.joins.present(request, stream.map_err(io::Error::from));
            }
            Action::AskIntroduction {
                request,
                connection,
            } => {
                let addrs = behaviour.punch.unseen();
                behaviour.introduction.ask(request, connection, addrs);
            }
            Action::LookUp { query, peer } => {
                let id = behaviour.directory.look_up(&peer);
                self.queries.insert(id, query);
            }
            Action::Register {
                query,
                relay,
                addrs,
            } => self.register(query, relay, &addrs, now),
            Action::Ping { peer, connection } => behaviour.ping.now(peer, connection),
            Action::Search(peer) => self.discovery.search(peer),
            Action::EndSearch(peer) => self.discovery.forget(&peer),
            Action::SetAccess { allowed, named } => {
                behaviour.access = access(allowed.as_ref()).into();
                behaviour.admission.set_named(named);
            }
            Action::Allow(peer) => {
                if let Some(access) = behaviour.access.as_mut() {
                    access.allow_peer(peer);
                }
            }
            Action::Disallow(peer) => {
                if let Some(access) = behaviour.access.as_mut() {
                    access.disallow_peer(peer);
                }
            }
            Action::Punch(introduced) => {
                let response = behaviour.punch.introduced(&introduced);
                if response == IntroductionResponse::Refused {
                    self.observers.refused(Refused::Introductions);
                }
                self.state
                    .handle_introduced(introduced.peer, introduced.asked, response, now);
            }
            Action::SamplePorts(relay) => {
                self.port_searches.sample(self.plan.clone(), relay);
            }
            Action::SampleNextPorts(relay, count) => {
                self.port_searches
                    .sample_next(self.plan.clone(), relay, count);
            }
            Action::WatchPort(relay) => self.port_searches.watch(self.plan.clone(), relay),
            Action::OfferSearch(ask, connection) => behaviour.introduction.offer(ask, connection),
            Action::SearchPorts(begin) => {
                self.port_searches.search(begin, self.sockets.clone());
            }
            Action::StopPorts => self.port_searches.stop(),
            Action::PunchFound(pair) => behaviour.punch.found(&pair),
            Action::Want(peer) => behaviour.punch.wanted(peer),
            Action::Observe(observation) => behaviour.punch.observed(observation),
            Action::ForgetObservation(connection) => behaviour.punch.observation_lost(connection),
            Action::SetInterfaces {
                addresses,
                networks,
            } => behaviour.punch.set_interfaces(&addresses, networks),
            Action::SetMapped(addresses) => behaviour.punch.set_mapped(&addresses),
            Action::Vouch {
                relay,
                peer,
                near,
                seen,
            } => behaviour.punch.vouched(relay, peer, near, &seen),
            Action::Classify { peer, class } => self.sockets.budgets().set_class(peer, class),
            Action::Announce(addrs) => {
                if let Some(responder) = &self.responder {
                    let links = self.links.borrow().clone();
                    responder.announce(Presence { links, addrs });
                }
            }
        }
    }

    fn dial(
        &mut self,
        peer: PeerId,
        opts: DialOpts,
        purpose: Purpose,
        reach: Option<Reach>,
        now: Instant,
    ) {
        let connection = opts.connection_id();
        self.state.handle_dialing(connection, purpose);
        let admission = &mut self.swarm.behaviour_mut().admission;
        admission.own_dial(connection, peer);
        // A dial opens the sockets that are missing.
        self.observers.touch();
        // The swarm begins all dials of the addresses before it returns.
        let (sockets, swarm) = (&self.sockets, &mut self.swarm);
        if let Err(error) = sockets.dial_within(reach, || swarm.dial(opts)) {
            self.on_dial_error(connection, &error, now);
        }
    }

    fn reserve(&mut self, relay: &RelayAddr) {
        let circuit = relay
            .addr
            .clone()
            .with(Protocol::P2p(relay.peer))
            .with(Protocol::P2pCircuit);
        match self.swarm.listen_on(circuit) {
            Ok(listener) => self.state.handle_reserving(relay, listener),
            // The address was parsed as a relay's before it came here, so the circuit transport takes it.
            Err(error) => {
                tracing::error!(relay = %relay.peer, %error, "cannot ask for a reservation")
            }
        }
    }

    fn register(&mut self, query: QueryId, relay: PeerId, addrs: &[Multiaddr], now: Instant) {
        let seq = self.state.next_seq(SystemTime::now());
        match Registration::sign(&self.keypair, seq, addrs) {
            Ok(record) => {
                let local = *self.swarm.local_peer_id();
                let directory = &mut self.swarm.behaviour_mut().directory;
                let id = directory.register(relay, &local, record);
                self.queries.insert(id, query);
            }
            // The key has signed the node's connections before.
            Err(error) => {
                tracing::error!(%error, "cannot sign this node's record");
                self.state.handle_registered(query, false, now);
            }
        }
    }

    fn report(&mut self, event: Event, now: Instant) {
        match event {
            Event::Node(event) => self.observers.emit(event),
            Event::Dial { dial, event } => self.report_dial(dial, event),
            Event::Wanted(peer) => self.observers.wanted(peer, now),
            Event::Unwanted(peer) => self.observers.unwanted(&peer),
            Event::BestPath { peer, best, cause } => {
                self.observers.best_path(peer, best, cause, now);
                self.report_path(peer);
            }
            Event::NoPath { peer, reason } => self.hub.handle_unreachable(peer, &reason),
            Event::Punch(record) => self.observers.punch(&record),
            Event::Searched(report) => self.observers.searched(&report),
            Event::Admitted(_) => self.observers.touch(),
            Event::OutOfRange => self.observers.out_of_range(),
        }
    }

    /// Services use the chosen connection.
    fn report_path(&self, peer: PeerId) {
        let peers = self.state.peers();
        let chosen = peers.best(&peer).map(|connection| Chosen {
            connection,
            rtt: peers.connection(connection).and_then(|known| known.rtt),
        });
        let remote = chosen.and_then(|chosen| {
            let path = &peers.connection(chosen.connection)?.path;
            let is_quic = path.hops.first()?.transport == Some(Transport::Quic);
            path.remote().filter(|_| is_quic)
        });
        let path = remote.and_then(|remote| self.sockets.datagrams().path(&peer, remote));
        self.hub.datagram_path(peer, path);
        self.hub.handle_path(peer, chosen);
    }

    /// A reader that is a whole channel behind has stopped reading; the loop does not wait for it.
    fn report_dial(&mut self, dial: DialId, event: event::Event) {
        let Some(at) = self.reports.iter().position(|(known, _)| *known == dial) else {
            return;
        };
        let is_last = matches!(event, event::Event::Result(_));
        if self.reports[at].1.try_send(event).is_err() {
            tracing::warn!("a report of a dial was dropped: its reader is too slow or gone");
        }
        if is_last {
            self.reports.swap_remove(at);
        }
    }
}
