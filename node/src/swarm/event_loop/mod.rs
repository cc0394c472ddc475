//! The one owner of the swarm. It merges what comes from the network, from commands and from the clock, gives it to the pure
//! machines, and carries out what they ask for. It decides nothing.

mod circuits;
mod connections;
mod directory;
mod discovery;
mod hop;
mod identify;
mod join;
mod meet;
mod observe;
mod ping;
mod punch;
mod reconnect;
mod relay_client;
mod status;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    identity::Keypair,
    multiaddr::Protocol,
    swarm::{
        ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use p2pnode_protocol::directory::QueryId;
use p2pnode_transports::{Family, Transport};
use tokio::sync::{mpsc, watch};

use join::Joins;

use crate::{
    config::Config,
    core::{
        dialer::{self, Dialer},
        event::Event,
        found_relays::FoundRelays,
        liveness::Liveness,
        peers::PeerTable,
        reconnect::Reconnector,
        registrar::Registrar,
        relays::{self, RelayKeeper},
    },
    discovery::{Discovery, Links, Neighbours, Responder},
    observe::observers::Observers,
    swarm::{
        behaviour::{Behaviour, BehaviourEvent},
        handle::Command,
        hop::{Exchanges, Inquiries},
        interfaces::Interfaces,
        introduction::{IntroductionRequest, Introductions},
        join::Tokens,
    },
};

/// How long a stopping node waits for its connections to close. The other sides notice sooner; this bounds a dead one.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// The swarm, the machines, and what connects them.
pub(crate) struct EventLoop {
    keypair: Keypair,
    swarm: Swarm<Behaviour>,
    sockets: p2pnode_transports::Handle,
    peers: PeerTable,
    relays: RelayKeeper,
    dials: Vec<Dial>,
    /// What the dials under way are for.
    purposes: HashMap<ConnectionId, Purpose>,
    /// The relays: what they observe is believed.
    trusted: HashSet<PeerId>,
    punches: bool,
    /// Peers whose punch was given up for now, and when it is tried again.
    next_punches: HashMap<PeerId, Option<Instant>>,
    interfaces: Interfaces,
    /// Circuits whose other leg their relay is asked for.
    inquiries: Inquiries,
    exchanges: Exchanges,
    /// Relays that are asked for introductions.
    introductions: Introductions,
    liveness: Liveness,
    /// The peers to dial again when they are lost.
    reconnector: Reconnector,
    registrar: Registrar,
    /// Whether addresses or reservations have changed since the registrar was last told.
    is_moved: bool,
    /// Registrations under way, and where.
    registrations: HashMap<QueryId, PeerId>,
    /// Questions for this node's own record under way, and which relay is told when they are answered.
    earlier: HashMap<QueryId, PeerId>,
    /// Questions under way, and for whom.
    lookups: HashMap<QueryId, PeerId>,
    found_relays: FoundRelays<(PeerId, Purpose)>,
    /// Those of them that `access.allow` does not name, and that are let through while they are connected.
    lent: HashSet<PeerId>,
    /// Whether relays admit this node.
    joins: Joins,
    discovery: Discovery,
    /// Who was where a moment ago.
    neighbours: Neighbours,
    links: watch::Sender<Links>,
    responder: Option<Responder>,
    /// The punch ports that it tells.
    announced: BTreeMap<(Transport, Family), u16>,
    observers: Observers,
    started: Instant,
}

/// A dial that somebody waits for.
struct Dial {
    dialer: Dialer,
    reports: mpsc::Sender<Event>,
    /// The connection that is being pinged for it.
    pinging: Option<ConnectionId>,
}

impl Dial {
    /// The dialer, if a ping over that connection is under way for it, and from now on none.
    fn take_ping(&mut self, connection: ConnectionId) -> Option<&mut Dialer> {
        self.pinging.take_if(|pinging| *pinging == connection)?;
        Some(&mut self.dialer)
    }
}

/// What a dial is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// A leg to a relay.
    Leg,
    /// A relay that a record names.
    FoundLeg(PeerId),
    /// The peer of a [`Dialer`], at its own addresses.
    Direct(PeerId),
    /// The peer of a [`Dialer`], where it may be.
    Local { peer: PeerId, host: SocketAddr },
    /// The peer of a [`Dialer`], through a relay.
    Circuit { peer: PeerId, relay: PeerId },
    /// A peer that is relayed already, over a leg of the family of its far hop.
    Matched(PeerId),
    /// A peer that was lost, through a relay or at its own addresses.
    Again { peer: PeerId, relay: Option<PeerId> },
}

