//! A relay's transport: it listens, and dials other relays from any port.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::FutureExt as _;
use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, PortUse, Transport as _, TransportError},
    },
    identity::Keypair,
};
use p2pnode_protocol::Transport;

use crate::{
    listen::Listeners,
    net::{
        addr::to_socket_addr,
        budget::Budgets,
        connection::{Connection, Event, Incoming},
        error::Error,
        kin::Kin,
        stun_socket::StunHandler,
    },
    quic::{self, QuicRuntime, Role, congestion::Congestion},
    tcp::auth::{Offer, Upgrade},
    tls::Tls,
};

/// Listeners, and dials of IP addresses.
pub(crate) struct Server(Listeners);

impl Server {
    pub(crate) fn new(
        keypair: &Keypair,
        runtime: QuicRuntime,
        budgets: Budgets,
        stun: Option<Arc<dyn StunHandler>>,
    ) -> Result<Self, Error> {
        let tls = Tls::new(keypair, Kin::default())?;
        let congestion = Congestion::default();
        let role = Role::Relay;
        let quic = quic::Settings::new(
            keypair,
            &tls,
            congestion,
            role,
            runtime,
            budgets.clone(),
            None,
        )?;
        let upgrade = Upgrade::new(keypair, tls, budgets)?;
        Ok(Self(Listeners::new(Some(quic), upgrade, true, stun)))
    }
}

impl libp2p::Transport for Server {
    type Output = Connection;
    type Error = Error;
    type ListenerUpgrade = Incoming;
    type Dial = Incoming;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Incoming, TransportError<Error>> {
        // A port of its own: the listener's 4-tuple may be in use by a connection that the other side has made.
        let opts = DialOpts {
            port_use: PortUse::New,
            ..opts
        };
        self.0.dial_out(addr, opts)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Listeners {
    /// Dials from a port of the system's choice.
    fn dial_out(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Incoming, TransportError<Error>> {
        let unsupported = || TransportError::MultiaddrNotSupported(addr.clone());
        let transport = Transport::of(&addr).ok_or_else(unsupported)?;
        let remote = to_socket_addr(&addr).ok_or_else(unsupported)?;
        let disabled = TransportError::Other(Error::TransportDisabled { transport });
        match transport {
            Transport::Quic => {
                let quic = self.quic.as_ref().ok_or(disabled)?;
                Ok(quic.dial_from_any(remote))
            }
            Transport::Tcp => {
                let tcp = self.tcp.as_mut().ok_or(disabled)?;
                let context = format!("cannot dial {addr}");
                let dial = tcp
                    .dial(addr, opts)
                    .map_err(|error| error.map(|source| Error::io(context.clone(), source)))?;
                let upgrade = self.upgrade.clone();
                Ok(async move {
                    let stream = dial
                        .await
                        .map_err(|source| Error::io(context.clone(), source))?;
                    let role = Endpoint::Dialer;
                    upgrade.apply(stream, remote, role, Offer::Both).await
                }
                .boxed())
            }
        }
    }
}
