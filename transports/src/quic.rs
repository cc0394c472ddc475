//! Dialing QUIC: from punch sockets only.
//!
//! libp2p-quic dials from a fresh ephemeral socket whenever it finds no listener that suits: for `PortUse::New`, for a family
//! without listener, after the listener closed, and for a loopback target as long as the listener has not seen a loopback
//! address. [`Dialer`] keeps the same books as libp2p-quic does and lets no such dial through. They agree because libp2p-quic
//! changes its own exactly when it returns the event that changes ours.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt, TryFutureExt,
    channel::oneshot,
    future::{self, Either},
    stream::FuturesUnordered,
};
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{
            Boxed, DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
        },
    },
    identity::Keypair,
    multiaddr::Protocol,
    quic,
};

use crate::{
    addr::{Kind, to_multiaddr, to_socket_addr},
    auth::{Connection, chain},
    error::Error,
    family::Family,
    handle::Shared,
    listen::{Event, Incoming},
    ports::{OpenError, PunchClaim},
    socket,
};

/// How many dials may wait for the loopback address to be seen.
const WAITING: usize = 64;

/// How long they wait. The kernel tells its addresses within milliseconds; a host whose loopback is down never does.
const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// When the dial of a punch that has no answer begins anew, counted from its start. Its first packet may have been a moment
/// too early for the remote's NAT, and quinn, which knows no round trip time yet, repeats it only after a second. A dial that
/// begins anew costs a packet; where the first is only slow, it is done before the second, which is then dropped unfinished.
const ANEW: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(500)];

/// How far apart the two connections of a punch that works both ways are at most: the jitter of the path.
const TIE: Duration = Duration::from_millis(50);

/// How long a handshake may take. quinn repeats a first packet that nobody answers after 1 s and 3 s. A dial that is not done by
/// then will not be.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);

/// A set of QUIC sockets. The one place that knows whose: everything else goes through [`Transport`].
pub(crate) fn endpoint(keypair: &Keypair) -> Boxed<Connection> {
    let mut config = quic::Config::new(keypair);
    // Whoever pings judges paths sooner and knows whether it ran itself meanwhile. quinn looks at its timers before it reads, so
    // that a process that got no CPU for the idle timeout loses every connection; this one is only for peers without ping. The
    // keep-alives hold the mappings of NATs for them (30 s is a common life of those; RFC 4787 wants 2 min).
    config.keep_alive_interval = Duration::from_secs(4);
    config.max_idle_timeout = 10_000;
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    quic::tokio::Transport::new(config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .boxed()
}

/// The punch sockets of QUIC.
pub(crate) struct Dialer {
    inner: Boxed<Connection>,
    sockets: BTreeMap<Family, PunchSocket>,
    waiting: Vec<Waiting>,
    shared: Shared,
}

struct PunchSocket {
    id: ListenerId,
    _claim: PunchClaim,
    loopback: HashSet<IpAddr>,
}

/// A dial of a loopback address that came before the address was seen.
struct Waiting {
    dial: Dial,
    started: oneshot::Sender<Incoming>,
}

/// What to dial, and in which role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial {
    pub(crate) remote: SocketAddr,
    pub(crate) peer: Option<PeerId>,
    pub(crate) role: Endpoint,
}

impl Dialer {
    pub(crate) fn new(keypair: &Keypair, shared: Shared) -> Self {
        Self {
            inner: endpoint(keypair),
            sockets: BTreeMap::new(),
            waiting: Vec::new(),
            shared,
        }
    }

    pub(crate) fn is_open(&self, family: Family) -> bool {
        self.sockets.contains_key(&family)
    }

    /// Opens the punch socket of `family` on a port of the range.
    pub(crate) fn open(&mut self, family: Family) -> Result<(), Error> {
        let inner = &mut self.inner;
        let (claim, id) = self.shared.ports.open(Kind::Quic, family, |port| {
            let id = ListenerId::next();
            let addr = to_multiaddr(Kind::Quic, socket::wildcard(family, port));
            let opened = inner.listen_on(id, addr).map_err(io_error);
            opened.map(|()| id).map_err(|error| OpenError {
                socket: Kind::Quic,
                error,
            })
        })?;
        tracing::debug!(port = claim.port(), %family, "quic punch socket opened");
        self.sockets.insert(
            family,
            PunchSocket {
                id,
                _claim: claim,
                loopback: HashSet::new(),
            },
        );
        Ok(())
    }

