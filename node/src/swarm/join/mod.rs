//! `/p2pnode/join/1`, the node's side: presents the node's join token to a relay before it asks the relay for anything.
//!
//! - [`crate::core::tokens`]: the file of tokens.
//! - [`words`]: what the node reports when a relay refuses it.

mod words;

use std::{collections::HashSet, io};

use libp2p::{PeerId, Stream, swarm::ConnectionId};
use p2pnode_protocol::{
    exchange::Asking,
    join::{self, Join, Request},
};

pub(crate) use crate::core::tokens::{TokenFileError, Tokens, check as check_file};
pub(crate) use join::{JoinReply, PROTOCOL};
pub(crate) use words::refused;

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
#[derive(Default)]
pub(crate) struct Exchanges {
    asking: Asking<(PeerId, ConnectionId, bool), Join>,
    open: HashSet<(PeerId, ConnectionId)>,
}

impl Exchanges {
    /// Presents `token`, or only the node's peer id, over a stream that is being opened.
    pub(crate) fn present(
        &mut self,
        relay: PeerId,
        connection: ConnectionId,
        token: Option<String>,
        again: bool,
        stream: impl Future<Output = io::Result<Stream>> + Send + 'static,
    ) {
        self.open.insert((relay, connection));
        let key = (relay, connection, again);
        self.asking.ask(key, stream, Request { token });
    }

    /// Whether a relay has not answered yet.
    pub(crate) fn is_awaited(&self, relay: &PeerId) -> bool {
        self.open.iter().any(|(of, _)| of == relay)
    }

    /// The next exchange that ends.
    pub(crate) async fn next(&mut self) -> Outcome {
        let ((relay, connection, again), reply) = self.asking.next().await;
        self.open.remove(&(relay, connection));
        Outcome {
            relay,
            connection,
            reply: reply.into(),
            again,
        }
    }
}
