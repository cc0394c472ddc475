//! The part of Kademlia that the directory needs.
//!
//! libp2p's Kademlia dials every peer that an answer names. This behaviour dials no peer: a query goes to connected partners and
//! fails at all other peers. A peer that is no partner gets no query, even if it advertises the protocol. Nor does a partner whose
//! identify does not list the protocol; until the partner has identified itself, queries wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    kad::{
        self, BucketInserts, Caching, Mode, Quorum, Record, RecordKey, StoreInserts,
        store::{MemoryStore, MemoryStoreConfig, RecordStore as _},
    },
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dial_opts::DialOpts,
        dummy,
    },
};

use super::{
    MAX_BYTES, PROTOCOL, TTL,
    event::{Event, event},
};
use crate::addr::is_circuit;

pub use libp2p::kad::QueryId;

/// How long an answer may take: a relay that is there answers in a round trip.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Over which connection a peer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Over(ConnectionId),
    /// When it has identified itself.
    Later,
    /// It does not list the protocol, or is not connected.
    Never,
}

/// The directory's side in a relay or in a node.
pub struct Behaviour {
    inner: kad::Behaviour<MemoryStore>,
    /// Whom it speaks with; `None`: with everybody.
    partners: Option<BTreeSet<PeerId>>,
    /// The connections over which it does, oldest first.
    ours: BTreeMap<ConnectionId, PeerId>,
    /// Those of them whose peer has identified itself, and whether it lists the protocol.
    listed: BTreeMap<ConnectionId, bool>,
    /// Queries to peers that have not identified themselves.
    held: Vec<(PeerId, Query)>,
}

/// What Kademlia sends to the handler of a connection.
type Query = THandlerInEvent<kad::Behaviour<MemoryStore>>;

impl Behaviour {
    /// A relay's: answers everybody. How many records there are is for the caller to bound.
    pub fn server(local: PeerId) -> Self {
        Self::new(local, usize::MAX, Mode::Server)
    }

    /// A node's: asks these relays, and answers nobody.
    pub fn client(local: PeerId, relays: impl IntoIterator<Item = (PeerId, Multiaddr)>) -> Self {
        let mut partners = BTreeSet::new();
        let mut this = Self::new(local, 0, Mode::Client);
        for (relay, addr) in relays {
            this.inner.add_address(&relay, addr);
            partners.insert(relay);
        }
        this.partners = Some(partners);
        this
    }

    fn new(local: PeerId, max_records: usize, mode: Mode) -> Self {
        let store = MemoryStoreConfig {
            max_records,
            // It takes what is shorter than this.
            max_value_bytes: MAX_BYTES + 1,
            max_provided_keys: 0,
            max_providers_per_key: 0,
        };
        let mut config = kad::Config::new(PROTOCOL);
        config
            .set_record_filtering(StoreInserts::FilterBoth)
            .set_record_ttl(Some(TTL))
            .set_query_timeout(QUERY_TIMEOUT)
            .set_parallelism(kad::K_VALUE)
            .set_replication_factor(kad::K_VALUE)
            .set_max_packet_size(4 * MAX_BYTES)
            // Who is asked is configured, and who keeps a copy as well.
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_caching(Caching::Disabled)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None)
            .set_periodic_bootstrap_interval(None);
        let store = MemoryStore::with_config(local, store);
        let mut inner = kad::Behaviour::with_config(local, store, config);
        inner.set_mode(Some(mode));
        Self {
            inner,
            partners: None,
            ours: BTreeMap::new(),
            listed: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    /// A peer has identified itself. It is asked only if it lists the protocol.
    pub fn identified(&mut self, connection: ConnectionId, protocols: &[StreamProtocol]) {
        if self.ours.contains_key(&connection) {
            self.listed
                .insert(connection, protocols.contains(&PROTOCOL));
        }
    }

    /// Over which connection a peer is asked, if that is known. An older one may be dead without our knowing it: the peer was killed
    /// and is back.
    fn connection_to(&self, peer: &PeerId) -> Asked {
        let newest_first = self.ours.iter().rev().filter(|(_, of)| *of == peer);
        for (connection, _) in newest_first {
            match self.listed.get(connection) {
                Some(true) => return Asked::Over(*connection),
                Some(false) => {}
                None => return Asked::Later,
            }
        }
        Asked::Never
    }

    /// The first of the held queries whose peer has identified itself or is gone.
    fn due(&mut self) -> Option<(PeerId, Query)> {
        let held = self.held.iter();
        let at = held
            .enumerate()
            .find(|(_, (peer, _))| self.connection_to(peer) != Asked::Later)?
            .0;
        Some(self.held.remove(at))
    }

    /// Sends a query, holds it back, or lets it fail.
    fn send_query(
        &mut self,
        peer_id: PeerId,
        query: Query,
    ) -> Option<ToSwarm<Event, THandlerInEvent<Self>>> {
        match self.connection_to(&peer_id) {
            Asked::Over(connection) => Some(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event: Either::Left(query),
            }),
            Asked::Later => {
                self.held.push((peer_id, query));
                None
            }
            Asked::Never => {
                self.fail(peer_id, DialOpts::peer_id(peer_id).build().connection_id());
                None
            }
        }
    }

