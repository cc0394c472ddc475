//! The punch ports of TCP.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt, StreamExt as _, channel::mpsc};
use libp2p::{
    core::{
        Endpoint,
        transport::{ListenerId, PortUse, Transport as _, TransportError, TransportEvent},
    },
    tcp,
};
use p2pnode_protocol::{Family, Transport, bucket::Bucket};

use super::{
    accepted::Accepted,
    auth::{self, Offer, Upgrade},
    dial::Dial,
    memory::Memory,
    moves::{Moves, Proposal, Proposed},
    pending_syn::PendingSyn,
    stream::Stream,
};
use crate::net::{
    addr::{to_multiaddr, to_socket_addr},
    alternatives::ALTERNATIVES,
    arrivals::{Arrivals, BATCH},
    connection::Event,
    error::Error,
    ports::{OpenError, PunchClaim},
    punches::{Inbound, Origin, Returned},
    shared::Shared,
    sock_diag, socket,
    stun_socket::StunHandler as _,
};

/// The punch ports of TCP: their listeners, and the dials from them.
pub(crate) struct Dialer {
    listeners: tcp::tokio::Transport,
    arrivals: Arrivals<Inbound>,
    sockets: BTreeMap<Family, PunchSocket>,
    upgrade: Upgrade,
    memory: Arc<Memory>,
    pending_syn: Arc<PendingSyn>,
    moves: (Moves, mpsc::UnboundedReceiver<Proposed>),
    /// What is left of [`ALTERNATIVES`], for moves.
    left: BTreeMap<Family, Bucket>,
    shared: Shared,
}

struct PunchSocket {
    id: ListenerId,
    claim: PunchClaim,
    /// Held where no QUIC socket has the number.
    _lock: Option<UdpSocket>,
}

impl Dialer {
    pub(crate) fn new(upgrade: Upgrade, shared: Shared) -> Self {
        let listeners = tcp::tokio::Transport::new(tcp::Config::new());
        Self {
            listeners,
            arrivals: Arrivals::within_files(),
            sockets: BTreeMap::new(),
            upgrade,
            memory: Arc::default(),
            pending_syn: Arc::default(),
            moves: Moves::new(),
            left: BTreeMap::new(),
            shared,
        }
    }

    pub(crate) fn is_open(&self, family: Family) -> bool {
        self.sockets.contains_key(&family)
    }

    /// Listens on a port of the range. The UDP port of the same number is ours then too.
    pub(crate) fn open(&mut self, family: Family) -> Result<(), Error> {
        let listeners = &mut self.listeners;
        let ours = self.shared.ports.punch_port(Transport::Quic, family);
        let (claim, (id, lock)) = self.shared.ports.open(Transport::Tcp, family, |port| {
            let lock = if ours == Some(port) {
                None
            } else {
                let lock = socket::lock(family, port);
                Some(lock.map_err(|error| OpenError {
                    socket: Transport::Quic,
                    error,
                })?)
            };
            match listen(listeners, family, port) {
                Ok(id) => Ok((id, lock)),
                Err(error) => Err(OpenError {
                    socket: Transport::Tcp,
                    error,
                }),
            }
        })?;
        tracing::debug!(port = claim.port(), %family, "tcp punch socket opened");
        self.sockets.insert(
            family,
            PunchSocket {
                id,
                claim,
                _lock: lock,
            },
        );
        Ok(())
    }

    /// Moves the punch port to a port that was answered in its place, unless a connection has it: the other side of that one, and peers that
    /// know its mapping, rely on it. Any remote can hold an earlier connection open, so there is a budget.
    fn follow(&mut self, to: Proposal) {
        let (family, now) = (to.family(), Instant::now());
        let Proposal {
            port,
            lock,
            remote,
            why,
        } = to;
        let Some(earlier) = self.sockets.get(&family) else {
            return;
        };
        let (id, from) = (earlier.id, earlier.claim.port());
        let left = self.left.entry(family);
        let left = left.or_insert_with(|| Bucket::full(ALTERNATIVES, now));
        if sock_diag::is_connected(from, family) || !left.admits(ALTERNATIVES, now) {
            return;
        }
        match listen(&mut self.listeners, family, port) {
            Ok(listener) => {
                tracing::info!(%family, from, to = port, %remote, "the tcp punch port moves: {}, and no connection has it", why.text());
                let claim = self.shared.ports.move_punch(Transport::Tcp, family, port);
                let moved = PunchSocket {
                    id: listener,
                    claim,
                    _lock: Some(lock),
                };
                self.sockets.insert(family, moved);
                self.listeners.remove_listener(id);
            }
            Err(error) => tracing::debug!(%error, port, "the tcp punch port cannot move"),
        }
    }

