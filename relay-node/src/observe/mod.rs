//! What a relay shows of itself: output, metrics, readiness and status. It only looks.

pub(crate) mod control;
pub(crate) mod metrics;
pub(crate) mod observer;
pub(crate) mod output;
pub(crate) mod readiness;
pub(crate) mod status;
pub(crate) mod table;
