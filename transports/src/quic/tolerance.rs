//! CUBIC that distinguishes losses of a path from those of a full queue, while a connection carries datagrams.
//!
//! CUBIC slows down at each loss. Radio links lose 1 % of the packets by themselves. At a round trip of 20 ms they then carry some
//! 7 Mbit/s, and datagrams cannot be sent later. So while a connection carries datagrams, few losses are no congestion. More than
//! [`PERCENT`] of the last packets are, as in BBR's third version, or a round trip that has grown, as in TCP Veno. Without datagrams it
//! is plain CUBIC. Decision 0713.
//!
//! A connection begins with the window of an older one with the same peer at the same address. Otherwise a session that changes ports
//! would wait for slow start. Decision 1006.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

use super::{congestion::Congestion, flight::Flight};

/// How much may be lost.
const PERCENT: u64 = 2;

/// Over how many bytes losses are counted: as many that chance alone does not lose [`PERCENT`] of a path that loses half of that.
const PERIOD: u64 = 2 << 20;

/// How long the shortest round trip counts.
const SHORTEST_FOR: Duration = Duration::from_secs(10);

/// How much longer a round trip may be at least: less than that is what hosts and radio links add by themselves.
const JITTER: Duration = Duration::from_millis(10);

/// Congestion control whose window, bytes in flight and round trip others may see.
pub(super) struct Watched {
    inner: Box<dyn Controller>,
    congestion: Congestion,
    mtu: u16,
    /// `None`: each loss counts.
    tolerance: Option<Tolerance>,
    flight: Arc<Flight>,
}

#[derive(Debug, Clone)]
struct Tolerance {
    losses: Losses,
    is_active: bool,
    /// Bytes that this acknowledgement has confirmed so far.
    confirmed: u64,
    /// Bytes that were in flight before the last acknowledgement.
    used: u64,
}

/// What was lost lately, and how the round trip has changed.
#[derive(Debug, Clone, Default)]
struct Losses {
    acknowledged: u64,
    lost: u64,
    rtt: Duration,
    shortest: Option<(Duration, Instant)>,
}

/// Makes it for each connection.
pub(super) struct WatchedConfig(pub(super) Congestion);

impl ControllerFactory for WatchedConfig {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let inner = begin(self.0, None, now, mtu);
        let flight = Arc::new(Flight::new(now));
        flight.set_window(inner.window());
        let tolerance = (self.0 == Congestion::Cubic).then(|| Tolerance {
            losses: Losses::default(),
            is_active: false,
            confirmed: 0,
            used: 0,
        });
        Box::new(Watched {
            inner,
            congestion: self.0,
            mtu,
            tolerance,
            flight,
        })
    }
}

fn begin(
    congestion: Congestion,
    window: Option<u64>,
    now: Instant,
    mtu: u16,
) -> Box<dyn Controller> {
    match congestion {
        Congestion::Cubic => {
            let mut config = CubicConfig::default();
            window.map(|window| config.initial_window(window));
            Arc::new(config).build(now, mtu)
        }
        Congestion::Bbr => {
            let mut config = BbrConfig::default();
            window.map(|window| config.initial_window(window));
            Arc::new(config).build(now, mtu)
        }
    }
}

/// What the congestion control of a connection shares.
pub(super) fn flight(connection: &quinn::Connection) -> Option<Arc<Flight>> {
    let controller = connection.congestion_state().into_any();
    let watched = controller.downcast::<Watched>().ok()?;
    Some(watched.flight)
}

impl Watched {
    /// Whether losses are looked at, which begins with the first datagram. What was lost before counts for nothing: the window grows
    /// as that of a new connection.
    fn tolerates(&mut self, now: Instant) -> Option<&mut Tolerance> {
        let carries = self.flight.carries_datagrams(now);
        let tolerance = self.tolerance.as_mut()?;
        if carries && !tolerance.is_active {
            let window = Some(self.inner.window());
            self.inner = begin(self.congestion, window, now, self.mtu);
            tolerance.losses = Losses::default();
        }
        tolerance.is_active = carries;
        carries.then_some(tolerance)
    }
}

