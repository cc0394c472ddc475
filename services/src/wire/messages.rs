//! The messages that begin and end streams and sessions.
//!
//! The types here hold valid values only. Those of [`wire`] are what protocol buffers know.

pub(super) mod wire;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{SessionId, datagram::FlowNumber, offset::MAX_OFFSET};
use crate::config::{RawProtocol, ServiceName};

/// What a session carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carries {
    /// Bytes in order: TCP and Unix sockets.
    Bytes,
    /// Datagrams: UDP. With the number for QUIC datagrams.
    Datagrams(FlowNumber),
}

/// Begins a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The session.
    pub session: SessionId,
    /// The process that opens it.
    pub instance: u64,
    /// Grows with each attempt of the session.
    pub attempt: u32,
    /// The service.
    pub service: ServiceName,
    /// What it carries.
    pub carries: Carries,
    /// The accepting side may send what is below.
    pub limit: u64,
    /// Where the client is, and where it connected to, both seen from the opener. `None` for Unix sockets and `connect`.
    pub client: Option<(SocketAddr, SocketAddr)>,
    /// How long the opener keeps a session without a stream. `None`: it is of an earlier version.
    pub linger: Option<Duration>,
}

/// Continues a session on a new stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The session.
    pub session: SessionId,
    /// The process that opened it.
    pub instance: u64,
    /// Grows with each attempt of the session.
    pub attempt: u32,
    /// Where the sender of this message stands.
    pub progress: Accept,
}

/// Where one side stands: what it has of the other's direction. As an answer: the stream carries the session from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accept {
    /// The process that sends this.
    pub instance: u64,
    /// All below has been received. The other side sends from here.
    pub received: u64,
    /// All below has been delivered to the local socket.
    pub delivered: u64,
    /// The other side may send what is below.
    pub limit: u64,
    /// How long the session had no stream before this one, as far as the sender has noticed. `None`: it had one.
    pub paused: Option<Duration>,
    /// How long both sides keep a session without a stream, as an answer. `None`: the sender is of an earlier version.
    pub linger: Option<Duration>,
}

/// No session on this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse {
    /// The process that sends this.
    pub instance: u64,
    /// Why.
    pub refusal: Refusal,
}

/// Why there is no session on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such service for this peer. Unknown and forbidden ones look the same.
    Unavailable,
    /// The peer, the service or the process has as many sessions as it may have, or as many opens per second.
    Busy,
    /// There is no such session for this peer.
    UnknownSession,
    /// A later attempt of the same session came first.
    Stale,
    /// The first frame makes no sense.
    Malformed,
    /// The service takes datagrams, and the session carries bytes.
    TakesDatagrams,
    /// The service takes bytes, and the session carries datagrams.
    TakesStreams,
    /// A reason of a later version.
    Other,
}

/// A session ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
}

/// Why a session ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResetReason {
    /// The local socket was reset.
    LocalReset,
    /// The target refused the connection.
    TargetRefused,
    /// The target did not answer.
    TargetTimeout,
    /// The target could not be reached, or its name is unknown.
    TargetUnreachable,
    /// The peer broke the protocol.
    Violation,
    /// The peer is no longer allowed.
    NotAllowed,
    /// The service or the forward is gone.
    ServiceGone,
    /// The process stops.
    Stopping,
    /// No datagram came for the flow's idle time.
    Idle,
    /// A reason of a later version.
    Other,
}

/// Which process speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Random, drawn when the process started.
    pub instance: u64,
    /// Whether the other side is to list what it offers to the sender.
    pub lists: bool,
}

/// A service that is offered to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: ServiceName,
    /// What it takes.
    pub kind: Kind,
    /// The protocol of a raw stream that leads to it as well.
    pub protocol: Option<RawProtocol>,
}

/// What a service takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes, over TCP.
    Tcp,
    /// Datagrams.
    Udp,
    /// Bytes, over a Unix socket.
    Unix,
    /// A kind of a later version.
    Other,
}

impl Kind {
    /// As text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::Other => "other",
        }
    }
}

const KINDS: [(u32, Kind); 3] = [(1, Kind::Tcp), (2, Kind::Udp), (3, Kind::Unix)];

const REFUSALS: [(u32, Refusal); 7] = [
    (1, Refusal::Unavailable),
    (2, Refusal::Busy),
    (3, Refusal::UnknownSession),
    (4, Refusal::Stale),
    (5, Refusal::Malformed),
    (6, Refusal::TakesDatagrams),
    (7, Refusal::TakesStreams),
];

const RESET_REASONS: [(u32, ResetReason); 9] = [
    (1, ResetReason::LocalReset),
    (2, ResetReason::TargetRefused),
    (3, ResetReason::TargetTimeout),
    (4, ResetReason::TargetUnreachable),
    (5, ResetReason::Violation),
    (6, ResetReason::NotAllowed),
    (7, ResetReason::ServiceGone),
    (8, ResetReason::Stopping),
    (9, ResetReason::Idle),
];

/// A value that no message may have.
#[derive(Debug)]
pub(crate) struct Invalid;

impl From<Open> for wire::Open {
    fn from(open: Open) -> Self {
        let (client, listener) = open.client.unzip();
        Self {
            session: open.session.0.to_vec(),
            instance: open.instance,
            attempt: open.attempt,
            service: open.service.to_string(),
            flow: match open.carries {
                Carries::Bytes => None,
                Carries::Datagrams(flow) => Some(flow.get()),
            },
            limit: open.limit,
            client: client.map(socket),
            listener: listener.map(socket),
            linger: open.linger.map(millis),
        }
    }
}

