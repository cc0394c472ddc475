//! Kademlia, of which only what the directory needs comes through.
//!
//! libp2p's dials whoever an answer names. This dials nobody: a query goes to those that are connected and are partners, and
//! fails at the others. Nor does a peer that is no partner get a question, whatever it says it speaks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, multiaddr::Protocol, transport::PortUse},
    kad::{
        self, BucketInserts, Caching, GetRecordOk, InboundRequest, Mode, QueryResult, Quorum,
        Record, RecordKey, StoreInserts,
        store::{MemoryStore, MemoryStoreConfig, RecordStore as _},
    },
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{
    MAX_BYTES, PROTOCOL, Refused, Registration, TAKEN_BACK, TTL,
    verdict::{Judged, Verdict, judge},
};

pub use libp2p::kad::QueryId;

/// How long an answer may take: a relay that is there answers in a round trip.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a record that was taken back is kept for relays that are to be told: they are told at once, so many at a time.
const TOLD: Duration = Duration::from_secs(60);

/// What comes of the directory.
#[derive(Debug)]
pub enum Event {
    /// A peer wants a relay to keep a record; see [`Behaviour::keep`].
    Offered(Offer),
    /// A peer told a record that is none.
    Refused {
        /// Who told it.
        source: Option<PeerId>,
        /// Why it is none.
        reason: Refused,
    },
    /// An answer to a question of [`Behaviour::look_up`]. There may be one from each relay.
    Found {
        /// The question.
        query: QueryId,
        /// The answer.
        registration: Registration,
    },
    /// No more answers will come.
    LookedUp {
        /// The question.
        query: QueryId,
    },
    /// [`Behaviour::register`] or [`Behaviour::copy`] is over.
    Told {
        /// Which.
        query: QueryId,
        /// Whether it arrived.
        arrived: bool,
    },
}

/// A record that a relay may keep.
#[derive(Debug)]
pub struct Offer {
    /// Who told it: the peer that it is about, or one that keeps a copy.
    pub source: PeerId,
    /// What it says.
    pub registration: Registration,
    record: Record,
}

/// What has become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    New,
    /// The relay through which alone it leads takes it back: what is kept of it ends within [`TAKEN_BACK`].
    TakenBack,
}

/// Why a record was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// A newer one is kept, or the same.
    #[error("a newer record of the peer is known")]
    Old,
    /// There is no room.
    #[error("the directory is full")]
    Full,
}

/// The directory's side in a relay or in a node.
pub struct Behaviour {
    inner: kad::Behaviour<MemoryStore>,
    /// Whom it speaks with; `None`: with everybody.
    partners: Option<BTreeSet<PeerId>>,
    /// The connections over which it does, oldest first.
    ours: BTreeMap<ConnectionId, PeerId>,
    /// Records that were taken back here, for other relays to be told, and since when.
    taken_back: HashMap<PeerId, (Record, Instant)>,
}

impl Behaviour {
    /// A relay's: answers everybody, and keeps up to `records` records.
    pub fn server(local: PeerId, records: usize) -> Self {
        Self::new(local, records, Mode::Server, None)
    }

    /// A node's: asks these relays, and answers nobody.
    pub fn client(local: PeerId, relays: impl IntoIterator<Item = (PeerId, Multiaddr)>) -> Self {
        let mut partners = BTreeSet::new();
        let mut this = Self::new(local, 0, Mode::Client, None);
        for (relay, addr) in relays {
            this.inner.add_address(&relay, addr);
            partners.insert(relay);
        }
        this.partners = Some(partners);
        this
    }

