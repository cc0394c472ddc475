//! Whole scenarios, by subject.

mod dial;
