//! A punch in the role of the listener: packets that open this side's NAT, a connection that comes in, and a dial, at once.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{self, BoxFuture, Either},
};
use libp2p::PeerId;

use super::{failure::HANDSHAKE_TIMEOUT, socket::Accepted};
use crate::net::connection::Connection;

/// How much later than the packets that open the NAT the dial begins, in the role of the listener. The remote learns of the punch in
/// the same moment and may open its NAT a little later; a dial that arrives before that is repeated only after 30 ms. If the remote's
/// dial is done by then, as between near hosts, there is one connection and not two.
pub(super) const HEAD_START: Duration = Duration::from_millis(5);

/// The length of a packet that opens a NAT, in bytes, and the gap between two, in milliseconds: those of libp2p.
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

    /// Hands a connection to the dial that waits for it; otherwise returns it.
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

/// Opens this side's NAT for `remote`, for as long as a connection from there may take. Sends nothing before it is polled.
pub(super) async fn open_nat(socket: Arc<UdpSocket>, remote: SocketAddr) {
    let opening = tokio::time::timeout(HANDSHAKE_TIMEOUT, open(&socket, remote));
    if let Ok(error) = opening.await {
        tracing::debug!(%remote, %error, "cannot open the nat");
    }
}

/// As long as that, and sends nothing.
pub(super) async fn wait_for_nat() {
    tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
}

/// Sends packets to `remote` that it ignores, until sending fails.
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

/// The rest of a connection that has begun.
pub(super) type Handshake<E> = BoxFuture<'static, Result<Connection, E>>;

/// The arms of a punch in the role of the listener.
pub(super) struct Arms<Client, Opening, Begun> {
    /// This side's dial, for a remote behind a symmetric NAT while this side's NAT filters nothing. Packets of the remote do not come
    /// from the address that is known, but packets to that address may get through.
    pub(super) client: Client,
    /// Opens this side's NAT, for as long as that makes sense.
    pub(super) opening: Opening,
    /// The connection that the remote begins through it.
    pub(super) incoming: oneshot::Receiver<Begun>,
}

/// What comes first of the arms.
enum First<E> {
    /// The remote has begun a connection, or it will not.
    Remote(Option<Handshake<E>>),
    /// Our dial is done.
    Ours(Connection),
    /// Our dial has failed. What has come of the other arm after that.
    Failed(E, Option<Handshake<E>>),
}

impl<E, Client, Opening, Begun> Arms<Client, Opening, Begun>
where
    E: Send + 'static,
    Client: Future<Output = Result<Connection, E>>,
    Opening: Future<Output = ()>,
{
    /// The first connection with `peer` that comes of either arm.
    ///
    /// If both arms work, they begin within a moment of each other. The remote completes its dial half a round trip before this side
    /// sees it, so that connection must stay open. `alongside` takes it as an inbound connection. A connection of another peer at
    /// that address goes the same way.
    pub(super) async fn first(
        self,
        peer: PeerId,
        handshake: impl Fn(Begun) -> Handshake<E>,
        alongside: impl Fn(Handshake<E>),
    ) -> Result<Connection, E> {
        let (client, opening, mut incoming) = (self.client, self.opening, self.incoming);
        futures::pin_mut!(client, opening);
        let first = {
            let begun = future::select(&mut incoming, opening).map(|first| match first {
                Either::Left((begun, _)) => begun.ok().map(&handshake),
                Either::Right(((), _)) => None,
            });
            match future::select(begun, client.as_mut()).await {
                Either::Left((begun, _)) => First::Remote(begun),
                Either::Right((Ok(dialed), _)) => First::Ours(dialed),
                Either::Right((Err(error), begun)) => First::Failed(error, begun.await),
            }
        };
        // Nobody looks there any more. It may have come in this very moment.
        incoming.close();
        if let Ok(Some(begun)) = incoming.try_recv() {
            alongside(handshake(begun));
        }
        match first {
            First::Ours(dialed) => Ok(dialed),
            First::Failed(error, None) => Err(error),
            First::Failed(error, Some(begun)) => wanted(begun.await, peer, &alongside).ok_or(error),
            First::Remote(None) => client.await,
            First::Remote(Some(begun)) => match future::select(begun, client).await {
                Either::Left((done, client)) => match wanted(done, peer, &alongside) {
                    Some(punched) => Ok(punched),
                    None => client.await,
                },
                Either::Right((Ok(dialed), begun)) => {
                    alongside(begun);
                    Ok(dialed)
                }
                Either::Right((Err(error), begun)) => {
                    wanted(begun.await, peer, &alongside).ok_or(error)
                }
            },
        }
    }
}

