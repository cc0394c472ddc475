//! Serves STUN: datagrams on the sockets of QUIC and on a second port, and streams over TCP on both.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use p2pnode_protocol::{
    Family,
    stun::{HEADER, LARGEST, Port},
};
use p2pnode_transports::{Received, StunHandler, StunSocket, WeakStunSocket};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::{debug, field::Empty, info, trace, warn};

use crate::{
    config,
    core::{Asked, Outcome, Stun},
    observe::metrics::{Metrics, StunOutcome},
    swarm::shared_state::SharedState,
};

/// How long a stream may be silent between requests.
const IDLE: Duration = Duration::from_secs(15);

/// Streams at once. Beyond that they are closed.
const STREAMS: usize = 512;

/// Connections at once to askers that want to know who reaches them, and how long one is tried: one SYN.
const CONNECTS: usize = 64;
const CONNECT: Duration = Duration::from_millis(900);

/// How long the relay waits after an error of a socket.
const PAUSE: Duration = Duration::from_millis(100);

/// The server of STUN. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct StunServer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Mutex<Stun>,
    sockets: Mutex<HashMap<(Family, Port), Vec<WeakStunSocket>>>,
    streams: Arc<Semaphore>,
    connects: Arc<Semaphore>,
    state: SharedState,
    metrics: Metrics,
}

/// The same for the sockets of one port.
#[derive(Debug)]
pub(crate) struct OnPort(StunServer, Port);

