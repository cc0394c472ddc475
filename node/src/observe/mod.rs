//! What a node shows of itself: output, metrics, readiness and status. It only looks.

pub(crate) mod metrics;
pub(crate) mod observers;
pub(crate) mod output;
pub(crate) mod readiness;
pub(crate) mod snapshot;
pub(crate) mod status;
