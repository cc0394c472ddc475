//! Sockets that a search for ports has found: each reaches one remote, and lives as long as a connection uses it.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::core::transport::ListenerId;
use tokio::time::{Sleep, sleep};

use super::{
    settings::Settings,
    socket::{Accepted, Socket},
};
use crate::net::{
    found::FoundSocket,
    ports::Claim,
    shared::Shared,
    socket,
    stun_socket::{Received, StunHandler, StunSocket},
};

/// A socket without a connection is kept for this, in which the remote's dial may come.
const UNUSED: Duration = Duration::from_secs(15);

#[derive(Default)]
pub(super) struct FoundSockets {
    open: Vec<Open>,
    sweep: Option<Pin<Box<Sleep>>>,
}

struct Open {
    id: ListenerId,
    socket: Socket,
    remote: SocketAddr,
    used: Instant,
    _claim: Claim,
}

/// Drops probes and STUN that come late.
#[derive(Debug)]
struct Nobody;

impl StunHandler for Nobody {
    fn bound(&self, _: &StunSocket) {}

    fn datagram(&self, _: &StunSocket, _: Received<'_>) {}
}

impl FoundSockets {
    /// Opens what was found since.
    pub(super) fn open(&mut self, settings: &Arc<Settings>, shared: &Shared) {
        let nobody: Arc<dyn StunHandler> = Arc::new(Nobody);
        for found in shared.found.take() {
            let FoundSocket {
                socket,
                claim,
                remote,
            } = found;
            let port = claim.port();
            let opened = socket::for_connections(&socket)
                .and_then(|()| Socket::over(socket, settings, &shared.punches, Some(&nobody)));
            match opened {
                Ok(socket) => self.open.push(Open {
                    id: ListenerId::next(),
                    socket,
                    remote,
                    used: Instant::now(),
                    _claim: claim,
                }),
                Err(error) => {
                    tracing::warn!(port, %remote, %error, "a socket that was found cannot be used");
                }
            }
        }
        if self.sweep.is_none() && !self.open.is_empty() {
            self.sweep = Some(Box::pin(sleep(UNUSED)));
        }
    }

    /// The newest that reaches this remote.
    pub(super) fn reaching(&self, remote: SocketAddr) -> Option<(ListenerId, &Socket)> {
        let found = self.open.iter().rev().find(|open| open.remote == remote)?;
        Some((found.id, &found.socket))
    }

    /// What comes in.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(ListenerId, SocketAddr, Accepted)> {
        self.close_unused(cx);
        let mut closed = Vec::new();
        for (at, open) in self.open.iter_mut().enumerate() {
            match open.socket.poll_accept(cx) {
                Poll::Ready(Some(accepted)) => {
                    open.used = Instant::now();
                    return Poll::Ready((open.id, open.socket.local(), accepted));
                }
                Poll::Ready(None) => closed.push(at),
                Poll::Pending => {}
            }
        }
        for at in closed.into_iter().rev() {
            self.open.remove(at);
        }
        Poll::Pending
    }

    fn close_unused(&mut self, cx: &mut Context<'_>) {
        while let Some(sweep) = &mut self.sweep
            && sweep.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            for open in self.open.iter_mut().filter(|open| open.socket.is_used()) {
                open.used = now;
            }
            self.open.retain(|open| open.used + UNUSED > now);
            self.sweep = (!self.open.is_empty()).then(|| Box::pin(sleep(UNUSED)));
        }
    }
}
