//! How a target learns who calls: by a header before the first byte, or by the source address.

pub mod address;
pub mod proxy;
