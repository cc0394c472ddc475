//! Dials peers back, each time with a key and from a port that are used for nothing else.
//!
//! Each dial has a swarm of its own, so the relay's connections, limits and circuits know nothing of it. libp2p's implementation has
//! one swarm for all, and dials addresses of other hosts in exchange for data. This one dials nothing but the address at which the
//! relay sees the peer.

use std::{io, sync::Arc, time::Duration};

use futures::{StreamExt as _, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder,
    identity::Keypair,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use p2pnode_protocol::{
    autonat::{DialBack, Nonce, Outcome, Response},
    exchange::{Never, Reply},
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::debug;

use super::exchange::{Behaviour, Event};

/// Dials at once, and how long one takes at most: the peer waits 5 s for the answer.
const AT_ONCE: usize = 16;
const DIAL: Duration = Duration::from_millis(2_000);
const NONCE: Duration = Duration::from_millis(1_000);

/// Dials peers back.
#[derive(Debug)]
pub(crate) struct DialBacks(Arc<Semaphore>);

impl Default for DialBacks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl DialBacks {
    /// Begins to dial the address at a place of the peer's request, if not too many are being dialed.
    pub(crate) fn dial(
        &self,
        peer: PeerId,
        (place, address): (usize, Multiaddr),
        nonce: u64,
        reply: oneshot::Sender<Response>,
    ) {
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else {
            // An error means that the stream is gone, here and below.
            let _ = reply.send(Response::Rejected);
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let response = match dial(peer, address.clone(), Nonce(nonce)).await {
                Ok(outcome) => Response::Dialed {
                    address: place,
                    outcome,
                },
                Err(error) => {
                    debug!(%error, "cannot dial a peer back");
                    Response::Failed
                }
            };
            debug!(%peer, %address, ?response, "dialed a peer back");
            let _ = reply.send(response);
        });
    }
}

async fn dial(peer: PeerId, address: Multiaddr, nonce: Nonce) -> io::Result<Outcome> {
    let key = Keypair::generate_ed25519();
    let runtime = p2pnode_transports::tokio_runtime();
    let transport = p2pnode_transports::server(&key, runtime).map_err(io::Error::other)?;
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_other_transport(|_| transport)
        .map_err(io::Error::other)?
        .with_behaviour(|_| Behaviour::<Never, DialBack>::new(1).eager())
        .map_err(io::Error::other)?
        .build();
    let to = DialOpts::peer_id(peer).addresses(vec![address]).build();
    swarm.dial(to).map_err(io::Error::other)?;
    let connected = timeout(DIAL, async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                break Some(connection_id);
            }
            if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                debug!(%peer, %error, "a peer is not reached");
                break None;
            }
        }
    });
    let Ok(Some(connection)) = connected.await else {
        return Ok(Outcome::DialError);
    };
    swarm.behaviour_mut().ask(peer, connection, nonce);
    let taken = timeout(NONCE, async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(Event::Replied { reply, .. }) = event {
                break Some(reply);
            }
            if let SwarmEvent::ConnectionClosed { .. } = event {
                break None;
            }
        }
    });
    match taken.await {
        Ok(Some(Reply::Answer(_))) => Ok(Outcome::Reached),
        Ok(Some(Reply::Unsupported | Reply::NoAnswer) | None) | Err(_) => {
            Ok(Outcome::DialBackError)
        }
    }
}
