//! How a target learns who calls: a header before the first byte.

pub mod proxy;
