//! UDP: what moves datagrams between clients, peers and targets, as the machine of `p2pnode-services` decides.
//!
//! All flows share one machine, and each has a task (`flow`) with its streams and, on the service's side, its socket. QUIC datagrams
//! and those of clients go through the machine at once, without a task in between.
//!
//! The lock of the machine is the last one: whoever holds it takes no other.

mod flow;
mod listen;
mod target;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use libp2p::PeerId;
use p2pnode_services::{
    core::{
        flows::{Action, End, FlowKey, Flows, ForwardId, FromClient, Settings},
        memory::Share,
        session::StreamId,
        sessions::{Key, Role},
    },
    wire::{Carries, Frame, Open, SessionId, datagram::FlowNumber},
};
use p2pnode_transports::{DatagramPath, Datagrams};
use tokio::task::AbortHandle;

use self::{flow::Task, listen::Clients, target::Target};
use super::{
    Hub,
    carrier::Carrier,
    offers::Offered,
    running::{Running, lock},
};

/// How often flows are looked at for their end, and paths for the size of their datagrams.
const LOOK: Duration = Duration::from_secs(1);

/// All flows of a node.
#[derive(Debug)]
pub(super) struct Udp(Mutex<State>);

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    flows: Flows,
    lines: HashMap<FlowKey, Arc<Line>>,
    forwards: BTreeMap<ForwardId, Arc<Clients>>,
    datagrams: Datagrams,
    /// The paths that carry QUIC datagrams.
    paths: HashMap<PeerId, DatagramPath>,
    /// How many flows each peer has.
    peers: HashMap<PeerId, usize>,
    /// Flows of forwards that have no task yet.
    born: Vec<Arc<Line>>,
}

/// A flow, as its task and all others share it.
#[derive(Debug)]
struct Line {
    key: FlowKey,
    running: Arc<Running>,
    orders: Mutex<Orders>,
    waker: AtomicWaker,
    /// On the side of the service.
    target: Option<Mutex<Target>>,
}

/// What the machine wants of the task.
#[derive(Debug, Default)]
struct Orders {
    opens: bool,
    closes: Vec<StreamId>,
    is_opened: bool,
    end: Option<End>,
}

impl Udp {
    /// None yet.
    pub(super) fn new(instance: u64) -> Self {
        Self(Mutex::new(State {
            flows: Flows::new(instance, Settings::default()),
            lines: HashMap::new(),
            forwards: BTreeMap::new(),
            datagrams: Datagrams::default(),
            paths: HashMap::new(),
            peers: HashMap::new(),
            born: Vec::new(),
        }))
    }
}

impl Hub {
    /// Takes QUIC datagrams, and looks after flows, until the returned task is aborted.
    pub(super) fn run_flows(&self, datagrams: Datagrams) -> AbortHandle {
        let hub = self.clone();
        lock(&self.udp().0).datagrams = datagrams.clone();
        let task = async move {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    (peer, datagram) = datagrams.receive() => hub.flows(|state| {
                        state.flows.handle_datagram(peer, datagram, Instant::now());
                    }),
                    _ = looks.tick() => hub.flows(|state| state.look(Instant::now())),
                }
            }
        };
        tokio::spawn(task).abort_handle()
    }

    /// The best path of `peer` carries QUIC datagrams as `path` does; `None`: it carries none.
    pub(crate) fn datagram_path(&self, peer: PeerId, path: Option<DatagramPath>) {
        self.flows(|state| {
            let size = path.as_ref().and_then(DatagramPath::max_size);
            match path {
                Some(path) => state.paths.insert(peer, path),
                None => state.paths.remove(&peer),
            };
            state.flows.handle_path(peer, size);
        });
    }

    /// A peer has opened a flow, and may: see [`Hub::handle_stream`].
    pub(super) fn accept_flow(
        &self,
        (key, number): (Key, FlowNumber),
        offered: Arc<Offered>,
        share: Share,
        open: &Open,
        carrier: Carrier,
    ) {
        let flow = FlowKey {
            peer: key.peer,
            role: Role::Service,
            number,
        };
        let client = open.client.map(|(client, _)| client);
        let name = open.service.clone();
        let sink = offered.sink.clone();
        let running = Running::new(key, name, client, None, sink, self.metrics());
        let running = Arc::new(running);
        let line = Arc::new(Line::new(
            flow,
            Arc::clone(&running),
            Some(Target::default()),
        ));
        let (id, idle) = (carrier.id, offered.service.udp_idle);
        let begun = self.flows(|state| {
            let begun = state
                .flows
                .handle_open(key.peer, open, idle, id, Instant::now());
            begun.map(|_| state.insert(Arc::clone(&line)))
        });
        if let Err(refuse) = begun {
            self.state().table.handle_over(key);
            flow::finish(carrier, Some(Frame::Refuse(refuse)));
            return;
        }
        self.state().running.insert(key, running);
        self.served(key.peer);
        let task = Task::accept(self.clone(), line, offered, share, open, carrier);
        tokio::spawn(task.run());
    }

    /// Whatever is done with the machine, its actions follow at once.
    fn flows<R>(&self, run: impl FnOnce(&mut State) -> R) -> R {
        let mut state = lock(&self.udp().0);
        let result = run(&mut state);
        state.act();
        let born = std::mem::take(&mut state.born);
        drop(state);
        for line in born {
            self.begin_flow(line);
        }
        result
    }

    /// A client has sent its first datagram.
    fn begin_flow(&self, line: Arc<Line>) {
        let (key, running) = (line.key, Arc::clone(&line.running));
        let mut state = self.state();
        let (id, service) = (running.key, running.service.clone());
        let carries = Carries::Datagrams(key.number);
        let share = state
            .table
            .handle_open(id, service, carries, Instant::now());
        let Some(share) = share else {
            drop(state);
            return self.flows(|state| state.flows.handle_reset(key));
        };
        state.running.insert(id, running);
        drop(state);
        tokio::spawn(Task::open(self.clone(), line, share).run());
    }

    /// A client has sent a datagram.
    fn client_sent(&self, forward: ForwardId, client: SocketAddr, payload: Bytes) {
        self.flows(|state| {
            let Some(clients) = state.forwards.get(&forward) else {
                return;
            };
            let session = match state.flows.knows(forward, client) {
                true => SessionId([0; _]),
                false => SessionId(super::hub::random()),
            };
            let from = FromClient {
                forward,
                client,
                listener: clients.listener,
                to: Arc::clone(&clients.to),
                session,
                payload,
            };
            let length = from.payload.len();
            let key = state.flows.handle_client(from, Instant::now());
            if let Some(key) = key {
                state.sent(key, length);
            }
        });
    }

    /// A target has sent a datagram.
    fn target_sent(&self, key: FlowKey, payload: Bytes) {
        self.flows(|state| {
            let length = payload.len();
            state.flows.handle_target(key, payload, Instant::now());
            state.sent(key, length);
        });
    }
}

