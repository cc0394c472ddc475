//! `/p2pnode/join/1`, the node's side: presents the node's join token to a relay before it asks the relay for anything.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
};

use libp2p::{PeerId, Stream, swarm::ConnectionId};
use p2pnode_protocol::{
    exchange::Asking,
    join::{self, Join, JoinReply, Request},
};

use crate::core::state::JoinRequest;

pub(crate) use join::PROTOCOL;

/// The end of an exchange. A relay that has not answered in time is asked for everything else all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The relay.
    pub(crate) relay: PeerId,
    /// The connection to it.
    pub(crate) connection: ConnectionId,
    /// What the relay answered.
    pub(crate) reply: JoinReply,
    /// Whether this node had asked on the connection before.
    pub(crate) again: bool,
}

/// The requests under way.
pub(crate) struct Exchanges {
    asking: Asking<(PeerId, ConnectionId, bool), Join>,
    /// Names this process.
    instance: u64,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self {
            asking: Asking::default(),
            instance: RandomState::new().hash_one(0),
        }
    }
}

impl Exchanges {
    /// Presents a token, or only the node's peer id, over a stream that is being opened.
    pub(crate) fn present(
        &mut self,
        request: JoinRequest,
        stream: impl Future<Output = io::Result<Stream>> + Send + 'static,
    ) {
        let JoinRequest {
            relay,
            connection,
            token,
            again,
        } = request;
        let key = (relay, connection, again);
        let instance = Some(self.instance);
        self.asking.ask(key, stream, Request { token, instance });
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> Outcome {
        let ((relay, connection, again), reply) = self.asking.next().await;
        Outcome {
            relay,
            connection,
            reply: reply.into(),
            again,
        }
    }
}
