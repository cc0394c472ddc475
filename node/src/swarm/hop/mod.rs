//! `/p2pnode/hop/1`, the node's side: asks the relay that carries a circuit about the other leg of it.
//!
//! - [`inquiries`]: about which circuit to ask, and when; pure.
//! - [`ask`]: one exchange.

mod ask;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{StreamProtocol, swarm::ConnectionId};

use crate::{
    core::peers::{Hop, ReportedBy},
    swarm::streams::Opening,
};

pub(crate) use crate::core::inquiries::{Circuit, Inquiries};
pub(crate) use ask::Told;

/// The protocol that a question is asked over.
pub(crate) const PROTOCOL: StreamProtocol = p2pnode_protocol::hop::PROTOCOL;

/// The exchanges that are under way.
#[derive(Default)]
pub(crate) struct Exchanges(FuturesUnordered<BoxFuture<'static, (ConnectionId, Told)>>);

impl Exchanges {
    /// Asks about `circuit` over a stream that is being opened to its relay.
    pub(crate) fn ask(&mut self, circuit: &Circuit, stream: Opening) {
        let (id, request) = (circuit.connection, circuit.request());
        self.0.push(
            ask::ask(stream, request)
                .map(move |told| (id, told))
                .boxed(),
        );
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> (ConnectionId, Told) {
        match self.0.next().await {
            Some(told) => told,
            // None is under way. The event loop asks again after it began one.
            None => std::future::pending().await,
        }
    }
}

/// The far hop of a path, as its relay tells it.
pub(crate) fn hop(leg: p2pnode_protocol::hop::Leg) -> Hop {
    Hop {
        transport: Some(leg.transport),
        family: Some(leg.family),
        local: None,
        remote: None,
        rtt: leg.rtt,
        reported_by: Some(ReportedBy::Relay),
    }
}
