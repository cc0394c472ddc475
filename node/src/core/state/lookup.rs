//! What the directory is asked.

use libp2p::PeerId;

/// What a question to the directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The record of a peer that is dialed.
    Peer(PeerId),
    /// This node's own record of an earlier run, before the next one is registered at this relay.
    OwnRecord {
        /// The relay.
        relay: PeerId,
    },
}
