//! What a relay has to bear.

pub(crate) mod hop;
pub(crate) mod slow;
