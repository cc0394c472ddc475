//! The punch sockets of QUIC, which dial and accept from the range.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, StreamExt, channel::mpsc, future::BoxFuture};
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, TransportEvent},
    },
};
use p2pnode_protocol::{Family, Transport};

use super::{
    failure::Failure,
    found::FoundSockets,
    punch::{Arms, Expected, HEAD_START, open_nat, wait_for_nat},
    punch_sockets::PunchSockets,
    settings::Settings,
    socket::{Accepted, Effort},
};
use crate::net::{
    addr::to_multiaddr,
    connection::{Connection, Event},
    error::Error,
    punches::Remote,
    shared::Shared,
};

/// The punch sockets of QUIC.
pub(crate) struct Dialer {
    sockets: Arc<PunchSockets>,
    found: FoundSockets,
    expected: Expected,
    /// Inbound connections that a punch did not need because another of its arms was first.
    alongside: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    settings: Arc<Settings>,
    shared: Shared,
}

/// What to dial, and in which role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial {
    pub(crate) remote: SocketAddr,
    pub(crate) peer: Option<PeerId>,
    pub(crate) role: Endpoint,
}

/// A dial: the connection and the port that it has.
pub(crate) type Dialing = BoxFuture<'static, Result<(Connection, u16), Error>>;

impl Dialer {
    pub(crate) fn new(settings: Arc<Settings>, shared: Shared) -> Self {
        Self {
            sockets: PunchSockets::new(Arc::clone(&settings), shared.clone()),
            found: FoundSockets::default(),
            expected: Expected::default(),
            alongside: mpsc::unbounded(),
            settings,
            shared,
        }
    }

    pub(crate) fn is_open(&self, family: Family) -> bool {
        self.sockets.open().contains_key(&family)
    }

    /// Opens the punch socket of `family` on a port of the range.
    pub(crate) fn open(&self, family: Family) -> Result<(), Error> {
        self.sockets.bind(family)
    }

    /// Opens the sockets that were found since. Whether one reaches `remote`.
    pub(crate) fn has_found(&mut self, remote: SocketAddr) -> bool {
        self.found.open(&self.settings, &self.shared);
        self.found.reaching(remote).is_some()
    }

    /// Dials from the socket that was found to reach the remote, or else from the punch socket of the family. Fails where there
    /// is none. Returns the port as well.
    pub(crate) fn dial(&self, dial: Dial) -> Result<Dialing, Error> {
        let Dial { remote, peer, role } = dial;
        let family = Family::from(remote.ip());
        let found = self.found.reaching(remote);
        let is_punch = found.is_none();
        let open = self.sockets.open();
        let punch = open.get(&family);
        let punch = punch.map(|punch| (punch.id, &punch.socket));
        let Some((id, socket)) = found.or(punch) else {
            return Err(Error::NoSocket {
                transport: Transport::Quic,
                family,
                reason: "it was closed".to_owned(),
            });
        };
        let effort = match self.shared.punches.is_expected_over_quic(remote) {
            Some(Remote::Unvouched) => Effort::FirstFlight,
            Some(Remote::TakesTls | Remote::Unknown) => Effort::Punch,
            None if role == Endpoint::Listener => Effort::Punch,
            None => Effort::Ordinary,
        };
        if is_punch && role == Endpoint::Dialer && effort == Effort::Ordinary {
            let dialed = Arc::clone(&self.sockets).dial(remote);
            return Ok(dialed
                .map(move |done| done.map_err(|failure| failure.dialing(remote)))
                .boxed());
        }
        let client = socket.dial(remote, effort);
        let (local, port) = (socket.local(), socket.local().port());
        let incoming = match (role, peer) {
            // Not while another dial punches to the same address: that one will do.
            (Endpoint::Listener, Some(peer)) => {
                self.expected.wait(remote).map(|incoming| (peer, incoming))
            }
            (Endpoint::Listener, None) | (Endpoint::Dialer, _) => None,
        };
        let Some((peer, incoming)) = incoming else {
            let at_port = move |connection| (connection, port);
            return Ok(client
                .map(move |done| done.map(at_port).map_err(|failure| failure.dialing(remote)))
                .boxed());
        };
        let arms = Arms {
            client: async move {
                tokio::time::sleep(HEAD_START).await;
                client.await
            },
            opening: match effort {
                // The first flight opens this side's NAT as well.
                Effort::FirstFlight => wait_for_nat().boxed(),
                Effort::Ordinary | Effort::Punch => open_nat(socket.raw(), remote).boxed(),
            },
            incoming,
        };
        let alongside = self.alongside.0.clone();
        Ok(async move {
            let goes_on = |rest| {
                // If the channel is closed, the transport is gone, and its sockets with it.
                let _ = alongside.unbounded_send(came_in(id, local, remote, rest));
            };
            let handshake = |accepted: Accepted| accepted.handshake().boxed();
            let done = arms.first(peer, handshake, goes_on).await;
            let connection = done.map_err(|failure| failure.dialing(remote))?;
            Ok((connection, port))
        }
        .boxed())
    }

    /// Only [`TransportEvent::Incoming`] comes out: the addresses of punch sockets are nobody's listen addresses.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        // There is a sender here, so it never ends.
        if let Poll::Ready(Some(event)) = self.alongside.1.poll_next_unpin(cx) {
            return Poll::Ready(event);
        }
        while let Poll::Ready((id, local, accepted)) = self.found.poll(cx) {
            if let Some(accepted) = self.expected.offer(accepted) {
                return Poll::Ready(incoming(id, local, accepted));
            }
        }
        self.sockets.waker.register(cx.waker());
        let mut open = self.sockets.open();
        for family in Family::ALL {
            while let Some(punch) = open.get_mut(&family) {
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
                        open.remove(&family);
                        self.shared.identifying.quic().remove(&family);
                    }
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        // They would keep the sockets open.
        self.shared.identifying.quic().clear();
    }
}

/// The event of an inbound connection.
pub(super) fn incoming(listener_id: ListenerId, local: SocketAddr, accepted: Accepted) -> Event {
    let remote = accepted.remote;
    came_in(listener_id, local, remote, accepted.handshake())
}

/// The same, of a connection whose handshake may have begun.
fn came_in(
    listener_id: ListenerId,
    local: SocketAddr,
    remote: SocketAddr,
    handshake: impl Future<Output = Result<Connection, Failure>> + Send + 'static,
) -> Event {
    let upgrade = handshake.map(move |done| done.map_err(|failure| failure.accepting(remote)));
    TransportEvent::Incoming {
        listener_id,
        upgrade: upgrade.boxed(),
        local_addr: to_multiaddr(Transport::Quic, local),
        send_back_addr: to_multiaddr(Transport::Quic, remote),
    }
}
