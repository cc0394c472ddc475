//! Sockets whose SYN has no answer yet, kept from one punch for the next.
//!
//! A NAT remembers the SYN that left it and its sequence number: Linux for 120 s, even if the socket that sent it is closed. When
//! the remote's SYN arrives, the answer must have that sequence number. Otherwise the NAT knows no such connection, and Linux
//! forwards the answer untranslated. A new attempt has a new sequence number, unless its SYN leaves before the remote's arrives.
//! Between hosts that are near each other that is chance. So the next attempt takes the socket of the last one.
//!
//! A kept socket repeats its SYN. What the remote sends with the same 4-tuple arrives there, not at the listener. If it comes from a
//! kept socket of the remote, both sides wait for their next attempt. If the remote sends data, it has dialed: the connection is an
//! inbound one.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{self, BoxFuture, Fuse},
};
use tokio::{io::ReadBuf, net::TcpStream, time::Instant};

/// How long a socket is kept: as long as Linux's conntrack remembers a SYN (`nf_conntrack_tcp_timeout_syn_sent`). The kernel stops
/// repeating it a little later.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// How many sockets are kept; the oldest makes room.
const KEPT: usize = 64;

/// A connection whose SYN has left.
pub(crate) type Connecting = Fuse<BoxFuture<'static, io::Result<TcpStream>>>;

#[derive(Default)]
pub(crate) struct PendingSyn {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    /// The oldest first.
    kept: Vec<Kept>,
}

struct Kept {
    id: u64,
    port: u16,
    remote: SocketAddr,
    state: State,
}

enum State {
    Connecting(Connecting),
    /// Answered while no punch waited.
    Connected(TcpStream),
}

/// How the wait of a kept socket ends.
enum End {
    /// A punch took it, or it failed.
    Gone,
    /// The remote sent data.
    RemoteSent(TcpStream),
}

impl PendingSyn {
    /// Keeps a connection attempt from `port` to `remote`. `inbound` gets the connection if the remote sends data before a punch
    /// takes it.
    pub(crate) fn keep(
        this: &Arc<Self>,
        port: u16,
        remote: SocketAddr,
        connecting: Connecting,
        inbound: impl FnOnce(TcpStream) + Send + 'static,
    ) {
        let until = Instant::now() + KEPT_FOR;
        let mut table = this.lock();
        table.last_id += 1;
        let id = table.last_id;
        let oldest = (table.kept.len() >= KEPT).then(|| table.kept.remove(0));
        table.kept.push(Kept {
            id,
            port,
            remote,
            state: State::Connecting(connecting),
        });
        drop(table);
        drop(oldest);
        let this = Arc::downgrade(this);
        tokio::spawn(async move {
            let end = future::poll_fn(|cx| {
                this.upgrade()
                    .map_or(Poll::Ready(End::Gone), |this| this.lock().poll(id, cx))
            });
            match tokio::time::timeout_at(until, end).await {
                Ok(End::RemoteSent(stream)) => {
                    tracing::debug!(%remote, "a kept tcp connection is an inbound one");
                    inbound(stream);
                }
                Ok(End::Gone) => {}
                Err(_) => {
                    if let Some(this) = this.upgrade() {
                        this.lock().remove(id);
                    }
                }
            }
        });
    }