    /// What a dial needs; it does not need the transport any more.
    pub(crate) fn dial(
        &self,
        remote: SocketAddr,
        peer: Option<libp2p::PeerId>,
        role: Endpoint,
        port_use: PortUse,
    ) -> Dial {
        Dial {
            remote,
            peer,
            role,
            port_use,
            was_reset: false,
            upgrade: self.upgrade.clone(),
            memory: Arc::clone(&self.memory),
            pending_syn: Arc::clone(&self.pending_syn),
            moves: self.moves.0.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Only [`TransportEvent::Incoming`] comes out: the addresses of punch sockets are nobody's listen addresses.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        // There is a sender here, so it never ends.
        while let Poll::Ready(Some((to, _decided))) = self.moves.1.poll_next_unpin(cx) {
            self.follow(to);
        }
        if let Poll::Ready(returned) = self.shared.punches.poll_returned(cx) {
            return Poll::Ready(self.incoming(returned));
        }
        for n in 0..BATCH {
            let Poll::Ready(event) = Pin::new(&mut self.listeners).poll(cx) else {
                break;
            };
            if n + 1 == BATCH {
                cx.waker().wake_by_ref();
            }
            match event {
                TransportEvent::Incoming {
                    listener_id,
                    upgrade,
                    local_addr,
                    send_back_addr,
                } => {
                    // Ready: libp2p-tcp accepts the stream before it reports it.
                    let Some(Ok(stream)) = upgrade.now_or_never() else {
                        continue;
                    };
                    let (Some(local), Some(remote)) =
                        (to_socket_addr(&local_addr), to_socket_addr(&send_back_addr))
                    else {
                        continue;
                    };
                    let (remote_addr, listener) = (send_back_addr, listener_id);
                    let origin = Origin {
                        listener,
                        local,
                        local_addr,
                        remote,
                        remote_addr,
                    };
                    // A punch does not wait for its turn.
                    if let Some(inbound) = self.shared.punches.offer(Inbound { origin, stream }) {
                        let remote = inbound.origin.remote_addr.clone();
                        self.arrivals.push(&remote, inbound);
                    }
                }
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason,
                } => {
                    self.forget(listener_id, reason);
                }
                TransportEvent::ListenerError { error, .. } => {
                    tracing::debug!(%error, "tcp punch socket")
                }
                TransportEvent::NewAddress { .. } | TransportEvent::AddressExpired { .. } => {}
            }
        }
        if let Some(dropped) = self.arrivals.dropped(Instant::now()) {
            tracing::debug!(dropped, "too many come at once to the tcp punch sockets");
        }
        match self.arrivals.pop() {
            Some(inbound) => Poll::Ready(self.incoming(Returned::Stream(inbound))),
            None => Poll::Pending,
        }
    }

    /// A listener has ended: of its own, or because the punch port has moved, which is no fault.
    fn forget(&mut self, listener: ListenerId, reason: io::Result<()>) {
        let ended = self
            .sockets
            .extract_if(.., |_, socket| socket.id == listener);
        for (family, _) in ended {
            tracing::warn!(%family, ?reason, "tcp punch socket closed");
        }
    }

    fn incoming(&self, returned: Returned) -> Event {
        let (origin, upgrade) = match returned {
            Returned::Stream(Inbound { origin, stream }) => {
                let (stun, remote) = (Arc::clone(&self.shared.stun), origin.remote);
                let upgrade = self.upgrade.clone();
                let accepted = Accepted(Ok(stream.0));
                let upgraded = async move {
                    let taken = accepted.take();
                    let stream =
                        taken.map_err(|source| Error::io("cannot accept a connection", source))?;
                    if stun.is_awaited() && auth::is_stun(&stream).await? {
                        stun.stream(stream);
                        return Err(Error::Stun);
                    }
                    let stream = Stream::new(stream, None);
                    let role = Endpoint::Listener;
                    upgrade.apply(stream, remote, role, Offer::Both).await
                };
                (origin, upgraded.boxed())
            }
            Returned::Connection(origin, connection) => {
                (origin, futures::future::ready(Ok(connection)).boxed())
            }
        };
        TransportEvent::Incoming {
            listener_id: origin.listener,
            upgrade,
            local_addr: origin.local_addr,
            send_back_addr: origin.remote_addr,
        }
    }
}

/// Listens on a port of the range.
fn listen(
    listeners: &mut tcp::tokio::Transport,
    family: Family,
    port: u16,
) -> io::Result<ListenerId> {
    let id = ListenerId::next();
    let addr = to_multiaddr(Transport::Tcp, socket::wildcard(family, port));
    match listeners.listen_on(id, addr) {
        Ok(()) => Ok(id),
        Err(TransportError::Other(error)) => Err(error),
        Err(error @ TransportError::MultiaddrNotSupported(_)) => Err(io::Error::other(error)),
    }
}
