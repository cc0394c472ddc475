//! What is done at each look at the memory. Pure.

use std::time::{Duration, Instant};

/// The longest time between two looks.
const CALM: Duration = Duration::from_millis(100);

/// The shortest.
const CLOSE: Duration = Duration::from_millis(2);

/// How fast strangers may fill the memory, in bytes a millisecond: a gigabyte a second. The next look comes before the memory can
/// exceed the limit by a tenth.
const FILLS: u64 = 1_000_000;

/// In this time the memory of a closed connection is free: its task has to see the end.
const FREES: Duration = Duration::from_millis(100);

/// The longest time between two trims that brought nothing, while little room is left.
const USELESS: Duration = Duration::from_secs(10);

/// The memory of the process and what was done about it.
#[derive(Debug)]
pub(super) struct Watch {
    limit: u64,
    /// What was closed since, in bytes. It is not closed a second time.
    closed: u64,
    since: Option<Instant>,
    trimmed: Option<Trimmed>,
}

#[derive(Debug, Clone, Copy)]
struct Trimmed {
    at: Instant,
    /// What was resident before.
    resident: u64,
    /// When the next one comes, if this one brings nothing.
    pause: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Bytes that may be taken until the next look.
    pub(super) room: u64,
    /// Close connections of strangers that hold so many bytes.
    pub(super) close: u64,
    /// If these do not hold so many, others too.
    pub(super) of_others: u64,
    /// Have the allocator return what is free.
    pub(super) trim: bool,
    /// The time until the next look.
    pub(super) pause: Duration,
}

impl Watch {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            closed: 0,
            since: None,
            trimmed: None,
        }
    }

    /// So many bytes are resident.
    pub(super) fn handle_resident(&mut self, resident: u64, now: Instant) -> Look {
        let room = self.limit.saturating_sub(resident);
        let is_over = |since| now.saturating_duration_since(since) >= FREES;
        if self.since.is_none_or(is_over) {
            (self.closed, self.since) = (0, Some(now));
        }
        // Strangers leave before the limit is reached, so that newcomers find room; others only for what is above it.
        let close = if resident > self.limit - self.spare() {
            resident - (self.limit - 2 * self.spare())
        } else {
            0
        };
        let of_others = resident.saturating_sub(self.limit);
        Look {
            room,
            close: close.saturating_sub(self.closed),
            of_others: of_others.saturating_sub(self.closed),
            trim: self.trims(resident, now),
            pause: pause(resident, self.limit),
        }
    }

    /// Connections that hold so many bytes are being closed.
    pub(super) fn handle_closed(&mut self, bytes: u64) {
        self.closed += bytes;
    }

    fn spare(&self) -> u64 {
        self.limit / 16
    }

    /// What is free and not returned looks like memory that is taken, so little room is reason enough.
    fn trims(&mut self, resident: u64, now: Instant) -> bool {
        if resident <= self.limit - self.spare() {
            self.trimmed = None;
            return false;
        }
        let pause = match self.trimmed {
            Some(last) if now.saturating_duration_since(last.at) < last.pause => return false,
            // Above the limit something is being freed.
            Some(last) if resident <= self.limit && resident >= last.resident => {
                (last.pause * 2).min(USELESS)
            }
            _ => FREES,
        };
        self.trimmed = Some(Trimmed {
            at: now,
            resident,
            pause,
        });
        true
    }
}

/// When to look again.
fn pause(taken: u64, limit: u64) -> Duration {
    let room = (limit + limit / 10).saturating_sub(taken);
    Duration::from_millis(room / FILLS).clamp(CLOSE, CALM)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_memory_is_looked_at_before_it_can_exceed_the_limit_by_a_tenth() {
        for limit in [16 * MIB, 64 * MIB, 400 * MIB, 8192 * MIB] {
            for taken in [0, limit / 4, limit / 2, limit / 5 * 4, limit] {
                let pause = pause(taken, limit);
                let filled = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) * FILLS;
                assert!(
                    pause == CLOSE || taken + filled <= limit + limit / 10,
                    "{taken} {pause:?}"
                );
            }
        }
        assert_eq!(pause(100 * MIB, 400 * MIB), CALM, "an idle program");
        assert_eq!(pause(500 * MIB, 400 * MIB), CLOSE);
    }

    #[test]
    fn close_to_the_limit_the_excess_is_closed_once_and_again_if_it_was_not_freed_in_time() {
        let (mut watch, now) = (Watch::new(160 * MIB), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        let mut look = |resident, ms, closed| {
            let look = watch.handle_resident(resident * MIB, at(ms));
            watch.handle_closed(closed * MIB);
            [look.room, look.close, look.of_others].map(|bytes| bytes / MIB)
        };
        assert_eq!(look(150, 0, 0), [10, 0, 0]);
        // Strangers down to two sixteenths below the limit, others down to the limit.
        assert_eq!(look(155, 2, 0), [5, 15, 0]);
        assert_eq!(look(165, 4, 3), [0, 25, 5]);
        assert_eq!(look(165, 6, 23), [0, 22, 2]);
        assert_eq!(look(167, 8, 0), [0, 1, 0]);
        assert_eq!(look(165, 100, 25), [0, 25, 5]);
        assert_eq!(look(150, 102, 0), [10, 0, 0]);
        assert_eq!(look(100, 104, 0), [60, 0, 0]);
    }

    #[test]
    fn what_is_free_is_returned_while_little_room_is_left_and_seldom_if_nothing_is_free() {
        let (mut watch, now) = (Watch::new(160 * MIB), Instant::now());
        let mut trims = |resident, ms: std::ops::Range<u64>| {
            let looks = ms.step_by(10).filter(|ms| {
                watch
                    .handle_resident(resident, now + Duration::from_millis(*ms))
                    .trim
            });
            looks.count()
        };
        assert_eq!(trims(150 * MIB, 0..1000), 0);
        assert_eq!(trims(161 * MIB, 1000..2000), 10, "above the limit");
        assert_eq!(trims(155 * MIB, 2000..62_000), 12, "nothing is free");
        assert_eq!(trims(150 * MIB, 62_000..62_100), 0);
        assert_eq!(trims(155 * MIB, 62_100..62_110), 1);
    }
}
