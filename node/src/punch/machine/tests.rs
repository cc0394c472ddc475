//! Two machines under virtual time, over a network that delays, loses and reorders.

#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod hostile;
mod introduced;
mod pair;
mod preference;
mod same_nat;
mod sim;
mod used;
