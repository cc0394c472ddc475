//! The sockets of forwards that take datagrams.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use p2pnode_services::core::flows::{ClientId, Destinations, ForwardId};
use tokio::{io::ReadBuf, task::AbortHandle};

use crate::services::{Hub, flows::Clients, lines::Sink, listen_socket::ListenSocket};

/// The longest datagram, and a byte.
const LONGEST: usize = 1 << 16;

thread_local! {
    /// Datagrams are read here, and copied to a buffer of their size: an idle flow holds none.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes a datagram with `read`, into a buffer of its size.
pub(super) fn poll_datagram<T>(
    read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<(T, Bytes)>> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(LONGEST, 0);
        let mut buffer = ReadBuf::new(scratch);
        let from = ready!(read(&mut buffer))?;
        Poll::Ready(Ok((from, Bytes::copy_from_slice(buffer.filled()))))
    })
}

/// A forward that takes datagrams as long as this exists.
#[derive(Debug)]
pub(in crate::services) struct UdpListener {
    hub: Hub,
    forward: ForwardId,
    /// Where it listens.
    pub(in crate::services) at: SocketAddr,
    task: AbortHandle,
}

impl Drop for UdpListener {
    fn drop(&mut self) {
        self.task.abort();
        self.hub.flows(|state| {
            state.flows.handle_forward_gone(self.forward);
            state.act();
            state.forwards.remove(&self.forward);
        });
    }
}

impl Hub {
    /// Takes datagrams at `at` for the services `to`. `number` is that of the forward.
    ///
    /// # Errors
    /// If it cannot listen.
    pub(in crate::services) fn listen_udp(
        &self,
        number: u64,
        at: SocketAddr,
        to: Destinations,
        sink: Option<Sink>,
    ) -> io::Result<UdpListener> {
        let socket = Arc::new(ListenSocket::bind(at)?);
        let at = socket.local();
        let forward = ForwardId(number);
        let clients = Clients {
            socket: Arc::clone(&socket),
            to,
            sink,
            metrics: self.metrics().clone(),
        };
        self.flows(|state| drop(state.forwards.insert(forward, Arc::new(clients))));
        // The forward closes its socket at once: the next one may have the same address.
        let task = tokio::spawn(take(self.clone(), forward, Arc::downgrade(&socket)));
        Ok(UdpListener {
            hub: self.clone(),
            forward,
            at,
            task: task.abort_handle(),
        })
    }

    /// The datagrams of a forward go there from now on. Flows to where they still may go stay.
    pub(in crate::services) fn redirect_udp(&self, number: u64, to: &Destinations) {
        let forward = ForwardId(number);
        self.flows(|state| {
            let Some(clients) = state.forwards.get(&forward) else {
                return;
            };
            let clients = Clients {
                socket: Arc::clone(&clients.socket),
                to: Arc::clone(to),
                sink: clients.sink.clone(),
                metrics: clients.metrics.clone(),
            };
            state.forwards.insert(forward, Arc::new(clients));
            state.flows.handle_redirect(forward, to);
        });
    }
}

async fn take(hub: Hub, forward: ForwardId, socket: Weak<ListenSocket>) {
    let poll = |cx: &mut Context<'_>| match socket.upgrade() {
        Some(socket) => poll_datagram(|buffer| socket.poll_recv(cx, buffer)).map(Some),
        None => Poll::Ready(None),
    };
    while let Some(taken) = poll_fn(poll).await {
        match taken {
            Ok(((client, listener), payload)) => {
                let id = ClientId {
                    forward,
                    client,
                    listener,
                };
                hub.client_sent(id, payload);
            }
            // The port of a client is closed, which a later datagram to it reports here.
            Err(error) => tracing::debug!(%error, "a forward could not take a datagram"),
        }
    }
}
