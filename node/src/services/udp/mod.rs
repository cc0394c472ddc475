//! UDP: what moves datagrams between clients, peers and targets, as the machine of `p2pnode-services` decides.
//!
//! All flows share one machine, and each has a task (`flow`) with its streams and, on the service's side, its socket. QUIC datagrams
//! and those of clients go through the machine at once, without a task in between.
//!
//! The lock of the machine is the last one: a task that holds it takes no other.

mod flow;
mod listen;
mod target;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use p2pnode_services::{
    core::{
        flows::{ClientId, FlowKey, FromClient},
        memory::Share,
        sessions::{Key, Role},
        sockets::Place,
    },
    wire::{Carries, Frame, Open, SessionId, datagram::FlowNumber},
};
use p2pnode_transports::{DatagramPath, Datagrams};
use tokio::task::AbortHandle;

use self::flow::Task;
use super::{
    Hub,
    carrier::Carrier,
    flows::{Line, State, Target},
    offers::Offered,
    running::{Running, lock},
};

/// How often flows are looked at for their end, and paths for the size of their datagrams.
const LOOK: Duration = Duration::from_secs(1);

impl Hub {
    /// QUIC datagrams come and go by `datagrams`.
    pub(crate) fn start_flows(&self, datagrams: &Datagrams) {
        let task = self.run_flows(datagrams.clone());
        self.servers().flows = Some(task);
    }

    /// Takes QUIC datagrams, and looks after flows, until the returned task is aborted.
    fn run_flows(&self, datagrams: Datagrams) -> AbortHandle {
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

    /// The peer has almost as many sessions and flows here as it may.
    pub(super) fn crowded(&self, peer: PeerId) {
        self.flows(|state| state.flows.handle_crowded(peer, Instant::now()));
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
        taken: (Share, Place),
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
        let running = Running::new(key, name, client, None, sink, None, self.metrics());
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
            let on = self.on(carrier.connection);
            self.refused(key.peer, open, refuse.refusal, on);
            flow::finish(carrier, Some(Frame::Refuse(refuse)));
            return;
        }
        self.state().running.insert(key, running);
        self.served(key.peer);
        let task = Task::accept(self.clone(), line, offered, taken, open, carrier);
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
        let (service, carries) = (running.service.clone(), Carries::Datagrams(key.number));
        let Some(share) = self.begin(&running, service, carries) else {
            return self.flows(|state| state.flows.handle_reset(key));
        };
        tokio::spawn(Task::open(self.clone(), line, share).run());
    }

    /// A client has sent a datagram.
    fn client_sent(&self, id: ClientId, payload: Bytes) {
        self.flows(|state| {
            let Some(clients) = state.forwards.get(&id.forward) else {
                return;
            };
            let session = match state.flows.knows(&id) {
                true => SessionId([0; _]),
                false => SessionId(super::hub::random()),
            };
            let from = FromClient {
                id,
                to: Arc::clone(&clients.to),
                session,
                payload,
            };
            let length = from.payload.len();
            let key = state.flows.handle_client(from, Instant::now());
            match key {
                Some(key) => state.sent(key, length),
                None => state.metrics.datagram_dropped(),
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
