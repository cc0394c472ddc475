//! The punch sockets of QUIC, one for each family. One that no remote answers moves to another port.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _, TryFutureExt as _,
    future::{BoxFuture, ready},
    task::AtomicWaker,
};
use libp2p::core::transport::ListenerId;
use p2pnode_protocol::{Family, Transport};
use tokio::time::timeout;

use super::{
    failure::Failure,
    settings::Settings,
    socket::{Effort, Socket},
};
use crate::net::{
    connection::Connection,
    error::Error,
    ports::{Lease, OpenError, Ports, PunchClaim},
    shared::Shared,
    silence, socket,
    stun_socket::StunHandler,
};

/// How long a first flight stays without an answer before another port is tried alongside, and after it the next: it was repeated twice
/// by then.
const SILENT: Duration = Duration::from_secs(1);

/// A dial: the connection and the port that it has.
type Dialed = BoxFuture<'static, Result<(Connection, u16), Failure>>;

/// A connection from another port, and the socket that would be the punch socket there.
type Other = ((Connection, u16), (Socket, Lease));

pub(super) struct PunchSockets {
    open: Mutex<BTreeMap<Family, PunchSocket>>,
    /// Woken when a socket has moved: the new one has to be polled.
    pub(super) waker: AtomicWaker,
    settings: Arc<Settings>,
    shared: Shared,
}

pub(super) struct PunchSocket {
    pub(super) id: ListenerId,
    pub(super) socket: Socket,
    _claim: PunchClaim,
}

impl PunchSocket {
    /// TCP may punch from the number, and relies on this socket as the lock on it.
    fn keep_lock(&self, family: Family, ports: &Ports) {
        match self.socket.raw().try_clone() {
            Ok(lock) => ports.keep_lock(family, self.socket.local().port(), lock),
            Err(error) => tracing::debug!(%error, "the number of the tcp punch port has no lock"),
        }
    }
}

impl PunchSockets {
    pub(super) fn new(settings: Arc<Settings>, shared: Shared) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            waker: AtomicWaker::new(),
            settings,
            shared,
        })
    }

    pub(super) fn open(&self) -> MutexGuard<'_, BTreeMap<Family, PunchSocket>> {
        // Nothing panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the socket of `family` on a port of the range.
    pub(super) fn bind(&self, family: Family) -> Result<(), Error> {
        let stun: Arc<dyn StunHandler> = self.shared.stun.clone();
        let (claim, socket) = self.shared.ports.open(Transport::Quic, family, |port| {
            let addr = socket::wildcard(family, port);
            let opened = Socket::bind(addr, &self.settings, &self.shared.punches, Some(&stun));
            opened.map_err(|error| OpenError {
                socket: Transport::Quic,
                error,
            })
        })?;
        tracing::debug!(port = claim.port(), %family, "quic punch socket opened");
        self.insert(&mut self.open(), family, socket, claim);
        Ok(())
    }

    fn insert(
        &self,
        open: &mut BTreeMap<Family, PunchSocket>,
        family: Family,
        socket: Socket,
        claim: PunchClaim,
    ) {
        let identifying = &self.shared.identifying;
        identifying.quic().insert(family, socket.identify());
        let opened = PunchSocket {
            id: ListenerId::next(),
            socket,
            _claim: claim,
        };
        open.insert(family, opened);
    }

    /// Dials as an ordinary client. If the socket serves nobody and stays silent, others of the range dial as well, and the first that is
    /// answered takes its place. Returns the port as well.
    pub(super) async fn dial(
        self: Arc<Self>,
        remote: SocketAddr,
    ) -> Result<(Connection, u16), Failure> {
        let family = Family::from(remote.ip());
        let before = self.open().get(&family).map(|punch| punch.id);
        let first = || self.dial_from_punch(remote);
        let others = || self.dial_from_other(remote);
        let ports = &self.shared.ports;
        let most = ports.range().len().ilog2();
        let (connected, other) = silence::dial(SILENT, most, first, others).await?;
        ports.answered(Transport::Quic, family);
        let Some((socket, lease)) = other else {
            return Ok(self.at_punch_port(before, remote, connected).await);
        };
        if self.follow(family, before, socket, &lease) {
            return Ok(connected);
        }
        drop(connected);
        self.dial_from_punch(remote).await
    }

    /// The connection; or one from where the punch port has moved to while it was dialed, if that is answered.
    async fn at_punch_port(
        &self,
        before: Option<ListenerId>,
        remote: SocketAddr,
        connected: (Connection, u16),
    ) -> (Connection, u16) {
        let now = self.open().get(&remote.ip().into()).map(|punch| punch.id);
        if now == before {
            return connected;
        }
        match timeout(silence::LONG, self.dial_from_punch(remote)).await {
            Ok(Ok(moved)) => moved,
            Ok(Err(_)) | Err(_) => connected,
        }
    }

    fn dial_from_punch(&self, remote: SocketAddr) -> Dialed {
        match self.open().get(&Family::from(remote.ip())) {
            Some(punch) => dial_from(&punch.socket, remote),
            None => ready(Err(io::Error::from(io::ErrorKind::NotConnected).into())).boxed(),
        }
    }

    /// Dials from another port. Peers and relays that are connected rely on the punch port, so there is none as long as it has a connection.
    fn dial_from_other(
        &self,
        remote: SocketAddr,
    ) -> Option<impl Future<Output = Option<Other>> + use<>> {
        let family = Family::from(remote.ip());
        if self.open().get(&family)?.socket.serves() {
            return None;
        }
        let lease = self.shared.ports.lease_far(Transport::Quic, family)?;
        let stun: Arc<dyn StunHandler> = self.shared.stun.clone();
        let punches = &self.shared.punches;
        let bound = lease.lock().and_then(|socket| {
            socket::for_connections(&socket)?;
            Socket::over(socket, &self.settings, punches, Some(&stun))
        });
        match bound {
            Ok(socket) => {
                let dial = dial_from(&socket, remote);
                Some(async move { Some((dial.await.ok()?, (socket, lease))) })
            }
            Err(error) => {
                tracing::debug!(%error, port = lease.port(), "cannot dial from another port");
                None
            }
        }
    }

    /// Moves the punch port to a port that was answered in its place. Not if it has moved for another dial or has a connection by now.
    fn follow(
        &self,
        family: Family,
        before: Option<ListenerId>,
        socket: Socket,
        lease: &Lease,
    ) -> bool {
        let mut open = self.open();
        let now = open.get(&family);
        if now.map(|punch| punch.id) != before || now.is_some_and(|punch| punch.socket.serves()) {
            return false;
        }
        let (from, to) = (
            self.shared.ports.punch_port(Transport::Quic, family),
            lease.port(),
        );
        if let Some(earlier) = now {
            earlier.keep_lock(family, &self.shared.ports);
        }
        tracing::warn!(%family, from, to, "a firewall on the way may drop a part of the port range: the quic punch port got no answer and moves; `p2pnode netcheck` names the ports that get through");
        socket.announce();
        let claim = self.shared.ports.move_punch(Transport::Quic, family, to);
        self.insert(&mut open, family, socket, claim);
        self.waker.wake();
        true
    }
}

fn dial_from(socket: &Socket, remote: SocketAddr) -> Dialed {
    let dial = socket.dial(remote, Effort::Ordinary).boxed();
    let port = socket.local().port();
    dial.map_ok(move |connection| (connection, port)).boxed()
}

#[cfg(test)]
mod tests;
