//! The one owner of the swarm. The event loop merges what comes from the network, from commands and from the clock. It passes
//! each input to the [`NodeState`] and carries out the actions that come out. The event loop decides nothing.
//!
//! - `translate`: what happens, as inputs of the state.
//! - `act`: actions and events of the state, as calls of the swarm and of observers.

mod act;
mod translate;

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, future::BoxFuture};
use libp2p::{
    PeerId, Swarm,
    identity::Keypair,
    swarm::{ConnectionId, SwarmEvent},
};
use p2pnode_daemon::in_a_row::InARow;
use p2pnode_protocol::{autonat::Autonat, directory, exchange::Protocol as _, hop::HopReply};
use p2pnode_transports::{Family, Transport};
use tokio::sync::{mpsc, watch};

use crate::{
    config::{Config, Names},
    core::{
        event,
        state::{DialId, NodeState, QueryId},
    },
    discovery::{Discovery, Links, Responder},
    observe::{
        observers::Observers,
        snapshot::{Served, Snapshot},
    },
    services::{Hub, Needs},
    swarm::{
        autonat::Witness,
        behaviour::{Behaviour, BehaviourEvent},
        build,
        handle::Command,
        hop,
        interfaces::Interfaces,
        introduction::introducers,
        join,
        mappings::link,
        netcheck::{self, Plan},
        port_search::{Done, PortSearches},
        token_file::TokenFile,
    },
};

/// How long a stopping node waits for its connections to close. The other sides notice sooner; this bounds a dead one.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// How often a stopping node looks whether its sessions have ended.
const SESSION_LOOK: Duration = Duration::from_millis(10);

/// How often the file of tokens is checked for a change. A Secret takes a minute to arrive, and a token is replaced long before
/// it ends.
const TOKEN_FILE_CHECK: Duration = Duration::from_secs(5);

/// The swarm, the state, and the IO between them.
pub(crate) struct EventLoop {
    keypair: Keypair,
    swarm: Swarm<Behaviour>,
    sockets: p2pnode_transports::Handle,
    state: NodeState,
    /// Where the reports of each dial go.
    reports: Vec<(DialId, mpsc::Sender<event::Event>)>,
    /// The state's names for the queries of the directory.
    queries: HashMap<directory::QueryId, QueryId>,
    hops: hop::Exchanges,
    joins: join::Exchanges,
    port_searches: PortSearches,
    token_file: Option<TokenFile>,
    interfaces: Interfaces,
    discovery: Discovery,
    links: watch::Sender<Links>,
    responder: Option<Responder>,
    observers: Observers,
    names: watch::Sender<Names>,
    hub: Hub,
    /// The task that has ports mapped, if there is one.
    mapped: Option<link::Link>,
    /// What a look at the network looks at.
    plan: Plan,
    /// Who may connect and introduce, once the sessions of the others have ended.
    leaves: Option<BoxFuture<'static, Access>>,
}

/// Who may connect, and who may introduce.
type Access = (Option<BTreeSet<PeerId>>, BTreeSet<PeerId>);