impl EventLoop {
    #[expect(clippy::too_many_arguments, reason = "the one owner of all of them")]
    pub(crate) fn new(
        keypair: Keypair,
        swarm: Swarm<Behaviour>,
        sockets: p2pnode_transports::Handle,
        peers: PeerTable,
        relays: RelayKeeper,
        config: &Config,
        observers: Observers,
        tokens: Option<Tokens>,
        started: Instant,
    ) -> Self {
        let trusted = relays.relays().collect();
        let links = watch::Sender::new(Links::default());
        let discovery = Discovery::new(config, sockets.clone(), links.subscribe());
        let allowed = [Family::Ip4, Family::Ip6]
            .into_iter()
            .filter(|family| config.dial.family.allows(*family));
        let responder = discovery
            .answers()
            .then(|| Responder::start(*swarm.local_peer_id(), allowed));
        Self {
            keypair,
            swarm,
            sockets,
            peers,
            relays,
            dials: Vec::new(),
            purposes: HashMap::new(),
            trusted,
            punches: config.punch.enabled,
            next_punches: HashMap::new(),
            interfaces: Interfaces::watch(),
            inquiries: Inquiries::default(),
            exchanges: Exchanges::default(),
            introductions: Introductions::default(),
            liveness: Liveness::default(),
            reconnector: Reconnector::default(),
            registrar: Registrar::default(),
            is_moved: true,
            registrations: HashMap::new(),
            earlier: HashMap::new(),
            lookups: HashMap::new(),
            found_relays: FoundRelays::default(),
            lent: HashSet::new(),
            joins: Joins::new(tokens),
            discovery,
            neighbours: Neighbours::default(),
            links,
            responder,
            announced: BTreeMap::new(),
            observers,
            started,
        }
    }

