//! What makes a program a good service: configuration, logging, signals, admin HTTP, control socket, identity files, and the
//! commands that both programs have.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod command;
pub mod config;
pub mod control;
pub mod exit;
pub mod explain;
pub mod fingerprint;
pub mod healthcheck;
pub mod heap;
mod hints;
pub mod http;
mod id;
pub mod identity;
pub mod in_a_row;
pub mod init;
pub mod key_lock;
pub mod limiter;
pub mod logging;
pub mod lossy;
mod manual;
pub mod memory;
mod metrics;
mod paths;
#[doc(hidden)]
pub mod reference;
pub mod reload;
pub mod remedy;
pub mod rlimit;
pub mod screen;
pub mod service_manager;
pub mod shares;
pub mod signals;
pub mod stdout;
pub mod terminal;
pub mod text_file;
