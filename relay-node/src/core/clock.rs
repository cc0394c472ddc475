//! The time as an argument.

use std::time::{Instant, SystemTime};

/// What both clocks of the host show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: every wait and every timeout.
    pub instant: Instant,
    /// The wall clock, which may jump: when a token expires, and which end of a reservation a peer is sent.
    pub wall: SystemTime,
}
