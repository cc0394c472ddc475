//! One TCP dial, ordinary or punch.

use std::{io, mem, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Fuse, FusedFuture as _},
    stream::FuturesUnordered,
};
use libp2p::{
    PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, PortUse},
    },
    tcp,
};
use p2pnode_protocol::{Family, Transport};
use tokio::{net::TcpStream, time::Instant};

use super::{
    auth::{HANDSHAKE, HANDSHAKE_TIMEOUT, Offer, Refusal, Upgrade},
    memory::Memory,
    moves::{Moves, Source},
    pending_syn::{Connecting, PendingSyn},
    role::fitting,
    stream::Stream,
};
use crate::net::{
    addr::to_multiaddr,
    closed::Closed,
    connection::Connection,
    error::Error,
    learned::Trouble,
    punches::{Inbound, Origin, Punches, Remote, Returned},
    record::Sockets,
    shared::Shared,
    socket::{self, Segments},
};

/// How long a remote may take to answer: three retransmits of the SYN (after 1, 3 and 7 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a punch goes on. Both sides begin within a round trip of each other.
const PUNCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon a punch that was refused, or a dial whose 4-tuple is in use, tries again. The kernel does not report when a 4-tuple
/// becomes free, nor a NAT when it begins to let packets through.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// How soon, in milliseconds, the first tries follow of a punch that is answered, and how many they are. If only the remote's router
/// answers, the first SYN that the remote sends lets the next one of this side in. That SYN must not leave while the router has one of
/// ours: it would leave from another port for minutes. The router has one for a tenth of a millisecond.
const FIRST_AGAIN: std::ops::RangeInclusive<u64> = 20..=60;
const FIRST: u32 = 5;

/// How soon, in milliseconds, a punch tries again that is still answered: a router takes what comes early to its own stack, which answers
/// with a reset. Both ways open only if the SYNs of both sides cross, within the time that one takes. The pauses are random, so that
/// one of a few tries does. A reset ends the router's connection-tracking entry, so a try spoils nothing.
const ANSWERED_AGAIN: std::ops::RangeInclusive<u64> = 1..=4;

/// How many tries follow each other so soon.
const SOON: u32 = 200;

/// The wait after so many tries.
fn again(tries: u32, is_answered: bool) -> Duration {
    match is_answered {
        true if tries < FIRST => Duration::from_millis(fastrand::u64(FIRST_AGAIN)),
        true if tries < FIRST + SOON => Duration::from_millis(fastrand::u64(ANSWERED_AGAIN)),
        true | false => AGAIN,
    }
}

/// After what time a handshake has stopped, at the least, and is tried with small segments.
const STOPPED: Duration = Duration::from_secs(3);

/// A dial that has not begun.
pub(crate) struct Dial {
    pub(crate) remote: SocketAddr,
    pub(crate) peer: Option<PeerId>,
    pub(crate) role: Endpoint,
    pub(crate) port_use: PortUse,
    /// Whether the punch port was tried, and reset.
    pub(crate) was_reset: bool,
    pub(crate) upgrade: Upgrade,
    pub(crate) memory: Arc<Memory>,
    pub(crate) pending_syn: Arc<PendingSyn>,
    pub(crate) moves: Moves,
    pub(crate) shared: Shared,
}

impl Dial {
    /// The connection, and the sockets it has.
    pub(crate) async fn run(self) -> Result<(Connection, Sockets), Error> {
        if self.role == Endpoint::Listener || self.shared.punches.is_expected(self.remote).is_some()
        {
            self.punch().await
        } else {
            let mut dial = self;
            let mut connected = dial.ordinary().await;
            if dial.port_use == PortUse::Reuse
                && let Err(error) = &connected
                && error.closed() == Some(Closed::Reset)
            {
                // Late packets of an earlier connection with this 4-tuple draw resets.
                tracing::debug!(remote = %dial.remote, %error, "a tcp handshake was reset; trying another port");
                dial.was_reset = true;
                connected = dial.ordinary().await;
            }
            let (connection, Source { sockets, proposal }) = connected?;
            dial.shared.ports.succeeded(Transport::Tcp, dial.family());
            if let Some(proposal) = proposal {
                dial.moves.propose(proposal).await;
            }
            Ok((connection, sockets))
        }
    }

