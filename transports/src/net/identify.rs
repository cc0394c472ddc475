//! Who answers at an address: a handshake from a port of the range, of which the swarm sees nothing.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures::future::BoxFuture;
use libp2p::PeerId;
use p2pnode_protocol::Family;
use tokio::net::TcpStream;

use crate::net::error::Error;

/// A handshake over QUIC from a punch socket, which it keeps open.
pub(crate) type Identify =
    Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, Result<PeerId, Error>> + Send + Sync>;

/// A handshake on a TCP connection to the address, which ends with it.
pub(crate) type IdentifyTcp =
    Arc<dyn Fn(TcpStream, SocketAddr) -> BoxFuture<'static, Result<PeerId, Error>> + Send + Sync>;

/// What handshakes need: the punch sockets of QUIC as long as they are open, and what TCP connections begin with.
#[derive(Default)]
pub(crate) struct Identifying {
    quic: Mutex<BTreeMap<Family, Identify>>,
    pub(crate) tcp: OnceLock<IdentifyTcp>,
}

impl Identifying {
    pub(crate) fn quic(&self) -> MutexGuard<'_, BTreeMap<Family, Identify>> {
        // Nothing panics while it holds the lock.
        self.quic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
