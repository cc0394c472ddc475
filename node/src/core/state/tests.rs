//! Decisions that cross machines.
