//! Protocol negotiation in a swarm that negotiates lazily.
//!
//! [`multistream-select`](https://github.com/multiformats/multistream-select) takes a round trip before a stream carries data.
//! With [`LAZY`] the data goes out with the proposal, since a proposal of a single protocol has only one useful answer. That
//! saves most on a path through a relay.
//!
//! The price: a stream opens before the remote has agreed. If the remote does not support the protocol, reading fails with an
//! error that [`is_refusal`] recognizes. [`Confirmed`] waits for the agreement.

use std::{
    future::{Ready, ready},
    io,
};

use libp2p::{
    StreamProtocol,
    core::{
        UpgradeInfo,
        upgrade::{NegotiationError, OutboundUpgrade, Version},
    },
    swarm::handler::ProtocolsChange,
};

/// How a swarm negotiates its streams: `Config::with_substream_upgrade_protocol_override`.
pub const LAZY: Version = Version::V1Lazy;

/// Proposed after the wanted protocol. No peer supports it, and it is never sent. With a second proposal the negotiation has to
/// wait for the answer to the first.
const NONE: StreamProtocol = StreamProtocol::new("/p2pnode/none");

/// An outbound upgrade that completes when the remote has agreed, even in a swarm that negotiates lazily; or that negotiates as
/// the swarm does.
#[derive(Debug, Clone)]
pub struct Confirmed {
    protocol: StreamProtocol,
    waits: bool,
}

/// The remote does not support the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the remote does not support the protocol")]
pub struct Unsupported;

impl Confirmed {
    /// Proposes `protocol` and waits for the agreement.
    #[must_use]
    pub fn new(protocol: StreamProtocol) -> Self {
        Self {
            protocol,
            waits: true,
        }
    }

    /// Proposes `protocol` as the swarm does. With [`LAZY`] that does not wait.
    #[must_use]
    pub fn unconfirmed(protocol: StreamProtocol) -> Self {
        Self {
            protocol,
            waits: false,
        }
    }
}

impl Confirmed {
    /// The protocol.
    #[must_use]
    pub const fn name(&self) -> &StreamProtocol {
        &self.protocol
    }
}

impl UpgradeInfo for Confirmed {
    type Info = StreamProtocol;
    type InfoIter =
        std::iter::Chain<std::iter::Once<StreamProtocol>, std::option::IntoIter<StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.protocol.clone()).chain(self.waits.then_some(NONE))
    }
}

impl<C> OutboundUpgrade<C> for Confirmed {
    type Output = C;
    type Error = Unsupported;
    type Future = Ready<Result<C, Unsupported>>;

    fn upgrade_outbound(self, stream: C, protocol: StreamProtocol) -> Self::Future {
        ready(if protocol == NONE {
            Err(Unsupported)
        } else {
            Ok(stream)
        })
    }
}

/// Whether a remote supports a protocol of ours, by the list that it sends in identify.
///
/// A protocol that the list does not name is not proposed. With [`LAZY`] the request would go out with the proposal, and py-libp2p
/// 0.8 ends its process at such a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listed {
    /// The remote has not identified itself yet.
    #[default]
    Unknown,
    /// It supports the protocol.
    Yes,
    /// It does not.
    No,
}

impl Listed {
    /// The list has changed. For [`ConnectionEvent::RemoteProtocolsChange`](libp2p::swarm::handler::ConnectionEvent).
    pub fn handle_change(&mut self, change: &ProtocolsChange<'_>, protocol: &StreamProtocol) {
        match change {
            ProtocolsChange::Added(added) => {
                if added.clone().any(|added| added == protocol) {
                    *self = Self::Yes;
                } else if *self == Self::Unknown {
                    *self = Self::No;
                }
            }
            ProtocolsChange::Removed(removed) => {
                if removed.clone().any(|removed| removed == protocol) {
                    *self = Self::No;
                }
            }
        }
    }
}

/// Whether an error of a stream means that the remote does not support its protocol.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    let carried = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(carried, Some(NegotiationError::Failed))
}