impl Controller for Watched {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        let known = self.flight.take_known();
        if let Some(window) = known.filter(|window| *window > self.inner.window()) {
            self.inner = begin(self.congestion, Some(window), now, self.mtu);
            self.flight.set_window(window);
        }
        self.flight.sent(bytes);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.flight.acknowledged();
        self.flight.set_rtt(rtt.get());
        let (window, mut is_limited) = (self.inner.window(), app_limited);
        if let Some(tolerance) = self.tolerates(now) {
            tolerance.losses.acknowledged(bytes, rtt.get(), now);
            tolerance.confirmed += bytes;
            // A window twice as large as what is sent leaves room for a burst (RFC 7661).
            is_limited &= 2 * tolerance.used < window;
        }
        self.inner.on_ack(now, sent, bytes, is_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.flight.set_in_flight(in_flight);
        if let Some(tolerance) = &mut self.tolerance {
            tolerance.used = in_flight + std::mem::take(&mut tolerance.confirmed);
        }
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
        self.flight.set_window(self.inner.window());
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        // Without a loss a router has marked a packet (ECN).
        let is_sure = is_persistent_congestion || lost_bytes == 0;
        if let Some(tolerance) = self.tolerates(now)
            && !tolerance.losses.are_congestion(lost_bytes)
            && !is_sure
        {
            return;
        }
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
        self.flight.set_window(self.inner.window());
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
        self.flight.set_window(self.inner.window());
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            congestion: self.congestion,
            mtu: self.mtu,
            tolerance: self.tolerance.clone(),
            flight: Arc::clone(&self.flight),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Losses {
    fn acknowledged(&mut self, bytes: u64, rtt: Duration, now: Instant) {
        self.acknowledged += bytes;
        if self.acknowledged + self.lost >= PERIOD {
            self.acknowledged /= 2;
            self.lost /= 2;
        }
        self.rtt = rtt;
        let is_over = |since: Instant| now.saturating_duration_since(since) > SHORTEST_FOR;
        match self.shortest {
            Some((shortest, since)) if shortest <= rtt && !is_over(since) => {}
            Some(_) | None => self.shortest = Some((rtt, now)),
        }
    }

    fn are_congestion(&mut self, lost: u64) -> bool {
        self.lost += lost;
        let all = (self.acknowledged + self.lost).max(PERIOD);
        let shortest = self.shortest.map_or(self.rtt, |(shortest, _)| shortest);
        let is_congestion =
            100 * self.lost > PERCENT * all || self.rtt > shortest + JITTER.max(shortest / 4);
        if is_congestion {
            (self.acknowledged, self.lost) = (0, 0);
        }
        is_congestion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);
    const PACKET: u64 = 1_250;

    fn build(congestion: Congestion, now: Instant) -> Watched {
        let config = WatchedConfig(congestion);
        let built = Arc::new(config).build(now, 1_250).into_any();
        *built.downcast::<Watched>().expect("it builds these")
    }

    /// Sends 200 packets in each round trip, of which each `every`th is lost. Returns how many rounds have congestion.
    fn congested(losses: &mut Losses, every: u64, rtt: Duration, rounds: u64) -> u64 {
        const PER_ROUND: u64 = 200;
        let begun = Instant::now();
        let is_congested = |round: &u64| {
            let numbers = round * PER_ROUND..(round + 1) * PER_ROUND;
            let lost = numbers.filter(|number| number % every == 0).count() as u64;
            let now = begun + rtt * u32::try_from(*round).unwrap_or(u32::MAX);
            losses.acknowledged((PER_ROUND - lost) * PACKET, rtt, now);
            lost > 0 && losses.are_congestion(lost * PACKET)
        };
        (0..rounds).filter(is_congested).count() as u64
    }

    #[test]
    fn random_losses_are_no_congestion_and_many_or_a_queue_are() {
        let mut losses = Losses::default();
        assert_eq!(congested(&mut losses, 100, RTT, 1_000), 0, "1 %");
        assert_eq!(congested(&mut losses, 100, 3 * RTT, 50), 50, "a queue");
        let mut losses = Losses::default();
        let rounds = congested(&mut losses, 10, RTT, 100);
        assert!((40..=60).contains(&rounds), "10 %: {rounds}");
        let mut losses = Losses::default();
        assert_eq!(congested(&mut losses, 100, RTT + JITTER / 2, 100), 0);
        assert_eq!(congested(&mut losses, 100, RTT, 100), 0, "jitter");
    }

    #[test]
    fn without_datagrams_it_is_plain_cubic_and_a_mark_or_a_dead_path_counts_always() {
        let now = Instant::now();
        let mut control = build(Congestion::Cubic, now);
        let before = control.window();
        control.on_congestion_event(now, now, false, PACKET);
        assert!(control.window() < before, "a loss");
        for (is_persistent, lost) in [(false, 0), (true, PACKET)] {
            let mut control = build(Congestion::Cubic, now);
            control.flight.admits(1_200, 0, now);
            control.on_congestion_event(now, now, false, PACKET);
            assert_eq!(control.window(), before, "one loss");
            control.on_congestion_event(now, now, is_persistent, lost);
            assert!(control.window() < before, "{is_persistent}");
        }
    }
    #[test]
    fn the_window_of_the_path_is_taken_up_with_the_next_packet_and_never_a_smaller_one() {
        for congestion in Congestion::ALL {
            let now = Instant::now();
            let mut control = build(congestion, now);
            let first = control.window();
            control.flight.set_known(first - 1);
            control.on_sent(now, PACKET, 1);
            assert_eq!(control.window(), first);
            control.flight.set_known(400_000);
            control.on_sent(now, PACKET, 2);
            assert_eq!(control.window(), 400_000);
            control.on_congestion_event(now, now, true, PACKET);
            let after = control.window();
            control.on_sent(now, PACKET, 3);
            assert_eq!(control.window(), after, "once");
        }
    }
}