    /// The attempt that was kept for this port and remote.
    pub(crate) fn take(&self, port: u16, remote: SocketAddr) -> Option<Connecting> {
        let mut table = self.lock();
        let mut kept = table.kept.iter();
        let place = kept.position(|kept| kept.port == port && kept.remote == remote)?;
        Some(match table.kept.remove(place).state {
            State::Connecting(connecting) => connecting,
            State::Connected(stream) => future::ready(Ok(stream)).boxed().fuse(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock, and no state is half written if it did.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, id: u64) -> Option<Kept> {
        let place = self.kept.iter().position(|kept| kept.id == id)?;
        Some(self.kept.remove(place))
    }

    fn poll(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<End> {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.id == id) else {
            return Poll::Ready(End::Gone);
        };
        if let State::Connecting(connecting) = &mut kept.state {
            match futures::ready!(connecting.poll_unpin(cx)) {
                Ok(stream) => kept.state = State::Connected(stream),
                Err(error) => {
                    tracing::debug!(remote = %kept.remote, %error, "a kept tcp connection failed");
                    self.remove(id);
                    return Poll::Ready(End::Gone);
                }
            }
        }
        if let State::Connected(stream) = &kept.state {
            let (mut byte, remote) = ([0], kept.remote);
            match futures::ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
                Ok(1..) => {}
                // The remote closed or reset it.
                Ok(0) | Err(_) => {
                    tracing::debug!(%remote, "a kept tcp connection ended");
                    self.remove(id);
                    return Poll::Ready(End::Gone);
                }
            }
        }
        Poll::Ready(match self.remove(id).map(|kept| kept.state) {
            Some(State::Connected(stream)) => End::RemoteSent(stream),
            Some(State::Connecting(_)) | None => End::Gone,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::channel::oneshot;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn keep(pending: &Arc<PendingSyn>, remote: SocketAddr, connecting: Connecting) {
        PendingSyn::keep(pending, 40_000, remote, connecting, |_| {});
    }

    fn unanswered() -> Connecting {
        future::pending().boxed().fuse()
    }

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    /// A connection that is answered, its other end, and its remote address.
    async fn answered() -> (Connecting, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let connecting = TcpStream::connect(remote).boxed().fuse();
        let (stream, accepted) = tokio::join!(connecting, listener.accept());
        let connecting = future::ready(stream).boxed().fuse();
        (connecting, accepted.unwrap().0, remote)
    }

    #[tokio::test]
    async fn it_is_there_once_and_for_the_same_numbers_alone() {
        let pending = Arc::new(PendingSyn::default());
        keep(&pending, remote(1), unanswered());
        assert!(pending.take(40_001, remote(1)).is_none());
        assert!(pending.take(40_000, remote(2)).is_none());
        assert!(pending.take(40_000, remote(1)).is_some());
        assert!(pending.take(40_000, remote(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_kept_as_long_as_nats_remember_it() {
        let pending = Arc::new(PendingSyn::default());
        keep(&pending, remote(1), unanswered());
        tokio::time::sleep(KEPT_FOR / 2).await;
        keep(&pending, remote(2), unanswered());
        tokio::time::sleep(KEPT_FOR / 2 + Duration::from_millis(1)).await;
        assert!(pending.take(40_000, remote(1)).is_none());
        assert!(pending.take(40_000, remote(2)).is_some());
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_goes() {
        let pending = Arc::new(PendingSyn::default());
        for port in 0..=KEPT {
            keep(&pending, remote(u16::try_from(port).unwrap()), unanswered());
        }
        assert!(pending.take(40_000, remote(0)).is_none());
        assert!(pending.take(40_000, remote(1)).is_some());
    }

    #[tokio::test]
    async fn one_that_was_answered_meanwhile_is_used() {
        let pending = Arc::new(PendingSyn::default());
        let (connecting, mut other, remote) = answered().await;
        keep(&pending, remote, connecting);
        tokio::task::yield_now().await;
        let mut stream = pending.take(40_000, remote).unwrap().await.unwrap();
        other.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn one_whose_remote_speaks_is_an_inbound_connection() {
        let pending = Arc::new(PendingSyn::default());
        let (connecting, mut other, remote) = answered().await;
        let (sender, inbound) = oneshot::channel();
        PendingSyn::keep(&pending, 40_000, remote, connecting, |stream| {
            sender.send(stream).unwrap();
        });
        other.write_all(b"a").await.unwrap();
        let mut stream = inbound.await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        assert!(pending.take(40_000, remote).is_none());
    }

    #[tokio::test]
    async fn one_that_fails_or_ends_is_dropped() {
        let pending = Arc::new(PendingSyn::default());
        let failed = future::ready(Err(io::ErrorKind::TimedOut.into()));
        let (sender, dropped) = oneshot::channel::<()>();
        PendingSyn::keep(&pending, 40_000, remote(1), failed.boxed().fuse(), |_| {
            drop(sender);
        });
        dropped.await.unwrap_err();
        assert!(pending.take(40_000, remote(1)).is_none());

        let (connecting, other, remote) = answered().await;
        let (sender, dropped) = oneshot::channel::<()>();
        PendingSyn::keep(&pending, 40_000, remote, connecting, |_| {
            sender.send(()).unwrap();
        });
        drop(other);
        dropped.await.unwrap_err();
        assert!(pending.take(40_000, remote).is_none());
    }
}
