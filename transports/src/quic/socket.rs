//! One UDP socket of QUIC: its dials and its inbound connections.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use libp2p::{PeerId, core::muxing::StreamMuxerBox};
use quinn::{
    AsyncUdpSocket, Connecting, Endpoint, Incoming, TokioRuntime, VarInt,
    crypto::rustls::HandshakeData,
};
use rustls::pki_types::CertificateDer;

use super::{
    connection,
    failure::{Failure, HANDSHAKE_TIMEOUT},
    restraint::{RestrainedSocket, Restraint},
    settings::Settings,
    stun::SharedSocket,
};
use crate::{
    net::{
        connection::Connection, identify::Identify, punches::Punches, socket,
        stun_socket::StunHandler,
    },
    tls,
};

/// What a dial sends to an address that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// First flights again and again.
    Ordinary,
    /// The same, soon after each other.
    Punch,
    /// One first flight.
    FirstFlight,
}

/// A UDP socket with quinn above it.
pub(super) struct Socket {
    endpoint: Endpoint,
    /// The same socket, for packets that are not QUIC.
    raw: Arc<UdpSocket>,
    local: SocketAddr,
    accept: BoxFuture<'static, Option<Incoming>>,
    restraint: Arc<Restraint>,
    /// Held by each handshake with a remote whose address is not validated.
    unproven: Arc<()>,
    /// Held by each connection, from the first packet of one that comes in and the handshake of one that was dialed.
    serving: Arc<()>,
    stun: Option<Arc<SharedSocket>>,
    settings: Arc<Settings>,
}

/// An inbound connection of which the first packet has come. quinn makes a connection of it when its handshake is polled: one that
/// nobody wants costs a packet, where a connection that ends is kept for three times the probe timeout (RFC 9000, 10.2).
pub(super) struct Accepted {
    pub(super) remote: SocketAddr,
    incoming: Incoming,
    settings: Arc<Settings>,
    serving: Arc<()>,
    _unproven: Option<Arc<()>>,
}

impl Accepted {
    pub(super) async fn handshake(self) -> Result<Connection, Failure> {
        let Self {
            incoming,
            settings,
            serving,
            _unproven,
            ..
        } = self;
        let connecting = incoming.accept()?;
        handshake(connecting, &settings, &Arc::downgrade(&serving)).await
    }
}

impl Socket {
    /// A socket bound to `addr` that dials, and that accepts. `stun` gets its datagrams of STUN.
    pub(super) fn bind(
        addr: SocketAddr,
        settings: &Arc<Settings>,
        punches: &Arc<Punches>,
        stun: Option<&Arc<dyn StunHandler>>,
    ) -> io::Result<Self> {
        let socket = Self::over(socket::udp(addr)?, settings, punches, stun)?;
        socket.announce();
        Ok(socket)
    }

    /// The same over a socket that is bound. STUN does not leave from it before it is [announced](Self::announce).
    pub(super) fn over(
        socket: UdpSocket,
        settings: &Arc<Settings>,
        punches: &Arc<Punches>,
        stun: Option<&Arc<dyn StunHandler>>,
    ) -> io::Result<Self> {
        let raw = Arc::new(socket.try_clone()?);
        let local = socket.local_addr()?;
        let runtime = (settings.runtime)()?;
        let restraint = Arc::new(Restraint::new(Arc::clone(punches)));
        let socket = runtime.wrap_udp_socket(socket)?;
        let stun = stun.map(|stun| Arc::new(SharedSocket::new(Arc::clone(&socket), stun)));
        let restrained = RestrainedSocket {
            socket: match &stun {
                Some(stun) => Arc::clone(stun) as Arc<dyn AsyncUdpSocket>,
                None => socket,
            },
            restraint: Arc::clone(&restraint),
            budgets: settings.budgets.clone(),
        };
        let endpoint = Endpoint::new_with_abstract_socket(
            settings.endpoint.clone(),
            Some(settings.server.clone()),
            Arc::new(restrained),
            runtime,
        )?;
        Ok(Self {
            restraint,
            accept: accept(&endpoint),
            endpoint,
            raw,
            local,
            unproven: Arc::new(()),
            serving: Arc::new(()),
            stun,
            settings: Arc::clone(settings),
        })
    }