    /// Offers TLS without waiting for consent, which saves a round trip. A remote without TLS refuses, and is dialed a second time
    /// for Noise alone. That costs the round trip that a second offer would have cost.
    async fn ordinary(&self) -> Result<(Connection, Source), Error> {
        let now = Instant::now().into_std();
        if self.memory.without_tls().contains(self.remote, now) {
            return self.authenticated(Offer::Both).await;
        }
        let refusal = Refusal::default();
        let with_tls = self.authenticated(Offer::Tls(refusal.clone())).await;
        if refusal.is_given() {
            tracing::debug!(remote = %self.remote, "no tls there; connecting again, for noise");
            return self.authenticated(Offer::Noise).await;
        }
        with_tls
    }

    /// Where a path drops large packets and the ICMP messages about that, a handshake stops with the first full segment. Then a
    /// second connection sends and asks for small segments.
    async fn authenticated(&self, offer: Offer) -> Result<(Connection, Source), Error> {
        let began = Instant::now();
        let is_narrow = self.memory.narrow().contains(self.remote, began.into_std());
        let (stream, source) = self.connect_in_time(is_narrow.into()).await?;
        let stopped = STOPPED.max(began.elapsed() * 4);
        if is_narrow {
            return self.handshake(stream, source, offer).await;
        }
        {
            let given_up = Refusal::default();
            let stream = stream.reset_if(given_up.clone());
            let handshake = pin!(self.handshake(stream, source, offer.clone()));
            if let Ok(done) = tokio::time::timeout(stopped, handshake).await {
                return done;
            }
            // The next connection has the same port: a relay takes it for the one that this node punches from.
            given_up.give();
        }
        let (stream, source) = self.connect_in_time(Segments::Small).await?;
        let left = HANDSHAKE_TIMEOUT.saturating_sub(stopped);
        let handshake = tokio::time::timeout(left, self.handshake(stream, source, offer));
        let timeout = |_| {
            let now = Instant::now().into_std();
            self.memory.without_tls().add(self.remote, now);
            Error::timeout(HANDSHAKE, HANDSHAKE_TIMEOUT)
        };
        let connected = handshake.await.map_err(timeout)??;
        tracing::warn!(remote = %self.remote, reason = "mtu", "the handshake over TCP succeeded with small segments only: a router on the path drops large packets without an ICMP message; allow ICMP there, or lower the MTU of this host");
        let now = Instant::now().into_std();
        self.memory.narrow().add(self.remote, now);
        self.shared.learn(self.remote, Trouble::Mtu);
        Ok(connected)
    }