impl StunServer {
    pub(crate) fn new(config: &config::Stun, state: SharedState, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            core: Mutex::new(Stun::new(config.partners.clone())),
            sockets: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            connects: Arc::new(Semaphore::new(CONNECTS)),
            state,
            metrics,
        }))
    }

    /// What takes STUN off the sockets of QUIC and TCP.
    pub(crate) fn on_quic_port(&self) -> Arc<dyn StunHandler> {
        Arc::new(OnPort(self.clone(), Port::Quic))
    }

    /// Listens on the second port, over UDP and TCP.
    ///
    /// # Errors
    ///
    /// If an address that was asked for cannot be bound. One of the default is left out.
    pub(crate) fn listen(&self, config: &config::Stun) -> anyhow::Result<()> {
        for addr in &config.listen {
            match self.listen_on(*addr) {
                Ok(()) => info!(own = Empty, %addr, "STUN is answered here"),
                Err(error) if !config.given => info!(
                    own = Empty,
                    %addr,
                    %error,
                    "STUN is answered on the ports of QUIC and TCP only: the second port cannot be bound"
                ),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot answer STUN on {addr}; give another address in stun.listen, or [] for none")
                    });
                }
            }
        }
        Ok(())
    }

    fn listen_on(&self, addr: SocketAddr) -> io::Result<()> {
        let tcp = listener(addr)?;
        let udp = StunSocket::bind(addr)?;
        let on_port = OnPort(self.clone(), Port::Second);
        tokio::spawn(async move {
            loop {
                let error = udp.serve(&on_port).await;
                warn!(%addr, %error, "a socket of STUN reported an error and goes on");
                tokio::time::sleep(PAUSE).await;
            }
        });
        let server = self.clone();
        tokio::spawn(async move {
            loop {
                match tcp.accept().await {
                    Ok((stream, _)) => server.serve(stream, Port::Second),
                    Err(error) => {
                        debug!(%addr, %error, "cannot accept a stream of STUN");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// Answers what comes on a stream, which has one of the places or is closed.
    fn serve(&self, mut stream: TcpStream, at: Port) {
        let Ok(place) = Arc::clone(&self.0.streams).try_acquire_owned() else {
            return;
        };
        let server = self.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = server.answer(&mut stream, at).await {
                trace!(%error, "a stream of STUN has ended");
            }
        });
    }

    async fn answer(&self, stream: &mut TcpStream, at: Port) -> io::Result<()> {
        let (remote, local) = (stream.peer_addr()?, stream.local_addr()?);
        let mut buffer = [0; LARGEST];
        loop {
            let request = timeout(IDLE, message(stream, &mut buffer)).await??;
            let asked = Asked {
                bytes: &buffer[..request],
                remote,
                at,
                local: Some(local),
                is_tcp: true,
                is_hidden: self.is_translator(remote),
            };
            let outcome = self.core().handle(asked, Instant::now(), SystemTime::now());
            self.0.metrics.stun(StunOutcome::of(&outcome));
            match outcome {
                Outcome::Send {
                    bytes,
                    is_for_partner: false,
                    ..
                } => timeout(IDLE, stream.write_all(&bytes)).await??,
                Outcome::Ignore(_) => return Ok(()),
                other @ (Outcome::Send { .. } | Outcome::Connect { .. }) => {
                    self.carry_out(other, None)
                }
            }
        }
    }

    fn carry_out(&self, outcome: Outcome, received_by: Option<(&StunSocket, Received<'_>)>) {
        match outcome {
            Outcome::Send {
                from, to, bytes, ..
            } => {
                let to_host = received_by.and_then(|(_, received)| received.to);
                let socket = received_by.map(|(socket, _)| socket.clone());
                let socket = self.socket((Family::from(to.ip()), from), socket);
                if let Some(socket) = socket
                    && let Err(error) = socket.send(&bytes, to, to_host)
                {
                    trace!(%to, %error, "an answer of STUN was not sent");
                }
            }
            Outcome::Connect { to, bytes } => {
                let Ok(place) = Arc::clone(&self.0.connects).try_acquire_owned() else {
                    return;
                };
                tokio::spawn(async move {
                    let _place = place;
                    let reached = timeout(CONNECT, connect(to, &bytes)).await;
                    trace!(%to, ?reached, "tried to reach an asker");
                });
            }
            Outcome::Ignore(_) => {}
        }
    }

    /// The socket of this port: the one that received, if that is its port.
    fn socket(&self, of: (Family, Port), received: Option<StunSocket>) -> Option<StunSocket> {
        let sockets = self
            .0
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut open = sockets.get(&of)?.iter().filter_map(WeakStunSocket::upgrade);
        let Some(received) = received.and_then(|socket| socket.local_addr().ok()) else {
            return open.next();
        };
        let open: Vec<_> = open
            .filter_map(|s| Some((s.local_addr().ok()?, s)))
            .collect();
        let same_ip = |local: &SocketAddr| local.ip() == received.ip();
        let found = open.iter().find(|(local, _)| *local == received);
        let found = found.or_else(|| open.iter().find(|(local, _)| same_ip(local)));
        found.or(open.first()).map(|(_, socket)| socket.clone())
    }

    fn is_translator(&self, remote: SocketAddr) -> bool {
        let ip = remote.ip().to_canonical();
        self.0.state.lock().is_translator(ip)
    }

    fn core(&self) -> MutexGuard<'_, Stun> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StunHandler for OnPort {
    fn bound(&self, socket: &StunSocket) {
        let Ok(local) = socket.local_addr() else {
            return;
        };
        let family = Family::from(local.ip());
        self.0.core().handle_bound(family, self.1, local.port());
        let sockets = self.0.0.sockets.lock();
        let mut sockets = sockets.unwrap_or_else(PoisonError::into_inner);
        sockets
            .entry((family, self.1))
            .or_default()
            .push(socket.downgrade());
    }

    fn datagram(&self, socket: &StunSocket, received: Received<'_>) {
        let local = socket.local_addr().ok().and_then(|local| {
            let ip = received
                .to
                .or(Some(local.ip()).filter(|ip| !ip.is_unspecified()))?;
            Some(SocketAddr::new(ip, local.port()))
        });
        let asked = Asked {
            bytes: received.bytes,
            remote: received.remote,
            at: self.1,
            local,
            is_tcp: false,
            is_hidden: self.0.is_translator(received.remote),
        };
        let outcome = self
            .0
            .core()
            .handle(asked, Instant::now(), SystemTime::now());
        self.0.0.metrics.stun(StunOutcome::of(&outcome));
        self.0.carry_out(outcome, Some((socket, received)));
    }

    fn stream(&self, stream: TcpStream) {
        self.0.serve(stream, self.1);
    }
}

/// A TCP listener that leaves IPv4 alone if it is of IPv6, as the relay's others do.
fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Reads one message; its length.
async fn message(stream: &mut TcpStream, buffer: &mut [u8; LARGEST]) -> io::Result<usize> {
    stream.read_exact(&mut buffer[..HEADER]).await?;
    let length = HEADER + usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
    let rest = buffer.get_mut(HEADER..length);
    let rest = rest.ok_or_else(|| io::Error::other("the message is too long"))?;
    stream.read_exact(rest).await?;
    Ok(length)
}

/// Connects from a port of the system's choice, and writes `bytes`.
async fn connect(to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let mut stream = socket.connect(to).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await
}
