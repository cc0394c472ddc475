//! libp2p transports that dial from a configured range of source ports.
//!
//! [`build`] makes one transport, QUIC and TCP, for a swarm, and a [`Handle`] for whoever owns the swarm. It keeps these
//! promises:
//!
//! - No socket connects or sends before it is bound to a port of the [`PortRange`]. Where no port is left the dial fails with
//!   [`Exhausted`], which says what holds the ports. The only other packets are replies of a public listener to who dialed it.
//! - One *punch port* is active for each transport and IP family. It dials and it accepts, so what a NAT maps for the one is
//!   good for the other. All of them have the same number, if that can be had.
//! - Public listeners are sockets of their own, and a dial never takes theirs.
//! - The swarm never hears of the punch sockets' listen addresses, so nothing advertises them by accident. Connections that
//!   come in on them are reported like all others.
//!
//! [`server`] makes a transport with the same settings and without a range, for a relay.
//!
//! The ways in which libp2p's own transports leave a range, and what is done about each, are told in the modules `quic`,
//! `tcp` and `punch`.

pub mod net;

mod closed;
mod datagrams;
mod error;
mod handle;
mod heap;
mod listen;
mod quic;
mod ranged;
mod record;
mod resolve;
mod server;
mod tcp;
mod tls;

use libp2p::{
    PeerId, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};

pub use crate::net::addr::{to_multiaddr, to_socket_addr};
pub use crate::net::family::{FamilyPolicy, FamilyPolicyError};
pub use crate::net::holder::{HeldBy, Holder};
pub use crate::net::pool::{Exhausted, PoolCounts, PortPool};
pub use crate::net::range::{PortRange, RangeError, RangeErrorKind};
pub use crate::quic::congestion::{Congestion, CongestionError};
pub use crate::tcp::punch::{PunchGuard, Remote};
pub use crate::tcp::yamux::{Yamux, YamuxConnection};
pub use closed::{Closed, causes, closed, timed_out};
pub use datagrams::{Datagrams, GroupListener, Link};
pub use error::{Error, find_exhausted};
pub use handle::Handle;
pub use p2pnode_protocol::{Family, Transport};
pub use record::Sockets;

use self::{error::Reported, handle::Shared, ranged::Ranged, resolve::Resolving, server::Server};
use crate::net::ports::Ports;

/// What [`build`] builds.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The source ports of everything that is dialed.
    pub range: PortRange,
    /// Whether QUIC is dialed and listened on.
    pub quic: bool,
    /// Whether TCP is dialed and listened on.
    pub tcp: bool,
    /// Which IP families are dialed. Public listeners are not subject to it.
    pub family: FamilyPolicy,
    /// How fast QUIC sends.
    pub congestion: Congestion,
}

/// The transport of a node, and the node's handle on it. Opens the punch sockets, where they can be had.
///
/// Must be called inside a tokio runtime with IO and time enabled.
///
/// A dial fails within about 10 s (QUIC: 4 s; a TCP punch: 5 s, and its handshake). Its errors are [`Error`]s, boxed into
/// [`std::io::Error`]; for the exhausted range see [`find_exhausted`].
///
/// # Errors
///
/// [`Error::Certificate`]. A range of which no port can be had is not an error: every dial tries again, and fails with
/// [`Error::Exhausted`] as long as that lasts.
pub fn build(
    keypair: &Keypair,
    config: Config,
) -> Result<(Boxed<(PeerId, StreamMuxerBox)>, Handle), Error> {
    heap::keep();
    let peer = keypair.public().to_peer_id();
    let shared = Shared::new(Ports::new(config.range, &peer.to_bytes()));
    let ranged = Ranged::new(keypair, config, shared.clone())?;
    let transport = Resolving::new(ranged, config.family, Some(shared.clone()));
    Ok((reported(transport), Handle { shared }))
}

/// A transport that listens on QUIC and TCP, with the settings of [`build`], and dials from any port: a relay's, which dials only
/// the other relays that it is told of.
///
/// Must be used inside a tokio runtime with IO and time enabled.
///
/// # Errors
///
/// [`Error::Certificate`].
pub fn server(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Error> {
    heap::keep();
    Ok(reported(Resolving::new(
        Server::new(keypair)?,
        FamilyPolicy::Auto,
        None,
    )))
}

/// Boxes a transport so that its errors are found behind whatever a swarm wraps around them.
fn reported<T>(transport: T) -> Boxed<(PeerId, StreamMuxerBox)>
where
    T: libp2p::Transport<Output = (PeerId, StreamMuxerBox), Error = Error> + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    transport.map_err(Reported).boxed()
}
