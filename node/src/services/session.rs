//! Sessions for programs: what [`Handle::open`](crate::Handle::open) and [`Handle::serve`](crate::Handle::serve) return.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use libp2p::PeerId;
use p2pnode_services::config::{Address, Allow, Host, Identity, Service, ServiceName, Source};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
};

use super::{
    Hub,
    lines::{Ended, Report, reports},
    local::Socket,
    offering::Offering,
    offers::{Goal, TakenName},
};

/// What waits between a program and a session.
const PIPE: usize = 64 << 10;

/// Sessions that may wait for their program. Beyond that they are refused.
const WAITING: usize = 64;

/// A connection to a service of another node, or of another node to a service of this one. It lives while paths come and go.
///
/// Bytes that were written are delivered in their order, once each. A shut-down ends one direction. A session that is reset reads
/// [`io::ErrorKind::ConnectionReset`]. Dropping a session closes it, as a socket: what was written is delivered, and a peer that goes on
/// sending is reset.
#[derive(Debug)]
pub struct Session {
    peer: PeerId,
    pipe: DuplexStream,
    was_reset: Arc<AtomicBool>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenSessionError {
    /// No service has such a name.
    #[error("{0}")]
    Name(String),
    /// The peer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The peer is there, and refuses.
    #[error("{0}")]
    Refused(String),
    /// Otherwise, as when the peer's target does not answer.
    #[error("{0}")]
    Failed(String),
}

/// The sessions of a service of this program. The service is offered as long as this exists.
#[derive(Debug)]
pub struct Incoming {
    sessions: mpsc::Receiver<(PeerId, Socket)>,
    _offering: Offering,
}

/// The service cannot be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// No service has such a name.
    #[error("{0}")]
    Name(String),
    /// There is a service of that name.
    #[error("this node offers a service of that name already")]
    Taken,
}

/// Who may use a service of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// Every peer.
    Any,
    /// These.
    These(Vec<PeerId>),
}

impl Session {
    /// The other side.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Incoming {
    /// The next session; `None` once the node has stopped.
    pub async fn next(&mut self) -> Option<Session> {
        let (peer, socket) = self.sessions.recv().await?;
        match socket {
            Socket::Pipe(pipe, was_reset) => Some(Session {
                peer,
                pipe,
                was_reset,
            }),
            // The hub gives pipes to programs.
            Socket::Tcp(..) | Socket::Unix(..) => None,
        }
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 && self.was_reset.load(Relaxed)
        {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The two ends between a program and a session.
pub(super) fn pipe() -> (Socket, Socket) {
    let (one, other) = duplex(PIPE);
    let was_reset = Arc::new(AtomicBool::new(false));
    let other = Socket::Pipe(other, Arc::clone(&was_reset));
    (Socket::Pipe(one, was_reset), other)
}

impl Hub {
    /// Opens a session, and returns when the peer has accepted it.
    pub(crate) async fn open_for_program(
        &self,
        peer: PeerId,
        service: &str,
    ) -> Result<Session, OpenSessionError> {
        let service: ServiceName = service.parse().map_err(OpenSessionError::Name)?;
        let (one, other) = pipe();
        let (sink, mut lines) = reports();
        let hub = self.clone();
        tokio::spawn(async move { hub.connect(service, peer, one, sink).await });
        let line = lines.recv().await;
        let ended = line.as_ref().and_then(|line| line.ended);
        let reason = match line.map(|line| line.report) {
            Some(Report::Session(session)) => session.reason,
            Some(_) | None => None,
        };
        let reason = reason.unwrap_or_else(|| "there are too many sessions".to_owned());
        match (ended, other) {
            (None, Socket::Pipe(pipe, was_reset)) => Ok(Session {
                peer,
                pipe,
                was_reset,
            }),
            (Some(Ended::Unreachable), _) => Err(OpenSessionError::Unreachable(reason)),
            (Some(Ended::Refused), _) => Err(OpenSessionError::Refused(reason)),
            (Some(_) | None, _) => Err(OpenSessionError::Failed(reason)),
        }
    }

    /// Offers a service of this program.
    pub(crate) fn serve_for_program(
        &self,
        name: &str,
        callers: Callers,
    ) -> Result<Incoming, ServeError> {
        let name: ServiceName = name.parse().map_err(ServeError::Name)?;
        let (sender, sessions) = mpsc::channel(WAITING);
        let service = Service {
            // Shown in the status.
            target: Address::Tcp(Host::Name("program".to_owned()), 0),
            name,
            allow: match callers {
                Callers::Any => Allow::Any,
                Callers::These(peers) => Allow::Peers(peers.into_iter().collect()),
            },
            identity: Identity::None,
            protocol: None,
            source: Source::Any,
            udp_idle: p2pnode_services::config::UDP_IDLE,
        };
        let offering = self.offer(service, Goal::Program(sender), None);
        Ok(Incoming {
            sessions,
            _offering: offering.map_err(|TakenName| ServeError::Taken)?,
        })
    }
}
