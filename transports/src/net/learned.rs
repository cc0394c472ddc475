//! What dials have learned about paths. Pure: the caller says what time it is.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How many findings are remembered; the oldest is forgotten first.
const CAPACITY: usize = 256;

/// How long a narrow path is remembered.
const NARROW: Duration = Duration::from_secs(3600);

/// How long a port rests: as long as Linux's conntrack remembers a connection whose data nobody acknowledges, which is longer than it
/// remembers a SYN.
const REST: Duration = Duration::from_secs(300);

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Only small packets get through, and no router says so.
    Mtu,
    /// Packets from this port are lost, and those from another port are not: a NAT or a firewall still remembers an earlier connection.
    /// The port is not used for this remote until the device has forgotten it.
    Conntrack {
        /// The port that rests.
        port: u16,
    },
}

/// Something that a dial has learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The far end of the path.
    pub remote: SocketAddr,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is remembered of that, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lessons(VecDeque<(Learned, Instant)>);

impl Lessons {
    pub(crate) fn add(&mut self, learned: Learned, now: Instant) {
        self.0
            .retain(|(known, since)| *known != learned && is_fresh(known, *since, now));
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back((learned, now));
    }

    /// Whether this port rests for this remote.
    pub(crate) fn is_resting(&self, port: u16, remote: SocketAddr, now: Instant) -> bool {
        let trouble = Trouble::Conntrack { port };
        self.fresh(now)
            .any(|known| known == Learned { remote, trouble })
    }

    pub(crate) fn fresh(&self, now: Instant) -> impl Iterator<Item = Learned> {
        let fresh = move |(known, since): &&(Learned, Instant)| is_fresh(known, *since, now);
        self.0.iter().filter(fresh).map(|(known, _)| *known)
    }
}

fn is_fresh(learned: &Learned, since: Instant, now: Instant) -> bool {
    let lifetime = match learned.trouble {
        Trouble::Mtu => NARROW,
        Trouble::Conntrack { .. } => REST,
    };
    now.duration_since(since) < lifetime
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_port_rests_for_its_remote_until_the_nat_has_forgotten_it() {
        let (mut lessons, now) = (Lessons::default(), Instant::now());
        let trouble = Trouble::Conntrack { port: 40_000 };
        let learned = Learned {
            remote: remote(1),
            trouble,
        };
        lessons.add(learned, now);
        assert!(lessons.is_resting(40_000, remote(1), now));
        assert!(!lessons.is_resting(40_000, remote(2), now));
        assert!(!lessons.is_resting(40_001, remote(1), now));
        assert!(!lessons.is_resting(40_000, remote(1), now + REST));
        // It is seen again: the rest begins again.
        lessons.add(learned, now + REST / 2);
        assert!(lessons.is_resting(40_000, remote(1), now + REST));
        assert_eq!(lessons.fresh(now + REST).count(), 1);
    }

    #[test]
    fn a_narrow_path_is_remembered_for_an_hour_and_the_oldest_makes_room() {
        let (mut lessons, now) = (Lessons::default(), Instant::now());
        for port in 0..=256 {
            let trouble = Trouble::Mtu;
            lessons.add(
                Learned {
                    remote: remote(port),
                    trouble,
                },
                now,
            );
        }
        assert_eq!(lessons.fresh(now).count(), CAPACITY);
        assert!(lessons.fresh(now).all(|known| known.remote != remote(0)));
        assert_eq!(lessons.fresh(now + NARROW).count(), 0);
    }
}
