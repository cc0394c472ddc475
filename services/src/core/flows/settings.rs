//! Bounds of flows.

use std::time::Duration;

use crate::config::UDP_IDLE;

/// Bounds of all flows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a flow of a forward lives without a datagram.
    pub idle: Duration,
    /// The most flows of one peer, in each role.
    pub flows_per_peer: usize,
    /// The most flows of all peers, in each role.
    pub flows: usize,
    /// What the queues of one peer may hold.
    pub bytes_per_peer: usize,
    /// What all queues may hold.
    pub bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle: UDP_IDLE,
            flows_per_peer: 4_096,
            flows: 16_384,
            bytes_per_peer: 4 << 20,
            bytes: 32 << 20,
        }
    }
}
