//! Ends inbound handshakes from outside: the swarm has no call for that.
//!
//! The swarm asks its behaviour about an inbound connection in the same call in which it takes the connection from the transport.
//! So the connection that a transport has reported last is the one that the behaviour is asked about: [`Displacer::begun`] gives it
//! its name.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{
    FutureExt as _,
    future::{AbortHandle, Abortable, BoxFuture},
};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    },
    swarm::ConnectionId,
};

use crate::net::closed::causes;

type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// Ends the inbound handshakes of the transport that it wraps. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Displacer(Arc<Mutex<Handshakes>>);

#[derive(Debug, Default)]
struct Handshakes {
    latest: Option<AbortHandle>,
    open: HashMap<ConnectionId, AbortHandle>,
}

/// Why a handshake was ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the handshake was ended: its place was needed for another one")]
struct Displaced;

/// Whether a handshake was ended by a [`Displacer`]. Looks through every box, as [`find_exhausted`](crate::find_exhausted).
pub fn displaced(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|error| error.is::<Displaced>())
}

impl Displacer {
    /// The same transport, whose inbound handshakes can be ended.
    #[must_use]
    pub fn wrap(&self, transport: Connections) -> Connections {
        Displacing {
            transport,
            displacer: self.clone(),
        }
        .boxed()
    }

    /// The connection that was reported last has this name. Call it where the swarm asks about a pending inbound connection.
    pub fn begun(&self, connection: ConnectionId) {
        let mut handshakes = self.lock();
        if let Some(latest) = handshakes.latest.take() {
            handshakes.open.insert(connection, latest);
        }
    }

    /// Ends a handshake with [`Displaced`]; nothing happens if it is over.
    pub fn end(&self, connection: ConnectionId) {
        if let Some(handshake) = self.lock().open.remove(&connection) {
            handshake.abort();
        }
    }

    /// A handshake is over, one way or the other.
    pub fn over(&self, connection: ConnectionId) {
        self.lock().open.remove(&connection);
    }

    fn lock(&self) -> MutexGuard<'_, Handshakes> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Displacing {
    transport: Connections,
    displacer: Displacer,
}

impl Transport for Displacing {
    type Output = (PeerId, StreamMuxerBox);
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<Self::Output>>;
    type Dial = <Connections as Transport>::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.transport.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.transport.dial(addr, opts)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let event = futures::ready!(Pin::new(&mut self.transport).poll(cx));
        Poll::Ready(event.map_upgrade(|upgrade| {
            let (handle, registration) = AbortHandle::new_pair();
            self.displacer.lock().latest = Some(handle);
            Abortable::new(upgrade, registration)
                .map(|ended| ended.unwrap_or_else(|_| Err(io::Error::other(Displaced))))
                .boxed()
        }))
    }
}