    fn new(
        local: PeerId,
        max_records: usize,
        mode: Mode,
        partners: Option<BTreeSet<PeerId>>,
    ) -> Self {
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
            partners,
            ours: BTreeMap::new(),
            taken_back: HashMap::new(),
        }
    }

    /// Registers this node's own record at a relay.
    pub fn register(&mut self, relay: PeerId, peer: &PeerId, value: Vec<u8>) -> QueryId {
        let record = Record::new(RecordKey::from(peer.to_bytes()), value);
        self.tell(relay, record)
    }

    /// Asks all relays that are connected for the record of `peer`.
    pub fn look_up(&mut self, peer: &PeerId) -> QueryId {
        self.inner.get_record(RecordKey::from(peer.to_bytes()))
    }

    /// Keeps a record until it expires or a newer one comes. Whether it is a peer's to offer is for the caller to judge.
    ///
    /// The peer itself may replace its record by one of any number: its clock may have been set back. A relay may take back what
    /// leads through it alone. What was taken back here comes again from the peer only, or with a newer record.
    ///
    /// # Errors
    ///
    /// If a newer one is kept, or there is no room.
    pub fn keep(&mut self, offer: Offer) -> Result<Kept, NotKept> {
        let Offer {
            source,
            registration,
            record,
        } = offer;
        let (now, peer) = (Instant::now(), registration.peer);
        let read = |record: &Record| Registration::read(record.key.as_ref(), &record.value).ok();
        let taken_back = self.taken_back.get(&peer);
        let taken_back = taken_back.and_then(|(record, _)| read(record));
        let known = self.record(&peer);
        let known = known.and_then(|record| Some((read(&record)?, ends_soon(&record, now))));
        let kept = known.as_ref().map(|(registration, ends_soon)| Judged {
            registration,
            ends_soon: *ends_soon,
        });
        let offered = Judged {
            registration: &registration,
            ends_soon: ends_soon(&record, now),
        };
        let outcome = match judge(&source, offered, kept, taken_back.as_ref()) {
            Verdict::Old => return Err(NotKept::Old),
            Verdict::Shorten => Kept::TakenBack,
            Verdict::Keep => Kept::New,
        };
        self.taken_back.remove(&peer);
        if self.inner.store_mut().put(record.clone()).is_ok() {
            return Ok(outcome);
        }
        self.expire(now);
        let store = self.inner.store_mut();
        store
            .put(record)
            .map(|()| outcome)
            .map_err(|_| NotKept::Full)
    }

    /// Drops the record of a peer that may not be called here any more. Whether it was kept; then [`Behaviour::copy`] takes it back
    /// from another relay.
    pub fn take_back(&mut self, peer: &PeerId) -> bool {
        let Some(record) = self.record(peer) else {
            return false;
        };
        self.inner.store_mut().remove(&record.key);
        self.taken_back.insert(*peer, (record, Instant::now()));
        true
    }

    /// The record of a peer, if it is kept.
    pub fn kept(&mut self, peer: &PeerId) -> Option<Registration> {
        let record = self.record(peer)?;
        Registration::read(record.key.as_ref(), &record.value).ok()
    }

    /// The peers whose records are kept.
    pub fn peers(&mut self) -> BTreeSet<PeerId> {
        let records = self.inner.store_mut().records();
        records
            .filter_map(|record| PeerId::from_bytes(record.key.as_ref()).ok())
            .collect()
    }

    /// How many records are kept.
    pub fn len(&mut self) -> usize {
        self.inner.store_mut().records().count()
    }

    /// Whether none is kept.
    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: Instant) {
        let store = self.inner.store_mut();
        store.retain(|_, record| !record.is_expired(now));
        self.taken_back
            .retain(|_, (record, since)| !record.is_expired(now) && now < *since + TOLD);
    }

    /// Copies the record of `peer` to another relay, or tells it that the record was taken back; `None` if it is not kept, or for
    /// less than a second more: the protocol carries whole seconds, and none means for ever.
    pub fn copy(&mut self, peer: &PeerId, relay: PeerId) -> Option<QueryId> {
        let now = Instant::now();
        let record = match (self.record(peer), self.taken_back.get(peer)) {
            (Some(record), _) => record,
            (None, Some((record, _))) => {
                let mut record = record.clone();
                let ends = now + TAKEN_BACK;
                record.expires = Some(record.expires.map_or(ends, |at| at.min(ends)));
                record
            }
            (None, None) => return None,
        };
        let soon = now + Duration::from_secs(2);
        (!record.is_expired(soon)).then(|| self.tell(relay, record))
    }

    fn record(&mut self, peer: &PeerId) -> Option<Record> {
        let key = RecordKey::from(peer.to_bytes());
        let record = self.inner.store_mut().get(&key)?.into_owned();
        (!record.is_expired(Instant::now())).then_some(record)
    }

    fn tell(&mut self, relay: PeerId, record: Record) -> QueryId {
        let to = std::iter::once(relay);
        self.inner.put_record_to(record, to, Quorum::One)
    }

    fn claims(&mut self, connection: ConnectionId, peer: PeerId, address: &Multiaddr) -> bool {
        let claims = self
            .partners
            .as_ref()
            .is_none_or(|partners| partners.contains(&peer))
            && !address.iter().any(|part| part == Protocol::P2pCircuit);
        if claims {
            self.ours.insert(connection, peer);
        }
        claims
    }
}