    /// Runs until `shutdown`, then closes every connection.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown.fuse());
        let mut commands_open = true;
        let mut looks = tokio::time::interval(join::LOOK);
        loop {
            self.act();
            let wake = self.deadline();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                command = commands.recv(), if commands_open => match command {
                    Some(command) => self.on_command(command),
                    None => commands_open = false,
                },
                (connection, reply) = self.exchanges.next() => self.on_hop_reply(connection, &reply.into()),
                outcome = self.joins.exchanges.next() => self.on_joined(outcome),
                _ = looks.tick(), if self.joins.tokens.is_some() => self.look_at_tokens(),
                (peer, told) = self.discovery.next() => self.on_told(peer, told),
                changed = self.interfaces.changed() => self.on_interfaces(changed),
                () = sleep_until(wake) => {}
                () = &mut shutdown => break,
            }
        }
        self.close().await;
    }

    /// Carries out what the machines ask for, until none asks for more.
    fn act(&mut self) {
        let now = Instant::now();
        while let Some(action) = self.relays.poll(now) {
            self.on_relay_action(action);
        }
        let ready: Vec<PeerId> = self
            .relays
            .relays()
            .filter(|relay| self.relays.is_connected(relay))
            .collect();
        for index in 0..self.dials.len() {
            for relay in &ready {
                self.dials[index].dialer.handle_relay_ready(*relay, now);
            }
            while let Some(action) = self.dials[index].dialer.poll(now) {
                self.on_dialer_action(index, action);
            }
        }
        self.ask_relays(now);
        self.end_dials();
        self.dial_lost_peers(now);
        self.announce();
        self.register(now);
        self.show();
    }

    fn deadline(&self) -> Option<Instant> {
        let dials = self
            .dials
            .iter()
            .filter_map(|dial| dial.dialer.next_deadline());
        dials
            .chain(self.relays.deadline())
            .chain(self.inquiries.deadline())
            .chain(self.reconnector.deadline())
            .chain(self.registrar.deadline())
            .min()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial { request, reports } => {
                let now = Instant::now();
                let peer = request.peer;
                // The dial takes over.
                self.reconnector.forget(&peer);
                self.observe_wanted(peer, now);
                // Whoever dials may know that the relay would take this node now.
                let relays: Vec<PeerId> = self.relays.relays().collect();
                for relay in &relays {
                    self.relays.retry_refused(relay, now);
                }
                let mut dialer = Dialer::new(request, self.relays.relays(), self.punches, now);
                dialer.search(self.discovery.sources(), now);
                if let Some(path) = self.best_path(&peer) {
                    dialer.handle_open(path, now);
                }
                if let Some(best) = self.peers.best(&peer)
                    && self.inquiries.is_awaited(best)
                {
                    dialer.await_far_hop(now);
                }
                self.dials.push(Dial {
                    dialer,
                    reports,
                    pinging: None,
                });
            }
            // Whoever asked may be gone: then nobody misses the answer.
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::Why { peer, answer } => drop(answer.send(self.why(&peer))),
        }
    }

    fn on_interfaces(&mut self, changed: io::Result<()>) {
        match changed {
            Ok(()) => {
                let addresses = self.interfaces.at(&self.sockets.punch_ports());
                self.swarm.behaviour_mut().punch.set_interfaces(&addresses);
                self.show_links();
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of the network interfaces reported an error")
            }
        }
    }

    fn on_relay_action(&mut self, action: relays::Action) {
        match action {
            relays::Action::Dial { leg, relay } => {
                let opts = DialOpts::peer_id(relay.peer)
                    .addresses(vec![relay.addr])
                    .condition(PeerCondition::Always)
                    .build();
                self.relays.dialing(leg, opts.connection_id());
                self.dial(opts, Purpose::Leg);
            }
            relays::Action::Reserve { relay } => {
                let circuit = relay
                    .addr
                    .clone()
                    .with(Protocol::P2p(relay.peer))
                    .with(Protocol::P2pCircuit);
                match self.swarm.listen_on(circuit) {
                    Ok(listener) => self.relays.requested(&relay, listener),
                    // The address was parsed as a relay's before it came here, so the circuit transport takes it.
                    Err(error) => {
                        tracing::error!(relay = %relay.peer, %error, "cannot ask for a reservation")
                    }
                }
            }
        }
    }

    fn on_dialer_action(&mut self, index: usize, action: dialer::Action) {
        let peer = self.dials[index].dialer.peer();
        match action {
            dialer::Action::DialDirect(addresses) => {
                let opts = DialOpts::peer_id(peer)
                    .addresses(addresses)
                    .condition(PeerCondition::Always)
                    .build();
                self.dial(opts, Purpose::Direct(peer));
            }
            dialer::Action::DialCircuit(relay) => {
                self.dial_circuit(peer, relay, Purpose::Circuit { peer, relay });
            }
            dialer::Action::Search => self.discovery.search(peer),
            dialer::Action::DialLocal(candidate) => self.dial_candidate(peer, candidate),
            dialer::Action::Meet(relay) => self.ask_to_meet(IntroductionRequest { peer, relay }),
            dialer::Action::LookUp => self.look_up(peer),
            dialer::Action::DialFound { relay, addrs } => {
                self.dial_found(peer, relay, &addrs, Purpose::Circuit { peer, relay });
            }
            dialer::Action::Ping => self.ping_for(index),
            dialer::Action::Tell(event) => {
                // A reader that is a whole channel behind has stopped reading; the loop does not wait for it.
                if self.dials[index].reports.try_send(event).is_err() {
                    tracing::warn!(%peer, "a report of a dial was dropped: its reader is too slow or gone");
                }
            }
        }
    }

    fn dial(&mut self, opts: DialOpts, purpose: Purpose) {
        let connection = opts.connection_id();
        self.purposes.insert(connection, purpose);
        // A dial opens the sockets that are missing.
        self.observers.touch();
        if let Err(error) = self.swarm.dial(opts) {
            self.on_dial_error(connection, &error);
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let SwarmEvent::Behaviour(event) = event else {
            return self.on_connection_event(event);
        };
        match event {
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::RelayIp4(event) | BehaviourEvent::RelayIp6(event) => {
                self.on_relay_client(event)
            }
            BehaviourEvent::Punch(event) => self.on_punch(event),
            BehaviourEvent::Meet(event) => self.on_meet(event),
            BehaviourEvent::Draining(event) => self.on_draining(event),
            BehaviourEvent::Directory(event) => self.on_directory(event),
            BehaviourEvent::Access(never)
            | BehaviourEvent::Limits(never)
            | BehaviourEvent::Streams(never) => match never {},
        }
    }

    /// The dials of a peer.
    fn dials_of(&mut self, peer: PeerId) -> impl Iterator<Item = &mut Dialer> {
        self.dials
            .iter_mut()
            .map(|dial| &mut dial.dialer)
            .filter(move |dialer| dialer.peer() == peer)
    }

    fn best_path(&self, peer: &PeerId) -> Option<crate::core::peers::Path> {
        self.peers.best(peer).and_then(|id| self.peers.path(id))
    }

    /// Time since the node began.
    fn t(&self) -> Duration {
        self.started.elapsed()
    }

    /// Closes every connection and waits until the other sides were told, or a short bound.
    async fn close(mut self) {
        self.observers.stopping();
        if tokio::time::timeout(CLOSE_WAIT, self.withdraw())
            .await
            .is_err()
        {
            tracing::debug!(
                "a relay did not learn in time that this node leaves; its record expires"
            );
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error says that the peer is no longer connected, which is what is wanted.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, closed).await.is_err() {
            tracing::debug!("stopped with connections that did not close in time");
        }
    }
}

fn circuit_address(relay_address: Multiaddr, relay: PeerId, peer: PeerId) -> Multiaddr {
    relay_address
        .with(Protocol::P2p(relay))
        .with(Protocol::P2pCircuit)
        .with(Protocol::P2p(peer))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A number between 0 and 1 for the machines, which have no randomness of their own.
fn jitter() -> f64 {
    fastrand::f64()
}
