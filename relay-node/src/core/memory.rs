//! The process takes no new connections above `limits.memory`.

use std::time::{Duration, Instant};

use p2pnode_daemon::memory::handshakes;

use crate::core::denied::Denied;

/// How old a measurement may be: a flood of connections costs one in this time, and no memory worth the name is taken in it.
const FRESH: Duration = Duration::from_millis(10);

/// The limit, and what was measured last.
#[derive(Debug)]
pub(crate) struct Memory {
    /// In bytes; 0 is none.
    limit: u64,
    measured: Option<(Instant, u64)>,
}

impl Memory {
    /// Refuses above `limit` bytes, of which 0 is none.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            measured: None,
        }
    }

    /// For how many handshakes at once there is room at `now`. If what is known is too old, `measure` returns the bytes that are resident,
    /// where the system counts them.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        measure: impl FnOnce() -> Option<u64>,
    ) -> Result<usize, Denied> {
        if self.limit == 0 {
            return Ok(usize::MAX);
        }
        let fresh = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) < FRESH;
        if !self.measured.as_ref().is_some_and(fresh) {
            self.measured = measure().map(|resident| (now, resident));
        }
        match self.measured {
            Some((_, resident)) if resident > self.limit => Err(Denied::Memory {
                resident,
                limit: self.limit,
            }),
            Some((_, resident)) => Ok(handshakes(self.limit - resident)),
            None => Ok(usize::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_refused_above_the_limit_and_taken_again_below_it() {
        const LIMIT: u64 = 100 << 20;
        let (mut memory, now) = (Memory::new(LIMIT), Instant::now());
        assert_eq!(memory.check(now, || Some(LIMIT)), Ok(0));
        let later = now + FRESH;
        let exceeded = Err(Denied::Memory {
            resident: LIMIT + 1,
            limit: LIMIT,
        });
        assert_eq!(memory.check(later, || Some(LIMIT + 1)), exceeded);
        let again = memory.check(later, || Some(1));
        assert_eq!(again, exceeded, "measured just now");
        let half = memory.check(later + FRESH, || Some(LIMIT / 2));
        assert_eq!(half, Ok(handshakes(LIMIT / 2)));
        let unknown = memory.check(later + FRESH * 2, || None);
        assert_eq!(unknown, Ok(usize::MAX));
        let mut unlimited = Memory::new(0);
        assert_eq!(unlimited.check(now, || Some(u64::MAX)), Ok(usize::MAX));
    }
}
