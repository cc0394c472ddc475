//! The process takes no new connections above `limits.memory`.

use std::time::{Duration, Instant};

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

    /// Whether one more connection is taken at `now`. If what is known is too old, `measure` returns the bytes that are resident,
    /// where the system counts them.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        measure: impl FnOnce() -> Option<u64>,
    ) -> Result<(), Denied> {
        if self.limit == 0 {
            return Ok(());
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
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_refused_above_the_limit_and_taken_again_below_it() {
        let (mut memory, now) = (Memory::new(100), Instant::now());
        assert_eq!(memory.check(now, || Some(100)), Ok(()));
        let later = now + FRESH;
        let exceeded = Err(Denied::Memory {
            resident: 101,
            limit: 100,
        });
        assert_eq!(memory.check(later, || Some(101)), exceeded);
        assert_eq!(
            memory.check(later, || Some(1)),
            exceeded,
            "measured just now"
        );
        assert_eq!(memory.check(later + FRESH, || Some(1)), Ok(()));
        assert_eq!(memory.check(later + FRESH * 2, || None), Ok(()), "unknown");
        let mut unlimited = Memory::new(0);
        assert_eq!(unlimited.check(now, || Some(u64::MAX)), Ok(()));
    }
}
