//! Public listeners, which anybody may dial. They never dial, so no dial leaves from their port.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::FutureExt;
use libp2p::{
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    multiaddr::Multiaddr,
    tcp,
};
use p2pnode_protocol::Transport;

use crate::{
    net::{
        addr::to_socket_addr,
        connection::{Connection, Event, Incoming},
        error::Error,
    },
    quic,
    tcp::auth::{Offer, Upgrade},
};

/// QUIC and TCP listeners. As a [`Transport`] it refuses to dial.
pub(crate) struct Listeners {
    pub(crate) quic: Option<quic::Listeners>,
    pub(crate) tcp: Option<tcp::tokio::Transport>,
    pub(crate) upgrade: Upgrade,
}

impl Listeners {
    /// `upgrade` is applied to what comes in over TCP.
    pub(crate) fn new(quic: Option<Arc<quic::Settings>>, upgrade: Upgrade, tcp: bool) -> Self {
        Self {
            quic: quic.map(quic::Listeners::new),
            tcp: tcp.then(|| tcp::tokio::Transport::new(tcp::Config::new())),
            upgrade,
        }
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
        match transport {
            Transport::Quic => {
                let quic = self.quic.as_mut().ok_or(disabled)?;
                let context = format!("cannot listen on {addr}");
                let socket = to_socket_addr(&addr)
                    .ok_or_else(|| TransportError::MultiaddrNotSupported(addr.clone()))?;
                quic.listen_on(id, socket)
                    .map_err(|source| TransportError::Other(Error::io(context, source)))
            }
            Transport::Tcp => {
                let tcp = self.tcp.as_mut().ok_or(disabled)?;
                let context = format!("cannot listen on {addr}");
                tcp.listen_on(id, addr)
                    .map_err(|error| error.map(|source| Error::io(context, source)))
            }
        }
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
        if let Some(quic) = &mut this.quic
            && let Poll::Ready(event) = quic.poll(cx)
        {
            return Poll::Ready(event);
        }
        if let Some(tcp) = &mut this.tcp
            && let Poll::Ready(event) = Pin::new(tcp).poll(cx)
        {
            return Poll::Ready(tcp_event(event, &this.upgrade));
        }
        Poll::Pending
    }
}

/// An event of a TCP transport, with the upgrade of the stream that comes in.
fn tcp_event(
    event: TransportEvent<
        <tcp::tokio::Transport as libp2p::Transport>::ListenerUpgrade,
        std::io::Error,
    >,
    upgrade: &Upgrade,
) -> Event {
    let remote = match &event {
        TransportEvent::Incoming { send_back_addr, .. } => to_socket_addr(send_back_addr),
        TransportEvent::NewAddress { .. }
        | TransportEvent::AddressExpired { .. }
        | TransportEvent::ListenerClosed { .. }
        | TransportEvent::ListenerError { .. } => None,
    };
    let upgrade = upgrade.clone();
    event
        .map_upgrade(move |stream| {
            async move {
                let failed = |source| Error::io("cannot accept a connection", source);
                let stream = stream.await.map_err(failed)?;
                let remote = match remote {
                    Some(remote) => remote,
                    None => stream.0.peer_addr().map_err(failed)?,
                };
                let role = Endpoint::Listener;
                upgrade.apply(stream, remote, role, Offer::Both).await
            }
            .boxed()
        })
        .map_err(|source| Error::io("tcp listener", source))
}