    /// From now on STUN of its family leaves from this socket.
    pub(super) fn announce(&self) {
        if let Some(stun) = &self.stun {
            stun.announce();
        }
    }

    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn raw(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.raw)
    }

    /// Sends nothing before it is polled.
    pub(super) fn dial(
        &self,
        remote: SocketAddr,
        effort: Effort,
    ) -> impl Future<Output = Result<Connection, Failure>> + Send + 'static {
        let client = match effort {
            Effort::Ordinary => self.settings.client.clone(),
            Effort::Punch => self.settings.punching.clone(),
            Effort::FirstFlight => self.settings.first_flight.clone(),
        };
        let (endpoint, restraint) = (self.endpoint.clone(), Arc::clone(&self.restraint));
        let settings = Arc::clone(&self.settings);
        let serving = Arc::downgrade(&self.serving);
        async move {
            match effort {
                Effort::Ordinary | Effort::Punch => restraint.lift(remote),
                Effort::FirstFlight if restraint.restrain(remote, Instant::now()) => {}
                Effort::FirstFlight => return Err(Failure::TimedOut),
            }
            dial(endpoint, client, remote, settings, &serving).await
        }
    }

    /// Who answers at an address, as a handshake proves. The connection ends with it.
    pub(super) fn identify(&self) -> Identify {
        let (endpoint, settings) = (self.endpoint.clone(), Arc::clone(&self.settings));
        let restraint = Arc::clone(&self.restraint);
        Arc::new(move |remote| {
            let (endpoint, client) = (endpoint.clone(), settings.client.clone());
            restraint.lift(remote);
            async move {
                let connecting = endpoint.connect_with(client, remote, "l");
                let connecting =
                    connecting.map_err(|error| Failure::from(error).dialing(remote))?;
                let authenticated = authenticated(connecting).await;
                let (peer, connection) =
                    authenticated.map_err(|failure| failure.dialing(remote))?;
                connection.close(VarInt::from_u32(0), &[]);
                Ok(peer)
            }
            .boxed()
        })
    }

    /// The next inbound connection. `None` once the socket is closed or has failed.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        loop {
            let Some(incoming) = ready!(self.accept.poll_unpin(cx)) else {
                return Poll::Ready(None);
            };
            self.accept = accept(&self.endpoint);
            let remote = incoming.remote_address();
            let proven = incoming.remote_address_validated();
            if !proven
                && Arc::strong_count(&self.unproven) > self.settings.unproven
                && incoming.may_retry()
            {
                tracing::trace!(%remote, "asked to prove its address");
                // It fails if the address is validated by now.
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%remote, %error, "no retry");
                }
                continue;
            }
            return Poll::Ready(Some(Accepted {
                remote,
                incoming,
                settings: Arc::clone(&self.settings),
                serving: Arc::clone(&self.serving),
                _unproven: (!proven).then(|| Arc::clone(&self.unproven)),
            }));
        }
    }

    /// Whether it has a connection, or a dial, or one that ends.
    pub(super) fn is_used(&self) -> bool {
        self.endpoint.open_connections() > 0
    }

    /// Whether it has a connection that is no dial without an answer, and has not been closed.
    pub(super) fn serves(&self) -> bool {
        Arc::strong_count(&self.serving) > 1
    }

    /// Closes every connection of the socket, and the socket with the last of them.
    pub(super) fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), &[]);
    }
}

fn accept(endpoint: &Endpoint) -> BoxFuture<'static, Option<Incoming>> {
    let endpoint = endpoint.clone();
    async move { endpoint.accept().await }.boxed()
}

/// Dials from a port of the system's choice.
pub(super) async fn dial_from_any(
    remote: SocketAddr,
    settings: Arc<Settings>,
) -> Result<Connection, Failure> {
    let family = remote.ip().into();
    let endpoint = Endpoint::new(
        settings.endpoint.clone(),
        None,
        socket::udp(socket::wildcard(family, 0))?,
        Arc::new(TokioRuntime),
    )?;
    let client = settings.client.clone();
    dial(endpoint, client, remote, settings, &Weak::new()).await
}

async fn dial(
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    remote: SocketAddr,
    settings: Arc<Settings>,
    serving: &Weak<()>,
) -> Result<Connection, Failure> {
    // Names have no meaning here, but quinn requires one. libp2p sends this one.
    let connecting = endpoint.connect_with(client, remote, "l")?;
    handshake(connecting, &settings, serving).await
}