    /// Dials from the punch socket of the family, whatever the port use. Fails where there is none.
    pub(crate) fn dial(&mut self, dial: Dial) -> Result<Incoming, Error> {
        if self.is_ready(dial.remote) {
            return Ok(self.start(dial));
        }
        let family = Family::from(dial.remote.ip());
        if !self.is_open(family) {
            return Err(no_socket(family, "it was closed"));
        }
        self.waiting
            .retain(|waiting| !waiting.started.is_canceled());
        if self.waiting.len() >= WAITING {
            return Err(Error::Busy {
                what: "the loopback interface",
            });
        }
        let (started, start) = oneshot::channel();
        self.waiting.push(Waiting { dial, started });
        Ok(async move {
            match tokio::time::timeout(LOOPBACK_TIMEOUT, start).await {
                Ok(Ok(dial)) => dial.await,
                Ok(Err(_)) => Err(no_socket(family, "it was closed")),
                Err(_) => Err(no_socket(family, "the host has no loopback address")),
            }
        }
        .boxed())
    }

    /// Whether libp2p-quic would dial `remote` from our punch socket, and from nothing else.
    fn is_ready(&self, remote: SocketAddr) -> bool {
        let socket = self.sockets.get(&Family::from(remote.ip()));
        socket.is_some_and(|socket| !remote.ip().is_loopback() || !socket.loopback.is_empty())
    }

    fn start(&mut self, dial: Dial) -> Incoming {
        let Dial { remote, peer, role } = dial;
        let addr = to_multiaddr(Kind::Quic, remote);
        let client = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let punches =
            role == Endpoint::Listener || self.shared.punches.is_expected_over_quic(remote);
        let dials = if punches { 1 + ANEW.len() } else { 1 };
        // None of them begins before it is polled.
        let client: Result<Vec<_>, _> = (0..dials)
            .map(|_| self.inner.dial(addr.clone(), client))
            .collect();
        let puncher = match (role, peer) {
            // Random packets that open our NAT, until a connection from that very address comes in, which becomes this
            // dial. `New` selects it; it sends from the punch socket all the same, the only one of its family.
            (Endpoint::Listener, Some(peer)) => {
                let puncher = DialOpts {
                    role: Endpoint::Listener,
                    port_use: PortUse::New,
                };
                // Refused while another dial punches to the same address: that one will do.
                self.inner
                    .dial(addr.with(Protocol::P2p(peer)), puncher)
                    .ok()
                    .map(|dial| (peer, dial))
            }
            (Endpoint::Listener, None) | (Endpoint::Dialer, _) => None,
        };
        async move {
            let client = async { begin_anew(client.map_err(io_error)?).await };
            let done = match puncher {
                Some((peer, puncher)) => punch(client, puncher, peer).await,
                None => client.await,
            };
            done.map_err(|error| failed(Some(remote), &error))
        }
        .boxed()
    }

