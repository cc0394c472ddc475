//! What all tasks of services share.

mod needs;
mod opens;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::task::AtomicWaker;
use libp2p::{Multiaddr, PeerId, StreamProtocol, swarm::ConnectionId};
use p2pnode_services::{
    config::{Peers, ServiceName, Services},
    core::{
        access::Limits,
        memory::Memory,
        session::{Settings, StreamId},
        sessions::{Action, Key, Role, Sessions},
        sockets::Sockets,
    },
    wire::{ID_LENGTH, PROTOCOL, ResetReason, SessionId},
};
use p2pnode_transports::Handle;
use tokio::sync::Notify;

pub(crate) use self::needs::Needs;
pub(super) use self::needs::Wish;

use super::{
    flows::Udp,
    forwards::{ForwardError, Forwards},
    offers::{Changes, Offers},
    opening::Opening,
    paths::{Chosen, Connection, Paths},
    refusals::{Ended, Named, Refused},
    running::{Running, lock},
    servers::Servers,
    sources::PeerAddresses,
};
use crate::observe::metrics::SessionMetrics;

/// How long the sessions of a peer that may connect no longer may take to end.
const LEAVE: Duration = Duration::from_secs(1);

/// The services of a node. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: u64,
    settings: Settings,
    metrics: SessionMetrics,
    sockets: Sockets,
    state: Mutex<State>,
    next: AtomicU64,
    /// Something in `State::changed`.
    changed: Notify,
    /// A session is over.
    over: Notify,
    /// What is known of the paths to some peer.
    paths_changed: Notify,
    /// Whether the protocol is offered to peers.
    offers: AtomicBool,
    /// Grows when services change.
    offers_version: AtomicU64,
    /// Wakes the behaviour when one of both changes.
    behaviour: AtomicWaker,
    udp: Udp,
    /// The ports of the range, once the node has started.
    ports: OnceLock<Handle>,
    addresses: Mutex<PeerAddresses>,
    /// What runs apart from sessions.
    servers: Mutex<Servers>,
}

#[derive(Debug)]
pub(in crate::services) struct State {
    pub(super) table: Sessions,
    pub(super) running: BTreeMap<Key, Arc<Running>>,
    pub(super) paths: Paths,
    pub(super) offers: Offers,
    pub(super) forwards: Forwards,
    /// How many ask for a path to each peer.
    wishes: BTreeMap<PeerId, usize>,
    /// Peers whose needs have changed, and whether a client waits.
    changed: BTreeMap<PeerId, bool>,
    /// The addresses of the peers that the configuration knows.
    addrs: BTreeMap<PeerId, Vec<Multiaddr>>,
    /// The peers that have a name.
    names: Peers,
    pub(super) refusals: Named<Refused>,
    pub(super) ends: Named<Ended>,
}

