//! What tasks of flows share: the machine, and for each flow what its task and others exchange.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use libp2p::PeerId;
use p2pnode_services::{
    core::{
        flows::{Action, ClientId, Destinations, End, FlowKey, Flows, ForwardId, Settings},
        session::StreamId,
        sessions::Key,
    },
    identity::proxy::SIGNATURE,
    wire::{Frame, MAX_DATAGRAM, ResetReason},
};
use p2pnode_transports::{DatagramError, DatagramPath, Datagrams};
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::{
    lines::Sink,
    listen_socket::ListenSocket,
    running::{Running, lock},
    sources::TargetSocket,
};
use crate::observe::metrics::SessionMetrics;

/// Datagrams that wait until the target's name is looked up.
const WAITING: usize = 64;

/// All flows of a node.
#[derive(Debug)]
pub(super) struct Udp(pub(super) Mutex<State>);

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) metrics: SessionMetrics,
    pub(super) flows: Flows,
    lines: HashMap<FlowKey, Arc<Line>>,
    pub(super) forwards: BTreeMap<ForwardId, Arc<Clients>>,
    pub(super) datagrams: Datagrams,
    /// The paths that carry QUIC datagrams.
    pub(super) paths: HashMap<PeerId, DatagramPath>,
    /// How many flows each peer has.
    peers: HashMap<PeerId, usize>,
    /// Flows of forwards that have no task yet.
    pub(super) born: Vec<Arc<Line>>,
}

/// A flow, as its task and all others share it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) key: FlowKey,
    pub(super) running: Arc<Running>,
    pub(super) orders: Mutex<Orders>,
    pub(super) waker: AtomicWaker,
    /// On the side of the service.
    pub(super) target: Option<Mutex<Target>>,
}

/// What the machine wants of the task.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) opens: bool,
    pub(super) closes: Vec<(StreamId, Option<ResetReason>)>,
    pub(super) is_opened: bool,
    /// The target takes no datagram.
    pub(super) undelivered: Option<io::Error>,
    /// It goes on on another stream, after that pause if it had none.
    pub(super) carried: Option<Option<Duration>>,
    pub(super) end: Option<End>,
}

