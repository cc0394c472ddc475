//! AutoNAT v2 of a node: it asks relays to dial its punch ports, and takes the nonces that come back.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use libp2p::{
    Multiaddr, PeerId, Stream,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use p2pnode_protocol::{
    autonat::{Autonat, DialBack, Outcome, Request, Response, Taken},
    exchange::{self, Handler, Never, Reply, Report},
};
use p2pnode_transports::{Family, Transport};

/// Nonces at once on one connection.
const NONCES: usize = 2;

/// The nonces that are awaited, and whether they have come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nonces(Arc<Mutex<BTreeMap<u64, bool>>>);

impl Nonces {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, bool>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A nonce came. Whether it was awaited.
    fn came(&self, nonce: u64) -> bool {
        let mut nonces = self.lock();
        let awaited = nonces.get_mut(&nonce);
        awaited.map(|came| *came = true).is_some()
    }
}

/// The relays that may dial a punch port of this node. One of those that serve AutoNAT is asked.
pub(crate) struct Witness {
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    /// Streams to them, which are being opened; `None` of a relay that does not serve it.
    pub(crate) streams: Vec<(PeerId, BoxFuture<'static, Option<Stream>>)>,
}

/// Whether the relay reaches an address of this node; `None` if that is not known.
pub(crate) async fn is_reached(
    nonces: &Nonces,
    stream: Stream,
    address: Multiaddr,
) -> Option<bool> {
    let nonce = fastrand::u64(..);
    nonces.lock().insert(nonce, false);
    let awaited = Awaited(nonces, nonce);
    let request = Request {
        addresses: vec![Some(address)],
        nonce,
    };
    let reply = exchange::ask::<Autonat>(ready(Ok(stream)), &request).await;
    let has_come = nonces.lock().get(&nonce) == Some(&true);
    drop(awaited);
    match reply {
        Reply::Answer(Response::Dialed { outcome, .. }) => match outcome {
            Outcome::Reached => has_come.then_some(true),
            Outcome::DialError => Some(false),
            // Connected, and not served: the access rules of this node, for one.
            Outcome::DialBackError => None,
        },
        Reply::Answer(Response::DialRefused | Response::Rejected | Response::Failed)
        | Reply::Unsupported
        | Reply::NoAnswer => None,
    }
}

/// Forgets a nonce.
struct Awaited<'a>(&'a Nonces, u64);

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

/// Takes nonces on connections that come in.
#[derive(Default)]
pub(crate) struct Behaviour {
    pub(crate) nonces: Nonces,
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler<DialBack, Never>;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(NONCES))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(NONCES).offering(false))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        report: THandlerOutEvent<Self>,
    ) {
        match report {
            Report::Asked(nonce, reply) => {
                if self.nonces.came(nonce.0) {
                    // An error means that the stream is gone.
                    let _ = reply.send(Taken);
                }
            }
            Report::Replied(never, _) => match never {},
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