async fn authenticated(connecting: Connecting) -> Result<(PeerId, quinn::Connection), Failure> {
    let connection = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| Failure::TimedOut)??;
    let identity = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificates = identity.as_deref().map(Vec::as_slice);
    let peer = tls::peer(certificates).map_err(Failure::Certificate)?;
    Ok((peer, connection))
}

async fn handshake(
    connecting: Connecting,
    settings: &Settings,
    serving: &Weak<()>,
) -> Result<Connection, Failure> {
    let (peer, connection) = authenticated(connecting).await?;
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.as_ref().and_then(|data| data.protocol.as_deref());
    settings.kin.shook_hands(peer, protocol);
    let connection = connection::Connection::new(connection, peer, settings, serving.upgrade());
    Ok((peer, StreamMuxerBox::new(connection)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::future::poll_fn;

    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    use libp2p::{core::muxing::StreamMuxerExt as _, identity::Keypair};

    use super::*;
    use crate::{
        net::{
            budget::{Budgets, Class},
            kin::Kin,
        },
        quic::{
            congestion::Congestion,
            settings::{Role, tokio_runtime},
        },
        tls::Tls,
    };

    fn bind(role: Role) -> Socket {
        let keypair = Keypair::generate_ed25519();
        let tls = Tls::new(&keypair, Kin::default()).unwrap();
        let (congestion, runtime) = (Congestion::default(), tokio_runtime());
        let budgets = Budgets::new(Class::Stranger);
        let settings =
            Settings::new(&keypair, &tls, congestion, role, runtime, budgets, None).unwrap();
        Socket::bind(([127, 0, 0, 1], 0).into(), &settings, &Arc::default(), None).unwrap()
    }

    async fn accept(socket: &mut Socket) -> Accepted {
        poll_fn(|cx| socket.poll_accept(cx)).await.unwrap()
    }

    #[tokio::test]
    async fn beyond_many_handshakes_a_remote_has_to_prove_its_address() {
        for role in [Role::Relay, Role::Node] {
            let (mut server, client) = (bind(role), bind(Role::Node));
            let mut held = Vec::new();
            for _ in 0..server.settings.unproven {
                tokio::spawn(client.dial(server.local(), Effort::Ordinary));
                held.push(accept(&mut server).await);
            }
            assert!(held.iter().all(|accepted| accepted._unproven.is_some()));

            let dial = tokio::spawn(client.dial(server.local(), Effort::Ordinary));
            let asked = accept(&mut server).await;
            assert!(asked._unproven.is_none());
            let (dialed, accepted) = tokio::join!(dial, asked.handshake());
            assert!(dialed.unwrap().is_ok() && accepted.is_ok());

            held.clear();
            tokio::spawn(client.dial(server.local(), Effort::Ordinary));
            assert!(accept(&mut server).await._unproven.is_some());
        }
    }
    /// A connection, from both sides.
    async fn connect(client: &Socket, server: &mut Socket) -> [Connection; 2] {
        let dial = tokio::spawn(client.dial(server.local(), Effort::Ordinary));
        let accepted = accept(server).await;
        let (dialed, accepted) = tokio::join!(dial, accepted.handshake());
        [dialed.unwrap().unwrap(), accepted.unwrap()]
    }

    async fn carry([(_, from), (_, to)]: &mut [Connection; 2], bytes: usize) {
        let send = async {
            let opened = poll_fn(|cx| from.poll_outbound_unpin(cx)).await;
            let mut stream = opened.unwrap();
            stream.write_all(&vec![7; bytes]).await.unwrap();
            stream.close().await.unwrap();
        };
        let take = async {
            let mut stream = poll_fn(|cx| to.poll_inbound_unpin(cx)).await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!(got.len(), bytes);
        };
        tokio::join!(send, take);
    }

    #[tokio::test]
    async fn a_second_connection_of_a_peer_begins_with_the_window_of_the_first() {
        let (mut server, client) = (bind(Role::Node), bind(Role::Node));
        let ip = server.local().ip();
        let window = |peer| client.settings.budgets.congestion_window(&peer, ip);
        let mut first = connect(&client, &mut server).await;
        let peer = first[0].0;
        let fresh = window(peer).unwrap();
        carry(&mut first, 1 << 20).await;
        let found = window(peer).unwrap();
        assert!(found > fresh);
        let mut second = connect(&client, &mut server).await;
        carry(&mut second, 1).await;
        drop(first);
        assert!(window(peer).unwrap() >= found);
    }
}