/// Returns the remote's connection if it is with `peer`. `alongside` takes a connection of another peer.
fn wanted<E: Send + 'static>(
    done: Result<Connection, E>,
    peer: PeerId,
    alongside: &impl Fn(Handshake<E>),
) -> Option<Connection> {
    let connection = done.ok()?;
    if connection.0 == peer {
        return Some(connection);
    }
    alongside(future::ready(Ok(connection)).boxed());
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use std::{
        cell::RefCell,
        pin::Pin,
        task::{Context, Poll},
    };

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

    /// Runs arms with these outcomes; the remote's begins at once or never. Returns the result, and how many connections went on
    /// alongside it.
    async fn first(client: Arm, remote: Option<Arm>, peer: PeerId) -> (io::Result<PeerId>, usize) {
        let (sender, incoming) = oneshot::channel();
        let opening = match remote {
            Some(remote) => {
                sender.send(remote).ok().unwrap();
                future::pending().boxed()
            }
            None => future::ready(()).boxed(),
        };
        let arms = Arms {
            client,
            opening,
            incoming,
        };
        let alongside = RefCell::new(0);
        let done = arms
            .first(peer, |begun: Arm| begun, |_| *alongside.borrow_mut() += 1)
            .await;
        (done.map(|(peer, _)| peer), alongside.into_inner())
    }

    #[tokio::test]
    async fn the_first_arm_is_taken_and_the_remotes_connection_goes_on() {
        // The peer that an arm reaches identifies the arm.
        let (peer, other) = (PeerId::random(), PeerId::random());
        for (client, remote, expected, alongside) in [
            (reaches(other), Some(reaches(peer)), peer, 0),
            (reaches(other), Some(later(reaches(peer))), other, 1),
            (reaches(other), Some(future::pending().boxed()), other, 1),
            (reaches(other), None, other, 0),
            (fails("refused"), Some(later(reaches(peer))), peer, 0),
            (later(reaches(other)), Some(fails("timeout")), other, 0),
            // Somebody else came in from the remote's address.
            (later(reaches(peer)), Some(reaches(other)), peer, 1),
        ] {
            let (done, kept) = first(client, remote, peer).await;
            assert_eq!((done.unwrap(), kept), (expected, alongside));
        }
        for (remote, alongside) in [
            (None, 0),
            (Some(later(fails("timeout"))), 0),
            (Some(later(reaches(other))), 1),
        ] {
            let (done, kept) = first(fails("refused"), remote, peer).await;
            assert_eq!(
                (done.unwrap_err().to_string(), kept),
                ("refused".to_owned(), alongside)
            );
        }
    }

    #[tokio::test]
    async fn a_connection_that_comes_in_the_moment_in_which_ours_is_done_is_kept() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let (sender, incoming) = oneshot::channel();
        let arms = Arms {
            client: async move {
                sender.send(reaches(peer)).ok().unwrap();
                io::Result::Ok((other, StreamMuxerBox::new(Nothing)))
            },
            opening: future::pending(),
            incoming,
        };
        let alongside = RefCell::new(0);
        let done = arms.first(peer, |begun: Arm| begun, |_| *alongside.borrow_mut() += 1);
        assert_eq!(done.await.unwrap().0, other);
        assert_eq!(alongside.into_inner(), 1);
    }
}
