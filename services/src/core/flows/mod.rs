//! The UDP flows of a process: which datagram belongs to which flow, and how it travels. See decision 0704.
//!
//! 1. The first datagram of a client makes a flow at the caller ([`Action::OpenStream`]). `OPEN` and the datagrams go on its stream.
//! 2. The accepting side makes the same flow, and answers `ACCEPT`.
//! 3. From then on datagrams go as QUIC datagrams if the path carries them and they fit, else on the stream.
//! 4. A flow without a datagram for its idle time ends. `RESET` says so to the other side, so that the next datagram makes another flow.
//!
//! A peer that refuses, or to which no stream can be opened, is passed over for [`PASSED_OVER`]. The flow goes on at the next
//! peer of its forward, with the datagrams that wait. As long as there is a next peer, no datagram is sent before the acceptance.
//!
//! Each flow has a short queue for its stream. What its queues hold is bounded for each peer and for all.

mod action;
mod client;
mod queue;
mod settings;
mod silent;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;

pub use self::{
    action::{Action, Dropped, End, FlowKey},
    client::{ClientId, Destinations, ForwardId, FromClient},
    settings::Settings,
};

use self::{
    client::Client,
    queue::{Queue, Room},
};
use super::{session::StreamId, sessions::Role};
use crate::{
    config::ServiceName,
    wire::{
        Frame, MAX_DATAGRAM, Refusal, ResetReason, SessionId,
        datagram::{self, FlowNumber, Opener},
    },
};

/// All flows.
#[derive(Debug)]
pub struct Flows {
    instance: u64,
    settings: Settings,
    flows: BTreeMap<FlowKey, Flow>,
    clients: HashMap<ClientId, FlowKey>,
    /// Until when a service of a peer is passed over.
    passed_over: HashMap<(ServiceName, PeerId), Instant>,
    peers: BTreeMap<PeerId, Peer>,
    /// How many there are in each role: whatever peers open here leaves the forwards of this node their places.
    in_role: [usize; 2],
    all: Room,
    /// When each flow is looked at. A datagram in the meantime delays its end, not the look.
    looks: BTreeSet<(Instant, FlowKey)>,
    actions: VecDeque<Action>,
    dropped: Dropped,
}

#[derive(Debug)]
struct Peer {
    next: u32,
    /// How many it has in each role.
    flows: [usize; 2],
    /// Until when none of these is silent.
    in_use: [Option<Instant>; 2],
    room: Room,
    /// The most bytes of a QUIC datagram on its best path. `None`: the path carries none.
    datagram_size: Option<usize>,
}

#[derive(Debug)]
struct Flow {
    session: SessionId,
    service: ServiceName,
    /// At the caller.
    client: Option<Client>,
    idle: Duration,
    last: Instant,
    /// When it is looked at.
    look: Instant,
    accepted: bool,
    attempt: u32,
    stream: Option<StreamId>,
    /// The one before, until the peer has accepted the next.
    left: Option<StreamId>,
    /// Since when it has none that the peer has accepted, after one that ended.
    lost: Option<Instant>,
    wants_stream: bool,
    out: VecDeque<Frame>,
    queue: Queue,
}

/// How long a service is passed over that refused a flow, or whose peer cannot be reached. A client that goes on sending would open
/// a flow with each datagram.
pub const PASSED_OVER: Duration = Duration::from_secs(1);

impl Flows {
    /// None yet. `instance` is random.
    #[must_use]
    pub fn new(instance: u64, settings: Settings) -> Self {
        let most = settings.bytes;
        Self {
            instance,
            settings,
            flows: BTreeMap::new(),
            clients: HashMap::new(),
            passed_over: HashMap::new(),
            peers: BTreeMap::new(),
            in_role: [0; 2],
            all: Room { held: 0, most },
            looks: BTreeSet::new(),
            actions: VecDeque::new(),
            dropped: Dropped::default(),
        }
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What all queues hold, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.all.held
    }

    /// What went nowhere so far.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// The client of a flow of a forward.
    #[must_use]
    pub fn client(&self, key: &FlowKey) -> Option<ClientId> {
        let client = self.flows.get(key)?.client.as_ref()?;
        Some(client.id)
    }

    /// The session and the service of a flow.
    #[must_use]
    pub fn session(&self, key: &FlowKey) -> Option<(SessionId, &ServiceName)> {
        let flow = self.flows.get(key)?;
        Some((flow.session, &flow.service))
    }

    /// Whether a client has a flow.
    #[must_use]
    pub fn knows(&self, client: &ClientId) -> bool {
        self.clients.contains_key(client)
    }

