//! Public listeners, which anybody may dial. They never dial, so no dial leaves from their port.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::FutureExt;
use libp2p::{
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, Transport as _, TransportError, TransportEvent},
    },
    multiaddr::Multiaddr,
    tcp,
};
use p2pnode_protocol::{Family, Scope, Transport};

use crate::{
    net::{
        addr::{to_multiaddr, to_socket_addr},
        arrivals::{Arrivals, BATCH},
        connection::{Connection, Event, Incoming},
        error::Error,
        interfaces::Interfaces,
        stun_socket::StunHandler,
    },
    quic,
    tcp::{
        accepted::Accepted,
        auth::{self, Offer, Upgrade},
    },
};

/// QUIC and TCP listeners. As a [`Transport`] it refuses to dial.
pub(crate) struct Listeners {
    pub(crate) quic: Option<quic::Listeners>,
    pub(crate) tcp: Option<tcp::tokio::Transport>,
    arrivals: Arrivals<TcpEvent>,
    pub(crate) upgrade: Upgrade,
    stun: Option<Arc<dyn StunHandler>>,
    wildcards: Vec<Wildcard>,
    /// Watches which addresses wildcards stand for, once there is one.
    interfaces: Option<Interfaces>,
    events: VecDeque<Event>,
}

/// A listener on all addresses of a family. What libp2p-tcp reports of its own is not used: on a point-to-point link that is the
/// address of the other end.
struct Wildcard {
    id: ListenerId,
    transport: Transport,
    /// The port is 0 until it is known.
    local: SocketAddr,
    reported: BTreeSet<IpAddr>,
}

impl Wildcard {
    /// Reports the addresses that came and went.
    fn update(&mut self, interfaces: &Interfaces, events: &mut VecDeque<Event>) {
        let (listener_id, port) = (self.id, self.local.port());
        if port == 0 {
            return;
        }
        let family = Family::from(self.local.ip());
        let of_family = interfaces.addresses().iter();
        let mut of_family: Vec<_> = of_family
            .filter(|address| Family::from(address.ip) == family)
            .collect();
        // The one that reaches furthest first, so that no other stands in for it while they are reported.
        of_family.sort_by_key(|address| {
            let is_global = Scope::is_global(address.ip);
            (!is_global, !address.has_default_route, address.medium)
        });
        let now: BTreeSet<IpAddr> = of_family.iter().map(|address| address.ip).collect();
        let listen_addr = |ip: &IpAddr| to_multiaddr(self.transport, SocketAddr::new(*ip, port));
        let new = of_family.iter().map(|address| &address.ip);
        let new = new
            .filter(|ip| !self.reported.contains(*ip))
            .map(listen_addr);
        events.extend(new.map(|listen_addr| TransportEvent::NewAddress {
            listener_id,
            listen_addr,
        }));
        let gone = self.reported.difference(&now).map(listen_addr);
        events.extend(gone.map(|listen_addr| TransportEvent::AddressExpired {
            listener_id,
            listen_addr,
        }));
        self.reported = now;
    }
}

impl Listeners {
    /// `upgrade` is applied to what comes in over TCP. `stun` gets datagrams of STUN.
    pub(crate) fn new(
        quic: Option<Arc<quic::Settings>>,
        upgrade: Upgrade,
        tcp: bool,
        stun: Option<Arc<dyn StunHandler>>,
    ) -> Self {
        Self {
            quic: quic.map(|settings| quic::Listeners::new(settings, stun.clone())),
            stun,
            tcp: tcp.then(|| tcp::tokio::Transport::new(tcp::Config::new())),
            arrivals: Arrivals::within_files(),
            upgrade,
            wildcards: Vec::new(),
            interfaces: None,
            events: VecDeque::new(),
        }
    }

    fn watch(&mut self) -> io::Result<()> {
        if self.interfaces.is_none() {
            self.interfaces = Some(Interfaces::watch()?);
        }
        Ok(())
    }

    fn add_wildcard(&mut self, id: ListenerId, transport: Transport, local: SocketAddr) {
        let mut wildcard = Wildcard {
            id,
            transport,
            local,
            reported: BTreeSet::new(),
        };
        if let Some(interfaces) = &self.interfaces {
            wildcard.update(interfaces, &mut self.events);
        }
        self.wildcards.push(wildcard);
    }

    fn poll_interfaces(&mut self, cx: &mut Context<'_>) {
        let Some(interfaces) = &mut self.interfaces else {
            return;
        };
        while interfaces.poll_changed(cx).is_ready() {
            for wildcard in &mut self.wildcards {
                wildcard.update(interfaces, &mut self.events);
            }
        }
    }

    /// Passes an event of a listener on, apart from what libp2p-tcp says about the addresses of a wildcard.
    fn on_event(&mut self, event: Event) -> Option<Event> {
        match event {
            TransportEvent::NewAddress {
                listener_id,
                listen_addr,
            } => {
                let of = |wildcard: &&mut Wildcard| wildcard.id == listener_id;
                let Some(wildcard) = self.wildcards.iter_mut().find(of) else {
                    return Some(TransportEvent::NewAddress {
                        listener_id,
                        listen_addr,
                    });
                };
                if wildcard.local.port() == 0
                    && let Some(known) = to_socket_addr(&listen_addr)
                    && let Some(interfaces) = &self.interfaces
                {
                    wildcard.local.set_port(known.port());
                    wildcard.update(interfaces, &mut self.events);
                }
                None
            }
            TransportEvent::AddressExpired { listener_id, .. }
                if self.wildcards.iter().any(|of| of.id == listener_id) =>
            {
                None
            }
            TransportEvent::ListenerClosed {
                listener_id,
                reason,
            } => {
                self.wildcards.retain(|of| of.id != listener_id);
                Some(TransportEvent::ListenerClosed {
                    listener_id,
                    reason,
                })
            }
            event @ (TransportEvent::AddressExpired { .. }
            | TransportEvent::Incoming { .. }
            | TransportEvent::ListenerError { .. }) => Some(event),
        }
    }

