//! [Ping](https://github.com/libp2p/specs/blob/master/ping/ping.md): round trip times, and connections that do not answer.
//!
//! Each connection has one outbound stream, as the specification asks, and answers on two. If a stream that worked before stays
//! silent, the handler pings over a new one before it gives up. If that helps, it keeps to new streams.
//!
//! libp2p-ping 0.48 does not serve, for three reasons:
//!
//! - After an answer it does not poll the future that waits for the next ping. Over QUIC only its own streams wake a connection,
//!   so that ping waits until the answering side pings. A peer with libp2p-ping looks dead to any peer that pings more often.
//!   To a peer without ping it answers nothing at all.
//! - It does not report the first failure, and then takes up to 10 s to open another stream. So a dead connection is not known
//!   within seconds.
//! - It has one interval for all connections, and cannot ping on request.

mod behaviour;
mod handler;
mod patience;
mod timers;

use std::{io, time::Duration};

use libp2p::StreamProtocol;

pub use behaviour::{Behaviour, Event};
pub use handler::{Handler, Now, Outcome};
pub use patience::Patience;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// How often to ping a connection, and how long to wait for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From an answer to the next ping. The handler also pings when the connection opens, and at once after an unanswered ping.
    pub interval: Duration,
    /// How long to wait for an answer on a usual path, the time to open a stream included. Both transports retransmit several times
    /// within seconds, so one unanswered ping means as much as many. A path with long round trips gets more: see [`Patience`].
    pub timeout: Duration,
}

/// Signs of life of a connection, counted in any unit: a change is one.
pub type Signs = std::sync::Arc<dyn Fn() -> u64 + Send + Sync>;

/// Why a ping has no round trip time.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer does not support ping. Reported once, and then for each requested ping.
    #[error("the peer does not support ping")]
    Unsupported,
    /// The streams broke. The connection may work.
    #[error("the stream broke: {0}")]
    Broken(#[source] io::Error),
}
