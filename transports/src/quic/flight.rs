//! What a connection may send at present, as its congestion control knows it, and which datagrams it takes.
//!
//! quinn queues datagrams that the congestion window has no room for, and bounds that queue by bytes. On a slow path the same bytes
//! are a long time, and each datagram would wait for all before it. So a datagram is dropped if it would wait longer than [`WAIT`].
//! quinn sends datagrams before the data of streams, so they get [`SHARE`] of the rate at most. Decision 0713.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

/// How long a datagram may wait for those before it.
const WAIT: Duration = Duration::from_millis(5);

/// What waits even if that takes longer: a path that carries less than this in [`WAIT`] is slow for any datagram.
const LEAST: u64 = 4 * PACKET;

/// What quinn sends at once: ten packets, or what it sends in 2 ms (`quinn-proto`, `connection/pacing.rs`).
const BURST: u64 = 10 * PACKET;
const BURST_TIME: Duration = Duration::from_millis(2);

/// A packet, about.
const PACKET: u64 = 1_400;

/// How much of the rate datagrams get at most: the numerator and the denominator.
const SHARE: (u64, u64) = (7, 8);

/// How long a connection counts as one that carries datagrams.
pub(super) const RECENTLY: Duration = Duration::from_secs(1);

/// Shared by the congestion control of a connection and what sends its datagrams.
#[derive(Debug)]
pub(super) struct Flight {
    begun: Instant,
    /// The congestion window, in bytes.
    window: AtomicU64,
    /// The window to take up with the next packet. 0: none.
    known: AtomicU64,
    /// Bytes that were sent and are neither acknowledged nor lost. Between acknowledgements those that ask for none are among them.
    in_flight: AtomicU64,
    /// Packets that were acknowledged.
    acknowledged: AtomicU64,
    /// The smoothed round trip, in microseconds.
    rtt: AtomicU64,
    /// When the last datagram was offered, in microseconds after `begun`, plus one. 0: none was.
    offered: AtomicU64,
    taken: Mutex<Taken>,
}

/// Bytes of datagrams that the share of the rate has not carried yet.
#[derive(Debug)]
struct Taken {
    level: u64,
    at: Instant,
}

impl Flight {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            window: AtomicU64::new(0),
            known: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            rtt: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            taken: Mutex::new(Taken { level: 0, at: now }),
        }
    }

    pub(super) fn set_window(&self, window: u64) {
        self.window.store(window, Release);
    }

    /// Another connection has found this window on the same path.
    pub(super) fn set_known(&self, window: u64) {
        self.known.store(window, Relaxed);
    }

    /// The window to take up now.
    pub(super) fn take_known(&self) -> Option<u64> {
        let is_known = self.known.load(Relaxed) > 0;
        is_known.then(|| self.known.swap(0, Relaxed))
    }

    pub(super) fn set_in_flight(&self, bytes: u64) {
        self.in_flight.store(bytes, Relaxed);
    }

    /// A packet was sent.
    pub(super) fn sent(&self, bytes: u64) {
        self.in_flight.fetch_add(bytes, Relaxed);
    }

    /// The remote has acknowledged a packet.
    pub(super) fn acknowledged(&self) {
        self.acknowledged.fetch_add(1, Relaxed);
    }

    /// How many packets the remote has acknowledged.
    pub(super) fn acknowledgements(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    pub(super) fn set_rtt(&self, rtt: Duration) {
        self.rtt.store(micros(rtt), Relaxed);
    }

    /// Whether datagrams were offered lately.
    pub(super) fn carries_datagrams(&self, now: Instant) -> bool {
        let offered = self.offered.load(Relaxed);
        offered > 0 && self.since_begin(now) < offered + micros(RECENTLY)
    }

    /// Whether the connection takes a datagram of `length` bytes, while `queued` bytes of earlier ones wait.
    pub(super) fn admits(&self, length: usize, queued: usize, now: Instant) -> bool {
        let (length, queued) = (length as u64, queued as u64);
        let Some(rate) = self.offer(now) else {
            return queued + length <= self.window.load(Acquire);
        };
        let in_flight = self.in_flight.load(Relaxed);
        let free = rate.window.saturating_sub(in_flight).min(rate.burst());
        queued + length <= free + rate.waits() && self.take(length, length, &rate, now)
    }

    /// The same of one that a stream carries, since it is longer than the datagrams of the path. quinn keeps megabytes of a stream, so
    /// only the datagrams that were taken before count. One of any length is taken if those are gone.
    pub(super) fn admits_on_stream(&self, length: usize, now: Instant) -> bool {
        let rate = self.offer(now);
        rate.is_none_or(|rate| self.take(length as u64, 0, &rate, now))
    }

    /// A datagram is offered. Returns what the connection carries, if the round trip is known.
    fn offer(&self, now: Instant) -> Option<Rate> {
        self.offered.store(self.since_begin(now) + 1, Relaxed);
        let (window, rtt) = (self.window.load(Acquire), self.rtt.load(Relaxed));
        (rtt > 0).then_some(Rate { window, rtt })
    }

    /// Takes `length` bytes, if what was taken before and is not carried yet leaves room for `own` bytes of them.
    fn take(&self, length: u64, own: u64, rate: &Rate, now: Instant) -> bool {
        // Nothing panics while it holds the lock.
        let taken = &mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = rate.carried_in(now.saturating_duration_since(taken.at));
        if carried > 0 {
            taken.at = now;
            taken.level = taken.level.saturating_sub(carried * SHARE.0 / SHARE.1);
        }
        let fits = taken.level + own <= rate.burst() + rate.waits();
        taken.level += if fits { length } else { 0 };
        fits
    }

    fn since_begin(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.begun))
    }
}