    /// The queries to a peer fail.
    fn fail(&mut self, peer: PeerId, connection_id: ConnectionId) {
        let failure = DialFailure {
            peer_id: Some(peer),
            error: &DialError::Aborted,
            connection_id,
        };
        self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
    }

    /// Registers this node's own record at a relay.
    pub fn register(&mut self, relay: PeerId, peer: &PeerId, value: Vec<u8>) -> QueryId {
        let record = Record::new(RecordKey::from(peer.to_bytes()), value);
        self.send(relay, record)
    }

    /// Asks all relays that are connected for the record of `peer`.
    pub fn look_up(&mut self, peer: &PeerId) -> QueryId {
        self.inner.get_record(RecordKey::from(peer.to_bytes()))
    }

    /// Answers lookups of `peer` with this record until `expires`. The caller decides whether the record is kept.
    ///
    /// # Errors
    ///
    /// If the record is longer than [`MAX_BYTES`], or if the store is full.
    pub fn store(
        &mut self,
        peer: &PeerId,
        value: Vec<u8>,
        expires: Instant,
    ) -> Result<(), kad::store::Error> {
        self.inner.store_mut().put(record(peer, value, expires))
    }

    /// Forgets the record of `peer`: lookups get no answer from now on.
    pub fn remove(&mut self, peer: &PeerId) {
        self.inner
            .store_mut()
            .remove(&RecordKey::from(peer.to_bytes()));
    }

    /// Copies the record of `peer` to another relay.
    pub fn copy(
        &mut self,
        relay: PeerId,
        peer: &PeerId,
        value: Vec<u8>,
        expires: Instant,
    ) -> QueryId {
        self.send(relay, record(peer, value, expires))
    }

    fn send(&mut self, relay: PeerId, record: Record) -> QueryId {
        let to = std::iter::once(relay);
        self.inner.put_record_to(record, to, Quorum::One)
    }

    fn claims(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) -> bool {
        let claims = self
            .partners
            .as_ref()
            .is_none_or(|partners| partners.contains(&peer))
            && !is_circuit(address);
        if claims {
            self.ours.insert(connection, peer);
        }
        claims
    }
}

fn record(peer: &PeerId, value: Vec<u8>, expires: Instant) -> Record {
    Record {
        expires: Some(expires),
        ..Record::new(peer.to_bytes(), value)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler =
        Either<THandler<kad::Behaviour<MemoryStore>>, dummy::ConnectionHandler>;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.claims(connection, peer, local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_inbound_connection(connection, peer, local, remote)
            .map(Either::Left)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.claims(connection, peer, address) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        // The rest is about addresses and dials, which are none of its business.
        if let FromSwarm::ConnectionEstablished(established) = &event {
            if self.ours.contains_key(&established.connection_id) {
                self.inner.on_swarm_event(event);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = &event {
            self.listed.remove(&closed.connection_id);
            if self.ours.remove(&closed.connection_id).is_some() {
                self.inner.on_swarm_event(event);
            }
        } else if let FromSwarm::ListenFailure(failure) = &event {
            self.ours.remove(&failure.connection_id);
        } else if let FromSwarm::DialFailure(failure) = &event {
            self.ours.remove(&failure.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => {
                self.inner
                    .on_connection_handler_event(peer, connection, event);
            }
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            if let Some((peer, query)) = self.due() {
                if let Some(sent) = self.send_query(peer, query) {
                    return Poll::Ready(sent);
                }
                continue;
            }
            match ready!(self.inner.poll(cx)) {
                ToSwarm::GenerateEvent(inner) => {
                    if let Some(event) = event(inner) {
                        return Poll::Ready(ToSwarm::GenerateEvent(event));
                    }
                }
                ToSwarm::Dial { opts } => {
                    if let Some(peer) = opts.get_peer_id() {
                        self.fail(peer, opts.connection_id());
                    }
                }
                ToSwarm::NotifyHandler {
                    peer_id,
                    handler: NotifyHandler::Any,
                    event,
                } => {
                    if let Some(sent) = self.send_query(peer_id, event) {
                        return Poll::Ready(sent);
                    }
                }
                // An answer.
                ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                } => {
                    return Poll::Ready(ToSwarm::NotifyHandler {
                        peer_id,
                        handler,
                        event: Either::Left(event),
                    });
                }
                // It has nothing to say about addresses, listeners or connections.
                ToSwarm::ListenOn { .. }
                | ToSwarm::RemoveListener { .. }
                | ToSwarm::NewExternalAddrCandidate(_)
                | ToSwarm::ExternalAddrConfirmed(_)
                | ToSwarm::ExternalAddrExpired(_)
                | ToSwarm::CloseConnection { .. }
                | ToSwarm::NewExternalAddrOfPeer { .. }
                | _ => {}
            }
        }
    }
}