impl TryFrom<wire::Open> for Open {
    type Error = Invalid;

    fn try_from(open: wire::Open) -> Result<Self, Invalid> {
        let client = open.client.map(socket_addr).transpose()?;
        let listener = open.listener.map(socket_addr).transpose()?;
        Ok(Self {
            session: id(&open.session)?,
            instance: open.instance,
            attempt: open.attempt,
            service: open.service.parse().map_err(|_| Invalid)?,
            carries: match open.flow {
                None => Carries::Bytes,
                Some(flow) => Carries::Datagrams(FlowNumber::new(flow).ok_or(Invalid)?),
            },
            limit: offset(open.limit)?,
            client: client.zip(listener),
            linger: open.linger.map(of_millis),
        })
    }
}

impl From<Resume> for wire::Resume {
    fn from(resume: Resume) -> Self {
        Self {
            session: resume.session.0.to_vec(),
            attempt: resume.attempt,
            progress: Some(wire::Accept {
                instance: resume.instance,
                ..resume.progress.into()
            }),
        }
    }
}

impl TryFrom<wire::Resume> for Resume {
    type Error = Invalid;

    fn try_from(resume: wire::Resume) -> Result<Self, Invalid> {
        let progress = Accept::try_from(resume.progress.ok_or(Invalid)?)?;
        Ok(Self {
            session: id(&resume.session)?,
            instance: progress.instance,
            attempt: resume.attempt,
            progress,
        })
    }
}

impl From<Accept> for wire::Accept {
    fn from(accept: Accept) -> Self {
        Self {
            instance: accept.instance,
            received: accept.received,
            delivered: accept.delivered,
            limit: accept.limit,
            paused: accept.paused.map(millis),
            linger: accept.linger.map(millis),
        }
    }
}

impl TryFrom<wire::Accept> for Accept {
    type Error = Invalid;

    fn try_from(accept: wire::Accept) -> Result<Self, Invalid> {
        if accept.delivered > accept.received {
            return Err(Invalid);
        }
        Ok(Self {
            instance: accept.instance,
            received: offset(accept.received)?,
            delivered: accept.delivered,
            limit: offset(accept.limit)?,
            paused: accept.paused.map(of_millis),
            linger: accept.linger.map(of_millis),
        })
    }
}

impl From<Refuse> for wire::Refuse {
    fn from(refuse: Refuse) -> Self {
        Self {
            instance: refuse.instance,
            refusal: number(&REFUSALS, refuse.refusal),
        }
    }
}

impl TryFrom<wire::Refuse> for Refuse {
    type Error = Invalid;

    fn try_from(refuse: wire::Refuse) -> Result<Self, Invalid> {
        Ok(Self {
            instance: refuse.instance,
            refusal: named(&REFUSALS, refuse.refusal).unwrap_or(Refusal::Other),
        })
    }
}

impl From<Reset> for wire::Reset {
    fn from(reset: Reset) -> Self {
        Self {
            reason: number(&RESET_REASONS, reset.reason),
        }
    }
}

impl TryFrom<wire::Reset> for Reset {
    type Error = Invalid;

    fn try_from(reset: wire::Reset) -> Result<Self, Invalid> {
        Ok(Self {
            reason: named(&RESET_REASONS, reset.reason).unwrap_or(ResetReason::Other),
        })
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            instance: hello.instance,
            lists: hello.lists,
        }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = Invalid;

    fn try_from(hello: wire::Hello) -> Result<Self, Invalid> {
        Ok(Self {
            instance: hello.instance,
            lists: hello.lists,
        })
    }
}

impl From<Offer> for wire::Offer {
    fn from(offer: Offer) -> Self {
        Self {
            name: offer.name.to_string(),
            kind: number(&KINDS, offer.kind),
            protocol: offer.protocol.map(|protocol| protocol.to_string()),
        }
    }
}

impl TryFrom<wire::Offer> for Offer {
    type Error = Invalid;

    fn try_from(offer: wire::Offer) -> Result<Self, Invalid> {
        let protocol = offer.protocol.map(|protocol| protocol.parse());
        Ok(Self {
            name: offer.name.parse().map_err(|_| Invalid)?,
            kind: named(&KINDS, offer.kind).unwrap_or(Kind::Other),
            protocol: protocol.transpose().map_err(|_| Invalid)?,
        })
    }
}

/// 0 stands for what this version has no number for.
fn number<T: PartialEq>(table: &[(u32, T)], value: T) -> u32 {
    let found = table.iter().find(|(_, named)| *named == value);
    found.map_or(0, |(number, _)| *number)
}

fn named<T: Copy>(table: &[(u32, T)], number: u32) -> Option<T> {
    let found = table.iter().find(|(known, _)| *known == number);
    found.map(|(_, value)| *value)
}

fn id(bytes: &[u8]) -> Result<SessionId, Invalid> {
    SessionId::try_from(bytes).map_err(|()| Invalid)
}

fn offset(offset: u64) -> Result<u64, Invalid> {
    (offset <= MAX_OFFSET).then_some(offset).ok_or(Invalid)
}

/// At most 49 days.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn of_millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

fn socket(addr: SocketAddr) -> wire::Socket {
    wire::Socket {
        ip: match addr.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        port: u32::from(addr.port()),
    }
}

fn socket_addr(socket: wire::Socket) -> Result<SocketAddr, Invalid> {
    let bytes = socket.ip.as_slice();
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    let ip = v4().or_else(|_| v6()).map_err(|_| Invalid)?;
    let port = u16::try_from(socket.port).map_err(|_| Invalid)?;
    Ok(SocketAddr::new(ip, port))
}
