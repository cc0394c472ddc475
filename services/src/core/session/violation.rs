//! What a peer may not do.

/// What a peer did that the protocol forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer {0}")]
pub struct Violation(pub(crate) &'static str);
