//! What all connections together may take before the memory of the process is looked at again.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The bytes that are left. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<AtomicI64>);

impl Room {
    /// No limit.
    pub(crate) fn unlimited() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }

    /// So many bytes are left from now on. Whether there were none, so that somebody may wait for them.
    pub(crate) fn set(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.swap(bytes, Ordering::AcqRel) <= 0 && bytes > 0
    }

    /// Whether nothing is left.
    pub(crate) fn is_short(&self) -> bool {
        self.0.load(Ordering::Acquire) <= 0
    }

    /// Memory of that size is about to be taken.
    pub(crate) fn take(&self, bytes: u64) {
        // What is left is set again before it can underflow.
        if bytes > 0 && self.0.load(Ordering::Relaxed) != i64::MAX {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.0.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_missing_until_the_next_look_and_who_waits_is_named_once() {
        let room = Room::unlimited();
        room.take(u64::MAX);
        assert!(!room.is_short());
        assert!(!room.set(100));
        room.take(99);
        assert!(!room.is_short());
        room.take(1000);
        assert!(room.is_short());
        assert!(!room.set(0), "there is still nothing");
        assert!(room.set(1) && !room.is_short());
        assert!(!room.set(2));
    }
}
