//! libp2p transports that dial from a configured range of source ports.
//!
//! libp2p dials QUIC from an ephemeral port or from a listener, and TCP likewise. Some networks need more: a firewall that lets a
//! few ports out, or a NAT whose mapping was made by hand. The port of a hole punch must be known before the dial. With this
//! crate every packet that a node originates leaves from its [`PortRange`].
//!
//! # How it works
//!
//! [`build`] makes one transport, QUIC and TCP, for a swarm, and a [`Handle`] for the owner of the swarm.
//!
//! 1. The node opens one *punch port* for each transport and IP family, all with the same number if possible. A punch port dials
//!    and accepts, so a mapping that a NAT makes for the one serves the other.
//! 2. QUIC dials leave from the punch port. TCP dials leave from it too, unless it has a connection to that very remote already:
//!    then they lease another port of the range.
//! 3. [`Handle::expect_punch`] announces a hole punch. Dials then repeat their first packets sooner. A TCP connection that comes
//!    in from the remote completes the dial that waits for it.
//! 4. Public listeners are sockets of their own, on any port. A dial never takes theirs.
//!
//! # Promises
//!
//! - No socket connects or sends before it is bound to a port of the range. If no port is left, the dial fails with
//!   [`Error::Exhausted`], which names what holds the ports. The only other packets are replies of a public listener to a remote
//!   that dialed it.
//! - The swarm never sees the listen addresses of punch ports, so nothing advertises them by accident. It does see the
//!   connections that come in on them.
//! - Errors are types behind every box that libp2p puts around them: [`find_exhausted`], [`timed_out`] and [`closed`] look
//!   through these boxes.
//!
//! [`server`] makes a transport with the same settings and without a range, for a relay.
//!
//! # Example
//!
//! The transport and its handle; `examples/swarm.rs` is a whole program, two swarms of which one dials the other from the range.
//!
//! ```
//! # use libp2p::identity::Keypair;
//! use p2pnode_transports::{Config, Congestion, FamilyPolicy, build};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config {
//!     range: "47110-47119".parse()?,
//!     quic: true,
//!     tcp: true,
//!     family: FamilyPolicy::Auto,
//!     congestion: Congestion::Cubic,
//! };
//! let (transport, handle) = build(&Keypair::generate_ed25519(), config)?;
//! for ((transport, family), port) in handle.punch_ports() {
//!     println!("{transport} over {family} dials from port {port}");
//! }
//! # drop(transport);
//! # Ok(())
//! # }
//! ```

mod displace;
mod handle;
mod listen;
mod net;
mod quic;
mod ranged;
mod reset;
mod resolve;
mod server;
mod shared;
mod tcp;
mod tls;

use std::sync::Arc;

use libp2p::{
    PeerId, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};

pub use crate::{
    displace::{Displacer, displaced},
    handle::{ClaimedTcp, ClaimedUdp, Handle},
    net::{
        addr::{to_multiaddr, to_socket_addr},
        budget::{Budgets, Class, Largest, Overuse},
        closed::{Closed, causes},
        datagrams::{DatagramError, DatagramPath, Datagrams},
        error::{Error, both_dialed, closed, find_exhausted, innermost, timed_out, was_stun},
        family::{FamilyPolicy, FamilyPolicyError},
        files::explained,
        holder::{HeldBy, Holder},
        interfaces::{HostAddress, Interfaces, Medium},
        kin::Kin,
        learned::{Learned, Trouble},
        pool::{Exhausted, PoolCounts},
        proposals::LimitedProposals,
        punches::{PunchGuard, Remote},
        range::{PortRange, RangeError, RangeErrorKind},
        record::Sockets,
        snat::{KeptPorts, KeptRule},
        sock_diag::State as TcpState,
        socket::Segments,
        stun::{Expected, StunAnswer, StunClient, read_stun},
        stun_socket::{Received, StunHandler, StunSocket, WeakStunSocket},
    },
    quic::{
        QuicRuntime,
        congestion::{Congestion, CongestionError},
        tokio_runtime,
    },
    ranged::Config,
    reset::reset,
    shared::poll_write_shared,
    tcp::yamux::{Yamux, YamuxConnection, YamuxStream},
};
pub use p2pnode_protocol::{Family, Transport};

use crate::{
    net::{error::Reported, ports::Ports, shared::Shared},
    ranged::Ranged,
    resolve::Resolving,
    server::Server,
};

/// The transport of a node, and the node's handle on it. Opens the punch ports that can be had.
///
/// Must be called inside a tokio runtime with IO and time enabled.
///
/// A dial fails within about 10 s (QUIC: 4 s; a TCP punch: 5 s, and its handshake). Its errors are [`Error`]s, boxed into
/// [`std::io::Error`].
///
/// # Errors
///
/// [`Error::Certificate`] if no certificate can be made of `keypair`. A range of which no port can be had is no error. Every dial
/// tries again, and fails with [`Error::Exhausted`] as long as that lasts.
pub fn build(
    keypair: &Keypair,
    config: Config,
) -> Result<(Boxed<(PeerId, StreamMuxerBox)>, Handle), Error> {
    let peer = keypair.public().to_peer_id();
    let shared = Shared::new(Ports::new(config.range, &peer.to_bytes()));
    let ranged = Ranged::new(keypair, config, shared.clone())?;
    let transport = Resolving::new(ranged, config.family, Some(shared.clone()));
    Ok((reported(transport), Handle { shared }))
}

/// A transport that listens on QUIC and TCP with the settings of [`build`], and dials from any port. A relay has one, and dials
/// only the other relays of its configuration.
///
/// `quic_runtime` makes the runtime of each UDP socket that listens: [`tokio_runtime`], or one that shares a socket out between
/// thousands of connections.
///
/// Must be used inside a tokio runtime with IO and time enabled.
///
/// # Errors
///
/// [`Error::Certificate`] if no certificate can be made of `keypair`.
pub fn server(
    keypair: &Keypair,
    quic_runtime: QuicRuntime,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Error> {
    server_within(keypair, quic_runtime, Budgets::new(Class::Carrying), None)
}

/// A [`server`] whose peers have these budgets. `stun` gets the datagrams of STUN that come to its UDP sockets.
///
/// # Errors
///
/// As [`server`].
pub fn server_within(
    keypair: &Keypair,
    quic_runtime: QuicRuntime,
    budgets: Budgets,
    stun: Option<Arc<dyn StunHandler>>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Error> {
    let server = Server::new(keypair, quic_runtime, budgets, stun)?;
    Ok(reported(Resolving::new(server, FamilyPolicy::Auto, None)))
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