    /// Whether a flow has something for its stream.
    #[must_use]
    pub fn is_queued(&self, key: &FlowKey) -> bool {
        let flow = self.flows.get(key);
        flow.is_some_and(|flow| !(flow.queue.is_empty() && flow.out.is_empty()))
    }

    /// The best path of `peer` carries QUIC datagrams of `size` bytes; `None`: it carries none.
    pub fn handle_path(&mut self, peer: PeerId, size: Option<usize>) {
        self.peer(peer).datagram_size = size;
        self.forget(peer);
    }

    /// A client has sent a datagram to a forward. The flow that carries it.
    pub fn handle_client(&mut self, from: FromClient, now: Instant) -> Option<FlowKey> {
        let known = self.clients.get(&from.id).copied();
        let client = Client {
            id: from.id,
            to: from.to,
        };
        let Some(key) = known.or_else(|| self.open(client, from.session, now)) else {
            self.dropped.refused += 1;
            return None;
        };
        self.send(key, from.payload, now);
        Some(key)
    }

    /// The target of a flow has sent a datagram.
    pub fn handle_target(&mut self, key: FlowKey, payload: Bytes, now: Instant) {
        self.send(key, payload, now);
    }

    /// The best path of `peer` has brought a QUIC datagram.
    pub fn handle_datagram(&mut self, peer: PeerId, datagram: Bytes, now: Instant) {
        let Some((number, opener, payload)) = datagram::decode(datagram) else {
            self.dropped.unknown += 1;
            return;
        };
        let role = match opener {
            Opener::Sender => Role::Service,
            Opener::Receiver => Role::Forward,
        };
        self.deliver(FlowKey { peer, role, number }, payload, now);
    }

    /// The flow is not wanted any longer: its socket broke, or its service or forward is gone.
    pub fn handle_reset(&mut self, key: FlowKey) {
        self.end(key, End::Reset);
    }