/// What `future` returns, if there is one.
async fn next<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl EventLoop {
    /// `links` are those that `discovery` reads.
    #[expect(clippy::too_many_arguments, reason = "the one owner of all of them")]
    pub(crate) fn new(
        keypair: Keypair,
        swarm: Swarm<Behaviour>,
        sockets: p2pnode_transports::Handle,
        state: NodeState,
        token_file: Option<TokenFile>,
        discovery: Discovery,
        links: watch::Sender<Links>,
        observers: Observers,
        hub: Hub,
        mapped: Option<link::Link>,
        config: &Config,
    ) -> Self {
        let allowed = [Family::Ip4, Family::Ip6]
            .into_iter()
            .filter(|family| config.dial.family.allows(*family));
        let responder = discovery
            .answers()
            .then(|| Responder::start(*swarm.local_peer_id(), allowed));
        Self {
            plan: Plan::new(config, sockets.clone()),
            keypair,
            swarm,
            sockets,
            state,
            reports: Vec::new(),
            queries: HashMap::new(),
            hops: hop::Exchanges::default(),
            joins: join::Exchanges::default(),
            port_searches: PortSearches::default(),
            token_file,
            interfaces: Interfaces::watch(),
            discovery,
            links,
            responder,
            observers,
            names: watch::Sender::new(config.names()),
            hub,
            mapped,
            leaves: None,
        }
    }

    /// The names of peers, as the configuration has them now.
    pub(crate) fn names(&self) -> watch::Receiver<Names> {
        self.names.subscribe()
    }

    /// Runs until `shutdown`, then closes every connection.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = std::pin::pin!(shutdown.fuse());
        let mut commands_open = true;
        let mut in_a_row = InARow::default();
        let mut checks = tokio::time::interval(TOKEN_FILE_CHECK);
        loop {
            self.act();
            let wake = self.state.poll_timeout();
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    self.on_swarm_event(event);
                    in_a_row.handled().await;
                }
                command = commands.recv(), if commands_open => match command {
                    Some(command) => self.on_command(command),
                    None => commands_open = false,
                },
                (circuit, reply) = self.hops.next() => self.on_hop_reply(circuit, &reply.into()),
                done = self.port_searches.next() => self.on_port_search(done),
                outcome = self.joins.next() => self.on_join_outcome(outcome),
                _ = checks.tick(), if self.token_file.is_some() => self.read_tokens(),
                (peer, event) = self.discovery.next() => self.on_search_event(peer, event),
                () = self.interfaces.changed() => self.on_interfaces(),
                news = link::news(&mut self.mapped) => self.on_mapping_news(news),
                needs = self.hub.needs_changed() => self.on_needs(needs),
                (allowed, introducers) = next(&mut self.leaves) => {
                    self.leaves = None;
                    self.state.handle_access(allowed, introducers);
                }
                () = sleep_until(wake) => self.state.handle_timeout(Instant::now()),
                () = &mut shutdown => break,
            }
        }
        self.close().await;
    }

    fn on_command(&mut self, command: Command) {
        // An error means that the reader of the answer is gone.
        match command {
            Command::Dial { request, reports } => {
                let dial = self.state.handle_dial(request, Instant::now());
                self.reports.push((dial, reports));
            }
            Command::Reload(config) => {
                let introduction = &mut self.swarm.behaviour_mut().introduction;
                introduction.set_config(&config);
                let (allowed, hub) = (build::allowed(&config), self.hub.clone());
                let introducers = introducers(&config);
                // A connection that closed at once would take the resets of its sessions with it.
                let leaves = async move {
                    let may = |peer: &PeerId| allowed.as_ref().is_none_or(|all| all.contains(peer));
                    hub.handle_disallowed(may);
                    hub.ended_of(may).await;
                    // Those that began in the meantime.
                    hub.handle_disallowed(may);
                    (allowed, introducers)
                };
                self.leaves = Some(leaves.boxed());
                self.names.send_replace(config.names());
            }
            Command::Netcheck { lifetime, answer } => {
                let (plan, metrics) = (self.plan.clone(), self.observers.metrics().clone());
                let mut router = self.mapped.as_ref().map(link::Link::router);
                let mut claims = self.state.claims().to_vec();
                let dead = router.iter_mut().map(|router| &mut router.dead);
                // Ports that are exposed say nothing about paths.
                dead.chain([&mut claims])
                    .for_each(|of| of.retain(|claim| self.state.is_punch_port(claim)));
                let known = netcheck::Known {
                    claims,
                    relays: self.state.connected_relays(),
                    router: router.unwrap_or_default(),
                    lifetime: self.state.measured_lifetime(),
                    witnesses: self.witnesses(),
                    nonces: self.swarm.behaviour().autonat.nonces.clone(),
                    connected: self.state.connected_addresses(),
                };
                tokio::spawn(async move {
                    let report = plan.look(known, lifetime).await;
                    metrics.nat(&report);
                    drop(answer.send(report));
                });
            }
            Command::Forget { peer, answer } => drop(answer.send(self.state.handle_forget(peer))),
            Command::Status { sessions, answer } => {
                let served = Served {
                    services: self.hub.services(),
                    forwards: self.hub.forwards(),
                    sessions: sessions.then(|| self.hub.open_sessions(None)),
                    addresses: self.hub.peer_addresses(),
                };
                drop(answer.send(self.snapshot(served).status()));
            }
            Command::Why { peer, answer } => {
                let served = Served {
                    sessions: Some(self.hub.open_sessions(Some(&peer))),
                    ..Served::default()
                };
                drop(answer.send(self.snapshot(served).why(&peer)));
            }
        }
    }

    /// Who may dial the punch ports, of each transport and family.
    fn witnesses(&mut self) -> Vec<Witness> {
        let mut witnesses = Vec::new();
        for family in Family::ALL {
            let legs = self.state.legs_of(family);
            for transport in [Transport::Quic, Transport::Tcp] {
                let streams = &mut self.swarm.behaviour_mut().streams;
                let open = |&(relay, connection): &_| {
                    let stream = streams.open(relay, connection, Autonat::NAME);
                    (relay, stream.map(Result::ok).boxed())
                };
                witnesses.push(Witness {
                    transport,
                    family,
                    streams: legs.iter().map(open).collect(),
                });
            }
        }
        witnesses
    }

    fn on_mapping_news(&mut self, news: link::News) {
        match news {
            link::News::Claims(claims) => self.state.handle_mapped(claims, Instant::now()),
            link::News::Ask(ask) => {
                let mut legs = self.state.legs_of(Family::Ip4);
                if legs.iter().any(|(relay, _)| Some(*relay) != ask.contacted) {
                    legs.retain(|(relay, _)| Some(*relay) != ask.contacted);
                }
                // Without one, the check learns that nobody was asked.
                if let Some((relay, connection)) = legs.get(ask.relay % legs.len().max(1)).copied()
                    && let Some(mapped) = &mut self.mapped
                {
                    let streams = &mut self.swarm.behaviour_mut().streams;
                    let stream = streams.open(relay, connection, link::PROTOCOL);
                    mapped.ask(ask, stream.map_err(std::io::Error::from));
                }
            }
        }
    }

    fn on_needs(&mut self, needs: Vec<Needs>) {
        let now = Instant::now();
        for Needs { paths, used } in needs {
            let punch = &mut self.swarm.behaviour_mut().punch;
            punch.used(paths.peer, &used);
            self.state.handle_services(paths, now);
        }
    }

    fn snapshot(&self, served: Served) -> Snapshot<'_> {
        Snapshot {
            served,
            state: &self.state,
            names: self.names.borrow(),
            exposed: self
                .mapped
                .as_ref()
                .map(link::Link::exposed)
                .unwrap_or_default(),
            punches: &self.swarm.behaviour().punch,
            now: Instant::now(),
        }
    }

    fn on_hop_reply(&mut self, circuit: ConnectionId, reply: &HopReply) {
        self.state.handle_hop_reply(circuit, reply, Instant::now());
    }

    fn on_port_search(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Sampled(sample) => self.state.handle_port_sample(sample, now),
            Done::SampledNext(next) => {
                let sample = next.map(|(sample, sockets)| {
                    self.port_searches.keep(sockets);
                    sample
                });
                self.state.handle_port_sample(sample, now);
            }
            Done::Seen(at) => self.state.handle_punch_socket_seen(at, now),
            Done::Searched {
                peer,
                ended,
                counts,
                pair,
            } => {
                self.state
                    .handle_ports_searched(peer, ended, counts, pair.map(|pair| *pair), now);
            }
        }
    }

    fn on_interfaces(&mut self) {
        self.links
            .send_replace(Links::of(self.interfaces.networks()));
        self.state
            .handle_interfaces(self.interfaces.addresses(), Instant::now());
    }

    /// Reads the file of tokens if it has changed.
    fn read_tokens(&mut self) {
        match self.token_file.as_mut().map(TokenFile::read_changed) {
            Some(Ok(Some(tokens))) => self.state.handle_tokens(tokens, Instant::now()),
            None | Some(Ok(None)) => {}
            Some(Err(error)) => {
                for line in error.to_string().lines() {
                    tracing::error!("{line}; the tokens that were read before are used on");
                }
            }
        }
    }

    /// Closes every connection and waits until the other sides know, or a short bound.
    async fn close(mut self) {
        self.observers.stopping();
        self.hub.stop();
        if tokio::time::timeout(CLOSE_WAIT, self.withdraw())
            .await
            .is_err()
        {
            tracing::debug!(
                "a relay did not learn in time that this node leaves; its record expires"
            );
        }
        let ended = async {
            while self.hub.sessions() > 0 {
                // Their tasks run while this one waits for the network.
                let _ = tokio::time::timeout(SESSION_LOOK, self.swarm.select_next_some()).await;
            }
        };
        if tokio::time::timeout(CLOSE_WAIT, ended).await.is_err() {
            tracing::debug!("stopped with sessions whose peers did not answer in time");
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error means that the peer is no longer connected, which is the goal.
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

    /// Withdraws this node's record from the relays, and returns when they have taken that.
    async fn withdraw(&mut self) {
        self.state.handle_shutdown();
        self.act();
        while !self.state.has_withdrawn() {
            if let SwarmEvent::Behaviour(BehaviourEvent::Directory(event)) =
                self.swarm.select_next_some().await
            {
                self.on_directory(event, Instant::now());
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
