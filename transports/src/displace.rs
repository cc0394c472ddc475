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

/// The same as a swarm gets it: libp2p's wrappers hide an error and show its [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reported(#[source] Displaced);

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

    /// Ends a handshake, with an error that is [`displaced`]; nothing happens if it is over.
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
                .map(|ended| ended.unwrap_or_else(|_| Err(io::Error::other(Reported(Displaced)))))
                .boxed()
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures::future;
    use libp2p::core::transport::dummy::DummyTransport;

    use super::*;

    /// Reports connections whose handshakes never end.
    struct Silent(usize);

    impl Transport for Silent {
        type Output = (PeerId, StreamMuxerBox);
        type Error = io::Error;
        type ListenerUpgrade = future::Pending<io::Result<Self::Output>>;
        type Dial = <DummyTransport<Self::Output> as Transport>::Dial;

        fn listen_on(
            &mut self,
            _: ListenerId,
            addr: Multiaddr,
        ) -> Result<(), TransportError<io::Error>> {
            Err(TransportError::MultiaddrNotSupported(addr))
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(
            &mut self,
            addr: Multiaddr,
            _: DialOpts,
        ) -> Result<Self::Dial, TransportError<io::Error>> {
            Err(TransportError::MultiaddrNotSupported(addr))
        }

        fn poll(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            if self.0 == 0 {
                return Poll::Pending;
            }
            self.0 -= 1;
            Poll::Ready(TransportEvent::Incoming {
                listener_id: ListenerId::next(),
                upgrade: future::pending(),
                local_addr: Multiaddr::empty(),
                send_back_addr: Multiaddr::empty(),
            })
        }
    }

    #[test]
    fn the_handshake_that_is_named_ends_and_no_other() {
        let displacer = Displacer::default();
        let mut transport = displacer.wrap(Silent(3).boxed());
        let mut cx = Context::from_waker(Waker::noop());
        let mut handshakes = Vec::new();
        while let Poll::Ready(event) = Pin::new(&mut transport).poll(&mut cx) {
            let id = ConnectionId::new_unchecked(handshakes.len());
            displacer.begun(id);
            let (upgrade, _) = event.into_incoming().expect("a connection");
            handshakes.push((id, upgrade));
        }
        displacer.over(handshakes[0].0);
        for (id, _) in &handshakes[..2] {
            displacer.end(*id);
        }
        let mut ended =
            handshakes
                .iter_mut()
                .map(|(_, handshake)| match handshake.poll_unpin(&mut cx) {
                    Poll::Ready(Err(error)) => displaced(&error),
                    Poll::Ready(Ok(_)) | Poll::Pending => false,
                });
        let ended: [bool; 3] = std::array::from_fn(|_| ended.next().expect("three"));
        assert_eq!(ended, [false, true, false]);
        assert_eq!(displacer.lock().open.len(), 1);
    }
}