    fn poll_listeners(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(quic) = &mut self.quic
            && let Poll::Ready(event) = quic.poll(cx)
        {
            return Poll::Ready(event);
        }
        self.poll_arrivals(cx)
            .map(|event| tcp_event(event, &self.upgrade, self.stun.clone()))
    }

    /// Takes what was accepted, one source after the other.
    fn poll_arrivals(&mut self, cx: &mut Context<'_>) -> Poll<TcpEvent> {
        let Some(tcp) = &mut self.tcp else {
            return Poll::Pending;
        };
        for _ in 0..BATCH {
            let Poll::Ready(event) = Pin::new(&mut *tcp).poll(cx) else {
                break;
            };
            let event = event
                .map_upgrade(|accepted| Accepted(accepted.into_inner().map(|stream| stream.0)));
            let TransportEvent::Incoming {
                listener_id,
                send_back_addr,
                ..
            } = &event
            else {
                return Poll::Ready(event);
            };
            let (listener_id, remote) = (*listener_id, send_back_addr.clone());
            self.arrivals.push(&remote, event);
            if let Some(dropped) = self.arrivals.dropped(Instant::now()) {
                let error = io::Error::other(format!(
                    "{dropped} connections of sources that have many were dropped: too many come at once"
                ));
                return Poll::Ready(TransportEvent::ListenerError { listener_id, error });
            }
        }
        self.arrivals.pop().map_or(Poll::Pending, Poll::Ready)
    }
}

impl libp2p::Transport for Listeners {
    type Output = Connection;
    type Error = Error;
    type ListenerUpgrade = Incoming;
    type Dial = Incoming;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let transport = Transport::of(&addr)
            .ok_or_else(|| TransportError::MultiaddrNotSupported(addr.clone()))?;
        let disabled = TransportError::Other(Error::TransportDisabled { transport });
        let socket = to_socket_addr(&addr)
            .ok_or_else(|| TransportError::MultiaddrNotSupported(addr.clone()))?;
        let context = format!("cannot listen on {addr}");
        let is_wildcard = socket.ip().is_unspecified();
        if is_wildcard {
            self.watch()
                .map_err(|source| TransportError::Other(Error::io(context.clone(), source)))?;
        }
        let local = match transport {
            Transport::Quic => {
                let quic = self.quic.as_mut().ok_or(disabled)?;
                quic.listen_on(id, socket)
                    .map_err(|source| TransportError::Other(Error::io(context, source)))?
            }
            Transport::Tcp => {
                let tcp = self.tcp.as_mut().ok_or(disabled)?;
                tcp.listen_on(id, addr)
                    .map_err(|error| error.map(|source| Error::io(context, source)))?;
                socket
            }
        };
        if is_wildcard {
            self.add_wildcard(id, transport, local);
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.quic
            .as_mut()
            .is_some_and(|quic| quic.remove_listener(id))
            || self.tcp.as_mut().is_some_and(|tcp| tcp.remove_listener(id))
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Incoming, TransportError<Error>> {
        Err(TransportError::Other(Error::ListenOnly { addr }))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let this = &mut *self;
        loop {
            this.poll_interfaces(cx);
            if let Some(event) = this.events.pop_front() {
                return Poll::Ready(event);
            }
            let event = std::task::ready!(this.poll_listeners(cx));
            if let Some(event) = this.on_event(event) {
                return Poll::Ready(event);
            }
        }
    }
}

type TcpEvent = TransportEvent<Accepted, io::Error>;

/// An event of a TCP transport, with the upgrade of the stream that comes in.
fn tcp_event(event: TcpEvent, upgrade: &Upgrade, stun: Option<Arc<dyn StunHandler>>) -> Event {
    let remote = match &event {
        TransportEvent::Incoming { send_back_addr, .. } => to_socket_addr(send_back_addr),
        TransportEvent::NewAddress { .. }
        | TransportEvent::AddressExpired { .. }
        | TransportEvent::ListenerClosed { .. }
        | TransportEvent::ListenerError { .. } => None,
    };
    let upgrade = upgrade.clone();
    event
        .map_upgrade(move |accepted| {
            async move {
                let failed = |source| Error::io("cannot accept a connection", source);
                let stream = accepted.take().map_err(failed)?;
                if let Some(stun) = stun
                    && auth::is_stun(&stream).await?
                {
                    stun.stream(stream);
                    return Err(Error::Stun);
                }
                let remote = match remote {
                    Some(remote) => remote,
                    None => stream.peer_addr().map_err(failed)?,
                };
                let role = Endpoint::Listener;
                let stream = tcp::tokio::TcpStream(stream);
                upgrade.apply(stream, remote, role, Offer::Both).await
            }
            .boxed()
        })
        .map_err(|source| Error::io("tcp listener", source))
}
