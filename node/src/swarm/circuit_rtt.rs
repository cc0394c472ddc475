//! How long a circuit takes, measured while its ends exchange their keys.
//!
//! Noise XX is three messages. The dialer waits for the second message and the listener for the third. Each arrives one round
//! trip after what that side sent. So both sides know the circuit's round trip time when the circuit opens, without a ping. The
//! dialer negotiates Noise lazily, so the first message arrives with the proposal. If a dialer negotiates otherwise, the listener
//! measures up to twice the time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use libp2p::{
    PeerId,
    core::{
        UpgradeInfo,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
};
use tokio::time::Instant;

/// Circuits that may have been made and not yet been asked about. Each is asked about at once, unless it failed after its
/// keys were exchanged.
const REMEMBERED: usize = 64;

/// The round trip times of circuits that have just been made. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct CircuitTimes(Arc<Mutex<VecDeque<(PeerId, Duration)>>>);

impl CircuitTimes {
    /// The time of the latest circuit to that peer, once.
    pub(crate) fn take(&self, peer: &PeerId) -> Option<Duration> {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = times.iter().rposition(|(of, _)| of == peer)?;
        times.remove(latest).map(|(_, rtt)| rtt)
    }

    fn note(&self, peer: PeerId, rtt: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back((peer, rtt));
    }
}

/// The exchange of keys, timed.
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
    U: InboundConnectionUpgrade<C, Output = (PeerId, T)>,
    U::Future: Send + 'static,
    T: 'static,
    U::Error: 'static,
{
    type Output = (PeerId, T);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<(PeerId, T), U::Error>>;

    fn upgrade_inbound(self, stream: C, info: Self::Info) -> Self::Future {
        time(self.times, self.upgrade.upgrade_inbound(stream, info)).boxed()
    }
}

impl<U, C, T> OutboundConnectionUpgrade<C> for Timed<U>
where
    U: OutboundConnectionUpgrade<C, Output = (PeerId, T)>,
    U::Future: Send + 'static,
    T: 'static,
    U::Error: 'static,
{
    type Output = (PeerId, T);
    type Error = U::Error;
    type Future = BoxFuture<'static, Result<(PeerId, T), U::Error>>;

    fn upgrade_outbound(self, stream: C, info: Self::Info) -> Self::Future {
        time(self.times, self.upgrade.upgrade_outbound(stream, info)).boxed()
    }
}

async fn time<T, E>(
    times: CircuitTimes,
    upgrade: impl Future<Output = Result<(PeerId, T), E>>,
) -> Result<(PeerId, T), E> {
    let began = Instant::now();
    let (peer, stream) = upgrade.await?;
    times.note(peer, began.elapsed());
    Ok((peer, stream))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
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

    impl OutboundConnectionUpgrade<()> for Slow {
        type Output = (PeerId, ());
        type Error = std::io::Error;
        type Future = BoxFuture<'static, std::io::Result<(PeerId, ())>>;

        fn upgrade_outbound(self, (): (), _: &'static str) -> Self::Future {
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
        assert_eq!(
            timed.upgrade_outbound((), "/slow").await.unwrap(),
            (peer, ())
        );
        assert_eq!(times.take(&peer), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_time_is_taken_once_and_the_oldest_is_forgotten() {
        let (times, peer) = (CircuitTimes::default(), PeerId::random());
        times.note(peer, Duration::from_millis(1));
        times.note(peer, Duration::from_millis(2));
        assert_eq!(times.take(&peer), Some(Duration::from_millis(2)));
        for _ in 0..REMEMBERED {
            times.note(PeerId::random(), Duration::ZERO);
        }
        assert_eq!(times.take(&peer), None);
    }
}
