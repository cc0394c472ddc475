//! `/p2pnode/hop/1`, the node's side: asks the relay that carries a circuit about the other leg of it.
//!
//! About which circuit to ask, and when, [`inquiries`](crate::core::inquiries) decides.

mod ask;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{StreamProtocol, swarm::ConnectionId};

use crate::{
    core::inquiries::{Circuit, HopReply},
    swarm::streams::Opening,
};

/// The protocol that a question is asked over.
pub(crate) const PROTOCOL: StreamProtocol = p2pnode_protocol::hop::PROTOCOL;

/// The exchanges that are under way.
#[derive(Default)]
pub(crate) struct Exchanges(FuturesUnordered<BoxFuture<'static, (ConnectionId, HopReply)>>);

impl Exchanges {
    /// Asks about `circuit` over a stream that is being opened to its relay.
    pub(crate) fn ask(&mut self, circuit: &Circuit, stream: Opening) {
        let (id, request) = (circuit.connection, circuit.request());
        self.0.push(
            ask::ask(stream, request)
                .map(move |reply| (id, reply))
                .boxed(),
        );
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> (ConnectionId, HopReply) {
        match self.0.next().await {
            Some(reply) => reply,
            // None is under way. The event loop asks again after it began one.
            None => std::future::pending().await,
        }
    }
}