    async fn connect_in_time(&self, segments: Segments) -> Result<(Stream, Source), Error> {
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(segments));
        let timeout = Error::timeout("connecting over tcp", CONNECT_TIMEOUT);
        connect.await.map_err(|_| timeout)?
    }

    async fn handshake(
        &self,
        mut stream: Stream,
        source: Source,
        offer: Offer,
    ) -> Result<(Connection, Source), Error> {
        let is_tls_alone = if let Offer::Tls(refusal) = &offer {
            stream = stream.reset_if(refusal.clone());
            true
        } else {
            false
        };
        let upgrade = self.upgrade.apply(stream, self.remote, self.role, offer);
        let authenticated = upgrade.await;
        if is_tls_alone && authenticated.is_err() {
            let now = Instant::now().into_std();
            self.memory.without_tls().add(self.remote, now);
        }
        if let Err(Error::BothDialed { remote }) = authenticated {
            // Both sides dial in a punch alone.
            let other = io::Error::other("what answers there speaks another protocol");
            return Err(Error::handshake(remote, &other));
        }
        Ok((authenticated?, source))
    }

    pub(super) fn sockets(&self, stream: &TcpStream) -> Result<Sockets, Error> {
        let local = stream.local_addr().map_err(|error| self.failed(error))?;
        Ok(Sockets {
            transport: Transport::Tcp,
            local,
            remote: self.remote,
        })
    }

    /// Connects from the punch port, again and again, and takes what comes in from the remote as well; the first authenticated
    /// connection wins. A SYN without an answer at the end is left to the next punch.
    async fn punch(&self) -> Result<(Connection, Sockets), Error> {
        let port = self
            .shared
            .ports
            .punch_port(Transport::Tcp, self.family())
            .ok_or_else(|| self.no_socket())?;
        let known = self.shared.punches.is_expected(self.remote);
        // A path that needs small segments mostly begins with a narrow link of this host.
        let is_narrow = self.memory.narrow().are_some(Instant::now().into_std());
        let segments = is_narrow.into();
        let unvouched = {
            let (punches, remote) = (Arc::clone(&self.shared.punches), self.remote);
            move || punches.is_expected(remote) == Some(Remote::Unvouched)
        };
        let connect = || -> Connecting {
            if unvouched() {
                let unvouched = unvouched.clone();
                let connecting = socket::connect_once(port, self.remote, move || !unvouched());
                return connecting.boxed().fuse();
            }
            let kept = self.pending_syn.take(port, self.remote);
            kept.unwrap_or_else(|| socket::connect(port, self.remote, segments).boxed().fuse())
        };
        // A punch cannot be made again without TLS, so TLS alone is offered only if the remote is known to support it.
        let offer = match known {
            Some(Remote::TakesTls) => Offer::Tls(Refusal::default()),
            Some(Remote::Unknown | Remote::Unvouched) | None => Offer::Both,
        };
        let mut wait = Punches::wait(&self.shared.punches, self.remote);
        let mut connecting = connect();
        let mut pause: Fuse<BoxFuture<'static, ()>> = Fuse::terminated();
        let mut deadline = tokio::time::sleep(PUNCH_TIMEOUT).boxed().fuse();
        let mut upgrades = FuturesUnordered::new();
        let timeout = || Error::timeout("the tcp punch", PUNCH_TIMEOUT);
        let mut last = timeout();
        let mut over = false;
        let mut tries = 0;
        loop {
            futures::select! {
                connected = connecting => match connected {
                    Ok(stream) => {
                        let sockets = self.sockets(&stream)?;
                        let (upgrade, remote, role) = (self.upgrade.clone(), self.remote, self.role);
                        let offer = offer.clone();
                        let upgraded = async move {
                            let (stream, role) = fitting(Stream::new(stream, None), role).await;
                            upgrade.apply(stream, remote, role, offer).await
                        };
                        upgrades.push(upgraded.map(move |done| (done, sockets, None)).boxed());
                    }
                    // The remote may still connect.
                    Err(error) if unvouched() && !is_in_use(&error) => last = self.failed(error),
                    Err(error) if may_pass(&error) => {
                        let is_answered = answered(&error);
                        if !is_in_use(&error) {
                            last = self.failed(error);
                        }
                        pause = tokio::time::sleep(again(tries, is_answered)).boxed().fuse();
                        tries = tries.saturating_add(1);
                    }
                    Err(error) => {
                        last = self.failed(error);
                        over = true;
                    }
                },
                () = pause => connecting = connect(),
                inbound = wait.inbound.select_next_some() => {
                    let Inbound { origin, stream } = inbound;
                    tracing::debug!(remote = %origin.remote, "inbound connection completes a tcp punch");
                    let sockets = Sockets { transport: Transport::Tcp, local: origin.local, remote: origin.remote };
                    let stream = Stream::new(stream.0, None);
                    let (upgrade, role, offer) = (self.upgrade.clone(), self.role, offer.clone());
                    let upgraded = async move {
                        let (stream, role) = fitting(stream, role).await;
                        let done = upgrade.apply(stream, sockets.remote, role, offer).await;
                        (done, sockets, Some(origin))
                    };
                    upgrades.push(upgraded.boxed());
                },
                (done, sockets, origin) = upgrades.select_next_some() => match done {
                    Ok(connection) => match origin {
                        Some(origin) if self.peer.is_some_and(|peer| peer != connection.0) => {
                            self.somebody_else(origin, connection);
                        }
                        Some(_) | None => return Ok((connection, sockets)),
                    },
                    Err(error) => {
                        // The connection that this side made did not hold: another would not either. Nor would another one that
                        // comes from the same address.
                        let both_dialed = matches!(error, Error::BothDialed { .. });
                        over |= origin.is_none_or(|origin| both_dialed && origin.remote == self.remote);
                        if both_dialed {
                            tracing::info!(remote = %self.remote, "both sides of a tcp punch took the dialer's role; the next punch takes the listener's");
                        }
                        if matches!(error, Error::Timeout { .. }) {
                            let now = Instant::now().into_std();
                            self.memory.narrow().add(self.remote, now);
                        }
                        last = error;
                    }
                },
                () = deadline => {
                    over = true;
                    if !connecting.is_terminated() && !unvouched() {
                        // The errors of earlier attempts have passed.
                        last = timeout();
                        let unanswered = mem::replace(&mut connecting, Fuse::terminated());
                        self.keep(port, unanswered);
                    }
                }
            }
            if over {
                connecting = Fuse::terminated();
                pause = Fuse::terminated();
                if upgrades.is_empty() {
                    return Err(last);
                }
            }
        }
    }

    /// Leaves a SYN without an answer to the next punch. If the remote dials in the meantime, its connection is this one.
    fn keep(&self, port: u16, unanswered: Connecting) {
        let (punches, remote) = (Arc::clone(&self.shared.punches), self.remote);
        let inbound = move |stream: TcpStream| {
            let Ok(local) = stream.local_addr() else {
                return;
            };
            let origin = Origin {
                // No listener's; the swarm does not ask.
                listener: ListenerId::next(),
                local,
                local_addr: to_multiaddr(Transport::Tcp, local),
                remote,
                remote_addr: to_multiaddr(Transport::Tcp, remote),
            };
            let stream = tcp::tokio::TcpStream(stream);
            if let Some(inbound) = punches.offer(Inbound { origin, stream }) {
                punches.give_back(Returned::Stream(inbound));
            }
        };
        let kept = &self.pending_syn;
        PendingSyn::keep(kept, port, self.remote, unanswered, inbound);
    }

    /// Returns a connection from the remote's IP that is another peer's to the swarm. In the role of the listener nothing is lost:
    /// without the punch it would have been an ordinary inbound connection.
    fn somebody_else(&self, origin: Origin, connection: Connection) {
        tracing::debug!(remote = %origin.remote, peer = %connection.0, "inbound connection is not that of the punch");
        if self.role == Endpoint::Listener {
            self.shared
                .punches
                .give_back(Returned::Connection(origin, connection));
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::from(self.remote.ip())
    }

    pub(super) fn no_socket(&self) -> Error {
        let reason = "it was closed".to_owned();
        Error::NoSocket {
            transport: Transport::Tcp,
            family: self.family(),
            reason,
        }
    }

    pub(super) fn failed(&self, error: io::Error) -> Error {
        Error::io(format!("tcp connection to {} failed", self.remote), error)
    }
}

/// Another program has the port, or a connection has the same 4-tuple.
pub(super) fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

/// Errors that a punch meets before it succeeds: the remote's connection was faster, the punch before this one is not over, or
/// the remote's NAT or firewall answers packets that it does not expect yet.
fn may_pass(error: &io::Error) -> bool {
    is_in_use(error)
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::PermissionDenied
                // The kernel has given up on a SYN that an earlier punch sent.
                | io::ErrorKind::TimedOut
        )
}

/// Whether the remote's router or firewall has answered the SYN.
fn answered(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests;
