//! How a target learns who calls.