impl Hub {
    /// Without services and forwards. `config` has the settings of sessions, which may hold so many bytes and have so many local sockets.
    pub(crate) fn new(
        config: &Services,
        memory: u64,
        sockets: usize,
        metrics: SessionMetrics,
    ) -> Self {
        let mut random = [0; 8];
        fill(&mut random);
        let instance = u64::from_ne_bytes(random);
        let memory = Memory::new(usize::try_from(memory).unwrap_or(usize::MAX));
        let state = State {
            table: Sessions::new(instance, memory, Default::default(), Limits::default()),
            running: BTreeMap::new(),
            paths: Paths::default(),
            offers: Offers::default(),
            forwards: Forwards::default(),
            wishes: BTreeMap::new(),
            changed: BTreeMap::new(),
            addrs: BTreeMap::new(),
            names: Peers::new(),
            refusals: Named::default(),
            ends: Named::default(),
        };
        Self(Arc::new(Inner {
            instance,
            settings: Settings {
                linger: config.linger,
                ..Settings::default()
            },
            udp: Udp::new(instance, metrics.clone()),
            metrics,
            sockets: Sockets::new(sockets),
            state: Mutex::new(state),
            next: AtomicU64::new(0),
            changed: Notify::new(),
            over: Notify::new(),
            paths_changed: Notify::new(),
            offers: AtomicBool::new(false),
            offers_version: AtomicU64::new(0),
            behaviour: AtomicWaker::new(),
            ports: OnceLock::new(),
            addresses: Mutex::default(),
            servers: Mutex::default(),
        }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    pub(super) fn instance(&self) -> u64 {
        self.0.instance
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn sockets(&self) -> &Sockets {
        &self.0.sockets
    }

    pub(super) fn udp(&self) -> &Udp {
        &self.0.udp
    }

    /// Targets that ask for it are dialed from the ports of `handle`.
    pub(crate) fn know_ports(&self, handle: Handle) {
        // They are known once.
        let _ = self.0.ports.set(handle);
    }

    pub(super) fn ports(&self) -> Option<&Handle> {
        self.0.ports.get()
    }

    pub(super) fn addresses(&self) -> &Mutex<PeerAddresses> {
        &self.0.addresses
    }

    pub(super) fn servers(&self) -> MutexGuard<'_, Servers> {
        lock(&self.0.servers)
    }

    /// The peers that have a name.
    pub(super) fn peer_names(&self) -> Peers {
        self.state().names.clone()
    }

    pub(super) fn metrics(&self) -> &SessionMetrics {
        &self.0.metrics
    }

    /// A number for a stream or a forward. None comes twice.
    pub(super) fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Relaxed)
    }

    pub(super) fn stream_id(&self) -> StreamId {
        StreamId(self.number())
    }

    /// Takes over what a configuration offers and brings here. What did not change keeps its sessions.
    ///
    /// # Errors
    /// Forwards that cannot listen. The others are there.
    pub(crate) fn configure(
        &self,
        config: &Services,
        addrs: BTreeMap<PeerId, Vec<Multiaddr>>,
        names: Peers,
    ) -> Result<(), Vec<ForwardError>> {
        self.assign_named(config);
        let mut state = self.state();
        state.addrs = addrs;
        state.names = names;
        let changes = state.offers.configure(&config.services);
        self.offers_changed(state, &changes);
        let mut failed = self.configure_forwards(&config.forwards);
        failed.extend(self.configure_socks(config.socks));
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed),
        }
    }

    /// Where peers are.
    pub(crate) fn know(&self, addrs: BTreeMap<PeerId, Vec<Multiaddr>>) {
        self.state().addrs = addrs;
    }

    /// The services are others: what follows for sessions, and for what is offered to peers.
    pub(super) fn offers_changed(&self, mut state: MutexGuard<'_, State>, changes: &Changes) {
        for name in &changes.ended {
            state.table.handle_service_changed(name);
        }
        let access = state.offers.access();
        state.table.handle_access(access);
        state.act();
        state.end_raw(&changes.ended);
        let named: Vec<_> = state.offers.named().into_iter().collect();
        for peer in named {
            state.changed.entry(peer).or_default();
        }
        drop(state);
        self.0.offers_version.fetch_add(1, Relaxed);
        self.0.behaviour.wake();
        self.0.changed.notify_one();
        self.offering_changed();
    }

    /// Whether something is offered or brought here may have changed: then so has what identify lists.
    pub(super) fn offering_changed(&self) {
        let state = self.state();
        let offers =
            !state.offers.is_empty() || !state.wishes.is_empty() || !state.forwards.is_empty();
        drop(state);
        if self.0.offers.swap(offers, Relaxed) != offers {
            self.0.behaviour.wake();
        }
    }

    /// Whether the protocol is offered to peers.
    pub(crate) fn offers(&self) -> bool {
        self.0.offers.load(Relaxed)
    }

    /// Which services there are: another number means others.
    pub(crate) fn offers_version(&self) -> u64 {
        self.0.offers_version.load(Relaxed)
    }

    /// Wakes the task of `cx` when one of both changes.
    pub(crate) fn register(&self, cx: &std::task::Context<'_>) {
        self.0.behaviour.register(cx.waker());
    }

    /// A connection is open.
    pub(crate) fn handle_connection(&self, id: ConnectionId, connection: Connection) {
        self.change_paths(|paths| paths.opened(id, connection));
    }

    /// A connection is closed.
    pub(crate) fn handle_connection_closed(&self, id: ConnectionId) {
        let mut state = self.state();
        if let Some(peer) = state.paths.connection(id).map(|known| known.peer) {
            let is_on = |it: &&Arc<Running>| it.is_on().is_some_and(|on| on.connection == id);
            let raw = |it: &&Arc<Running>| it.protocol.is_some();
            for lost in state.of_peer(peer).filter(raw).filter(is_on) {
                lost.leave(|mail| mail.path_lost = true);
            }
        }
        state.paths.closed(id);
        self.0.paths_changed.notify_waiters();
    }

    /// What the identify message of a peer lists.
    pub(crate) fn handle_identified(&self, peer: PeerId, protocols: &[StreamProtocol]) {
        let ours = |protocol: &&StreamProtocol| {
            **protocol == PROTOCOL || protocol.as_ref().starts_with("/x/")
        };
        let ours = protocols.iter().filter(ours).cloned().collect();
        self.change_paths(|paths| paths.speaks(peer, ours));
    }

    /// The connection chosen for a peer.
    pub(crate) fn handle_path(&self, peer: PeerId, chosen: Option<Chosen>) {
        let mut state = self.state();
        let is_other = state.paths.choose(peer, chosen);
        let rtt = chosen.and_then(|chosen| chosen.rtt);
        let is_better = is_other && chosen.is_some();
        if is_other {
            self.0.paths_changed.notify_waiters();
        }
        if !is_better && rtt.is_none() {
            return;
        }
        for running in state.of_peer(peer) {
            let is_ours = running.key.role == Role::Forward;
            running.leave(|mail| {
                mail.rtt = rtt.or(mail.rtt);
                mail.better_path |= is_better && is_ours;
            });
        }
        let asks = is_better && state.table.accepted_from(&peer) > 0;
        drop(state);
        if asks {
            self.ask_who(peer);
        }
    }

    /// A dial of the peer has ended without a path.
    pub(crate) fn handle_unreachable(&self, peer: PeerId, reason: &str) {
        let mut state = self.state();
        if state.paths.chosen(&peer).is_some() {
            return;
        }
        state.paths.unreachable(peer, reason.to_owned());
        self.0.paths_changed.notify_waiters();
        for running in state.of_peer(peer) {
            running.leave(|mail| mail.unreachable = Some(reason.to_owned()));
        }
    }

    /// These peers may connect no longer: their sessions end at once.
    pub(crate) fn handle_disallowed(&self, is_allowed: impl Fn(&PeerId) -> bool) {
        let state = self.state();
        let keys = state.running.values();
        for running in keys.filter(|running| !is_allowed(&running.key.peer)) {
            running.leave(|mail| mail.reset = Some(ResetReason::NotAllowed));
        }
    }

    /// Waits until those sessions have ended, and their peers know, for [`LEAVE`] at most.
    pub(crate) async fn ended_of(&self, is_allowed: impl Fn(&PeerId) -> bool) {
        let have_ended = async {
            loop {
                let over = self.0.over.notified();
                let peers: Vec<_> = self.state().running.keys().map(|key| key.peer).collect();
                if peers.iter().all(&is_allowed) {
                    return;
                }
                over.await;
            }
        };
        // They may be slower.
        let _ = tokio::time::timeout(LEAVE, have_ended).await;
    }

    /// The node stops: sessions are reset, so that the other sides need not wait.
    pub(crate) fn stop(&self) {
        let servers = std::mem::take(&mut *self.servers());
        let mut state = self.state();
        let (forwards, offers) = (state.forwards.take(), state.offers.take());
        if let Some(flows) = servers.flows {
            flows.abort();
        }
        for running in state.running.values() {
            running.leave(|mail| mail.reset = Some(ResetReason::Stopping));
        }
        drop(state);
        drop((forwards, offers));
    }

    /// How many sessions there are, those included that only wait to be confirmed.
    pub(crate) fn sessions(&self) -> usize {
        self.state().running.len()
    }

    /// Whether the last dial of the peer has ended without a path.
    pub(super) fn is_unreachable(&self, peer: &PeerId) -> bool {
        self.state().paths.why_unreachable(peer).is_some()
    }

    /// A stream of sessions on the chosen connection of `peer`.
    pub(super) fn open_stream(&self, peer: &PeerId) -> Opening {
        self.state().paths.open(peer)
    }

    /// A stream of another protocol there. The peer agrees to it before it gets data.
    pub(super) fn open_protocol(&self, peer: &PeerId, protocol: StreamProtocol) -> Opening {
        self.state().paths.open_protocol(peer, protocol, false)
    }

    /// The session is over, and nothing is remembered of it.
    pub(super) fn over(&self, running: &Running) {
        let key = running.key;
        let mut state = self.state();
        if key.role == Role::Service
            && let Some(offered) = state.offers.get(&running.service)
        {
            offered.ended(running);
        }
        state.running.remove(&key);
        state.table.handle_over(key);
        match key.role == Role::Service || running.protocol.is_some() {
            true => self.needs(state, key.peer, false),
            false => drop(state),
        }
        self.0.over.notify_waiters();
    }
}

