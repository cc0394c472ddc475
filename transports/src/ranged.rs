//! The transport of a node: public listeners that never dial, and punch sockets that dial and accept.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture, task::AtomicWaker};
use libp2p::{
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    identity::Keypair,
    multiaddr::Multiaddr,
};
use p2pnode_protocol::{Family, Transport};

use crate::{
    listen::Listeners,
    net::{
        addr::{DialAddr, Host, to_multiaddr, to_socket_addr},
        connection::{Connection, Event, Incoming},
        error::Error,
        family::FamilyPolicy,
        ports::Claim,
        range::PortRange,
        record::Sockets,
        shared::Shared,
        socket,
    },
    quic::{self, congestion::Congestion},
    tcp::{self, auth::Upgrade},
    tls::Tls,
};

/// What [`build`](crate::build) builds.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The source ports of all dials.
    pub range: PortRange,
    /// Whether QUIC is dialed and listened on.
    pub quic: bool,
    /// Whether TCP is dialed and listened on.
    pub tcp: bool,
    /// Which IP families are dialed. Public listeners are not subject to it.
    pub family: FamilyPolicy,
    /// The congestion control of QUIC.
    pub congestion: Congestion,
}

/// Dials IP addresses; names are resolved above it.
pub(crate) struct Ranged {
    config: Config,
    listeners: Listeners,
    /// Whether the punch port of TCP is asked before the public listeners.
    punches_first: bool,
    quic: Option<quic::Dialer>,
    tcp: Option<tcp::Dialer>,
    /// The ports of the range that public listeners have. No dial may take them.
    listening: BTreeMap<Transport, Vec<(ListenerId, Claim)>>,
    shared: Shared,
    /// Woken when a dial or a listener has opened a socket, which has to be polled.
    waker: AtomicWaker,
}

impl Ranged {
    pub(crate) fn new(keypair: &Keypair, config: Config, shared: Shared) -> Result<Self, Error> {
        let tls = Tls::new(keypair, shared.kin.clone())?;
        let quic = if config.quic {
            Some(quic::Settings::new(
                keypair,
                &tls,
                config.congestion,
                quic::Role::Node,
                quic::tokio_runtime(),
                shared.budgets.clone(),
                Some(shared.datagrams.clone()),
            )?)
        } else {
            None
        };
        let upgrade = Upgrade::new(keypair, tls, shared.budgets.clone())?;
        if config.tcp {
            // Nobody has set it before.
            let _ = shared.identifying.tcp.set(upgrade.identify());
        }
        let mut this = Self {
            listeners: Listeners::new(quic.clone(), upgrade.clone(), config.tcp, None),
            punches_first: false,
            quic: quic.map(|settings| quic::Dialer::new(settings, shared.clone())),
            tcp: config
                .tcp
                .then(|| tcp::Dialer::new(upgrade, shared.clone())),
            config,
            listening: BTreeMap::new(),
            shared,
            waker: AtomicWaker::new(),
        };
        for ((transport, family), error) in this.open_missing() {
            // Not fatal: the host may lack a family, and ports may become free. A dial that needs the socket fails with the reason.
            tracing::info!(%transport, %family, %error, "no punch socket");
        }
        Ok(this)
    }

    /// Opens the punch sockets that are not open. QUIC before TCP: the socket of QUIC is the lock on the number that TCP shares.
    fn open_missing(&mut self) -> BTreeMap<(Transport, Family), Error> {
        let mut errors = BTreeMap::new();
        let families = Family::ALL
            .into_iter()
            .filter(|family| self.config.family.allows(*family));
        for family in families.collect::<Vec<_>>() {
            if let Some(quic) = &mut self.quic
                && !quic.is_open(family)
                && let Err(error) = quic.open(family)
            {
                errors.insert((Transport::Quic, family), error);
            }
            if let Some(tcp) = &mut self.tcp
                && !tcp.is_open(family)
                && let Err(error) = tcp.open(family)
            {
                errors.insert((Transport::Tcp, family), error);
            }
        }
        self.waker.wake();
        errors
    }

    fn is_open(&self, transport: Transport, family: Family) -> bool {
        match transport {
            Transport::Quic => self.quic.as_ref().is_some_and(|quic| quic.is_open(family)),
            Transport::Tcp => self.tcp.as_ref().is_some_and(|tcp| tcp.is_open(family)),
        }
    }

