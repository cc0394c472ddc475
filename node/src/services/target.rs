//! Targets: how the local side of an accepted session is connected.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use libp2p::PeerId;
use p2pnode_services::{
    config::{Address, Allow, Host, Identity, Service, Services, Source, Target},
    core::sockets::Place,
    identity::proxy::{self, Follows},
    wire::ResetReason,
};
use p2pnode_transports::ClaimedTcp;
use tokio::{
    net::{UnixStream, lookup_host},
    time::timeout,
};

use super::{
    Hub,
    local::Socket,
    offers::{Goal, Offered},
    running::lock,
    session::pipe,
    sources::{PeerAddresses, Sources},
};

/// How long a target may take: less than a client of most systems waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A target that is being dialed.
pub(super) type Dialing = BoxFuture<'static, Result<Connected, Failed>>;

/// A target that is connected.
pub(super) struct Connected {
    pub(super) socket: Socket,
    /// What goes there before the first byte.
    pub(super) prefix: Bytes,
    /// The port of the range that it has.
    pub(super) port: Option<ClaimedTcp>,
    /// The target has reset it already. What it sent before is to be read.
    pub(super) was_reset: bool,
}

impl Connected {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            prefix: Bytes::new(),
            port: None,
            was_reset: false,
        }
    }
}

/// Why a target is not connected.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: ResetReason,
    pub(super) detail: String,
}

/// Dials the target of a service for a session that `peer` opens. Its socket has `place`.
pub(super) fn dial(
    hub: &Hub,
    offered: &Offered,
    peer: PeerId,
    client: Option<(SocketAddr, SocketAddr)>,
    place: Place,
) -> Dialing {
    let service = &offered.service;
    let prefix = match service.identity {
        Identity::ProxyV2 => Bytes::from(proxy::header(
            client,
            Follows::Stream,
            Some(&peer),
            &service.name,
        )),
        Identity::None | Identity::Address => Bytes::new(),
    };
    if let Goal::Program(program) = &offered.goal {
        let (ours, theirs) = pipe();
        let taken = program.try_send((peer, theirs));
        let connected = taken.map(|()| Connected {
            prefix,
            ..Connected::new(ours)
        });
        let failed = |_| Failed {
            reason: ResetReason::TargetRefused,
            detail: "the program takes no further sessions".to_owned(),
        };
        return std::future::ready(connected.map_err(failed)).boxed();
    }
    let target = service.target.clone();
    let sources = hub.sources(service, peer);
    async move {
        let connecting = async { connect(&target, sources?, place).await };
        match timeout(TIMEOUT, connecting).await {
            Ok(Ok(connected)) => Ok(Connected {
                prefix,
                ..connected
            }),
            Ok(Err(error)) => Err(Failed {
                reason: reason(&error),
                detail: format!("{target}: {error}"),
            }),
            Err(_) => Err(Failed {
                reason: ResetReason::TargetTimeout,
                detail: format!("{target}: no answer within 30 s"),
            }),
        }
    }
    .boxed()
}

/// Dials it as it is written. Unless it asks for the range, from any source port: it is inside.
async fn connect(target: &Target, sources: Sources, place: Place) -> io::Result<Connected> {
    let found: Vec<SocketAddr> = match target {
        Address::Tcp(Host::Ip(ip), port) => vec![(*ip, *port).into()],
        Address::Tcp(Host::Name(name), port) => {
            lookup_host((name.as_str(), *port)).await?.collect()
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            return Ok(Connected::new(Socket::Unix(stream, place)));
        }
        Address::Udp(..) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for remote in found {
        match sources.connect_tcp(remote).await {
            Ok(dialed) => {
                return Ok(Connected {
                    port: dialed.port,
                    was_reset: dialed.was_reset,
                    ..Connected::new(Socket::tcp(dialed.stream, place))
                });
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "two kinds have a reason of their own"
)]
fn reason(error: &io::Error) -> ResetReason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ResetReason::TargetRefused,
        io::ErrorKind::TimedOut => ResetReason::TargetTimeout,
        _ => ResetReason::TargetUnreachable,
    }
}

impl Hub {
    /// The addresses of peers are these.
    pub(crate) fn know_addresses(&self, addresses: PeerAddresses) {
        *lock(self.addresses()) = addresses;
    }

    /// Peers that a service of a new configuration names have their addresses before any other one.
    pub(super) fn assign_named(&self, config: &Services) {
        if let Err(error) = lock(self.addresses()).assign_named(config) {
            tracing::warn!(%error, "a peer has no address");
        }
    }

    /// From where the target of `service` is dialed for `peer`.
    ///
    /// # Errors
    /// If there is no address left for the peer, or the node has not started yet.
    pub(super) fn sources(&self, service: &Service, peer: PeerId) -> io::Result<Sources> {
        match (service.identity, service.source) {
            (Identity::Address, _) => {
                let is_named = matches!(service.allow, Allow::Peers(_))
                    || self.peer_names().values().any(|named| *named == peer);
                let assigned = lock(self.addresses()).assign(peer, is_named);
                assigned.map(Sources::Peer)
            }
            (Identity::None | Identity::ProxyV2, Source::Any) => Ok(Sources::Any),
            (Identity::None | Identity::ProxyV2, Source::Range) => {
                let ports = self.ports().ok_or(io::ErrorKind::NotConnected)?;
                Ok(Sources::Range(ports.clone()))
            }
        }
    }
}