    /// The flow's peer cannot be reached.
    pub fn handle_unreachable(&mut self, key: FlowKey, now: Instant) {
        if self.flows.get(&key).is_some_and(|flow| !flow.accepted) {
            self.pass_over(key, End::Unreachable, now);
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.looks.first().copied()
            && at <= now
        {
            self.looks.pop_first();
            let Some(flow) = self.flows.get_mut(&key) else {
                continue;
            };
            flow.look = flow.last + flow.idle;
            match flow.look <= now {
                true => drop(self.end(key, End::Idle)),
                false => {
                    self.looks.insert((flow.look, key));
                }
            }
        }
    }

    /// A flow of `client` at the first of its destinations that is not passed over.
    fn open(&mut self, client: Client, session: SessionId, now: Instant) -> Option<FlowKey> {
        self.passed_over.retain(|_, until| *until > now);
        let mut to = client.to.iter();
        let (service, id) = to.find(|to| !self.passed_over.contains_key(to))?.clone();
        self.make_room(id, now);
        if self.is_full(id, Role::Forward) {
            return None;
        }
        let peer = self.peer(id);
        let number = FlowNumber::new(peer.next & FlowNumber::MAX)?;
        let key = FlowKey {
            peer: id,
            role: Role::Forward,
            number,
        };
        peer.next = peer.next.wrapping_add(1);
        if self.flows.contains_key(&key) {
            // After 2^29 flows one of the first still lives.
            return None;
        }
        let flow = Flow {
            session,
            service,
            client: Some(client.clone()),
            idle: self.settings.idle,
            last: now,
            look: now,
            accepted: false,
            attempt: 0,
            stream: None,
            left: None,
            lost: None,
            wants_stream: true,
            out: VecDeque::new(),
            queue: Queue::default(),
        };
        self.clients.insert(client.id, key);
        self.insert(key, flow, now);
        self.actions.push_back(Action::OpenStream(key));
        Some(key)
    }

    /// A newcomer takes the place of the flow that has been silent longest, as in a NAT, somewhat before the peer would refuse it.
    fn make_room(&mut self, peer: PeerId, now: Instant) {
        let most = self.settings.flows_per_peer;
        if self.peer(peer).flows[Role::Forward as usize] >= most - most / 64 {
            self.end_silent(peer, Role::Forward, now);
        }
    }

    fn is_full(&mut self, peer: PeerId, role: Role) -> bool {
        let (of_peer, of_all) = (self.settings.flows_per_peer, self.settings.flows);
        let role = role as usize;
        self.in_role[role] >= of_all || self.peer(peer).flows[role] >= of_peer
    }

    fn insert(&mut self, key: FlowKey, mut flow: Flow, now: Instant) {
        flow.look = now + flow.idle;
        self.looks.insert((flow.look, key));
        self.flows.insert(key, flow);
        self.in_role[key.role as usize] += 1;
        self.peer(key.peer).flows[key.role as usize] += 1;
    }

    /// Toward the peer.
    fn send(&mut self, key: FlowKey, payload: Bytes, now: Instant) {
        let (Some(flow), Some(peer)) = (self.flows.get_mut(&key), self.peers.get_mut(&key.peer))
        else {
            self.dropped.unknown += 1;
            return;
        };
        if payload.len() > MAX_DATAGRAM {
            self.dropped.refused += 1;
            return;
        }
        // A target that goes on sending keeps no flow whose caller is gone.
        if key.role == Role::Forward || flow.stream.is_some() {
            flow.last = now;
        }
        let fits = |size: usize| key.number.overhead() + payload.len() <= size;
        if flow.accepted && peer.datagram_size.is_some_and(fits) {
            let opener = match key.role {
                Role::Forward => Opener::Sender,
                Role::Service => Opener::Receiver,
            };
            let datagram = datagram::encode(key.number, opener, &payload);
            self.actions
                .push_back(Action::SendDatagram(key.peer, datagram));
            // The stream shows whether the peer still has the flow.
            self.want_stream(key);
            return;
        }
        self.dropped.displaced += flow.queue.push(payload, [&mut peer.room, &mut self.all]);
        self.want_stream(key);
    }

    /// Toward the client or the target.
    fn deliver(&mut self, key: FlowKey, payload: Bytes, now: Instant) {
        match self.flows.get_mut(&key) {
            // The first answer overtakes `ACCEPT`, which comes on the stream.
            Some(flow) => {
                flow.last = now;
                self.actions.push_back(Action::Deliver(key, payload));
            }
            None => self.dropped.unknown += 1,
        }
    }

    /// The flow cannot be at its peer: it goes on at another destination, if there is one.
    fn pass_over(&mut self, key: FlowKey, end: End, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        // A peer that was restarted has lost the flow, and may have a new one.
        let is_lost = flow.accepted && end == End::Refused(Refusal::UnknownSession);
        if !is_lost {
            let to = (flow.service.clone(), key.peer);
            self.passed_over.insert(to, now + PASSED_OVER);
        }
        let (session, client) = (flow.session, flow.client.clone());
        let waiting = self.end(key, end);
        let next = client.and_then(|client| self.open(client, session, now));
        if let Some(next) = next {
            for payload in waiting {
                self.send(next, payload, now);
            }
        }
    }

    /// Ends a flow. What waited in its queue.
    fn end(&mut self, key: FlowKey, end: End) -> Vec<Bytes> {
        let Some(mut flow) = self.flows.remove(&key) else {
            return Vec::new();
        };
        let peer = self
            .peers
            .get_mut(&key.peer)
            .expect("peers with flows are known");
        let rooms = std::iter::from_fn(|| flow.queue.pop([&mut peer.room, &mut self.all]));
        let waiting = rooms.collect();
        self.in_role[key.role as usize] -= 1;
        peer.flows[key.role as usize] -= 1;
        if let Some(client) = flow.client {
            self.clients.remove(&client.id);
        }
        self.looks.remove(&(flow.look, key));
        self.close(key, flow.left);
        if let Some(stream) = flow.stream {
            // A peer that does not know would send into the void.
            let reason = match end {
                End::Idle => Some(ResetReason::Idle),
                End::Reset => Some(ResetReason::ServiceGone),
                End::Violation => Some(ResetReason::Violation),
                End::Refused(_) | End::ResetByPeer(_) | End::Unreachable => None,
            };
            self.actions
                .push_back(Action::CloseStream(key, stream, reason));
        }
        let closed = Action::Closed(key, flow.session, end);
        self.actions.push_back(closed);
        self.forget(key.peer);
        waiting
    }

    fn close(&mut self, key: FlowKey, stream: Option<StreamId>) {
        let close = stream.map(|stream| Action::CloseStream(key, stream, None));
        self.actions.extend(close);
    }

    fn peer(&mut self, id: PeerId) -> &mut Peer {
        let most = self.settings.bytes_per_peer;
        self.peers.entry(id).or_insert_with(|| Peer {
            next: 0,
            flows: [0; 2],
            in_use: [None; 2],
            room: Room { held: 0, most },
            datagram_size: None,
        })
    }

    /// A peer that never had a flow needs no place, unless its path is of use to the first one.
    fn forget(&mut self, id: PeerId) {
        let idle = |peer: &Peer| peer.flows == [0; 2] && peer.datagram_size.is_none();
        // The number goes on: a datagram of an earlier flow must not reach a later one.
        if self
            .peers
            .get(&id)
            .is_some_and(|peer| idle(peer) && peer.next == 0)
        {
            self.peers.remove(&id);
        }
    }
}