fn ends_soon(record: &Record, now: Instant) -> bool {
    record.is_expired(now + TAKEN_BACK)
}

/// What an event of Kademlia's is here, if anything.
fn event(event: kad::Event) -> Option<Event> {
    match event {
        kad::Event::InboundRequest {
            request:
                InboundRequest::PutRecord {
                    source,
                    record: Some(record),
                    ..
                },
        } => Some(
            match Registration::read(record.key.as_ref(), &record.value) {
                Ok(registration) => Event::Offered(Offer {
                    source,
                    registration,
                    record,
                }),
                Err(reason) => Event::Refused {
                    source: Some(source),
                    reason,
                },
            },
        ),
        kad::Event::OutboundQueryProgressed {
            id, result, step, ..
        } => query(id, result, step.last),
        kad::Event::InboundRequest { .. }
        | kad::Event::RoutingUpdated { .. }
        | kad::Event::UnroutablePeer { .. }
        | kad::Event::RoutablePeer { .. }
        | kad::Event::PendingRoutablePeer { .. }
        | kad::Event::ModeChanged { .. } => None,
    }
}

fn query(query: QueryId, result: QueryResult, is_last: bool) -> Option<Event> {
    match result {
        QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(kad::PeerRecord { peer, record }))) => {
            Some(
                match Registration::read(record.key.as_ref(), &record.value) {
                    Ok(registration) => Event::Found {
                        query,
                        registration,
                    },
                    Err(reason) => Event::Refused {
                        source: peer,
                        reason,
                    },
                },
            )
        }
        QueryResult::GetRecord(_) => is_last.then_some(Event::LookedUp { query }),
        QueryResult::PutRecord(told) => Some(Event::Told {
            query,
            arrived: told.is_ok(),
        }),
        QueryResult::Bootstrap(_)
        | QueryResult::GetClosestPeers(_)
        | QueryResult::GetProviders(_)
        | QueryResult::StartProviding(_)
        | QueryResult::RepublishProvider(_)
        | QueryResult::RepublishRecord(_) => None,
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
            match ready!(self.inner.poll(cx)) {
                ToSwarm::GenerateEvent(inner) => {
                    if let Some(event) = event(inner) {
                        return Poll::Ready(ToSwarm::GenerateEvent(event));
                    }
                }
                ToSwarm::Dial { opts } => {
                    let failure = DialFailure {
                        peer_id: opts.get_peer_id(),
                        error: &DialError::Aborted,
                        connection_id: opts.connection_id(),
                    };
                    self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                }
                ToSwarm::NotifyHandler {
                    peer_id,
                    handler,
                    event,
                } => {
                    // Of the peer's connections not every one speaks it, and an older one may be dead without our knowing it: the
                    // peer was killed and is back.
                    let handler = match handler {
                        NotifyHandler::One(_) => handler,
                        NotifyHandler::Any => {
                            let mut newest_first = self.ours.iter().rev();
                            let ours = newest_first.find(|(_, peer)| **peer == peer_id);
                            let Some((one, _)) = ours else {
                                continue;
                            };
                            NotifyHandler::One(*one)
                        }
                    };
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
