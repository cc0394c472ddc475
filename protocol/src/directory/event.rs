//! What the directory reports.

use std::time::Instant;

use libp2p::{
    PeerId,
    kad::{self, GetRecordOk, InboundRequest, QueryId, QueryResult, Record},
    swarm::ConnectionId,
};

use super::{Refused, Registration, TTL};

/// What the directory reports to its owner.
#[derive(Debug)]
pub enum Event {
    /// A peer wants a relay to keep a record, whose signature is not checked yet; see [`Put::verify`] and
    /// [`Behaviour::store`](super::Behaviour::store).
    Put(Put),
    /// A relay answered a query with an invalid record.
    Refused {
        /// The relay.
        source: Option<PeerId>,
        /// Why the record is invalid.
        reason: Refused,
    },
    /// An answer to a query of [`Behaviour::look_up`](super::Behaviour::look_up). Each relay may send one.
    Found {
        /// The query that it answers.
        query: QueryId,
        /// The record that the relay has.
        registration: Registration,
    },
    /// A query has ended; no further answers will come.
    LookedUp {
        /// The query that has ended.
        query: QueryId,
    },
    /// [`Behaviour::register`](super::Behaviour::register) or [`Behaviour::copy`](super::Behaviour::copy) is over.
    Sent {
        /// The query that has ended.
        query: QueryId,
        /// Whether the relay has confirmed the record.
        arrived: bool,
    },
}

/// A record as it arrived.
#[derive(Debug, Clone)]
pub struct Put {
    /// The peer that offers it.
    pub source: PeerId,
    /// The connection on which it does.
    pub connection: ConnectionId,
    record: Record,
}

impl Put {
    /// Checks the signature.
    ///
    /// # Errors
    ///
    /// If it is not a record of the peer under whose id it came, signed by that peer.
    pub fn verify(self) -> Result<Offer, Refused> {
        let Self { source, record, .. } = self;
        Ok(Offer {
            source,
            registration: Registration::read(record.key.as_ref(), &record.value)?,
            value: record.value,
            // Kademlia sets it where the peer has not.
            expires: record.expires.unwrap_or_else(|| Instant::now() + TTL),
        })
    }
}

/// A record that a relay may keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The peer that offers it: the subject of the record, or a relay that keeps a copy.
    pub source: PeerId,
    /// The content of the record.
    pub registration: Registration,
    /// Its signed envelope.
    pub value: Vec<u8>,
    /// When it expires.
    pub expires: Instant,
}

/// What an event of Kademlia's is here, if anything.
pub(super) fn event(event: kad::Event) -> Option<Event> {
    match event {
        kad::Event::InboundRequest {
            request:
                InboundRequest::PutRecord {
                    source,
                    connection,
                    record: Some(record),
                },
        } => Some(Event::Put(Put {
            source,
            connection,
            record,
        })),
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
        QueryResult::PutRecord(result) => Some(Event::Sent {
            query,
            arrived: result.is_ok(),
        }),
        QueryResult::Bootstrap(_)
        | QueryResult::GetClosestPeers(_)
        | QueryResult::GetProviders(_)
        | QueryResult::StartProviding(_)
        | QueryResult::RepublishProvider(_)
        | QueryResult::RepublishRecord(_) => None,
    }
}
