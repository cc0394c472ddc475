//! Which ports are tried in place of a silent punch port, of one transport and family. Pure: no socket, no clock.

use std::time::{Duration, Instant};

use p2pnode_protocol::bucket::{Bucket, Measure};

use crate::net::pool::PortPool;

/// Ports that are tried in place of a silent punch port, of each transport and family, whatever is dialed.
pub(crate) const ALTERNATIVES: Measure = Measure {
    burst: 8,
    period: Duration::from_secs(20),
};

#[derive(Debug)]
pub(crate) struct Alternatives {
    /// Ports of dials that were tried since one was answered.
    tried: Vec<u16>,
    /// What is left of [`ALTERNATIVES`].
    left: Bucket,
}

impl Alternatives {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            tried: Vec::new(),
            left: Bucket::full(ALTERNATIVES, now),
        }
    }

    /// Claims the next port to try: far from the punch port and from those that were tried before. `None` beyond [`ALTERNATIVES`], or if
    /// no port is free.
    pub(crate) fn claim(
        &mut self,
        punch: Option<u16>,
        pool: &mut PortPool,
        now: Instant,
    ) -> Option<u16> {
        if !self.left.has_left(ALTERNATIVES, now) {
            return None;
        }
        let silent: Vec<_> = punch
            .into_iter()
            .chain(self.tried.iter().copied())
            .collect();
        let silent = match silent.len() < pool.range().len() {
            true => silent,
            false => {
                self.tried.clear();
                punch.into_iter().collect()
            }
        };
        let port = pool.claim_far(silent, now).ok()?;
        self.tried.push(port);
        Some(port)
    }

    /// A port that was claimed can be tried. Whether the budget still has it: another dial may have claimed one in the meantime.
    pub(crate) fn is_tried(&mut self, now: Instant) -> bool {
        self.left.admits(ALTERNATIVES, now)
    }

    /// A dial was answered.
    pub(crate) fn answered(&mut self) {
        self.tried.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    #[test]
    fn two_dials_at_once_try_ports_that_are_far_from_each_others() {
        let now = Instant::now();
        let mut pool = PortPool::new("40000-40063".parse().unwrap(), b"a");
        let mut others = Alternatives::new(now);
        let punch = pool.claim_beside(&[], now).unwrap();
        let mut tried = vec![punch];
        for _ in 0..7 {
            // Each claims before the port of the other is locked.
            let port = others.claim(Some(punch), &mut pool, now).unwrap();
            let near = tried.iter().map(|other| port.abs_diff(*other)).min();
            assert!(near.unwrap() >= 8, "{port} of {tried:?}");
            tried.push(port);
        }
    }

    #[test]
    fn an_answer_is_not_undone_by_a_dial_that_had_begun() {
        let now = Instant::now();
        let mut pool = PortPool::new("40000-40063".parse().unwrap(), b"a");
        let mut others = Alternatives::new(now);
        let far = others.claim(Some(40_000), &mut pool, now).unwrap();
        others.answered();
        assert!(others.is_tried(now));
        pool.release(far, None);
        assert_eq!(others.claim(Some(40_000), &mut pool, now), Some(far));
    }

    #[test]
    fn a_port_costs_budget_only_if_it_is_free() {
        let now = Instant::now();
        let mut pool = PortPool::new("40000-40001".parse().unwrap(), b"a");
        let mut others = Alternatives::new(now);
        for port in [40_000, 40_001] {
            assert!(pool.claim_port(port));
        }
        for _ in 0..20 {
            assert_eq!(others.claim(Some(40_000), &mut pool, now), None);
        }
        pool.release(40_001, None);
        assert_eq!(others.claim(Some(40_000), &mut pool, now), Some(40_001));
        let admitted = (0..20).filter(|_| others.is_tried(now)).count();
        assert_eq!(admitted, 8);
        pool.release(40_001, None);
        assert_eq!(others.claim(Some(40_000), &mut pool, now), None);
    }
}