    fn dial_target(
        &mut self,
        addr: &Multiaddr,
        target: &DialAddr,
        remote: SocketAddr,
        opts: DialOpts,
    ) -> Result<Incoming, Error> {
        let (transport, family) = (target.transport, Family::from(remote.ip()));
        let enabled = match transport {
            Transport::Quic => self.quic.is_some(),
            Transport::Tcp => self.tcp.is_some(),
        };
        if !enabled {
            return Err(Error::TransportDisabled { transport });
        }
        if !self.config.family.allows(family) {
            return Err(Error::FamilyDisabled {
                family,
                policy: self.config.family,
            });
        }
        // Before the dial, not from its error: without a route TCP fails as if its 4-tuple were in use.
        let source =
            socket::source_ip(remote.ip()).map_err(|reason| {
                match socket::is_out_of_files(&reason) {
                    true => Error::Io {
                        context: format!("cannot look for a route to {remote}"),
                        source: reason,
                    },
                    false => Error::NoRoute { remote, reason },
                }
            })?;
        if !self.is_open(transport, family)
            && let Some(error) = self.open_missing().remove(&(transport, family))
        {
            return Err(error);
        }
        let port = self.shared.ports.punch_port(transport, family);
        if source == remote.ip() && port == Some(remote.port()) {
            return Err(Error::OwnSocket { remote });
        }
        let shared = self.shared.clone();
        let addr = addr.clone();
        match transport {
            Transport::Quic => {
                let quic = self
                    .quic
                    .as_mut()
                    .ok_or(Error::TransportDisabled { transport })?;
                if quic.has_found(remote) {
                    self.waker.wake();
                }
                let dial = quic.dial(quic::Dial {
                    remote,
                    peer: target.peer,
                    role: opts.role,
                })?;
                Ok(async move {
                    let (connection, port) = dial.await?;
                    let local = SocketAddr::new(source, port);
                    shared.record(
                        &addr,
                        Sockets {
                            transport,
                            local,
                            remote,
                        },
                    );
                    Ok(connection)
                }
                .boxed())
            }
            Transport::Tcp => {
                let tcp = self
                    .tcp
                    .as_ref()
                    .ok_or(Error::TransportDisabled { transport })?;
                let dial = tcp.dial(remote, target.peer, opts.role, opts.port_use);
                Ok(async move {
                    let (connection, sockets) = dial.run().await?;
                    shared.record(&addr, sockets);
                    Ok(connection)
                }
                .boxed())
            }
        }
    }

    /// Claims the port of a public listener within the range. It must not be a punch port.
    fn claim_listener(&mut self, id: ListenerId, addr: &Multiaddr) -> Result<(), Error> {
        let (Some(transport), Some(socket)) = (Transport::of(addr), to_socket_addr(addr)) else {
            return Ok(());
        };
        if !self.shared.ports.range().contains(socket.port()) {
            return Ok(());
        }
        // SO_REUSEPORT would let both listen, and the kernel would spread connections over them.
        if self
            .shared
            .ports
            .punch_port(transport, Family::from(socket.ip()))
            == Some(socket.port())
        {
            return Err(Error::PunchPort {
                addr: addr.clone(),
                port: socket.port(),
            });
        }
        let claim = self.shared.ports.claim_port(socket.port());
        self.listening
            .entry(transport)
            .or_default()
            .push((id, claim));
        Ok(())
    }

    fn forget_listener(&mut self, id: ListenerId) {
        for claims in self.listening.values_mut() {
            claims.retain(|(listener, _)| *listener != id);
        }
    }
}

impl libp2p::Transport for Ranged {
    type Output = Connection;
    type Error = Error;
    type ListenerUpgrade = Incoming;
    type Dial = BoxFuture<'static, Result<Connection, Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        self.claim_listener(id, &addr)
            .map_err(TransportError::Other)?;
        let listening = self.listeners.listen_on(id, addr);
        if listening.is_err() {
            self.forget_listener(id);
        }
        self.waker.wake();
        listening
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listeners.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Error>> {
        let unsupported = || TransportError::MultiaddrNotSupported(addr.clone());
        let target = DialAddr::parse(&addr).ok_or_else(unsupported)?;
        let Host::Ip(ip) = target.host else {
            return Err(unsupported());
        };
        let remote = SocketAddr::new(ip, target.port);
        debug_assert_eq!(
            to_socket_addr(&to_multiaddr(target.transport, remote)),
            Some(remote)
        );
        self.dial_target(&addr, &target, remote, opts)
            .map_err(TransportError::Other)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        self.waker.register(cx.waker());
        if let Some(quic) = &mut self.quic
            && let Poll::Ready(event) = quic.poll(cx)
        {
            return Poll::Ready(event);
        }
        // Each has its turn, however much comes to the other.
        self.punches_first = !self.punches_first;
        for of_punches in [self.punches_first, !self.punches_first] {
            let event = match (of_punches, &mut self.tcp) {
                (false, _) => Pin::new(&mut self.listeners).poll(cx),
                (true, Some(tcp)) => tcp.poll(cx),
                (true, None) => Poll::Pending,
            };
            let Poll::Ready(event) = event else {
                continue;
            };
            if !of_punches && let TransportEvent::ListenerClosed { listener_id, .. } = &event {
                self.forget_listener(*listener_id);
            }
            return Poll::Ready(event);
        }
        Poll::Pending
    }
}
