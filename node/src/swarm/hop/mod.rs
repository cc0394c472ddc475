//! `/p2pnode/hop/1`, the node's side: asks the relay that carries a circuit about the other leg of it.
//!
//! [`crate::core::inquiries`] decides about which circuit to ask, and when.

use libp2p::swarm::ConnectionId;
use p2pnode_protocol::{
    exchange::Asking,
    hop::{self, Hop},
};

pub(crate) use hop::PROTOCOL;

/// The requests under way, each known by the connection that is its circuit.
pub(crate) type Exchanges = Asking<ConnectionId, Hop>;
