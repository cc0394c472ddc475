//! Dials peers back, each time with a key and from a port that are used for nothing else.
//!
//! Each dial has a swarm of its own, so the relay's connections, limits and circuits know nothing of it. libp2p's implementation has
//! one swarm for all, and dials addresses of other hosts in exchange for data. This one dials nothing but the address at which the
//! relay sees the peer.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, channel::oneshot};
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder,
    identity::Keypair,
    swarm::{SwarmEvent, dial_opts::DialOpts},
};
use p2pnode_protocol::{
    Network, Source,
    autonat::{DialBack, Nonce, Outcome, Response},
    exchange::{Behaviour, Event, Never, Reply},
};
use tokio::time::timeout;
use tracing::debug;

/// Dials at once, of all and of one source: an IPv4 address, or a /48.
const AT_ONCE: usize = 16;
const OF_SOURCE: usize = 4;

/// How long one takes at most: the peer waits 5 s for the answer.
const DIAL: Duration = Duration::from_millis(2_000);
const NONCE: Duration = Duration::from_millis(1_000);

/// Dials peers back.
#[derive(Debug, Clone, Default)]
pub(crate) struct DialBacks(
    /// The sources that are being dialed.
    Arc<Mutex<Vec<Option<Network>>>>,
);

/// The place of a dial.
#[derive(Debug)]
struct Place(DialBacks, Option<Network>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.0.lock();
        if let Some(at) = running.iter().position(|source| *source == self.1) {
            running.swap_remove(at);
        }
    }
}

impl DialBacks {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Network>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a dial of this address, if not too many have one.
    fn place(&self, address: &Multiaddr) -> Option<Place> {
        let source = Source::of(address).and_then(|source| source.networks().last());
        let mut running = self.lock();
        let of_source = running.iter().filter(|other| **other == source).count();
        if running.len() >= AT_ONCE || of_source >= OF_SOURCE {
            return None;
        }
        running.push(source);
        Some(Place(self.clone(), source))
    }

    /// Begins to dial the address at a place of the peer's request, if not too many are being dialed.
    pub(crate) fn dial(
        &self,
        peer: PeerId,
        (place, address): (usize, Multiaddr),
        nonce: u64,
        reply: oneshot::Sender<Response>,
    ) {
        let Some(taken) = self.place(&address) else {
            // An error means that the stream is gone, here and below.
            let _ = reply.send(Response::Rejected);
            return;
        };
        tokio::spawn(async move {
            let _taken = taken;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn at(ip: impl std::fmt::Display) -> Multiaddr {
        format!("/ip4/203.0.113.{ip}/tcp/4001").parse().unwrap()
    }

    #[test]
    fn one_source_leaves_places_to_others_and_a_place_is_free_after_its_dial() {
        let dials = DialBacks::default();
        let mut taken: Vec<_> = (0..8).filter_map(|_| dials.place(&at(1))).collect();
        assert_eq!(taken.len(), OF_SOURCE);
        taken.extend((2..=20).filter_map(|ip| dials.place(&at(ip))));
        assert_eq!(taken.len(), AT_ONCE);
        taken.pop();
        assert!(dials.place(&at(1)).is_none(), "it has its share");
        assert!(dials.place(&at(21)).is_some());
        drop(taken);
        assert!(dials.lock().is_empty());
    }

    #[test]
    fn the_addresses_of_a_48_are_one_source() {
        let dials = DialBacks::default();
        let places = (0..8).filter_map(|n| {
            let address = format!("/ip6/2001:db8:1:{n}::1/udp/4001/quic-v1");
            dials.place(&address.parse().unwrap())
        });
        assert_eq!(places.collect::<Vec<_>>().len(), OF_SOURCE);
    }
}
