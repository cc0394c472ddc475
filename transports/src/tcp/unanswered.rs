//! The SYNs of punches that nobody has answered yet.
//!
//! A NAT remembers the SYN that left it, with its sequence number: on Linux for 120 s, also when the socket that sent it is closed.
//! If the remote's SYN comes next, the answer has to have that number, or it belongs to no connection that the NAT knows: Linux
//! lets it pass untranslated. A new attempt has a new number, unless its own SYN leaves before the remote's arrives; between
//! hosts that are near each other that is chance. So the socket of an attempt that ends without an answer is kept for the next.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Fuse},
};
use tokio::{net::TcpStream, time::Instant};

/// How long a socket is kept: what Linux's conntrack remembers a SYN for (`nf_conntrack_tcp_timeout_syn_sent`). The kernel stops
/// to repeat it a little later.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// How many are kept; beyond that the oldest goes.
const KEPT: usize = 64;

/// A connection whose SYN has left.
pub(crate) type Connecting = Fuse<BoxFuture<'static, io::Result<TcpStream>>>;

#[derive(Default)]
pub(crate) struct Unanswered {
    /// The oldest first.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    port: u16,
    remote: SocketAddr,
    since: Instant,
    connecting: Connecting,
}

impl Unanswered {
    /// Keeps a connection that was begun from `port` to `remote`.
    pub(crate) fn keep(this: &Arc<Self>, port: u16, remote: SocketAddr, connecting: Connecting) {
        let since = Instant::now();
        let kept = Kept {
            port,
            remote,
            since,
            connecting,
        };
        let dropped = {
            let mut all = this.lock();
            all.push_back(kept);
            if all.len() > KEPT {
                all.pop_front()
            } else {
                None
            }
        };
        drop(dropped);
        let this = Arc::downgrade(this);
        tokio::spawn(async move {
            tokio::time::sleep_until(since + KEPT_FOR).await;
            if let Some(this) = this.upgrade() {
                this.lock().retain(|kept| kept.since > since);
            }
        });
    }

    /// What was kept for the next connection from `port` to `remote`, unless it has failed or ended meanwhile.
    pub(crate) fn take(&self, port: u16, remote: SocketAddr) -> Option<Connecting> {
        let mut kept = {
            let mut all = self.lock();
            let place = all
                .iter()
                .position(|kept| kept.port == port && kept.remote == remote)?;
            all.remove(place)?.connecting
        };
        match (&mut kept).now_or_never() {
            None => Some(kept),
            Some(Ok(stream)) if is_open(&stream) => {
                Some(futures::future::ready(Ok(stream)).boxed().fuse())
            }
            Some(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // Nothing panics while it holds the lock, and no state is half written if it did.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the remote has neither closed nor reset the connection.
fn is_open(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]).now_or_never() {
        None => true,
        Some(read) => read.is_ok_and(|read| read > 0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use futures::future;
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    fn pending() -> Connecting {
        future::pending().boxed().fuse()
    }

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    async fn connected() -> (Connecting, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let connecting = TcpStream::connect(remote).boxed().fuse();
        let (stream, accepted) = tokio::join!(connecting, listener.accept());
        let connecting = future::ready(stream).boxed().fuse();
        (connecting, accepted.unwrap().0, remote)
    }

    #[tokio::test]
    async fn it_is_there_once_and_for_the_same_numbers_alone() {
        let unanswered = Arc::new(Unanswered::default());
        Unanswered::keep(&unanswered, 40_000, remote(1), pending());
        assert!(unanswered.take(40_001, remote(1)).is_none());
        assert!(unanswered.take(40_000, remote(2)).is_none());
        assert!(unanswered.take(40_000, remote(1)).is_some());
        assert!(unanswered.take(40_000, remote(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_kept_as_long_as_nats_remember_it() {
        let unanswered = Arc::new(Unanswered::default());
        Unanswered::keep(&unanswered, 40_000, remote(1), pending());
        tokio::time::sleep(KEPT_FOR / 2).await;
        Unanswered::keep(&unanswered, 40_000, remote(2), pending());
        tokio::time::sleep(KEPT_FOR / 2 + Duration::from_millis(1)).await;
        assert!(unanswered.take(40_000, remote(1)).is_none());
        assert!(unanswered.take(40_000, remote(2)).is_some());
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_goes() {
        let unanswered = Arc::new(Unanswered::default());
        for port in 0..=KEPT {
            let remote = remote(u16::try_from(port).unwrap());
            Unanswered::keep(&unanswered, 40_000, remote, pending());
        }
        assert!(unanswered.take(40_000, remote(0)).is_none());
        assert!(unanswered.take(40_000, remote(1)).is_some());
    }

    #[tokio::test]
    async fn one_that_was_answered_meanwhile_is_used() {
        let unanswered = Arc::new(Unanswered::default());
        let (connecting, _accepted, remote) = connected().await;
        Unanswered::keep(&unanswered, 40_000, remote, connecting);
        let stream = unanswered.take(40_000, remote).unwrap().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), remote);
    }

    #[tokio::test]
    async fn one_that_failed_or_ended_is_not() {
        let unanswered = Arc::new(Unanswered::default());
        let failed = future::ready(Err(io::ErrorKind::TimedOut.into()));
        Unanswered::keep(&unanswered, 40_000, remote(1), failed.boxed().fuse());
        assert!(unanswered.take(40_000, remote(1)).is_none());

        let (connecting, accepted, remote) = connected().await;
        let mut stream = connecting.await.unwrap();
        drop(accepted);
        // The end is there.
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        let connecting = future::ready(Ok(stream)).boxed().fuse();
        Unanswered::keep(&unanswered, 40_000, remote, connecting);
        assert!(unanswered.take(40_000, remote).is_none());
    }
}
