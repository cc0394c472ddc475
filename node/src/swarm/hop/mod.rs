//! `/p2pnode/hop/1`, the node's side: asks the relay that carries a circuit about the other leg of it.
//!
//! [`crate::core::inquiries`] decides about which circuit to ask, and when.

use libp2p::swarm::ConnectionId;
use p2pnode_protocol::{
    exchange::Asking,
    hop::{self, Hop as Protocol, Leg},
};

use crate::core::peers::{Hop, ReportedBy};

pub(crate) use crate::core::inquiries::{Circuit, Inquiries};
pub(crate) use hop::{HopReply, PROTOCOL};

/// The requests under way, each known by the connection that is its circuit.
pub(crate) type Exchanges = Asking<ConnectionId, Protocol>;

/// The far hop of a path, as its relay reports it.
pub(crate) fn hop(leg: Leg) -> Hop {
    Hop {
        transport: Some(leg.transport),
        family: Some(leg.family),
        local: None,
        remote: None,
        rtt: leg.rtt,
        reported_by: Some(ReportedBy::Relay),
    }
}
