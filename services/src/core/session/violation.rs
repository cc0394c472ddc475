//! What a peer may not do.

/// What a peer did that the protocol forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Data at offsets where no data can be.
    #[error("the peer {0}")]
    Offset(&'static str),
    /// A confirmation of, or a request for, what was never sent.
    #[error("the peer {0}")]
    Confirmation(&'static str),
    /// A frame where it has no place.
    #[error("the peer {0}")]
    Order(&'static str),
}

impl Violation {
    /// Its kind, as metrics name it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Offset(_) => "offset",
            Self::Confirmation(_) => "confirmation",
            Self::Order(_) => "order",
        }
    }
}