impl State {
    fn look(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
        self.paths.retain(|peer, path| {
            let size = path.max_size();
            self.flows.handle_path(*peer, size);
            size.is_some()
        });
    }

    fn insert(&mut self, line: Arc<Line>) {
        let flows = self.peers.entry(line.key.peer).or_default();
        *flows += 1;
        if *flows == 1 {
            self.datagrams.admit(line.key.peer);
        }
        self.lines.insert(line.key, line);
    }

    fn remove(&mut self, key: FlowKey) -> Option<Arc<Line>> {
        let line = self.lines.remove(&key)?;
        if let Some(flows) = self.peers.get_mut(&key.peer) {
            *flows -= 1;
            if *flows == 0 {
                self.peers.remove(&key.peer);
                self.datagrams.exclude(&key.peer);
            }
        }
        Some(line)
    }

    /// A local socket has given a datagram of `length` bytes.
    fn sent(&mut self, key: FlowKey, length: usize) {
        // The flow may be so new that the machine only wants it.
        self.act();
        if let Some(line) = self.lines.get(&key) {
            line.running.went_out(length);
            if self.flows.is_queued(&key) {
                line.waker.wake();
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.flows.poll_action() {
            match action {
                Action::OpenStream(key) => {
                    if let Some(line) = self.line(key) {
                        line.order(|orders| orders.opens = true);
                    }
                }
                Action::CloseStream(key, stream) => {
                    if let Some(line) = self.lines.get(&key) {
                        line.order(|orders| orders.closes.push(stream));
                    }
                }
                Action::SendDatagram(peer, datagram) => self.send(peer, datagram),
                Action::Deliver(key, payload) => self.deliver(key, payload),
                Action::Opened(key) => {
                    if let Some(line) = self.lines.get(&key) {
                        line.order(|orders| orders.is_opened = true);
                    }
                }
                Action::Closed(key, _, end) => {
                    if let Some(line) = self.remove(key) {
                        line.order(|orders| orders.end = Some(end));
                    }
                }
            }
        }
    }

    /// The flow, which is new if a client's first datagram wants its first stream.
    fn line(&mut self, key: FlowKey) -> Option<Arc<Line>> {
        if let Some(line) = self.lines.get(&key) {
            return Some(Arc::clone(line));
        }
        let (session, service) = self.flows.session(&key)?;
        let (forward, client) = self.flows.client(&key)?;
        let id = Key {
            peer: key.peer,
            role: key.role,
            session,
        };
        let clients = self.forwards.get(&forward)?;
        let sink = clients.sink.clone();
        let (service, forward) = (service.clone(), Some(forward.0));
        let running = Running::new(id, service, Some(client), forward, sink, &clients.metrics);
        let line = Arc::new(Line::new(key, Arc::new(running), None));
        self.insert(Arc::clone(&line));
        self.born.push(Arc::clone(&line));
        Some(line)
    }

    fn send(&mut self, peer: PeerId, datagram: Bytes) {
        let Some(path) = self.paths.get(&peer) else {
            return;
        };
        if let Err(error) = path.send(datagram) {
            tracing::debug!(%peer, %error, "a datagram was not sent");
            // The path carries shorter ones than before, or none: later ones go on the stream.
            self.flows.handle_path(peer, path.max_size());
        }
    }

    /// To the client, or to the target. What the socket does not take at once is lost, as datagrams are.
    fn deliver(&mut self, key: FlowKey, payload: Bytes) {
        let Some(line) = self.lines.get(&key) else {
            return;
        };
        line.running.came_in(payload.len());
        match &line.target {
            Some(target) => lock(target).send(payload),
            None => {
                let Some((forward, client)) = self.flows.client(&key) else {
                    return;
                };
                if let Some(clients) = self.forwards.get(&forward) {
                    clients.send(client, &payload);
                }
            }
        }
    }
}

impl Line {
    fn new(key: FlowKey, running: Arc<Running>, target: Option<Target>) -> Self {
        Self {
            key,
            running,
            orders: Mutex::default(),
            waker: AtomicWaker::new(),
            target: target.map(Mutex::new),
        }
    }

    fn order(&self, write: impl FnOnce(&mut Orders)) {
        write(&mut lock(&self.orders));
        self.waker.wake();
    }
}
