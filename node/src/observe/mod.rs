//! The views of a node: output, metrics, readiness and status. They change nothing.

pub(crate) mod metrics;
pub(crate) mod observers;
pub(crate) mod output;
pub(crate) mod readiness;
pub(crate) mod snapshot;
pub(crate) mod status;