/// What a connection carries: a window of bytes in each round trip, in microseconds.
struct Rate {
    window: u64,
    rtt: u64,
}

impl Rate {
    fn carried_in(&self, time: Duration) -> u64 {
        self.window.saturating_mul(micros(time)) / self.rtt
    }

    fn burst(&self) -> u64 {
        BURST.max(self.carried_in(BURST_TIME))
    }

    fn waits(&self) -> u64 {
        LEAST.max(self.carried_in(WAIT))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 1_200;

    /// Offers datagrams at that pace for a second to a path that carries `window` in a round trip of 20 ms. Returns how many are taken,
    /// and the longest that one waits.
    fn offered_each(pace: Duration, window: u64) -> (u64, Duration) {
        let begun = Instant::now();
        let flight = Flight::new(begun);
        flight.set_window(window);
        flight.set_in_flight(window);
        flight.set_rtt(Duration::from_millis(20));
        let (mut queued, mut carried, mut taken) = (0.0_f64, begun, 0);
        let mut longest = Duration::ZERO;
        let rate = window as f64 / 0.02;
        let mut now = begun;
        while now < begun + Duration::from_secs(1) {
            queued = (queued - (now - carried).as_secs_f64() * rate).max(0.0);
            carried = now;
            if flight.admits(LENGTH, queued as usize, now) {
                queued += LENGTH as f64;
                longest = longest.max(Duration::from_secs_f64(queued / rate));
                taken += 1;
            }
            now += pace;
        }
        (taken, longest)
    }

    #[test]
    fn datagrams_beyond_the_rate_are_dropped_before_they_wait_and_leave_room_for_streams() {
        // 10 MB/s take 8,333 datagrams a second.
        let (taken, longest) = offered_each(Duration::from_micros(20), 200_000);
        assert!((7_000..7_400).contains(&taken), "{taken}");
        assert!(longest < Duration::from_millis(8), "{longest:?}");
        // 5,000 a second are less than their share.
        let (taken, longest) = offered_each(Duration::from_micros(200), 200_000);
        assert_eq!(taken, 5_000);
        assert!(longest < Duration::from_millis(1), "{longest:?}");
        // 600 kB/s, as a new connection has: a few packets wait longer.
        let (taken, longest) = offered_each(Duration::from_micros(100), 12_000);
        assert!((430..500).contains(&taken), "{taken}");
        assert!(longest < Duration::from_millis(12), "{longest:?}");
    }

    #[test]
    fn a_stream_is_given_its_share_of_the_rate_and_takes_a_long_datagram_when_nothing_waits() {
        let begun = Instant::now();
        let flight = Flight::new(begun);
        // 600 kB/s, of which datagrams have 525.
        flight.set_window(12_000);
        assert!(flight.admits_on_stream(LENGTH, begun), "no round trip");
        flight.set_rtt(Duration::from_millis(20));
        let offered = (0..10_000).map(|tick| begun + Duration::from_micros(100) * tick);
        let taken = offered.filter(|now| flight.admits_on_stream(LENGTH, *now));
        let taken = taken.count();
        assert!((430..460).contains(&taken), "{taken}");
        let later = begun + Duration::from_secs(2);
        assert!(flight.admits_on_stream(65_507, later));
        assert!(!flight.admits_on_stream(LENGTH, later), "behind it");
        assert!(flight.admits_on_stream(65_507, later + Duration::from_millis(120)));
    }

    #[test]
    fn a_burst_goes_as_far_as_the_window_is_free() {
        let now = Instant::now();
        let flight = Flight::new(now);
        flight.set_window(12_000);
        let burst = |flight: &Flight| {
            let mut queued = 0;
            while queued < 100_000 && flight.admits(LENGTH, queued, now) {
                queued += LENGTH;
            }
            queued / LENGTH
        };
        assert_eq!(burst(&flight), 10, "before the round trip is known");
        assert!(flight.carries_datagrams(now) && !flight.carries_datagrams(now + 2 * RECENTLY));
        flight.set_rtt(Duration::from_millis(20));
        assert_eq!(burst(&flight), 14);
        let flight = Flight::new(now);
        flight.set_window(12_000);
        flight.set_in_flight(12_000);
        flight.set_rtt(Duration::from_millis(20));
        assert_eq!(burst(&flight), 4, "the window is full");
    }
}
