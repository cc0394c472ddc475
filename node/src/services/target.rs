//! Targets: how the local side of an accepted session is connected.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use libp2p::PeerId;
use p2pnode_services::{
    config::{Address, Host, Identity, Service, Services, Target},
    identity::proxy::{self, Follows},
    wire::ResetReason,
};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
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
}

/// Why a target is not connected.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: ResetReason,
    pub(super) detail: String,
}

/// Dials the target of a service for a session that `peer` opens.
pub(super) fn dial(
    hub: &Hub,
    offered: &Offered,
    peer: PeerId,
    client: Option<(SocketAddr, SocketAddr)>,
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
            socket: ours,
            prefix,
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
        let connecting = async { connect(&target, sources?).await };
        match timeout(TIMEOUT, connecting).await {
            Ok(Ok(socket)) => Ok(Connected { socket, prefix }),
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

/// Dials it as it is written, from any source port: it is inside.
async fn connect(target: &Target, sources: Sources) -> io::Result<Socket> {
    match target {
        Address::Tcp(Host::Ip(ip), port) => match sources {
            Sources::Any => TcpStream::connect((*ip, *port)).await.map(Socket::tcp),
            Sources::Peer(_) => {
                let remote = SocketAddr::from((*ip, *port));
                let socket = TcpSocket::new_v4()?;
                socket.bind(sources.local(remote))?;
                socket.connect(remote).await.map(Socket::tcp)
            }
        },
        Address::Tcp(Host::Name(name), port) => TcpStream::connect((name.as_str(), *port))
            .await
            .map(Socket::tcp),
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        Address::Udp(..) => Err(io::ErrorKind::Unsupported.into()),
    }
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
    /// The addresses of peers are these. Peers that a service names have theirs before any other one.
    ///
    /// # Errors
    /// If there are too many.
    pub(crate) fn know_addresses(
        &self,
        mut addresses: PeerAddresses,
        config: &Services,
    ) -> io::Result<()> {
        addresses.assign_named(config)?;
        *lock(self.addresses()) = addresses;
        Ok(())
    }

    /// The same for the services of a new configuration.
    pub(super) fn assign_named(&self, config: &Services) {
        if let Err(error) = lock(self.addresses()).assign_named(config) {
            tracing::warn!(%error, "a peer has no address");
        }
    }

    /// From where the target of `service` is dialed for `peer`.
    ///
    /// # Errors
    /// If there is no address left for the peer.
    pub(super) fn sources(&self, service: &Service, peer: PeerId) -> io::Result<Sources> {
        match service.identity {
            Identity::Address => lock(self.addresses()).assign(peer).map(Sources::Peer),
            Identity::None | Identity::ProxyV2 => Ok(Sources::Any),
        }
    }
}