impl Udp {
    /// None yet.
    pub(super) fn new(instance: u64, metrics: SessionMetrics) -> Self {
        Self(Mutex::new(State {
            metrics,
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

impl State {
    pub(super) fn look(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
        self.paths.retain(|peer, path| {
            let size = path.max_size();
            self.flows.handle_path(*peer, size);
            size.is_some()
        });
    }

    pub(super) fn insert(&mut self, line: Arc<Line>) {
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
    pub(super) fn sent(&mut self, key: FlowKey, length: usize) {
        // The flow may be so new that the machine only wants it.
        self.act();
        if let Some(line) = self.lines.get(&key) {
            line.running.went_out(length);
            if self.flows.is_queued(&key) {
                line.waker.wake();
            }
        }
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.flows.poll_action() {
            match action {
                Action::OpenStream(key) => {
                    if let Some(line) = self.line(key) {
                        line.order(|orders| orders.opens = true);
                    }
                }
                Action::CloseStream(key, stream, reason) => {
                    if let Some(line) = self.lines.get(&key) {
                        line.order(|orders| orders.closes.push((stream, reason)));
                    }
                }
                Action::SendDatagram(peer, datagram) => self.send(peer, datagram),
                Action::Deliver(key, payload) => self.deliver(key, payload),
                Action::Opened(key) => {
                    if let Some(line) = self.lines.get(&key) {
                        line.order(|orders| orders.is_opened = true);
                    }
                }
                Action::Carried(key, paused) => {
                    if let Some(line) = self.lines.get(&key) {
                        line.order(|orders| orders.carried = Some(paused));
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
        let ClientId {
            forward, client, ..
        } = self.flows.client(&key)?;
        let id = Key {
            peer: key.peer,
            role: key.role,
            session,
        };
        let clients = self.forwards.get(&forward)?;
        let sink = clients.sink.clone();
        let (service, forward) = (service.clone(), Some(forward.0));
        let running = Running::new(
            id,
            service,
            Some(client),
            forward,
            sink,
            None,
            &clients.metrics,
        );
        let line = Arc::new(Line::new(key, Arc::new(running), None));
        self.insert(Arc::clone(&line));
        self.born.push(Arc::clone(&line));
        Some(line)
    }

    /// What the flow's stream takes next. QUIC keeps megabytes of a stream, so a datagram that would wait there is dropped.
    pub(super) fn poll_transmit(&mut self, key: FlowKey, stream: StreamId) -> Option<Frame> {
        loop {
            let frame = self.flows.poll_transmit(key, stream)?;
            let (Frame::Datagram(payload), Some(path)) = (&frame, self.paths.get(&key.peer)) else {
                return Some(frame);
            };
            // The path may carry longer ones again.
            self.flows.handle_path(key.peer, path.max_size());
            if path.admits_on_stream(payload.len()) {
                return Some(frame);
            }
            self.metrics.datagram_dropped();
        }
    }

    fn send(&mut self, peer: PeerId, datagram: Bytes) {
        let Some(path) = self.paths.get(&peer) else {
            return;
        };
        match path.send(datagram) {
            Ok(()) => self.metrics.quic_datagram(),
            Err(DatagramError::Congested) => self.metrics.datagram_dropped(),
            Err(error) => {
                tracing::debug!(%peer, %error, "a datagram was not sent");
                // The path carries shorter ones than before, or none: later ones go on the stream.
                self.flows.handle_path(peer, path.max_size());
            }
        }
    }

    /// To the client, or to the target. What the socket does not take at once is lost, as datagrams are.
    fn deliver(&mut self, key: FlowKey, payload: Bytes) {
        let Some(line) = self.lines.get(&key) else {
            return;
        };
        line.running.came_in(payload.len());
        match &line.target {
            Some(target) => {
                let sent = lock(target).send(payload);
                if let Err(error) = sent {
                    line.undelivered(error, &self.metrics);
                }
            }
            None => {
                let Some(client) = self.flows.client(&key) else {
                    return;
                };
                if let Some(clients) = self.forwards.get(&client.forward) {
                    clients.send(&client, &payload);
                }
            }
        }
    }
}

impl Line {
    /// A datagram did not go to the target.
    pub(super) fn undelivered(&self, error: Undelivered, metrics: &SessionMetrics) {
        let (peer, service) = (self.key.peer, &self.running.service);
        match error {
            Undelivered::Forged => {
                metrics.violation("header");
                tracing::info!(%peer, %service, %error, "a datagram did not reach its target");
            }
            // The task logs it, which takes another lock.
            Undelivered::Failed(error) => self.order(|orders| orders.undelivered = Some(error)),
        }
    }

    pub(super) fn new(key: FlowKey, running: Arc<Running>, target: Option<Target>) -> Self {
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

/// A forward, as the flows of its clients see it.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) socket: Arc<ListenSocket>,
    pub(super) to: Destinations,
    pub(super) sink: Option<Sink>,
    pub(super) metrics: SessionMetrics,
}

impl Clients {
    pub(super) fn send(&self, to: &ClientId, payload: &[u8]) {
        if let Err(error) = self.socket.send(to.client, to.listener, payload) {
            tracing::debug!(client = %to.client, %error, "a datagram did not reach its client");
        }
    }
}

/// The socket, once it is there.
#[derive(Debug, Default)]
pub(super) struct Target {
    socket: Option<Arc<TargetSocket>>,
    /// Comes before all datagrams, in the packet of the first one if there is room.
    header: Vec<u8>,
    /// The target has it.
    is_announced: bool,
    waiting: VecDeque<Bytes>,
}

/// Why a datagram did not go to its target.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    /// Its sender would write what the target takes for this node's word.
    #[error("it begins as a header of the PROXY protocol, which only this node may write")]
    Forged,
    /// The socket refused it.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Target {
    /// Sends what has waited. Returns why some of it did not go.
    pub(super) fn connected(
        &mut self,
        socket: Arc<TargetSocket>,
        header: Vec<u8>,
    ) -> Vec<Undelivered> {
        self.socket = Some(socket);
        self.header = header;
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting
            .filter_map(|payload| self.send(payload).err())
            .collect()
    }

    fn send(&mut self, payload: Bytes) -> Result<(), Undelivered> {
        let Some(socket) = self.socket.clone() else {
            if self.waiting.len() == WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(payload);
            return Ok(());
        };
        self.send_by(&payload, |bytes| send(&socket, bytes))
    }

    /// No datagram goes before the header, and none that looks like one: the target believes it, and the header itself may be lost.
    fn send_by(
        &mut self,
        payload: &[u8],
        mut send: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<(), Undelivered> {
        if !self.header.is_empty() && payload.starts_with(SIGNATURE) {
            return Err(Undelivered::Forged);
        }
        if !self.is_announced && !self.header.is_empty() {
            let fits = self.header.len() + payload.len() <= MAX_DATAGRAM;
            let packet = match fits {
                true => [&self.header[..], payload].concat(),
                false => self.header.clone(),
            };
            send(&packet)?;
            self.is_announced = true;
            if fits {
                return Ok(());
            }
        }
        send(payload).inspect_err(|error| self.failed(error))?;
        Ok(())
    }

    /// A target that is gone may be another one when it is back, which has no header.
    pub(super) fn failed(&mut self, error: &io::Error) {
        self.is_announced &= error.kind() != io::ErrorKind::ConnectionRefused;
    }
}

/// Sends at once. tokio would refuse what comes before it knows that a new socket is writable.
fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// What the target gets of `payloads`. The socket refuses the packet of each `refused` number.
    fn sent(payloads: &[&[u8]], refused: &[usize]) -> (Vec<Vec<u8>>, Vec<bool>) {
        let mut target = Target {
            header: b"HEADER".to_vec(),
            ..Target::default()
        };
        let (mut packets, mut count) = (Vec::new(), 0);
        let mut send = |packet: &[u8]| {
            count += 1;
            if packet.len() > MAX_DATAGRAM || refused.contains(&count) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            packets.push(packet.to_vec());
            Ok(packet.len())
        };
        let taken = payloads
            .iter()
            .map(|payload| target.send_by(payload, &mut send).is_ok())
            .collect();
        (packets, taken)
    }

    #[test]
    fn the_header_comes_before_the_first_datagram_whatever_its_size() {
        let long = vec![b'z'; MAX_DATAGRAM];
        let just = vec![b'z'; MAX_DATAGRAM - b"HEADER".len()];
        let (packets, taken) = sent(&[&long, b"a"], &[]);
        assert_eq!(packets, [&b"HEADER"[..], &long, b"a"]);
        assert_eq!(taken, [true, true]);
        let (packets, _) = sent(&[&just, b"a"], &[]);
        assert_eq!(packets, [[b"HEADER", &just[..]].concat(), b"a".to_vec()]);
    }

    #[test]
    fn a_header_that_was_not_sent_comes_before_the_next_datagram_and_so_does_one_for_another_target()
     {
        let (packets, taken) = sent(&[b"a", b"b", b"c", b"d", b"e"], &[1, 4]);
        assert_eq!(packets, [&b"HEADERb"[..], b"c", b"HEADERe"]);
        assert_eq!(taken, [false, true, true, false, true]);
    }

    #[test]
    fn a_caller_writes_no_header() {
        let forged = [&SIGNATURE[..], b"\x21\x12"].concat();
        let (packets, taken) = sent(&[&forged, b"a", &forged], &[]);
        assert_eq!(packets, [b"HEADERa"]);
        assert_eq!(taken, [false, true, false]);
    }
}
