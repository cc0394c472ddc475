//! The punch sockets: what dials, and accepts, from the range.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
};

use futures::FutureExt;
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, TransportEvent},
    },
};

use super::{
    punch::{Expected, both, open_and_wait},
    settings::Settings,
    socket::{Accepted, Socket},
};
use crate::{
    addr::{Kind, to_multiaddr},
    error::Error,
    family::Family,
    handle::Shared,
    listen::{Event, Incoming},
    ports::{OpenError, PunchClaim},
    socket,
};

/// The punch sockets of QUIC.
pub(crate) struct Dialer {
    sockets: BTreeMap<Family, PunchSocket>,
    expected: Expected,
    settings: Arc<Settings>,
    shared: Shared,
}

struct PunchSocket {
    id: ListenerId,
    socket: Socket,
    _claim: PunchClaim,
}

/// What to dial, and in which role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial {
    pub(crate) remote: SocketAddr,
    pub(crate) peer: Option<PeerId>,
    pub(crate) role: Endpoint,
}

impl Dialer {
    pub(crate) fn new(settings: Arc<Settings>, shared: Shared) -> Self {
        Self {
            sockets: BTreeMap::new(),
            expected: Expected::default(),
            settings,
            shared,
        }
    }

    pub(crate) fn is_open(&self, family: Family) -> bool {
        self.sockets.contains_key(&family)
    }

    /// Opens the punch socket of `family` on a port of the range.
    pub(crate) fn open(&mut self, family: Family) -> Result<(), Error> {
        let settings = &self.settings;
        let (claim, socket) = self.shared.ports.open(Kind::Quic, family, |port| {
            let opened = Socket::bind(socket::wildcard(family, port), settings);
            opened.map_err(|error| OpenError {
                socket: Kind::Quic,
                error,
            })
        })?;
        tracing::debug!(port = claim.port(), %family, "quic punch socket opened");
        self.sockets.insert(
            family,
            PunchSocket {
                id: ListenerId::next(),
                socket,
                _claim: claim,
            },
        );
        Ok(())
    }

    /// Dials from the punch socket of the family. Fails where there is none.
    pub(crate) fn dial(&self, dial: Dial) -> Result<Incoming, Error> {
        let Dial { remote, peer, role } = dial;
        let family = Family::from(remote.ip());
        let Some(PunchSocket { socket, .. }) = self.sockets.get(&family) else {
            return Err(Error::NoSocket {
                kind: Kind::Quic,
                family,
                reason: "it was closed".to_owned(),
            });
        };
        let punches =
            role == Endpoint::Listener || self.shared.punches.is_expected_over_quic(remote);
        let client = socket.dial(remote, punches);
        let puncher = match (role, peer) {
            // Not while another dial punches to the same address: that one will do.
            (Endpoint::Listener, Some(peer)) => self
                .expected
                .wait(remote)
                .map(|incoming| (peer, socket.raw(), incoming)),
            (Endpoint::Listener, None) | (Endpoint::Dialer, _) => None,
        };
        Ok(async move {
            let done = match puncher {
                Some((peer, socket, incoming)) => {
                    let begun = AtomicBool::new(false);
                    let puncher = open_and_wait(socket, remote, incoming, &begun);
                    both(client, puncher, peer, &begun).await
                }
                None => client.await,
            };
            done.map_err(|failure| failure.dialing(remote))
        }
        .boxed())
    }

    /// Only [`TransportEvent::Incoming`] comes out: the addresses of punch sockets are nobody's listen addresses.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for family in Family::ALL {
            while let Some(punch) = self.sockets.get_mut(&family) {
                match punch.socket.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(accepted)) => {
                        let (id, local) = (punch.id, punch.socket.local());
                        if let Some(accepted) = self.expected.offer(accepted) {
                            return Poll::Ready(incoming(id, local, accepted));
                        }
                    }
                    // The next dial opens another.
                    Poll::Ready(None) => {
                        tracing::warn!(%family, "quic punch socket closed");
                        self.sockets.remove(&family);
                    }
                }
            }
        }
        Poll::Pending
    }
}

/// The event of a connection that has come in.
pub(super) fn incoming(listener_id: ListenerId, local: SocketAddr, accepted: Accepted) -> Event {
    let remote = accepted.remote;
    let upgrade = async move {
        let done = accepted.handshake().await;
        done.map_err(|failure| failure.accepting(remote))
    };
    TransportEvent::Incoming {
        listener_id,
        upgrade: upgrade.boxed(),
        local_addr: to_multiaddr(Kind::Quic, local),
        send_back_addr: to_multiaddr(Kind::Quic, remote),
    }
}
