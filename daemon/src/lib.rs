//! What both binaries need: identity files, logging, signals, admin HTTP, loading of configuration, and the commands that
//! are the same in both.

pub mod admin;
pub mod backoff;
pub mod command;
pub mod config;
pub mod control;
pub mod exit;
pub mod fingerprint;
pub mod healthcheck;
pub mod heap;
pub mod id;
pub mod identity;
pub mod logging;
pub mod paths;
pub mod rlimit;
pub mod signals;
pub mod text_file;
