//! What a transport gives the swarm.

use futures::future::BoxFuture;
use libp2p::{
    PeerId,
    core::{muxing::StreamMuxerBox, transport::TransportEvent},
};

use crate::net::error::Error;

/// An authenticated, multiplexed connection and its remote.
pub(crate) type Connection = (PeerId, StreamMuxerBox);

/// A connection that is not established yet.
pub(crate) type Incoming = BoxFuture<'static, Result<Connection, Error>>;

/// An event of a listener.
pub(crate) type Event = TransportEvent<Incoming, Error>;
