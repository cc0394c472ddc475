//! A punch in the role of the listener: packets that open our NAT, a connection that comes in, and a dial of our own, at once.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{self, Either},
};
use libp2p::PeerId;
use tokio::time::Instant;

use super::{Failure, HANDSHAKE_TIMEOUT, socket::Accepted};
use crate::auth::Connection;

/// How far apart the beginnings of the two connections of a punch that works both ways are at most: the jitter of the path.
const TIE: Duration = Duration::from_millis(50);

/// How long a packet that opens a NAT is, in bytes, and how far apart two are, in milliseconds: as libp2p's.
const LENGTH: usize = 64;
const GAP: std::ops::RangeInclusive<u64> = 10..=200;

/// The addresses from which a connection is waited for.
#[derive(Default)]
pub(super) struct Expected(Mutex<HashMap<SocketAddr, oneshot::Sender<Accepted>>>);

impl Expected {
    /// Waits for a connection from `remote`; `None` where somebody does so already.
    pub(super) fn wait(&self, remote: SocketAddr) -> Option<oneshot::Receiver<Accepted>> {
        let mut waiting = self.lock();
        waiting.retain(|_, sender| !sender.is_canceled());
        if waiting.contains_key(&remote) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.insert(remote, sender);
        Some(receiver)
    }

    /// Hands a connection to whoever waits for it, or back.
    pub(super) fn offer(&self, accepted: Accepted) -> Option<Accepted> {
        match self.lock().remove(&accepted.remote) {
            Some(sender) => sender.send(accepted).err(),
            None => Some(accepted),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, oneshot::Sender<Accepted>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens our NAT for `remote`, until a connection comes in from there, and says so when that begins. Sends nothing before it
/// is polled.
pub(super) async fn open_and_wait(
    socket: Arc<UdpSocket>,
    remote: SocketAddr,
    incoming: oneshot::Receiver<Accepted>,
    begun: &AtomicBool,
) -> Result<Connection, Failure> {
    let opening = tokio::time::timeout(HANDSHAKE_TIMEOUT, open(&socket, remote));
    futures::pin_mut!(opening);
    match future::select(incoming, opening).await {
        Either::Left((Ok(accepted), _)) => {
            begun.store(true, Ordering::Relaxed);
            accepted.handshake().await
        }
        Either::Left((Err(oneshot::Canceled), _)) => Err(Failure::Socket(io::Error::new(
            io::ErrorKind::NotConnected,
            "the socket was closed",
        ))),
        Either::Right((Ok(error), _)) => Err(Failure::Socket(error)),
        Either::Right((Err(_), _)) => Err(Failure::TimedOut),
    }
}

/// Sends packets to `remote` that mean nothing to it, until that fails.
async fn open(socket: &UdpSocket, remote: SocketAddr) -> io::Error {
    loop {
        let mut packet: [u8; LENGTH] = std::array::from_fn(|_| fastrand::u8(..));
        // Not the long header of a QUIC packet, nor the fixed bit of a short one.
        packet[0] &= 0x3f;
        match socket.send_to(&packet, remote) {
            Ok(_) => {}
            // The next one is soon.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(GAP))).await;
    }
}

/// Both arms of a punch in the role of the listener, at once.
///
/// `puncher` opens our NAT and takes the connection that the remote makes. `client` is for a remote whose NAT is symmetric
/// while ours lets anybody in or out: nothing of theirs comes from the address that we know, but what we send may get
/// through. Where both work they begin within a moment of each other. Then `puncher` has to win: the remote's dial, which
/// is the other end of it, is done half a round trip earlier, and would be closed under its hands. So one that has `begun` is
/// given as long as `client` has taken, which is a round trip or more.
pub(super) async fn both<E>(
    client: impl Future<Output = Result<Connection, E>>,
    puncher: impl Future<Output = Result<Connection, E>>,
    peer: PeerId,
    begun: &AtomicBool,
) -> Result<Connection, E> {
    futures::pin_mut!(client, puncher);
    let start = Instant::now();
    match future::select(puncher, client).await {
        Either::Left((Ok(punched), _)) => Ok(punched),
        Either::Left((Err(_), client)) => client.await,
        Either::Right((Ok(dialed), puncher)) => {
            let grace = if begun.load(Ordering::Relaxed) {
                TIE + start.elapsed()
            } else {
                TIE
            };
            match tokio::time::timeout(grace, puncher).await {
                Ok(Ok(punched)) if punched.0 == peer => Ok(punched),
                Ok(_) | Err(_) => Ok(dialed),
            }
        }
        Either::Right((Err(error), puncher)) => puncher.await.map_err(|_| error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::{FutureExt, future::BoxFuture};
    use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};

    use super::*;

    /// A connection that is none.
    struct Nothing;

    impl StreamMuxer for Nothing {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = io::Error;

        fn poll_inbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<io::Result<Self::Substream>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    type Arm = BoxFuture<'static, io::Result<Connection>>;

    fn reaches(peer: PeerId) -> Arm {
        future::ready(Ok((peer, StreamMuxerBox::new(Nothing)))).boxed()
    }

    fn fails(reason: &'static str) -> Arm {
        future::ready(Err(io::Error::other(reason))).boxed()
    }

    /// As `arm`, but not at the first look.
    fn later(arm: Arm) -> Arm {
        async move {
            tokio::task::yield_now().await;
            arm.await
        }
        .boxed()
    }

    #[tokio::test]
    async fn the_punched_connection_wins_a_tie_and_only_a_tie() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        // The arms are told apart by the peer that they reach.
        for (client, puncher, expected) in [
            (reaches(other), reaches(peer), peer),
            (reaches(other), later(reaches(peer)), peer),
            (reaches(other), future::pending().boxed(), other),
            (fails("refused"), later(reaches(peer)), peer),
            (later(reaches(other)), fails("timeout"), other),
            // Somebody else came in from the remote's address.
            (reaches(peer), later(reaches(other)), peer),
        ] {
            let done = both(client, puncher, peer, &AtomicBool::new(false)).await;
            assert_eq!(done.unwrap().0, expected);
        }
        let begun = AtomicBool::new(false);
        let neither = both(fails("refused"), later(fails("timeout")), peer, &begun);
        assert_eq!(neither.await.err().unwrap().to_string(), "refused");
    }

    /// `arm`, that long after it was polled first.
    fn after(millis: u64, arm: Arm) -> Arm {
        async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            arm.await
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_the_remote_that_has_begun_is_waited_for_as_long_as_ours_took() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        // On a path of 200 ms ours is done after a round trip, theirs after one and a half.
        for (begun, took, expected) in [(true, 300, peer), (false, 300, other), (true, 500, other)]
        {
            let (client, puncher) = (after(200, reaches(other)), after(took, reaches(peer)));
            let done = both(client, puncher, peer, &AtomicBool::new(begun)).await;
            assert_eq!(done.unwrap().0, expected, "{begun} {took}");
        }
    }
}