    /// Only [`TransportEvent::Incoming`] comes out: the addresses of punch sockets are nobody's listen addresses.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        while let Poll::Ready(event) = Pin::new(&mut self.inner).poll(cx) {
            match event {
                incoming @ TransportEvent::Incoming { .. } => {
                    return Poll::Ready(self::event(incoming));
                }
                TransportEvent::NewAddress {
                    listener_id,
                    listen_addr,
                } => {
                    if let Some((socket, ip)) = self.loopback_of(listener_id, &listen_addr) {
                        socket.loopback.insert(ip);
                        self.start_waiting();
                    }
                }
                TransportEvent::AddressExpired {
                    listener_id,
                    listen_addr,
                } => {
                    if let Some((socket, ip)) = self.loopback_of(listener_id, &listen_addr) {
                        socket.loopback.remove(&ip);
                    }
                }
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason,
                } => {
                    tracing::warn!(?reason, "quic punch socket closed");
                    self.forget(listener_id);
                }
                TransportEvent::ListenerError { listener_id, error } if is_broken(&error) => {
                    // The watcher of the host's addresses is gone and would report this at every poll. The next dial opens
                    // another socket.
                    tracing::warn!(error = %chain(&error), "quic punch socket given up");
                    self.inner.remove_listener(listener_id);
                    self.forget(listener_id);
                }
                TransportEvent::ListenerError { error, .. } => {
                    tracing::debug!(error = %chain(&error), "quic connection refused");
                }
            }
        }
        Poll::Pending
    }

    fn loopback_of(
        &mut self,
        id: ListenerId,
        addr: &libp2p::Multiaddr,
    ) -> Option<(&mut PunchSocket, IpAddr)> {
        let ip = to_socket_addr(addr)?.ip();
        let socket = self.sockets.values_mut().find(|socket| socket.id == id)?;
        ip.is_loopback().then_some((socket, ip))
    }

    fn start_waiting(&mut self) {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|w: &Waiting| self.is_ready(w.dial.remote));
        self.waiting = waiting;
        for Waiting { dial, started } in ready {
            if !started.is_canceled() {
                // Canceled in this very moment: nothing was sent yet.
                let _ = started.send(self.start(dial));
            }
        }
    }

    /// Dropping what waits tells the dials that the socket is gone.
    fn forget(&mut self, id: ListenerId) {
        self.sockets.retain(|_, socket| socket.id != id);
        let sockets = &self.sockets;
        self.waiting
            .retain(|waiting| sockets.contains_key(&Family::from(waiting.dial.remote.ip())));
    }
}

/// An event of an [`endpoint`], with errors of ours.
pub(crate) fn event<U>(event: TransportEvent<U, io::Error>) -> Event
where
    U: Future<Output = io::Result<Connection>> + Send + 'static,
{
    let remote = match &event {
        TransportEvent::Incoming { send_back_addr, .. } => to_socket_addr(send_back_addr),
        TransportEvent::NewAddress { .. }
        | TransportEvent::AddressExpired { .. }
        | TransportEvent::ListenerClosed { .. }
        | TransportEvent::ListenerError { .. } => None,
    };
    event
        .map_upgrade(|upgrade| {
            upgrade
                .map_err(move |error| not_accepted(remote, &error))
                .boxed()
        })
        .map_err(|error| failed(None, &error))
}

/// The first of these dials that ends, whichever way. The second and the third begin when the first had no answer.
async fn begin_anew<F>(dials: Vec<F>) -> io::Result<Connection>
where
    F: Future<Output = io::Result<Connection>>,
{
    let waits = std::iter::once(Duration::ZERO).chain(ANEW);
    let mut dials: FuturesUnordered<_> = dials
        .into_iter()
        .zip(waits)
        .map(|(dial, wait)| async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            dial.await
        })
        .collect();
    let first = dials.next().await;
    first.unwrap_or_else(|| Err(io::Error::other("no dial")))
}

/// Both arms of a punch in the role of the listener, at once.
///
/// `puncher` opens our NAT and takes the connection that the remote makes. `client` is for a remote whose NAT is symmetric
/// while ours lets anybody in or out: nothing of theirs comes from the address that we know, but what we send may get
/// through. Where both work they are done within a moment of each other. Then `puncher` has to win: the remote's dial, which
/// is the other end of it, was done half a round trip earlier, and would be closed under its hands.
async fn punch(
    client: impl Future<Output = io::Result<Connection>>,
    puncher: impl Future<Output = io::Result<Connection>>,
    peer: PeerId,
) -> io::Result<Connection> {
    futures::pin_mut!(client, puncher);
    match future::select(puncher, client).await {
        Either::Left((Ok(punched), _)) => Ok(punched),
        Either::Left((Err(_), client)) => client.await,
        Either::Right((Ok(dialed), puncher)) => match tokio::time::timeout(TIE, puncher).await {
            Ok(Ok(punched)) if punched.0 == peer => Ok(punched),
            Ok(_) | Err(_) => Ok(dialed),
        },
        Either::Right((Err(error), puncher)) => puncher.await.map_err(|_| error),
    }
}

fn failed(remote: Option<SocketAddr>, error: &io::Error) -> Error {
    Error::Quic {
        remote,
        reason: chain(error),
    }
}

