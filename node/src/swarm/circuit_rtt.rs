//! How long a circuit takes, measured while its ends exchange their keys.
//!
//! Noise XX is three messages. The dialer waits for the second message and the listener for the third. Each arrives one round
//! trip after what that side sent. So both sides know the circuit's round trip time when the circuit opens, without a ping. The
//! dialer negotiates Noise lazily, so the first message arrives with the proposal. If a dialer negotiates otherwise, the listener
//! measures up to twice the time.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite, FutureExt as _, future::BoxFuture};
use libp2p::{
    PeerId,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
};
use p2pnode_transports::LimitedProposals;
use tokio::time::Instant;

use crate::punch::CircuitFacts;

/// Circuits that may have been made and not yet been asked about. Each is asked about at once, unless it failed after its
/// keys were exchanged.
const REMEMBERED: usize = 64;

/// The round trip times of circuits that have just been made. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CircuitTimes(Arc<Mutex<VecDeque<(PeerId, CircuitFacts)>>>);

impl CircuitTimes {
    /// What is known of the latest circuit to that peer, once.
    pub(crate) fn take(&self, peer: &PeerId) -> Option<CircuitFacts> {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = times.iter().rposition(|(of, _)| of == peer)?;
        times.remove(latest).map(|(_, facts)| facts)
    }

    fn note(&self, peer: PeerId, facts: CircuitFacts) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back((peer, facts));
    }
}

/// The exchange of keys, timed. yamux is negotiated on what comes of it.
#[derive(Clone)]
pub(crate) struct Timed<U> {
    upgrade: U,
    times: CircuitTimes,
}

impl<U> Timed<U> {
    /// Notes in `times` how long `upgrade` takes.
    pub(crate) fn new(upgrade: U, times: CircuitTimes) -> Self {
        Self { upgrade, times }
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Timed<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.upgrade.protocol_info()
    }
}

impl<U, C, T> InboundConnectionUpgrade<C> for Timed<U>
where
    U: InboundConnectionUpgrade<Counted<C>, Output = (PeerId, T)>,
    U::Future: Send + 'static,
    T: 'static,
    U::Error: 'static,
{
    type Output = (PeerId, LimitedProposals<T>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, U::Error>>;

    fn upgrade_inbound(self, stream: C, info: Self::Info) -> Self::Future {
        let upgrade = |stream| self.upgrade.upgrade_inbound(stream, info);
        time(self.times, stream, upgrade)
    }
}

impl<U, C, T> OutboundConnectionUpgrade<C> for Timed<U>
where
    U: OutboundConnectionUpgrade<Counted<C>, Output = (PeerId, T)>,
    U::Future: Send + 'static,
    T: 'static,
    U::Error: 'static,
{
    type Output = (PeerId, LimitedProposals<T>);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<Self::Output, U::Error>>;

    fn upgrade_outbound(self, stream: C, info: Self::Info) -> Self::Future {
        let upgrade = |stream| self.upgrade.upgrade_outbound(stream, info);
        time(self.times, stream, upgrade)
    }
}

fn time<C, F, T, E>(
    times: CircuitTimes,
    stream: C,
    upgrade: impl FnOnce(Counted<C>) -> F,
) -> BoxFuture<'static, Result<(PeerId, LimitedProposals<T>), E>>
where
    F: Future<Output = Result<(PeerId, T), E>> + Send + 'static,
{
    let (stream, received) = Counted::new(stream);
    let upgrade = upgrade(stream);
    async move {
        let began = Instant::now();
        let (peer, stream) = upgrade.await?;
        let rtt = began.elapsed();
        times.note(peer, CircuitFacts { rtt, received });
        Ok((peer, LimitedProposals::new(stream)))
    }
    .boxed()
}

/// A stream that counts the bytes that come over it. They bound what the peer can make this node send elsewhere.
pub(crate) struct Counted<C> {
    stream: C,
    received: Arc<AtomicU64>,
}

impl<C> Counted<C> {
    fn new(stream: C) -> (Self, Arc<AtomicU64>) {
        let received = Arc::<AtomicU64>::default();
        let counted = Self {
            stream,
            received: Arc::clone(&received),
        };
        (counted, received)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.received.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    p2pnode_protocol::writes_to!(stream);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Learns that the remote is this peer, after two seconds.
    struct Slow(PeerId);

    impl UpgradeInfo for Slow {
        type Info = &'static str;
        type InfoIter = std::iter::Once<&'static str>;

        fn protocol_info(&self) -> Self::InfoIter {
            std::iter::once("/slow")
        }
    }

    impl OutboundConnectionUpgrade<Counted<()>> for Slow {
        type Output = (PeerId, ());
        type Error = std::io::Error;
        type Future = BoxFuture<'static, std::io::Result<(PeerId, ())>>;

        fn upgrade_outbound(self, _: Counted<()>, _: &'static str) -> Self::Future {
            async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok((self.0, ()))
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_exchange_of_keys_is_timed_and_its_result_is_handed_on() {
        let (times, peer) = (CircuitTimes::default(), PeerId::random());
        let timed = Timed::new(Slow(peer), times.clone());
        let (found, _) = timed.upgrade_outbound((), "/slow").await.unwrap();
        assert_eq!(found, peer);
        let rtt = times.take(&peer).map(|facts| facts.rtt);
        assert_eq!(rtt, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_time_is_taken_once_and_the_oldest_is_forgotten() {
        let (times, peer) = (CircuitTimes::default(), PeerId::random());
        let facts = |millis| CircuitFacts {
            rtt: Duration::from_millis(millis),
            received: Arc::default(),
        };
        times.note(peer, facts(1));
        times.note(peer, facts(2));
        let rtt = times.take(&peer).map(|facts| facts.rtt);
        assert_eq!(rtt, Some(Duration::from_millis(2)));
        for _ in 0..REMEMBERED {
            times.note(PeerId::random(), facts(0));
        }
        assert!(times.take(&peer).is_none());
    }
}
