//! Public listeners of QUIC, and the dials of a relay.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use libp2p::core::transport::{ListenerId, TransportEvent};
use p2pnode_protocol::Transport;

use super::{
    dialer::incoming,
    settings::Settings,
    socket::{Socket, dial_from_any},
};
use crate::net::{
    addr::to_multiaddr,
    connection::{Event, Incoming},
    error::Error,
    stun_socket::StunHandler,
};

/// Public listeners of QUIC, and the dials of a relay, which leave from any port.
pub(crate) struct Listeners {
    listening: Vec<Listening>,
    events: VecDeque<Event>,
    settings: Arc<Settings>,
    stun: Option<Arc<dyn StunHandler>>,
}

struct Listening {
    id: ListenerId,
    socket: Socket,
}

impl Listeners {
    /// `stun` gets their datagrams of STUN.
    pub(crate) fn new(settings: Arc<Settings>, stun: Option<Arc<dyn StunHandler>>) -> Self {
        Self {
            listening: Vec::new(),
            events: VecDeque::new(),
            settings,
            stun,
        }
    }

    /// Listens on an address, or on a wildcard, which is not reported. Where.
    pub(crate) fn listen_on(&mut self, id: ListenerId, addr: SocketAddr) -> io::Result<SocketAddr> {
        let socket = Socket::bind(addr, &self.settings, &Arc::default(), self.stun.as_ref())?;
        let local = socket.local();
        if !local.ip().is_unspecified() {
            self.events.push_back(TransportEvent::NewAddress {
                listener_id: id,
                listen_addr: to_multiaddr(Transport::Quic, local),
            });
        }
        self.listening.push(Listening { id, socket });
        Ok(local)
    }

    /// Closes the listener and every connection that came in there; `false` where there is none.
    pub(crate) fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(index) = self.listening.iter().position(|l| l.id == id) else {
            return false;
        };
        self.listening.swap_remove(index).socket.close();
        self.events.push_back(TransportEvent::ListenerClosed {
            listener_id: id,
            reason: Ok(()),
        });
        true
    }

    /// Dials from a port of the system's choice.
    pub(crate) fn dial_from_any(&self, remote: SocketAddr) -> Incoming {
        let settings = Arc::clone(&self.settings);
        async move {
            let done = dial_from_any(remote, settings).await;
            done.map_err(|failure| failure.dialing(remote))
        }
        .boxed()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let mut ready = self.listening.iter_mut().enumerate();
        let ready = ready.find_map(|(index, listening)| match listening.poll(cx) {
            Poll::Ready(event) => Some((index, event)),
            Poll::Pending => None,
        });
        let Some((index, event)) = ready else {
            return Poll::Pending;
        };
        if matches!(event, TransportEvent::ListenerClosed { .. }) {
            self.listening.remove(index);
        } else {
            // The others come first next time.
            self.listening.rotate_left(index + 1);
        }
        Poll::Ready(event)
    }
}

impl Listening {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let local = self.socket.local();
        Poll::Ready(match ready!(self.socket.poll_accept(cx)) {
            Some(accepted) => incoming(self.id, local, accepted),
            None => TransportEvent::ListenerClosed {
                listener_id: self.id,
                reason: Err(Error::io(
                    format!("cannot go on listening on udp {local}"),
                    io::Error::other("its socket failed"),
                )),
            },
        })
    }
}