/// Why a connection that a remote has begun did not come about.
fn not_accepted(remote: Option<SocketAddr>, error: &io::Error) -> Error {
    let quic = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<quic::Error>());
    if matches!(quic, Some(quic::Error::HandshakeTimedOut)) {
        return Error::timeout("the QUIC handshake", HANDSHAKE_TIMEOUT);
    }
    failed(remote, error)
}

fn no_socket(family: Family, reason: &str) -> Error {
    Error::NoSocket {
        kind: Kind::Quic,
        family,
        reason: reason.to_owned(),
    }
}

/// The error of the socket below libp2p-quic's, so that its kind can be told.
pub(crate) fn io_error(error: TransportError<io::Error>) -> io::Error {
    let error = match error {
        TransportError::Other(error) => error,
        unsupported @ TransportError::MultiaddrNotSupported(_) => {
            return io::Error::other(unsupported);
        }
    };
    match error.downcast::<quic::Error>() {
        Ok(quic::Error::Io(error)) => error,
        Ok(other) => io::Error::other(other),
        Err(error) => error,
    }
}

/// Whether a listener can no longer be polled to any use: its own IO failed, not that of one connection.
fn is_broken(error: &io::Error) -> bool {
    let quic = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<quic::Error>());
    matches!(quic, Some(quic::Error::Io(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

    use super::*;

    /// A connection that is none.
    struct Nothing;

    impl StreamMuxer for Nothing {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    type Arm = future::BoxFuture<'static, io::Result<Connection>>;

    fn reaches(peer: PeerId) -> Arm {
        future::ready(Ok((peer, StreamMuxerBox::new(Nothing)))).boxed()
    }

    fn fails(reason: &'static str) -> Arm {
        future::ready(Err(io::Error::other(reason))).boxed()
    }

    /// As `arm`, but not at the first look.
    fn later(arm: Arm) -> Arm {
        async move {
            tokio::task::yield_now().await;
            arm.await
        }
        .boxed()
    }

    /// When each of three dials begins, and what comes of them if the `n`th is answered after that long and no other is.
    async fn dials_begun(n: usize, after: Duration) -> (Vec<Duration>, Duration) {
        let peer = PeerId::random();
        let start = tokio::time::Instant::now();
        let begun = std::sync::Mutex::new(Vec::new());
        let dials: Vec<_> = (0..3)
            .map(|number| {
                let begun = &begun;
                async move {
                    begun.lock().unwrap().push(start.elapsed());
                    if number != n {
                        future::pending::<()>().await;
                    }
                    tokio::time::sleep(after).await;
                    reaches(peer).await
                }
            })
            .collect();
        assert_eq!(begin_anew(dials).await.unwrap().0, peer);
        (begun.into_inner().unwrap(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_without_an_answer_begins_anew_and_an_answered_one_does_not() {
        let millis = Duration::from_millis;
        let soon = dials_begun(0, millis(200)).await;
        assert_eq!(soon, (vec![millis(0)], millis(200)));
        let second = dials_begun(1, millis(50)).await;
        assert_eq!(second, (vec![millis(0), millis(250)], millis(300)));
        let slow = dials_begun(0, millis(600)).await;
        assert_eq!(
            slow,
            (vec![millis(0), millis(250), millis(500)], millis(600))
        );
    }

    #[tokio::test]
    async fn the_punched_connection_wins_a_tie_and_only_a_tie() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        // The arms are told apart by the peer that they reach.
        for (client, puncher, expected) in [
            (reaches(other), reaches(peer), peer),
            (reaches(other), later(reaches(peer)), peer),
            (reaches(other), future::pending().boxed(), other),
            (fails("refused"), later(reaches(peer)), peer),
            (later(reaches(other)), fails("timeout"), other),
            // Somebody else came in from the remote's address.
            (reaches(peer), later(reaches(other)), peer),
        ] {
            assert_eq!(punch(client, puncher, peer).await.unwrap().0, expected);
        }
        let neither = punch(fails("refused"), later(fails("timeout")), peer).await;
        assert_eq!(neither.err().unwrap().to_string(), "refused");
    }
}
