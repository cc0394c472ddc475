//! How long a NAT keeps a mapping that is used, and when a path through it is to be left.
//!
//! Some carriers drop a mapping after a minute, whether it is used or not. A relay looks at the punch socket every second. If it
//! sees another port although no look was missed, the NAT has dropped the mapping, whose age then is the lifetime.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::config::Rotate;

/// How often the relay looks: while a mapping is as young as that of a carrier that drops it, afterwards, and once it is old.
const LOOKS: [(Duration, Duration); 2] = [
    (Duration::from_secs(90), Duration::from_secs(1)),
    (Duration::from_secs(600), Duration::from_secs(5)),
];
const SELDOM: Duration = Duration::from_secs(30);

/// Looks that may be missed in a row. After more of them nobody knows how old the mapping was.
const MISSED: u32 = 3;

/// A shorter lifetime than this is that of a NAT that restarts.
const SHORTEST: Duration = Duration::from_secs(4);

/// How long mappings live here.
#[derive(Debug)]
pub(crate) struct Aging {
    rotate: Rotate,
    watched: Option<Watched>,
    measured: Option<Duration>,
}

#[derive(Debug)]
struct Watched {
    mapped: SocketAddr,
    since: Instant,
    seen: Instant,
}

impl Aging {
    pub(crate) const fn new(rotate: Rotate) -> Self {
        Self {
            rotate,
            watched: None,
            measured: None,
        }
    }

    /// Whether a relay is to look again and again.
    pub(crate) fn is_measured(&self) -> bool {
        self.rotate != Rotate::Off
    }

    /// How long after a look the next one follows, if the mapping is so old.
    pub(crate) fn interval(age: Duration) -> Duration {
        let looks = LOOKS.iter().find(|(until, _)| age < *until);
        looks.map_or(SELDOM, |(_, interval)| *interval)
    }

    /// A relay sees the punch socket here. Returns the lifetime, if this shows one.
    pub(crate) fn handle_seen(&mut self, mapped: SocketAddr, now: Instant) -> Option<Duration> {
        let new = Watched {
            mapped,
            since: now,
            seen: now,
        };
        let Some(known) = &mut self.watched else {
            self.watched = Some(new);
            return None;
        };
        if known.mapped == mapped {
            known.seen = now;
            let age = now - known.since;
            // It was a restart then.
            self.measured.take_if(|lifetime| age > *lifetime * 2);
            return None;
        }
        let age = known.seen - known.since;
        let is_regular = now - known.seen <= Self::interval(age) * MISSED;
        let shows = is_regular && age >= SHORTEST && known.mapped.ip() == mapped.ip();
        self.watched = Some(new);
        let lifetime = self.measured.map_or(age, |known| known.min(age));
        shows.then(|| *self.measured.insert(lifetime))
    }

    /// This host has other addresses: perhaps it is behind another NAT.
    pub(crate) fn handle_network_changed(&mut self) {
        self.watched = None;
        self.measured = None;
    }

    /// How long mappings at this address were seen to live.
    pub(crate) fn measured(&self) -> Option<(IpAddr, Duration)> {
        let at = self.watched.as_ref()?.mapped.ip();
        Some((at, self.measured?))
    }

    /// How long a mapping lives, if it dies of age.
    pub(crate) const fn lifetime(&self) -> Option<Duration> {
        match self.rotate {
            Rotate::Off => None,
            Rotate::Auto => self.measured,
            Rotate::After(age) => Some(age),
        }
    }

    /// When to leave a path that is up since then: after half a lifetime, so that several tries fit into the other half. The mapping
    /// of the punch socket may be older than the path.
    pub(crate) fn leave_at(&self, since: Instant, is_punch_socket: bool) -> Option<Instant> {
        let mapping = self.watched.as_ref().filter(|_| is_punch_socket);
        let since = mapping.map_or(since, |mapping| since.min(mapping.since));
        self.lifetime().map(|lifetime| since + lifetime / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 7], port))
    }

    /// What is measured behind a NAT that drops each mapping at this age.
    fn measured(lifetime: u64, seconds: u64) -> Option<u64> {
        let (mut aging, began) = (Aging::new(Rotate::Auto), Instant::now());
        let (mut elapsed, mut age) = (Duration::ZERO, Duration::ZERO);
        while elapsed < Duration::from_secs(seconds) {
            let nth = elapsed.as_secs() / lifetime;
            aging.handle_seen(at(1_000 + u16::try_from(nth).unwrap_or(0)), began + elapsed);
            age = Duration::from_secs(elapsed.as_secs() % lifetime).max(age / 2);
            elapsed += Aging::interval(age);
        }
        aging.lifetime().map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn a_lifetime_is_measured_to_the_interval_and_never_longer_than_it_is() {
        for (lifetime, least) in [(5, 3), (60, 57), (75, 72), (300, 285)] {
            let measured = measured(lifetime, 1_200);
            assert!(
                measured.is_some_and(|measured| (least..=lifetime).contains(&measured)),
                "{lifetime}: {measured:?}"
            );
        }
        assert_eq!(measured(10_000, 3_600), None);
    }

    #[test]
    fn a_restart_counts_until_a_mapping_has_outlived_it_and_a_gap_shows_nothing() {
        let (mut aging, began) = (Aging::new(Rotate::Auto), Instant::now());
        let second = |nth| began + Duration::from_secs(nth);
        for nth in 0..40 {
            aging.handle_seen(at(1), second(nth));
        }
        aging.handle_seen(at(2), second(40));
        assert_eq!(aging.lifetime(), Some(Duration::from_secs(39)));
        assert_eq!(
            aging.measured(),
            aging.lifetime().map(|of| (at(2).ip(), of))
        );
        for nth in 41..130 {
            aging.handle_seen(at(2), second(nth));
        }
        assert_eq!(aging.lifetime(), None);
        aging.handle_seen(at(3), second(200));
        assert_eq!(aging.lifetime(), None, "nobody knows when it died");
        let given = Aging::new(Rotate::After(Duration::from_secs(60)));
        assert_eq!(given.leave_at(began, false), Some(second(30)));
        assert_eq!(Aging::new(Rotate::Off).leave_at(began, true), None);
    }
}
