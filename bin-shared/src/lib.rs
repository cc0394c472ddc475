//! What both binaries need: identity files, logging, signals, admin HTTP, loading of configuration, and the commands that
//! are the same in both.

pub mod addr;
pub mod admin;
pub mod backoff;
pub mod command;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod directory;
pub mod draining;
pub mod exit;
pub mod frame;
pub mod healthcheck;
pub mod hop;
pub mod id;
pub mod identity;
pub mod join;
pub mod logging;
pub mod meet;
pub mod paths;
pub mod ping;
pub mod signals;
pub mod stamp;
pub mod text_file;
pub mod upgrade;
