//! Negotiating protocols in a swarm that negotiates lazily.
//!
//! [`multistream-select`](https://github.com/multiformats/multistream-select) costs a round trip before a stream says its
//! first word. With [`LAZY`] the first words go out with the proposal, since a proposal of one protocol has only one good
//! answer. On a path through a relay that saves the most of what there is to save.
//!
//! The price: a stream is open before the remote has agreed. That it does not speak the protocol comes out when the stream
//! is read, as an error that [`is_refusal`] knows. Who has to know before offers [`Confirmed`].

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
};

/// What a swarm negotiates its streams with: `Config::with_substream_upgrade_protocol_override`.
pub const LAZY: Version = Version::V1Lazy;

/// Offered behind the protocol that is wanted. Nobody speaks it, and it is never sent: it only says that a refusal of the
/// first is not the end, and so makes the dialer wait for the answer to it.
const NONE: StreamProtocol = StreamProtocol::new("/p2pnode/none");

/// An outbound upgrade that is done when the remote has agreed, whatever the swarm's way of negotiating; or that leaves it to
/// that way.
#[derive(Debug, Clone)]
pub struct Confirmed {
    protocol: StreamProtocol,
    waits: bool,
}

/// The remote does not speak the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the remote does not speak the protocol")]
pub struct Unsupported;

impl Confirmed {
    /// Offers `protocol`.
    #[must_use]
    pub fn new(protocol: StreamProtocol) -> Self {
        Self {
            protocol,
            waits: true,
        }
    }

    /// Offers `protocol` as the swarm does, and so with [`LAZY`] does not wait.
    #[must_use]
    pub fn unconfirmed(protocol: StreamProtocol) -> Self {
        Self {
            protocol,
            waits: false,
        }
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

/// Whether an error of a stream says that the remote does not speak its protocol.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    let carried = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(carried, Some(NegotiationError::Failed))
}