impl State {
    /// What the table wants of sessions.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.table.poll_action() {
            let (Action::PeerIs(key, _) | Action::Reset(key, _)) = action;
            let Some(running) = self.running.get(&key) else {
                continue;
            };
            running.leave(|mail| match action {
                Action::PeerIs(_, instance) => mail.peer_instance = Some(instance),
                Action::Reset(_, reason) => mail.reset = Some(reason),
            });
        }
    }

    /// Raw streams are in no table: those end that the services no longer permit, and those of services that ended.
    fn end_raw(&self, ended: &[ServiceName]) {
        let raw = self
            .running
            .values()
            .filter(|running| running.key.role == Role::Service && running.protocol.is_some());
        for running in raw {
            let offered = self.offers.get(&running.service);
            let offered = offered.map(|offered| &offered.service).filter(|service| {
                service.protocol == running.protocol && !ended.contains(&service.name)
            });
            let reason = match offered {
                None => ResetReason::ServiceGone,
                Some(service) if service.allow.permits(&running.key.peer) => continue,
                Some(_) => ResetReason::NotAllowed,
            };
            running.leave(|mail| mail.reset = Some(reason));
        }
    }

    pub(super) fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = &Arc<Running>> {
        let key = |role, byte| Key {
            peer,
            role,
            session: SessionId([byte; ID_LENGTH]),
        };
        let all = key(Role::Forward, 0)..=key(Role::Service, u8::MAX);
        self.running.range(all).map(|(_, running)| running)
    }
}

/// Random bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// Random bytes that nobody can guess.
fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system has randomness");
}
