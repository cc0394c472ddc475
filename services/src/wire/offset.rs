//! How far offsets go.

/// The greatest offset: half of what 64 bits count.
pub(super) const MAX_OFFSET: u64 = u64::MAX >> 1;
